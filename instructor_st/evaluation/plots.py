"""Plots of results: categories, the ladder of instructions, the spread over paraphrases, texts under two instructions.

Each gives a matplotlib figure seven inches wide, to be read at 700 pixels; `render` makes a PNG's or an SVG's bytes of it.
matplotlib is the extra `plot` and imported when a plot is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from instructor_st.evaluation.instruction_map import plot_two_instructions
from instructor_st.evaluation.plot_style import (
    COLORS,
    MARKERS,
    add_legend,
    choose_style,
    render,
    start_figure,
    stripe,
    styled,
)
from instructor_st.evaluation.result_grid import (
    LADDER,
    RIGHT,
    Column,
    ResultGrid,
    TaskKey,
    TaskMean,
    build_grid,
    find_bounds,
    select_robustness,
)
from instructor_st.evaluation.result_labels import format_metric, shorten_names, wrap_label
from instructor_st.evaluation.results import Result

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_categories", "plot_ladder", "plot_paraphrase_spread", "plot_two_instructions", "render"]

_GREY = "#555555"


@styled
def plot_categories(results: Iterable[Result], *, names: Mapping[str, str] | None = None) -> Figure:
    """Plot each category's mean, model beside model, with 95 % intervals.

    Dots rather than bars: the scale need not begin at 0, so that differences can be seen.

    Args:
        results: The results; those of the suite robustness are left out.
        names: Names to be shown for models.

    Returns:
        The figure: a row a category with its number of tasks, and one for the mean over all tasks; a mark a model and
        condition at the unweighted mean of the tasks' first metrics, hollow where there is no instruction. A mean that
        lacks tasks is left out.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no result.
    """
    grid = build_grid(each for each in results if each.suite != "robustness")
    several = [name for _, name in grid.categories]
    rows = {
        f"{name}, {suite}" if several.count(name) > 1 else name: tasks
        for (suite, name), tasks in grid.categories.items()
    }
    if len(rows) > 1:
        rows["All tasks"] = grid.tasks
    labels = [f"{wrap_label(name, 26)} ({len(tasks)})" for name, tasks in rows.items()]
    figure = start_figure(_find_height(labels, len(grid.columns)) + 0.55)
    axes = figure.add_subplot()
    shown = shorten_names(grid.models, names=names)
    handles: list[Artist] = []
    for number, column in enumerate(grid.columns):
        style = choose_style(
            grid.models.index(column.model), column.condition, grid.conditions, several=len(grid.models) > 1
        )
        points = [
            (row, mean) for row, tasks in enumerate(rows.values()) if (mean := _average_whole(grid, tasks, column))
        ]
        places = [row + _dodge(number, len(grid.columns)) for row, _ in points]
        handles.append(_draw_points(axes, [mean for _, mean in points], places, horizontal=True, **style))
    stripe(axes, len(rows))
    _label_rows(axes, labels)
    axes.set_xlabel(_label_values(grid.tasks, mean=len(grid.tasks) > 1))
    add_legend(figure, handles, [f"{shown[column.model]}, {column.condition}" for column in grid.columns])
    return figure


@styled
def plot_ladder(results: Iterable[Result], *, names: Mapping[str, str] | None = None) -> Figure:
    """Plot what each level of instruction gives: none, tag, short, full, detailed, and a wrong one beside them.

    Args:
        results: Those of the suite robustness are taken.
        names: Names to be shown for models.

    Returns:
        The figure: a panel a task with its own scale; levels from left to right, with 95 % intervals; a line a model
        through the levels, the wrong instruction apart from it.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no such result.
    """
    grid = build_grid(each for each in select_robustness(results) if each.condition in LADDER)
    levels = grid.conditions
    across = 1 if len(grid.tasks) == 1 else 2 if len(grid.tasks) in (2, 4) else 3
    down = math.ceil(len(grid.tasks) / across)
    titles = [wrap_label(task.task, {1: 80, 2: 34, 3: 20}[across]) for task in grid.tasks]
    height = 2.6 if across == 1 else 1.5
    lines = [max(title.count("\n") for title in titles[row * across : (row + 1) * across]) for row in range(down)]
    figure = start_figure(down * height + 0.15 * sum(lines) + 0.8)
    shown = shorten_names(grid.models, names=names)
    common = len({task.metric for task in grid.tasks}) == 1
    handles: list[Artist] = []
    for number, task in enumerate(grid.tasks):
        axes = figure.add_subplot(down, across, number + 1)
        drawn = [_draw_steps(axes, grid, task, model, levels) for model in grid.models]
        handles = handles or drawn
        axes.set_title(titles[number], loc="left")
        axes.set_xlim(-0.5, len(levels) - 0.5)
        is_last = number + across >= len(grid.tasks)
        rotation = 0 if across == 1 else 90
        axes.set_xticks(range(len(levels)), levels if is_last else [""] * len(levels), rotation=rotation)
        axes.grid(axis="y")
        axes.locator_params(axis="y", nbins=5)
        if not common:
            axes.set_ylabel(wrap_label(format_metric(task.metric), 18), fontsize=8)
    if common:
        figure.supylabel(_label_values(grid.tasks), fontsize=9)
    figure.supxlabel("instruction", fontsize=9)
    add_legend(figure, handles, [shown[model] for model in grid.models])
    return figure


@styled
def plot_paraphrase_spread(results: Iterable[Result], *, names: Mapping[str, str] | None = None) -> Figure:
    """Plot what differently worded instructions give on each task, with none and the right one beside them.

    Args:
        results: Those of the suite robustness are taken: paraphrases, none, and right or full.
        names: Names to be shown for models.

    Returns:
        The figure: a row a task, in it a line a model from the worst to the best paraphrase, with a dot a paraphrase,
        a large hollow mark for the right instruction. Values are changes against no instruction, which is the line at 0;
        if a model lacks that value on a task, they are as measured, and a cross stands for none.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no paraphrase.
    """
    grid = build_grid(select_robustness(results, paraphrases=True))
    common = len({task.metric for task in grid.tasks}) == 1
    labels = [
        wrap_label(task.task, 26) + ("" if common else f"\n({wrap_label(format_metric(task.metric), 28)})")
        for task in grid.tasks
    ]
    is_change = _has_none_everywhere(grid)
    figure = start_figure(_find_height(labels, len(grid.models)) + 0.55)
    axes = figure.add_subplot()
    shown = shorten_names(grid.models, names=names)
    for number, model in enumerate(grid.models):
        color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
        for row, task in enumerate(grid.tasks):
            place = row + _dodge(number, len(grid.models))
            values = {column.condition: value for column, value in _list_values(grid, task, model, is_change).items()}
            _draw_spread(axes, values, place, color=color, marker=marker, mark_none=not is_change)
    stripe(axes, len(grid.tasks))
    _label_rows(axes, labels)
    if is_change:
        axes.axvline(0, color="black", linewidth=0.9, zorder=1.5)
    axes.set_xlabel(_label_values(grid.tasks, change=is_change))
    handles, texts = _explain_spread(grid, shown, is_change=is_change)
    add_legend(figure, handles, texts)
    return figure


def _average_whole(grid: ResultGrid, tasks: Sequence[TaskKey], column: Column) -> TaskMean | None:
    """The mean over tasks, unless some are missing: beside whole means it would mislead."""
    mean = grid.average(tasks, column)
    return None if mean is None or mean.is_partial else mean


def _dodge(number: int, count: int) -> float:
    """How far one of several marks stands off the middle of its row, so that rows stay apart from each other."""
    return 0.84 * ((number + 0.5) / count - 0.5)


def _find_height(labels: Sequence[str], marks: int) -> float:
    """The height, in inches, of equal rows that have room for their labels' lines and their marks."""
    lines = max(label.count("\n") + 1 for label in labels)
    return len(labels) * max(0.12 + 0.15 * lines, 0.06 + 0.12 * marks)


