"""Results laid out as tasks x (model, condition): what tables and plots are drawn from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from instructor_st.evaluation.results import Result

__all__ = [
    "LADDER",
    "RIGHT",
    "SIDES",
    "Column",
    "ResultGrid",
    "TaskKey",
    "TaskMean",
    "build_grid",
    "find_bounds",
    "find_paraphrase",
    "has_value",
    "select_robustness",
]

LADDER = ("none", "tag", "short", "full", "detailed", "wrong")
SIDES = ("query only", "document only")
RIGHT = ("right", "full")

_CONDITIONS = ("none", "tag", "short", "full", "right", "detailed", "wrong", *SIDES)
_SUITES = ("mteb", "billboard", "prompt_retrieval", "own", "held_out", "robustness", "following")


@dataclass(frozen=True)
class Column:
    """What is compared: a model under a condition."""

    model: str
    condition: str


@dataclass(frozen=True)
class TaskKey:
    """A task under one of its metrics."""

    suite: str
    category: str
    task: str
    metric: str


@dataclass(frozen=True)
class TaskMean:
    """An unweighted mean over tasks.

    Attributes:
        value: The mean over the tasks that have a value.
        low: Lower bound of its 95 % interval; `None` where a task has none.
        high: Upper bound.
        tasks: How many tasks have a value.
        wanted: How many tasks there are.
    """

    value: float
    low: float | None
    high: float | None
    tasks: int
    wanted: int

    @property
    def is_partial(self) -> bool:
        """Whether tasks are missing."""
        return self.tasks < self.wanted


@dataclass(frozen=True, eq=False)
class ResultGrid:
    """Results by task and column.

    Attributes:
        tasks: The rows: by suite, then category, then task, in alphabetical order.
        columns: Models in the order in which they come first; each one's conditions from none to wrong.
        cells: What there is; a pair that is missing was not run, or failed.
        failures: Results without a value.
    """

    tasks: tuple[TaskKey, ...]
    columns: tuple[Column, ...]
    cells: Mapping[tuple[TaskKey, Column], Result]
    failures: tuple[Result, ...]

    @cached_property
    def categories(self) -> dict[tuple[str, str], tuple[TaskKey, ...]]:
        """The tasks by suite and category."""
        found: dict[tuple[str, str], list[TaskKey]] = {}
        for task in self.tasks:
            found.setdefault((task.suite, task.category), []).append(task)
        return {key: tuple(tasks) for key, tasks in found.items()}

    @property
    def models(self) -> tuple[str, ...]:
        """The models, in the order of the columns."""
        return tuple(dict.fromkeys(column.model for column in self.columns))

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions of all models, from none to wrong."""
        return tuple(sorted({column.condition for column in self.columns}, key=_rank_condition))

    def find(self, task: TaskKey, column: Column) -> Result | None:
        """Return a cell, or `None`."""
        return self.cells.get((task, column))

    def average(self, tasks: Sequence[TaskKey], column: Column) -> TaskMean | None:
        """Average a column over tasks, each counting the same; tasks without a value are left out.

        The interval is that of the mean over these very tasks. The tasks' intervals are combined as those of
        independent estimates, `low = mean - sqrt(sum (value_i - low_i)^2) / n` and likewise above (the method of
        variance estimates recovery of Zou and Donner, Statistics in Medicine 27, 2008, equation 5).

        Args:
            tasks: The tasks.
            column: The column.

        Returns:
            The mean; `None` if no task has a value.
        """
        found = [cell for task in tasks if (cell := self.find(task, column)) is not None]
        if not found:
            return None
        value = math.fsum(cell.value for cell in found) / len(found)
        low, high = _combine_bounds(value, found)
        return TaskMean(value, low, high, len(found), len(tasks))

    def average_categories(self, column: Column) -> TaskMean | None:
        """Average a column's category means, each category counting the same, whatever its number of tasks.

        Args:
            column: The column.

        Returns:
            The mean, without an interval; `None` if there is no value at all.
        """
        means = [mean for tasks in self.categories.values() if (mean := self.average(tasks, column)) is not None]
        if not means:
            return None
        value = math.fsum(mean.value for mean in means) / len(means)
        return TaskMean(value, None, None, sum(mean.tasks for mean in means), len(self.tasks))

    def list_missing(self, tasks: Sequence[TaskKey], column: Column) -> list[str]:
        """Name the tasks that have no value in a column."""
        return [task.task for task in tasks if self.find(task, column) is None]


def find_bounds(cell: Result | TaskMean) -> tuple[float, float] | None:
    """Return an interval's bounds; `None` where there is none, or one that is not finite."""
    if cell.low is None or cell.high is None or not (math.isfinite(cell.low) and math.isfinite(cell.high)):
        return None
    return cell.low, cell.high


