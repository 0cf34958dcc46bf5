"""Batches of one task, cut alike for every process."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import torch
from sentence_transformers.base.sampler import MultiDatasetDefaultBatchSampler
from sentence_transformers.util.distributed import get_world_size
from torch.utils.data import BatchSampler, ConcatDataset
from transformers.utils import logging

__all__ = ["TaskBatchSampler"]

logger = logging.get_logger(__name__)


class TaskBatchSampler(MultiDatasetDefaultBatchSampler):
    """Yields batches whose rows all belong to one data set, in an order drawn anew each epoch.

    Every row of every data set is seen once an epoch. A data set is cut into batches as equal as they can be, so there
    is no short last one with few in-batch negatives. With several processes, one batch of
    `processes * batch size` rows is yielded as that many equal parts, one after the other, which is how accelerate hands
    them to the processes: all work on the same task, with shapes that gather. The rows of a data set that do not
    divide by the number of processes (fewer than that number) wait, and are the first choice of the next epoch; how
    many they are is logged. A data set with fewer rows than processes is left out, which is logged too.

    Args:
        dataset: The data sets.
        batch_samplers: One a data set; only their batch size (rows a process) is used.
        generator: Not used: the order depends on seed and epoch alone, so every process and every resumed run agrees.
        seed: Of the order.
        num_processes: How many processes share a batch; by default the distributed world's size.
    """

    def __init__(
        self,
        dataset: ConcatDataset[object],
        batch_samplers: list[BatchSampler],
        generator: torch.Generator | None = None,
        seed: int = 0,
        *,
        num_processes: int | None = None,
    ) -> None:
        super().__init__(dataset, batch_samplers, generator, seed)
        self.rows_per_process: int = batch_samplers[0].batch_size
        self.num_processes = get_world_size() if num_processes is None else num_processes
        # accelerate takes None for "sizes vary" and a number for "drop what is shorter".
        self.batch_size = None  # type: ignore[assignment]
        self._sizes = [len(part) for part in dataset.datasets]  # type: ignore[arg-type]
        self._report_rows()

    def __iter__(self) -> Iterator[list[int]]:
        batches = []
        offset = 0
        for place, size in enumerate(self._sizes):
            rows = self._draw_rows(place, size)
            batches += [[offset + row for row in batch] for batch in self._cut(rows)]
            offset += size
        random.Random(f"{self.seed}/{self.epoch}").shuffle(batches)
        for batch in batches:
            part = len(batch) // self.num_processes
            for process in range(self.num_processes):
                yield batch[process * part : (process + 1) * part]

    def __len__(self) -> int:
        return self.num_processes * sum(
            len(self._cut(list(range(size - size % self.num_processes)))) for size in self._sizes
        )

    def _report_rows(self) -> None:
        """Say how many rows do not divide by the number of processes."""
        waiting = sum(size % self.num_processes for size in self._sizes if size >= self.num_processes)
        if waiting:
            logger.warning(
                f"{waiting} row(s) a pass do not divide by {self.num_processes} processes; "
                "they wait and come first in the next epoch."
            )
        small = [size for size in self._sizes if size < self.num_processes]
        if small:
            logger.warning(
                f"{len(small)} data set(s) have fewer rows than there are processes ({self.num_processes}) and are left "
                f"out, {sum(small)} row(s) in all."
            )

    def _draw_rows(self, place: int, size: int) -> list[int]:
        """Draw this epoch's rows of a data set, those that waited first."""
        waiting: list[int] = []
        kept = size - size % self.num_processes
        # Who waits depends on the epochs before; replaying them keeps resumed runs exact. Where the rows divide, no
        # epoch hangs on another.
        for epoch in range(0 if size != kept else self.epoch, self.epoch + 1):
            order = random.Random(f"{self.seed}/{place}/{epoch}").sample(range(size), size)
            order.sort(key=lambda row, first=frozenset(waiting): row not in first)  # type: ignore[misc]
            rows, waiting = order[:kept], order[kept:]
        random.Random(f"{self.seed}/{place}/{self.epoch}/rows").shuffle(rows)
        return rows

    def _cut(self, rows: list[int]) -> list[list[int]]:
        """Cut rows into as few and as equal batches as fit, each divisible by the number of processes."""
        shares = len(rows) // self.num_processes
        count = -(-shares // self.rows_per_process)
        ends = [self.num_processes * (shares * number // count) for number in range(count + 1)] if count else []
        return [rows[begin:end] for begin, end in itertools.pairwise(ends)]