def _find_errors(cells: Sequence[Result | TaskMean]) -> list[list[float]]:
    """How far intervals reach below and above their values; 0 where there is none."""
    bounds = [(cell.value, find_bounds(cell) or (cell.value, cell.value)) for cell in cells]
    # A bootstrap interval may lie to one side of its value, which matplotlib refuses to draw.
    below = [max(0.0, value - low) for value, (low, _) in bounds]
    return [below, [max(0.0, high - value) for value, (_, high) in bounds]]


def _draw_points(
    axes: Axes, cells: Sequence[Result | TaskMean], places: Sequence[float], *, horizontal: bool, **style: Any
) -> Any:
    values, errors = [cell.value for cell in cells], _find_errors(cells)
    options: dict[str, Any] = {"linestyle": "none", "markersize": 5, "elinewidth": 1.1, "markeredgewidth": 1.1}
    options |= {"markerfacecoloralt": "white"} | style
    if horizontal:
        return axes.errorbar(values, places, xerr=errors if values else None, **options)
    return axes.errorbar(places, values, yerr=errors if values else None, **options)


def _draw_steps(axes: Axes, grid: ResultGrid, task: TaskKey, model: str, levels: Sequence[str]) -> Any:
    number = grid.models.index(model)
    offset = _dodge(number, len(grid.models)) * 0.6
    found = {level: cell for level in levels if (cell := grid.find(task, Column(model, level))) is not None}
    style = {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)], "markersize": 4}
    steps = [(levels.index(level) + offset, cell.value) for level, cell in found.items() if level != "wrong"]
    axes.plot(
        [place for place, _ in steps], [value for _, value in steps], color=style["color"], linewidth=0.9, alpha=0.6
    )
    places = [levels.index(level) + offset for level in found]
    return _draw_points(axes, list(found.values()), places, horizontal=False, **style)


