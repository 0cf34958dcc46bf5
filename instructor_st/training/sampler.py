"""Batches of one task, cut alike for every process."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.sampler import MultiDatasetDefaultBatchSampler
from sentence_transformers.util.distributed import get_world_size
from torch.utils.data import BatchSampler, ConcatDataset
from transformers.utils import logging

from instructor_st.training.row_cycle import RowCycle
from instructor_st.training.shared_texts import IntArray, find_shared_texts
from instructor_st.training.task_schedule import TaskPlan, match_weights, share_rows

__all__ = ["TaskBatchSampler", "make_task_batch_sampler"]

logger = logging.get_logger(__name__)


class TaskBatchSampler(MultiDatasetDefaultBatchSampler):
    """Yields batches whose rows all belong to one data set, in an order drawn anew each epoch.

    By default every row of every data set is seen once an epoch, and no two rows of a batch share a text (an
    instruction is no text). A data set is cut into batches as equal as they can be, so there is no short last one with
    few in-batch negatives; see `RowCycle`. With several processes, one batch of `processes * batch size` rows is
    yielded as that many equal parts, one after the other, which is how accelerate hands them to the processes: all
    work on the same task, with shapes that gather. The rows of a data set that do not divide by the number of processes
    (fewer than that number) wait, and are the first of the next cycle; how many they are is logged. A data set with
    fewer rows than processes is left out, which is logged too.

    Weights, or another `alpha` than 1, change how often tasks are drawn: see `share_rows`. What an epoch draws of a task
    is a whole number of batches, at least one. It goes through the rows of a task in cycles: no row comes again before
    each has come, over as many epochs as that takes, and never twice in a batch. The number of batches is the same in
    every epoch, as the trainer presumes.

    Args:
        dataset: The data sets.
        batch_samplers: One a data set; only their batch size (rows a process) and label columns are used.
        generator: Not used: the order depends on seed and epoch alone, so every process and every resumed run agrees.
        seed: Of the order.
        num_processes: How many processes share a batch; by default the distributed world's size.
        allow_duplicates: Do not look for texts that repeat within a batch.
        weights: One a data set, in their order; by default 1.
        alpha: A task's share of an epoch grows with its rows to the power of this.
        max_repeats: An epoch draws at most so many times the rows of a task. An epoch that begins within a cycle can
            come by a single row once more.
        tasks: The names of the data sets, for the plan.

    Raises:
        ValueError: If weights or names are not one a data set, or a number is out of range.
    """

    def __init__(
        self,
        dataset: ConcatDataset[object],
        batch_samplers: list[BatchSampler],
        generator: torch.Generator | None = None,
        seed: int = 0,
        *,
        num_processes: int | None = None,
        allow_duplicates: bool = False,
        weights: Sequence[float] | None = None,
        alpha: float = 1.0,
        max_repeats: int = 4,
        tasks: Sequence[str] | None = None,
    ) -> None:
        super().__init__(dataset, batch_samplers, generator, seed)
        self.rows_per_process: int = batch_samplers[0].batch_size
        self.num_processes = get_world_size() if num_processes is None else num_processes
        # accelerate takes None for "sizes vary" and a number for "drop what is shorter".
        self.batch_size = None  # type: ignore[assignment]
        self.allow_duplicates = allow_duplicates
        self._sizes = [len(part) for part in dataset.datasets]  # type: ignore[arg-type]
        for what, given in (("weights", weights), ("tasks", tasks)):
            if given is not None and len(given) != len(self._sizes):
                raise ValueError(
                    f"{what} has {len(given)} entries for {len(self._sizes)} data sets; give one a data set, in the order "
                    "of the DatasetDict."
                )
        self._weights = [1.0] * len(self._sizes) if weights is None else list(weights)
        self._tasks = [None] * len(self._sizes) if tasks is None else list(tasks)
        drawn = [
            size - size % self.num_processes if weight else 0
            for size, weight in zip(self._sizes, self._weights, strict=True)
        ]
        self._shares = share_rows(drawn, self._weights, alpha=alpha, max_repeats=max_repeats)
        self._max_repeats = max_repeats
        # Where a resumed run skips batches, accelerate's wrappers hide this sampler, but they tell the data set the epoch.
        setattr(dataset, "set_epoch", _EpochRelay(self))  # noqa: B010
        self._report_rows()

    def __iter__(self) -> Iterator[list[int]]:
        remaining = []
        offset = 0
        for place, size in enumerate(self._sizes):
            remaining.append(iter([(batch + offset).tolist() for batch in self._draw(place, self.epoch)]))
            offset += size
        # The batches of a task keep their order, so that no row comes again before its cycle is through.
        places = [place for place, count in enumerate(self._counts) for _ in range(count)]
        random.Random(f"{self.seed}/{self.epoch}").shuffle(places)
        for place in places:
            batch = next(remaining[place])
            part = len(batch) // self.num_processes
            for process in range(self.num_processes):
                yield batch[process * part : (process + 1) * part]

    def __len__(self) -> int:
        return self.num_processes * sum(self._counts)

    def plan_epoch(self, epoch: int = 0) -> tuple[TaskPlan, ...]:
        """Say what an epoch draws from each task.

        Args:
            epoch: Which one, from 0.

        Returns:
            One plan a data set, in their order.
        """
        return tuple(self._plan(place, epoch) for place in range(len(self._sizes)))

    @cached_property
    def _cycles(self) -> list[RowCycle | None]:
        """The cycles of the data sets, None where one is left out. Texts are read here, not before they are needed."""
        return [None if self._explain_absence(place) else self._open_cycle(place) for place in range(len(self._sizes))]

    @cached_property
    def _counts(self) -> list[int]:
        """How many batches an epoch draws from each data set."""
        counts = []
        for share, cycle in zip(self._shares, self._cycles, strict=True):
            if cycle is None:
                counts.append(0)
                continue
            count = max(1, round(share / cycle.rows_per_cycle * cycle.batches_per_cycle))
            counts.append(min(count, self._max_repeats * cycle.batches_per_cycle))
        self._report_small_batches(counts)
        return counts

    def _open_cycle(self, place: int) -> RowCycle:
        part: Any = self.dataset.datasets[place]
        texts = None
        # Other data sets than those of `datasets` say nothing of their columns.
        if not self.allow_duplicates and hasattr(part, "features"):
            labels = getattr(self.batch_samplers[place], "valid_label_columns", None) or ()
            texts = find_shared_texts(part, ignored_columns=labels)
        return RowCycle(
            self._sizes[place],
            texts,
            rows_per_process=self.rows_per_process,
            num_processes=self.num_processes,
            seed=f"{self.seed}/{place}",
        )

    def _explain_absence(self, place: int) -> str:
        """Say why a data set is left out; empty if it is not."""
        if not self._weights[place]:
            return "its weight is 0"
        if self._sizes[place] < self.num_processes:
            return f"fewer rows than there are processes ({self.num_processes})"
        return ""

    def _list_cycles(self, place: int, epoch: int) -> list[tuple[int, int, int]]:
        """List an epoch's part of a data set: cycle, first batch and end."""
        cycle, count = self._cycles[place], self._counts[place]
        if cycle is None:
            return []
        length = cycle.batches_per_cycle
        begin, end = epoch * count, (epoch + 1) * count
        return [
            (number, max(begin - number * length, 0), min(end - number * length, length))
            for number in range(begin // length, -(-end // length))
        ]

    def _draw(self, place: int, epoch: int) -> list[IntArray]:
        """Draw an epoch's batches of a data set."""
        cycle = self._cycles[place]
        parts = self._list_cycles(place, epoch)
        return [] if cycle is None else [batch for number, a, b in parts for batch in cycle.draw(number)[a:b]]

    def _plan(self, place: int, epoch: int) -> TaskPlan:
        rows, cycle, task = self._sizes[place], self._cycles[place], self._tasks[place]
        if cycle is None:
            return TaskPlan(place, task, rows, left_out=rows, reason=self._explain_absence(place))
        batches = self._draw(place, epoch)
        drawn = np.concatenate(batches)
        distinct = set(drawn.tolist())
        numbers = [number for number, _, _ in self._list_cycles(place, epoch)]
        waiting = {row for number in numbers for row in cycle.find_waiting(number)} - distinct
        return TaskPlan(
            place,
            task,
            rows,
            rows_drawn=len(drawn),
            distinct_rows_drawn=len(distinct),
            batches=len(batches),
            sharing_batches=cycle.count_sharing(batches),
            waiting=len(waiting),
            later=rows - len(distinct) - len(waiting),
        )

    def _report_rows(self) -> None:
        """Say how many rows do not divide by the number of processes, and which are left out."""
        places = range(len(self._sizes))
        waiting = sum(self._sizes[place] % self.num_processes for place in places if not self._explain_absence(place))
        if waiting:
            logger.warning(
                f"{waiting} row(s) a pass do not divide by {self.num_processes} processes; "
                "they wait and come first in the next epoch."
            )
        weighted = [size for size, weight in zip(self._sizes, self._weights, strict=True) if weight]
        small = [size for size in weighted if size < self.num_processes]
        if small:
            logger.warning(
                f"{len(small)} data set(s) have fewer rows than there are processes ({self.num_processes}) and are left "
                f"out, {sum(small)} row(s) in all."
            )
        if len(weighted) < len(self._sizes):
            logger.warning(
                f"{len(self._sizes) - len(weighted)} data set(s) have weight 0 and are left out, "
                f"{sum(self._sizes) - sum(weighted)} row(s) in all."
            )

    def _report_small_batches(self, counts: list[int]) -> None:
        """Say where texts that repeat make batches small, or stand twice in a batch all the same."""
        small = sharing = 0
        for cycle, count in zip(self._cycles, counts, strict=True):
            if cycle is not None and cycle.has_shared_texts:
                needed = min(cycle.rows_per_batch, cycle.rows_per_cycle)
                small += count if 2 * cycle.rows_per_cycle < needed * cycle.batches_per_cycle else 0
                sharing += 0 if cycle.keeps_texts_apart else count
        if small:
            logger.warning(
                f"{small} of {sum(counts)} batches an epoch have less than half of their rows, to keep rows that share "
                "a text in different batches."
            )
        if sharing:
            logger.warning(
                f"{sharing} of {sum(counts)} batches an epoch have one row a process, of data sets whose texts repeat so "
                "much that some of these batches hold a text twice."
            )


class _EpochRelay:
    """Tells a sampler the epoch; a copy in a worker process tells nobody."""

    def __init__(self, sampler: TaskBatchSampler | None = None) -> None:
        self._sampler = sampler

    def __call__(self, epoch: int) -> None:
        if self._sampler is not None:
            self._sampler.set_epoch(epoch)

    def __reduce__(self) -> tuple[type[_EpochRelay], tuple[()]]:
        return _EpochRelay, ()


def make_task_batch_sampler(
    *,
    tasks: Sequence[str] | None = None,
    weights: Mapping[str, float] | Sequence[float] | None = None,
    alpha: float = 1.0,
    max_repeats: int = 4,
    allow_duplicates: bool = False,
) -> partial[TaskBatchSampler]:
    """Make what the argument `multi_dataset_batch_sampler` accepts, with the options of `TaskBatchSampler`.

    Args:
        tasks: The names of the training data sets in their order: `list(train_dataset)`. The trainer joins the data sets
            to one that knows no names.
        weights: By task (then `tasks` is needed; tasks without one have 1), or one a data set in their order.
        alpha: A task's share of an epoch grows with its rows to the power of this.
        max_repeats: An epoch draws at most so many times the rows of a task.
        allow_duplicates: Do not look for texts that repeat within a batch.

    Returns:
        The sampler, but for what the trainer gives it; it can be pickled, as the trainer does with its arguments.

    Raises:
        ValueError: If weights are by task without `tasks`, or of tasks that are not there, or a number is out of range.
    """
    if isinstance(weights, Mapping):
        if tasks is None:
            raise ValueError("weights by task need tasks, the names of the data sets in order: list(train_dataset).")
        weights = match_weights(weights, tasks)
    share_rows([1] * len(weights or ()), list(weights or ()), alpha=alpha, max_repeats=max_repeats)
    return partial(
        TaskBatchSampler,
        tasks=None if tasks is None else tuple(tasks),
        weights=None if weights is None else tuple(weights),
        alpha=alpha,
        max_repeats=max_repeats,
        allow_duplicates=allow_duplicates,
    )
