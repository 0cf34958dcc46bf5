"""What instructions do, as Markdown tables: the ladder of levels and the spread over paraphrases."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from instructor_st.evaluation.result_grid import (
    RIGHT,
    SIDES,
    Column,
    ResultGrid,
    TaskKey,
    build_grid,
    select_robustness,
)
from instructor_st.evaluation.result_labels import escape_markdown, format_metric, format_number, shorten_names
from instructor_st.evaluation.results import Result
from instructor_st.evaluation.table_cells import (
    MISSING,
    format_cells,
    format_failed,
    format_missing,
    index_differences,
    join_row,
    label_columns,
    start_table,
)

__all__ = ["format_ladder_table", "format_spread_table"]


def format_ladder_table(
    results: Iterable[Result], *, names: Mapping[str, str] | None = None, intervals: bool = True
) -> str:
    """Compare levels of instruction: none, tag, short, full, detailed, wrong, and those of one side only.

    Args:
        results: Those of the suite robustness are taken.
        names: Names to be shown for models.
        intervals: Whether values come with their 95 % intervals.

    Returns:
        The table: a row a model and task, a column a level, and each model's unweighted mean over tasks. Bold means
        what it means in `format_results_table`.

    Raises:
        ValueError: If there is no such result.
    """
    grid = build_grid(select_robustness(results))
    shown = shorten_names(grid.models, names=names)
    paired = index_differences(grid)
    lines = start_table(["model", "task", "metric"], grid.conditions, left=3)
    for model in grid.models:
        name = escape_markdown(shown[model])
        for task in grid.tasks:
            cells = {(column := Column(model, level)): grid.find(task, column) for level in grid.conditions}
            head = [name, escape_markdown(task.task), escape_markdown(format_metric(task.metric))]
            lines.append(join_row([*head, *format_cells(cells, intervals=intervals, task=task, paired=paired)]))
        if len(grid.tasks) > 1:
            means = {
                # Tasks with two sides are other tasks than all, so their mean would mislead.
                (column := Column(model, level)): None if level in SIDES else grid.average(grid.tasks, column)
                for level in grid.conditions
            }
            head = [name, f"*mean of {len(grid.tasks)}*", ""]
            lines.append(join_row([*head, *format_cells(means, intervals=intervals)]))
    labels = label_columns(grid, names)
    levels = {column: label for column, label in labels.items() if column.condition not in SIDES}
    return "\n".join([*lines, *format_missing(grid, grid.tasks, levels), *format_failed(grid.failures, labels)])


def format_spread_table(results: Iterable[Result], *, names: Mapping[str, str] | None = None) -> str:
    """Show how much a task's value depends on the wording of its instruction.

    Args:
        results: Those of the suite robustness are taken: paraphrases, none, and right or full.
        names: Names to be shown for models.

    Returns:
        The table: a row a model and task with the values without and with the instruction, the paraphrases' mean,
        standard deviation (of a sample: n - 1), worst, best and gap, and how many of them are better than none.

    Raises:
        ValueError: If there is no paraphrase.
    """
    grid = build_grid(select_robustness(results, paraphrases=True))
    shown = shorten_names(grid.models, names=names)
    right = next((condition for condition in RIGHT if condition in grid.conditions), RIGHT[0])
    heads = ["none", right, "paraphrases", "mean", "deviation", "worst", "best", "gap", "better than none"]
    lines = start_table(["model", "task", "metric"], heads, left=3)
    for model in grid.models:
        for task in grid.tasks:
            head = [shown[model], task.task, format_metric(task.metric)]
            lines.append(join_row([*map(escape_markdown, head), *_format_spread(grid, task, model, right)]))
    return "\n".join([*lines, *format_failed(grid.failures, label_columns(grid, names))])


def _format_spread(grid: ResultGrid, task: TaskKey, model: str, right: str) -> list[str]:
    none, full = (grid.find(task, Column(model, condition)) for condition in ("none", right))
    conditions = [condition for condition in grid.conditions if condition not in ("none", *RIGHT)]
    found = [grid.find(task, Column(model, condition)) for condition in conditions]
    values = [cell.value for cell in found if cell is not None]
    heads = [format_number(cell.value) if cell else MISSING for cell in (none, full)]
    if not values:
        return [*heads, "0", *[MISSING] * 6]
    deviation = format_number(statistics.stdev(values)) if len(values) > 1 else MISSING
    better = f"{sum(value > none.value for value in values)} of {len(values)}" if none else MISSING
    worst, best = min(values), max(values)
    numbers = [format_number(worst), format_number(best), format_number(best - worst)]
    return [*heads, str(len(values)), format_number(statistics.fmean(values)), deviation, *numbers, better]