def _has_none_everywhere(grid: ResultGrid) -> bool:
    there = {(task, column.model) for task, column in grid.cells}
    return all(grid.find(task, Column(model, "none")) for task, model in there)


def _list_values(grid: ResultGrid, task: TaskKey, model: str, is_change: bool) -> dict[Column, float]:
    """A model's values on a task by column, as changes against none if wanted."""
    found = {
        column: cell.value for column in grid.columns if column.model == model and (cell := grid.find(task, column))
    }
    zero = found[Column(model, "none")] if is_change and found else 0.0
    return {column: value - zero for column, value in found.items()}


def _draw_spread(
    axes: Axes, values: Mapping[str, float], place: float, *, color: str, marker: str, mark_none: bool
) -> None:
    style: dict[str, Any] = {"color": color, "marker": marker, "linestyle": "none"}
    spread = [value for condition, value in values.items() if condition not in ("none", *RIGHT)]
    if spread:
        axes.plot([min(spread), max(spread)], [place, place], color=color, linewidth=1.2, alpha=0.6, zorder=2)
    axes.plot(spread, [place] * len(spread), **style, markersize=4, alpha=0.6, mew=0, zorder=3)
    right = next((values[condition] for condition in RIGHT if condition in values), None)
    if right is not None:
        axes.plot([right], [place], **style, markersize=7.5, mfc="none", mew=1.3, zorder=4)
    if mark_none and "none" in values:
        axes.plot([values["none"]], [place], color="black", marker="x", markersize=5, mew=1.3, zorder=5)


def _explain_spread(grid: ResultGrid, shown: Mapping[str, str], *, is_change: bool) -> tuple[list[Artist], list[str]]:
    from matplotlib.lines import Line2D

    right = next((condition for condition in RIGHT if condition in grid.conditions), RIGHT[0])
    entries: dict[str, dict[str, Any]] = {}
    for number, model in enumerate(grid.models):
        color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
        entries[shown[model]] = {"color": color, "marker": marker, "markersize": 5, "linewidth": 1.2}
    grey: dict[str, Any] = {"color": _GREY, "marker": "o", "linestyle": "none"}
    entries["a paraphrase"] = {**grey, "markersize": 4, "mew": 0}
    entries[f"{right} instruction"] = {**grey, "markersize": 7.5, "mfc": "none", "mew": 1.3}
    none = {"marker": "|", "markersize": 10, "mew": 1} if is_change else {"marker": "x", "markersize": 5, "mew": 1.3}
    entries["no instruction"] = {"color": "black", "linestyle": "none", **none}
    return [Line2D([], [], **style) for style in entries.values()], list(entries)


def _label_rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.margins(x=0.04)


def _label_values(tasks: Sequence[TaskKey], *, mean: bool = False, change: bool = False) -> str:
    """The axis: the metric, if there is one only, and what is best."""
    metrics = {task.metric for task in tasks}
    name = format_metric(next(iter(metrics))) if len(metrics) == 1 else "each task's metric"
    what = ", mean over tasks" if mean else ", change against no instruction" if change else ""
    return f"{name}{what} (higher is better)"
