"""All rows of one data set in batches, again and again, in an order drawn anew each time."""

from __future__ import annotations

import random
from functools import cached_property

import numpy as np

from instructor_st.training.distinct_batches import count_sharing_batches, separate_shared_texts
from instructor_st.training.shared_texts import IntArray

__all__ = ["RowCycle"]

_ATTEMPTS = 5


class RowCycle:
    """The batches of one data set: cycle after cycle, each with every row once.

    The number of batches a cycle, and their sizes, are the same in each cycle, since a trainer counts its steps once.
    Batches are as equal as they can be, in steps of the number of processes; where texts repeat, they are as many as it
    takes to keep those apart. Where no way is found even with one row a process, rows of a batch share texts. The
    rows that do not divide by the processes wait; which ones moves on from cycle to cycle through a fixed random order,
    so that no row waits twice running, all wait equally often, and no cycle hangs on the ones before.

    Args:
        rows: How many rows there are: at least one a process.
        texts: `(rows, columns)`, as `find_shared_texts` gives them, to keep rows that share a text in different
            batches; None if they need not be.
        rows_per_process: At most so many rows of a batch for each process.
        num_processes: How many processes share a batch.
        seed: Names the draws.
    """

    def __init__(
        self, rows: int, texts: IntArray | None = None, *, rows_per_process: int, num_processes: int, seed: str
    ) -> None:
        self.rows = rows
        self.rows_per_batch = rows_per_process * num_processes
        self._texts = texts if texts is not None and texts.size and texts.max() >= 0 else None
        self._processes = num_processes
        self._seed = seed
        self._waiting = rows % num_processes
        self._proven: IntArray | None = None
        self._last: tuple[int, list[IntArray]] | None = None

    @property
    def rows_per_cycle(self) -> int:
        """How many rows a cycle holds: all that divide by the processes."""
        return self.rows - self._waiting

    @property
    def batches_per_cycle(self) -> int:
        """How many batches a cycle holds, each for all processes."""
        return len(self._ends)

    @property
    def has_shared_texts(self) -> bool:
        """Whether rows share texts that are to be kept apart."""
        return self._texts is not None

    @property
    def keeps_texts_apart(self) -> bool:
        """Whether batches were found that hold no text twice."""
        return self._texts is None or (bool(self._ends) and self._proven is not None)

    @cached_property
    def _waiting_order(self) -> list[int]:
        return random.Random(f"{self._seed}/waiting").sample(range(self.rows), self.rows) if self._waiting else []

    @cached_property
    def _ends(self) -> list[int]:
        """Where the batches of a cycle end: the fewest that can be filled with rows that share no text."""
        shares = self.rows_per_cycle // self._processes
        count = -(-self.rows_per_cycle // self.rows_per_batch)
        if self._texts is None:
            return self._cut(count)
        # A batch holds each text once: the commonest, and on average all of them.
        occurrences = np.bincount(self._texts[self._texts >= 0])
        needed = max(int(occurrences.max()), -(-int(occurrences.sum()) // int(np.count_nonzero(occurrences))))
        count = min(max(count, needed), shares)
        while not self._try(self._cut(count)) and count < shares:
            count = min(max(count + 1, count * 9 // 8), shares)
        return self._cut(count)

    def _try(self, ends: list[int]) -> bool:
        """Find, and keep, an order in which batches that end there hold no text twice."""
        assert self._texts is not None
        for attempt in range(2):
            order = self._shuffle(0, attempt)
            generator = random.Random(f"{self._seed}/{len(ends)}/{attempt}/try")
            if separate_shared_texts(order, ends, texts=self._texts, generator=generator, give_up_early=True):
                self._proven = order
                return True
        return False

    def find_waiting(self, number: int) -> list[int]:
        """Find the rows that are not in a cycle since they do not divide by the processes.

        Args:
            number: Which cycle, from 0.

        Returns:
            The rows, fewer than processes.
        """
        begin = number * self._waiting
        return [self._waiting_order[place % self.rows] for place in range(begin, begin + self._waiting)]

    def draw(self, number: int) -> list[IntArray]:
        """Draw the batches of a cycle, which depend on its number and the seed alone.

        Args:
            number: Which cycle, from 0.

        Returns:
            The row numbers of each batch; rows that waited the cycle before are in the first one, unless they share
            texts.
        """
        if self._last is None or self._last[0] != number:
            self._last = number, self._draw(number)
        return self._last[1]

    def count_sharing(self, batches: list[IntArray]) -> int:
        """Count the batches whose rows share texts that were to be kept apart.

        Args:
            batches: The row numbers of each batch.

        Returns:
            Their number.
        """
        return 0 if self._texts is None else count_sharing_batches(batches, self._texts)

    def _draw(self, number: int) -> list[IntArray]:
        ends = self._ends
        if self._texts is None:
            return np.split(self._shuffle(number, 0), ends[:-1])
        best: list[IntArray] = []
        # Where it cannot be done, one attempt does; where it can, the order that proved it is the last resort.
        for attempt in range(1 if self._proven is None else _ATTEMPTS):
            order = self._reuse(number) if attempt == _ATTEMPTS - 1 else self._shuffle(number, attempt)
            generator = random.Random(f"{self._seed}/{number}/{attempt}/separate")
            apart = separate_shared_texts(order, ends, texts=self._texts, generator=generator)
            batches = np.split(order, ends[:-1])
            if apart:
                return batches
            if not best or self.count_sharing(batches) < self.count_sharing(best):
                best = batches
        return best

    def _reuse(self, number: int) -> IntArray:
        """Return the proven order, but for the rows that wait: others take their places."""
        assert self._proven is not None
        order, waiting = self._proven.copy(), set(self.find_waiting(number))
        freed = np.flatnonzero(np.isin(order, list(waiting)))
        order[freed] = [row for row in self.find_waiting(0) if row not in waiting]
        return order

    def _shuffle(self, number: int, attempt: int) -> IntArray:
        """Draw the order of a cycle's rows, those that waited in the cycle before first."""
        order = np.array(random.Random(f"{self._seed}/{number}/{attempt}").sample(range(self.rows), self.rows))
        if not self._waiting:
            return order
        turn = np.zeros(self.rows, dtype=np.int64)
        turn[self.find_waiting(number)] = 1
        if number:
            turn[self.find_waiting(number - 1)] = -1
        return order[np.argsort(turn[order], kind="stable")][: self.rows_per_cycle]

    def _cut(self, count: int) -> list[int]:
        """Say where so many batches end that are as equal as they can be and divide by the processes."""
        shares = self.rows_per_cycle // self._processes
        return [self._processes * (shares * number // count) for number in range(1, count + 1)]
