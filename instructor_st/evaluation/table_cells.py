"""The parts of the Markdown tables: heads, cells with intervals and the bold rule, what is missing, what failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from instructor_st.evaluation.bootstrap import Interval
from instructor_st.evaluation.result_grid import Column, ResultGrid, TaskKey, TaskMean, find_bounds
from instructor_st.evaluation.result_labels import escape_markdown, format_number, shorten_names
from instructor_st.evaluation.results import Result

__all__ = [
    "MISSING",
    "PairedDifference",
    "format_cells",
    "format_failed",
    "format_missing",
    "index_differences",
    "join_row",
    "label_columns",
    "start_table",
]

MISSING = "-"


@dataclass(frozen=True)
class PairedDifference:
    """By how much one column is better than another on the same rows of a task (paired bootstrap).

    Attributes:
        task: The task.
        metric: The metric.
        first: The one.
        second: The one that is subtracted.
        interval: `first - second` with its 95 % interval.
    """

    task: str
    metric: str
    first: Column
    second: Column
    interval: Interval


def start_table(heads: Sequence[str], columns: Iterable[str], *, left: int) -> list[str]:
    """Write a table's head and the line under it; columns after the first `left` ones are set to the right."""
    names = [*heads, *(escape_markdown(column) for column in columns)]
    return [join_row(names), "|" + "|".join(["---"] * left + ["---:"] * (len(names) - left)) + "|"]


def join_row(cells: Iterable[str]) -> str:
    """Write a row of cells, which are Markdown already."""
    return f"| {' | '.join(cells)} |"


def label_columns(grid: ResultGrid, names: Mapping[str, str] | None) -> dict[Column, str]:
    """Name the columns: the model's short name and the condition."""
    shown = shorten_names(grid.models, names=names)
    return {column: f"{shown[column.model]}, {column.condition}" for column in grid.columns}


def index_differences(
    grid: ResultGrid, differences: Sequence[PairedDifference] = ()
) -> dict[tuple[str, str, Column, Column], Interval]:
    """Index paired differences by task, metric and columns, both ways round.

    Args:
        grid: Whose results may tell, as `gain` in their notes, `{"over": condition, "value": ..., "low": ..., "high": ...}`,
            their difference to another condition of the same model and task.
        differences: Further ones, which go before these.

    Returns:
        The intervals; differences without bounds are left out.
    """
    found = {}
    for each in (*_read_gains(grid), *differences):
        value = each.interval
        found[each.task, each.metric, each.first, each.second] = value
        found[each.task, each.metric, each.second, each.first] = Interval(-value.value, -value.high, -value.low)
    return found


def _read_gains(grid: ResultGrid) -> list[PairedDifference]:
    found = []
    for (task, column), cell in grid.cells.items():
        gain = cell.notes.get("gain")
        if isinstance(gain, Mapping) and gain.get("low") is not None and gain.get("high") is not None:
            interval = Interval(gain["value"], gain["low"], gain["high"])
            found.append(PairedDifference(task.task, task.metric, column, Column(column.model, gain["over"]), interval))
    return found


def format_cells(
    cells: Mapping[Column, Result | None] | Mapping[Column, TaskMean | None],
    *,
    intervals: bool,
    task: TaskKey | None = None,
    paired: Mapping[tuple[str, str, Column, Column], Interval] | None = None,
    with_best: bool = True,
) -> list[str]:
    """Write a row's values, the best one in bold where that is supported.

    Args:
        cells: Results or means by column; `None` where there is none.
        intervals: Whether values come with their intervals.
        task: The row's task, for paired differences.
        paired: Paired differences, from `index_differences`.
        with_best: Whether there is bold at all.

    Returns:
        A text a column; a mean that lacks tasks is marked with a dagger.
    """
    there = {column: cell for column, cell in cells.items() if cell is not None}
    best = _find_best(there, task, paired or {}) if with_best else None
    texts = []
    for column, cell in cells.items():
        if cell is None:
            texts.append(MISSING)
            continue
        number = format_number(cell.value)
        text = f"**{number}**" if column == best else number
        if isinstance(cell, TaskMean) and cell.is_partial:
            text += "†"
        if intervals and (bounds := find_bounds(cell)) is not None:
            text += f" [{format_number(bounds[0])}, {format_number(bounds[1])}]"
        texts.append(text)
    return texts


def _find_best(
    cells: Mapping[Column, Result | TaskMean],
    task: TaskKey | None,
    paired: Mapping[tuple[str, str, Column, Column], Interval],
) -> Column | None:
    """The column that beats each other one by its paired difference or by intervals that lie apart."""
    if len(cells) < 2 or any(isinstance(cell, TaskMean) and cell.is_partial for cell in cells.values()):
        return None
    best = max(cells, key=lambda column: cells[column].value)
    own = find_bounds(cells[best])
    for column, cell in cells.items():
        if column == best:
            continue
        difference = paired.get((task.task, task.metric, best, column)) if task else None
        if difference is not None:
            if not difference.low > 0:
                return None
            continue
        other = find_bounds(cell)
        if own is None or other is None or own[0] <= other[1]:
            return None
    return best


def format_missing(grid: ResultGrid, tasks: Sequence[TaskKey], labels: Mapping[Column, str]) -> list[str]:
    """Name the tasks that lack a value, by column of `labels`; nothing if none does."""
    missing = {column: grid.list_missing(tasks, column) for column in labels}
    if not any(missing.values()):
        return []
    lines = ["", "`-`: no value. †: mean over the tasks that have one. Missing are:", ""]
    for column, absent in missing.items():
        if absent:
            lines.append(f"- {escape_markdown(labels[column])}: {', '.join(map(escape_markdown, absent))}")
    return lines


def format_failed(failures: Sequence[Result], labels: Mapping[Column, str]) -> list[str]:
    """List failures with their reasons; nothing if there is none."""
    if not failures:
        return []
    lines = ["", f"Failed ({len(failures)}):", ""]
    for each in failures:
        reason = escape_markdown(str(each.notes.get("error", f"the value is {each.value}")))
        label = escape_markdown(labels[Column(each.model, each.condition)])
        lines.append(f"- {escape_markdown(each.task)} ({label}): {reason}")
    return lines