def has_value(result: Result) -> bool:
    """Whether a result has a finite value and no `error` in its notes; else it is a failure."""
    return math.isfinite(result.value) and "error" not in result.notes


def find_paraphrase(condition: str) -> int | None:
    """Return a paraphrase's number (`paraphrase 3` has 3); `None` for other conditions."""
    match = re.fullmatch(r"paraphrase (\d+)", condition)
    return int(match[1]) if match else None


def build_grid(results: Iterable[Result], *, every_metric: bool = False) -> ResultGrid:
    """Lay results out.

    A result without a finite value, or with `error` in its notes, is a failure. A task's first metric, in the order
    of the results, is its main one, which alone is kept unless every one is asked for.

    Args:
        results: The results.
        every_metric: Whether a task gets a row for each of its metrics.

    Returns:
        The grid.

    Raises:
        ValueError: If there is no result, or there are two values of the same model, condition, task and metric.
    """
    given = list(results)
    if not given:
        raise ValueError("There is no result to show.")
    good = [each for each in given if has_value(each)]
    failures = [each for each in given if not has_value(each)]
    main: dict[tuple[str, str], tuple[str, str]] = {}
    for each in (*good, *failures):
        main.setdefault((each.suite, each.task), (each.category, each.metric))
    keys = {TaskKey(suite, category, task, metric): None for (suite, task), (category, metric) in main.items()}
    cells: dict[tuple[TaskKey, Column], Result] = {}
    for each in good:
        category, metric = main[each.suite, each.task]
        key = TaskKey(each.suite, category, each.task, each.metric)
        if each.metric == metric or every_metric:
            keys[key] = None
            _add_cell(cells, key, each)
    columns = {Column(each.model, each.condition): None for each in given}
    models = list(dict.fromkeys(column.model for column in columns))
    return ResultGrid(
        tuple(sorted(keys, key=_rank_task)),
        tuple(sorted(columns, key=lambda each: (models.index(each.model), _rank_condition(each.condition)))),
        cells,
        tuple(failures),
    )


def select_robustness(results: Iterable[Result], *, paraphrases: bool = False) -> list[Result]:
    """Pick the results of the robustness suite.

    Args:
        results: Of any suites.
        paraphrases: Whether paraphrases come along, with none and right; else the instruction levels and sides.

    Returns:
        The results.

    Raises:
        ValueError: If there is none.
    """
    wanted = {"none", *RIGHT} if paraphrases else {*LADDER, *SIDES}
    found = [each for each in results if each.suite == "robustness"]
    chosen = [
        each
        for each in found
        if each.condition in wanted or (paraphrases and find_paraphrase(each.condition) is not None)
    ]
    if paraphrases and not any(find_paraphrase(each.condition) is not None for each in chosen):
        chosen = []
    if not chosen:
        kind = "paraphrase 1, paraphrase 2, ..." if paraphrases else ", ".join((*LADDER, *SIDES))
        raise ValueError(f"No result of the suite robustness has one of the conditions {kind}.")
    return chosen


def _combine_bounds(mean: float, cells: Sequence[Result]) -> tuple[float, float] | tuple[None, None]:
    """The mean's interval from those of independent values; none where one is missing."""
    bounds = [bound for cell in cells if (bound := find_bounds(cell)) is not None]
    if len(bounds) < len(cells):
        return None, None
    if len(cells) == 1:
        return bounds[0]
    # A bootstrap interval may lie to one side of its value; that adds nothing to the other side.
    below = (max(0.0, cell.value - low) for cell, (low, _) in zip(cells, bounds, strict=True))
    above = (max(0.0, high - cell.value) for cell, (_, high) in zip(cells, bounds, strict=True))
    return mean - math.hypot(*below) / len(cells), mean + math.hypot(*above) / len(cells)


def _add_cell(cells: dict[tuple[TaskKey, Column], Result], key: TaskKey, result: Result) -> None:
    place = (key, Column(result.model, result.condition))
    other = cells.setdefault(place, result)
    if other is not result and (other.value, other.low, other.high) != (result.value, result.low, result.high):
        raise ValueError(
            f"{result.suite}/{result.task}: two values of {result.metric} for {result.model!r} under "
            f"{result.condition!r}, {other.value} (seed {other.seed}, revision {other.revision}) and {result.value} "
            f"(seed {result.seed}, revision {result.revision}); pass one of them, or give each its own model name."
        )


def _rank_condition(condition: str) -> tuple[int, int, str]:
    if condition in _CONDITIONS:
        return _CONDITIONS.index(condition), 0, ""
    return len(_CONDITIONS), find_paraphrase(condition) or 0, condition


def _rank_task(key: TaskKey) -> tuple[int, str, str, str, str]:
    rank = _SUITES.index(key.suite) if key.suite in _SUITES else len(_SUITES)
    return rank, key.suite, key.category.casefold(), key.task.casefold(), key.metric
