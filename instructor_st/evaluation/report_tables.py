"""Results as Markdown tables: by task and by category."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from instructor_st.evaluation.result_grid import Column, ResultGrid, TaskKey, build_grid
from instructor_st.evaluation.result_labels import (
    escape_markdown,
    format_duration,
    format_metric,
    format_number,
)
from instructor_st.evaluation.results import Result
from instructor_st.evaluation.table_cells import (
    MISSING,
    PairedDifference,
    format_cells,
    format_failed,
    format_missing,
    index_differences,
    join_row,
    label_columns,
    start_table,
)

__all__ = ["format_category_table", "format_failures", "format_results_table"]


def format_results_table(
    results: Iterable[Result],
    *,
    names: Mapping[str, str] | None = None,
    intervals: bool = True,
    every_metric: bool = False,
    differences: Sequence[PairedDifference] = (),
) -> str:
    """Lay tasks x (model, condition) side by side, with the means of categories, time and failures.

    Bold is a column that is better than every other one of its row by more than chance: the paired difference to the
    other has its 95 % interval above 0, or, where no paired difference is given, its own 95 % interval lies wholly
    above the other's (which asks for more). Where that does not hold against each, nothing is bold; so too in means
    that lack tasks. Higher is taken for better.

    Args:
        results: The results; those of the suite robustness are left to the tables for them.
        names: Names to be shown for models.
        intervals: Whether values come with their 95 % intervals.
        every_metric: Whether a task gets a row for each of its metrics; means are of the first ones anyway.
        differences: Paired differences between columns, for the bold, besides those in the results' notes (`gain`).

    Returns:
        The table: a row a task, under each category of several tasks its unweighted mean, at last the mean of all
        tasks, texts embedded in a second (the median over tasks) and time; then notes on what is missing, and the
        failures.

    Raises:
        ValueError: If there is no result, or there are two different values for one place.
    """
    given = [each for each in results if each.suite != "robustness"]
    grid = build_grid(given, every_metric=every_metric)
    main = set(build_grid(given).tasks)
    labels = label_columns(grid, names)
    paired = index_differences(grid, differences)
    lines = start_table(["task", "metric", "rows"], labels.values(), left=2)
    for (suite, category), tasks in grid.categories.items():
        for task in tasks:
            cells = {column: grid.find(task, column) for column in grid.columns}
            head = [
                escape_markdown(task.task),
                escape_markdown(format_metric(task.metric)),
                _format_rows(cells.values()),
            ]
            lines.append(join_row([*head, *format_cells(cells, intervals=intervals, task=task, paired=paired)]))
        counted = [task for task in tasks if task in main]
        if len(counted) > 1:
            name = f"{_label_category(grid, suite, category)}, mean of {len(counted)}"
            lines.append(_format_mean_row(grid, counted, name, blank=2, intervals=intervals))
    counted = [task for task in grid.tasks if task in main]
    if len(grid.categories) > 1:
        lines.append(_format_mean_row(grid, counted, f"all, mean of {len(counted)}", blank=2, intervals=intervals))
    lines += _format_time_rows(grid, counted)
    return "\n".join([*lines, *format_missing(grid, counted, labels), *format_failed(grid.failures, labels)])


def format_category_table(
    results: Iterable[Result],
    *,
    baseline: Column | None = None,
    names: Mapping[str, str] | None = None,
    intervals: bool = True,
) -> str:
    """Compare models by category, with the means over tasks and over categories.

    Args:
        results: The results; those of the suite robustness are left out.
        baseline: The column that others are compared with: the difference to it, over the tasks that both have, is
            put after each mean.
        names: Names to be shown for models.
        intervals: Whether means come with their 95 % intervals.

    Returns:
        The table: a row a category with the unweighted mean of its tasks' first metrics, then the mean over all tasks
        and that over categories. Bold means what it means in `format_results_table`.

    Raises:
        ValueError: If there is no result, or the baseline is none of the columns.
    """
    grid = build_grid(each for each in results if each.suite != "robustness")
    if baseline is not None and baseline not in grid.columns:
        known = ", ".join(f"{column.model!r} under {column.condition!r}" for column in grid.columns)
        raise ValueError(
            f"No result is of the baseline {baseline.model!r} under {baseline.condition!r}; there are {known}."
        )
    labels = label_columns(grid, names)
    lines = start_table(["category", "tasks"], labels.values(), left=1)
    groups = {_label_category(grid, *key): tasks for key, tasks in grid.categories.items()}
    for name, tasks in (*groups.items(), ("mean over tasks", grid.tasks)):
        means = {column: grid.average(tasks, column) for column in grid.columns}
        texts = format_cells(means, intervals=intervals)
        if baseline is not None:
            pairs = zip(texts, grid.columns, strict=True)
            texts = [text + _format_gain(grid, tasks, column, baseline) for text, column in pairs]
        lines.append(join_row([escape_markdown(name), str(len(tasks)), *texts]))
    averages = {column: grid.average_categories(column) for column in grid.columns}
    lines.append(join_row(["mean over categories", "", *format_cells(averages, intervals=False)]))
    if baseline is not None:
        lines += ["", f"In brackets with a sign: the difference to {escape_markdown(labels[baseline])}."]
    return "\n".join([*lines, *format_missing(grid, grid.tasks, labels)])


def format_failures(results: Iterable[Result], *, names: Mapping[str, str] | None = None) -> str:
    """List what failed, with the reasons (`error` in the results' notes).

    Args:
        results: The results.
        names: Names to be shown for models.

    Returns:
        A Markdown list; empty if nothing failed.
    """
    grid = build_grid(results)
    return "\n".join(format_failed(grid.failures, label_columns(grid, names))).strip()


def _label_category(grid: ResultGrid, suite: str, category: str) -> str:
    """A category's name, with its suite where several have it."""
    several = sum(name == category for _, name in grid.categories) > 1
    return f"{category} ({suite})" if several else category


def _format_rows(cells: Iterable[Result | None]) -> str:
    counts = sorted({cell.rows for cell in cells if cell is not None and cell.rows is not None})
    return "" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _format_mean_row(grid: ResultGrid, tasks: Sequence[TaskKey], name: str, *, blank: int, intervals: bool) -> str:
    means = {column: grid.average(tasks, column) for column in grid.columns}
    return join_row([f"*{escape_markdown(name)}*", *[""] * blank, *format_cells(means, intervals=intervals)])


def _format_gain(grid: ResultGrid, tasks: Sequence[TaskKey], column: Column, baseline: Column) -> str:
    shared = [task for task in tasks if grid.find(task, column) and grid.find(task, baseline)]
    own, other = grid.average(shared, column), grid.average(shared, baseline)
    if column == baseline or own is None or other is None:
        return ""
    return f" ({format_number(own.value - other.value, signed=True)})"


def _format_time_rows(grid: ResultGrid, tasks: Sequence[TaskKey]) -> list[str]:
    speeds, times = [], []
    for column in grid.columns:
        cells = [cell for task in tasks if (cell := grid.find(task, column)) is not None]
        speed = [cell.texts_per_second for cell in cells if cell.texts_per_second is not None]
        seconds = [cell.seconds for cell in cells if cell.seconds is not None]
        speeds.append(f"{statistics.median(speed):.0f}" if speed else MISSING)
        times.append(format_duration(sum(seconds)) if seconds else MISSING)
    rows = (("texts a second (median)", speeds), ("time", times))
    return [join_row([name, "", "", *texts]) for name, texts in rows if set(texts) != {MISSING}]
