"""How many rows of each task an epoch draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["TaskPlan", "match_weights", "share_rows"]


@dataclass(frozen=True)
class TaskPlan:
    """What an epoch draws from one task.

    `rows` is `distinct_rows_drawn + waiting + later + left_out`.

    Attributes:
        place: The task's place among the data sets.
        task: Its name, where the sampler was told the names.
        rows: How many rows it has.
        rows_drawn: How many rows the epoch yields, repeats counted.
        distinct_rows_drawn: How many different rows those are.
        batches: How many batches the epoch yields, each for all processes together.
        sharing_batches: Those of them whose rows share texts, since no other way was found with one row a process.
        waiting: Rows that do not divide by the processes; they come first in the task's next cycle.
        later: Rows whose turn comes in later epochs, since the epoch draws a part of the task only.
        left_out: Rows that no epoch draws.
        reason: Why they are left out; empty if none is.
    """

    place: int
    task: str | None
    rows: int
    rows_drawn: int = 0
    distinct_rows_drawn: int = 0
    batches: int = 0
    sharing_batches: int = 0
    waiting: int = 0
    later: int = 0
    left_out: int = 0
    reason: str = ""


def share_rows(
    rows: Sequence[int], weights: Sequence[float], *, alpha: float = 1.0, max_repeats: int = 4
) -> list[float]:
    """Share an epoch out among tasks: `weight * rows**alpha` each, but none more than `max_repeats` times its rows.

    The epoch is as long as all tasks together that have a weight. What a task cannot take goes to the others in the same
    proportions, up to their own caps. `alpha` is the exponent of multilingual sampling (arXiv 1901.07291, section 3.1):
    1 draws by size, 0 all tasks alike.

    Args:
        rows: The sizes of the tasks.
        weights: Their weights; 0 leaves a task out.
        alpha: The exponent.
        max_repeats: The cap.

    Returns:
        How many rows of each task an epoch should draw, not rounded.

    Raises:
        ValueError: If a number is out of range.
    """
    _check(weights, alpha=alpha, max_repeats=max_repeats)
    wanted = [weight * size**alpha if weight and size else 0.0 for size, weight in zip(rows, weights, strict=True)]
    shares = [0.0] * len(rows)
    open_places = [place for place, mass in enumerate(wanted) if mass]
    left = float(sum(rows[place] for place in open_places))
    while open_places:
        scale = left / math.fsum(wanted[place] for place in open_places)
        over = [place for place in open_places if scale * wanted[place] > max_repeats * rows[place]]
        for place in over or open_places:
            shares[place] = float(max_repeats * rows[place]) if over else scale * wanted[place]
        left -= math.fsum(shares[place] for place in over)
        open_places = [place for place in open_places if place not in set(over)] if over else []
    return shares


def match_weights(weights: Mapping[str, float], tasks: Sequence[str]) -> tuple[float, ...]:
    """Put weights by name into the order of the data sets.

    Args:
        weights: Weights by task; tasks without one have 1.
        tasks: The names of the data sets, in order.

    Returns:
        One weight a data set.

    Raises:
        ValueError: If a weight's name is no data set's.
    """
    unknown = sorted(set(weights) - set(tasks))
    if unknown:
        raise ValueError(f"weights names {unknown}, which are no data sets. There are {sorted(tasks)}.")
    return tuple(weights.get(task, 1.0) for task in tasks)


def _check(weights: Sequence[float], *, alpha: float, max_repeats: int) -> None:
    for place, weight in enumerate(weights):
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"weights must be 0 or more; the one of data set {place} is {weight}.")
    if weights and not any(weights):
        raise ValueError("Every weight is 0, so that no data set is left to train on; give one a weight above 0.")
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(f"alpha must be 0 or more (1: by size, 0: all tasks alike), not {alpha}.")
    if max_repeats < 1 or max_repeats != int(max_repeats):
        raise ValueError(f"max_repeats must be a whole number from 1, not {max_repeats}.")
