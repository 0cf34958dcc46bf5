"""Results with many conditions as a Markdown table: a row a task, condition and metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from instructor_st.evaluation.result_grid import Column, ResultGrid, TaskKey, build_grid
from instructor_st.evaluation.result_labels import escape_markdown, format_metric, format_number, shorten_names
from instructor_st.evaluation.results import Result
from instructor_st.evaluation.table_cells import (
    MISSING,
    format_cells,
    format_failed,
    join_row,
    label_columns,
    start_table,
)

__all__ = ["format_condition_table"]


def format_condition_table(
    results: Iterable[Result], *, names: Mapping[str, str] | None = None, intervals: bool = True
) -> str:
    """Lay models side by side, with each of a task's conditions and metrics in a row of its own.

    Nothing is bold, for not every metric of such results is the better the higher it is.

    Args:
        results: The results, of any suites.
        names: Names to be shown for models.
        intervals: Whether values come with their 95 % intervals.

    Returns:
        The table, with a last column of published figures if the results' notes have any (`published`).

    Raises:
        ValueError: If there is no result, or there are two different values for one place.
    """
    grid = build_grid(results, every_metric=True)
    shown = shorten_names(grid.models, names=names)
    published = {place: cell.notes["published"] for place, cell in grid.cells.items() if "published" in cell.notes}
    heads = [*shown.values(), *(["published"] if published else [])]
    lines = start_table(["task", "condition", "metric"], heads, left=3)
    for task in grid.tasks:
        for condition in grid.conditions:
            cells = {(column := Column(model, condition)): grid.find(task, column) for model in grid.models}
            if not any(cells.values()):
                continue
            texts = format_cells(cells, intervals=intervals, with_best=False)
            if published:
                texts.append(_format_published(grid, published, task, condition))
            head = [task.task, condition, format_metric(task.metric)]
            lines.append(join_row([*map(escape_markdown, head), *texts]))
    return "\n".join([*lines, *format_failed(grid.failures, label_columns(grid, names))])


def _format_published(
    grid: ResultGrid, published: Mapping[tuple[TaskKey, Column], Any], task: TaskKey, condition: str
) -> str:
    places = ((task, Column(model, condition)) for model in grid.models)
    found = [published[place] for place in places if place in published]
    texts = dict.fromkeys(_format_figure(each) for each in found)
    return "; ".join(texts) or MISSING


def _format_figure(figure: Any) -> str:
    if isinstance(figure, Mapping):
        return ", ".join(f"{escape_markdown(str(name))} {_format_figure(value)}" for name, value in figure.items())
    if isinstance(figure, int | float) and not isinstance(figure, bool):
        return format_number(figure)
    return escape_markdown(str(figure))
