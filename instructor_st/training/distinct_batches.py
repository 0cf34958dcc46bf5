"""Batches in which no two rows share a text."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np

from instructor_st.training.shared_texts import IntArray

__all__ = ["count_sharing_batches", "separate_shared_texts"]

# Of batches looked into, a row of the data set; what keeps hopeless cases linear.
_PROBES_PER_ROW = 10


def count_sharing_batches(batches: Sequence[IntArray], texts: IntArray) -> int:
    """Count the batches in which rows share a text.

    Args:
        batches: The row numbers of each batch.
        texts: `(rows, columns)`, as `find_shared_texts` gives them.

    Returns:
        Their number.
    """
    if not batches or not texts.size:
        return 0
    order = np.concatenate(batches)
    numbers = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])
    return len(np.unique(numbers[_find_clashes(order, numbers, texts)]))


def separate_shared_texts(
    order: IntArray, ends: Sequence[int], *, texts: IntArray, generator: random.Random, give_up_early: bool = False
) -> bool:
    """Swap rows between batches until no two rows of a batch share a text.

    Only rows that share a text with an earlier row of their batch are moved, each to a batch drawn at random in which it
    clashes with no row, or with the one row only that it changes places with. Sizes of batches stay as they are. The
    work is bounded by a multiple of the number of rows.

    Args:
        order: The rows, batch after batch; changed in place.
        ends: Where in `order` each batch ends.
        texts: `(rows, columns)`, as `find_shared_texts` gives them.
        generator: Draws the batches.
        give_up_early: Stop at the first row for which no place is found.

    Returns:
        Whether no batch is left whose rows share a text.
    """
    numbers = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    clashes = _find_clashes(order, numbers, texts)
    if not clashes.size:
        return True
    work = _Separation(order, ends, texts, clashes)
    for slot in clashes.tolist():
        if not work.place(slot, int(numbers[slot]), generator) and (give_up_early or work.probes_left <= 0):
            return False
    return not _find_clashes(order, numbers, texts).size


def _find_clashes(order: IntArray, numbers: IntArray, texts: IntArray) -> IntArray:
    """Find the slots whose row shares a text with the row of an earlier slot of its batch."""
    held = texts[order]
    slots, columns = np.nonzero(held >= 0)
    keys = numbers[slots] * (int(texts.max(initial=0)) + 1) + held[slots, columns]
    by_key = np.argsort(keys, kind="stable")
    repeated = keys[by_key][1:] == keys[by_key][:-1]
    return np.unique(slots[by_key[1:][repeated]])


class _Separation:
    """The state of one call of `separate_shared_texts`: who holds which text in which batch."""

    def __init__(self, order: IntArray, ends: Sequence[int], texts: IntArray, clashes: IntArray) -> None:
        self._order = order
        self._bounds = [0, *ends]
        self._texts = texts
        self._unplaced = set(clashes.tolist())
        self._holders: dict[int, dict[int, int]] = {}
        self.probes_left = _PROBES_PER_ROW * len(order) + 1000

    def place(self, slot: int, batch: int, generator: random.Random) -> bool:
        """Find a place for the row in a slot; False if there is none."""
        if slot not in self._unplaced:  # an earlier row has changed places with it
            return True
        texts, holders = self._read(slot), self._hold(batch)
        if not any(text in holders for text in texts):
            self._settle(slot, texts, holders)
            return True
        for other in self._probe(generator):
            if other == batch:
                continue
            there = self._hold(other)
            owners = {there[text] for text in texts if text in there}
            if len(owners) > 1:
                continue
            for partner in owners or self._rotate(other, generator):
                theirs = self._read(partner)
                self.probes_left -= 1
                if not any(text in holders for text in theirs):
                    self._swap(slot, partner, batch=batch, other=other)
                    return True
        return False

    def _probe(self, generator: random.Random) -> Iterator[int]:
        """Yield batches: as many at random as there are, then each."""
        count = len(self._bounds) - 1
        for number in range(2 * count):
            if self.probes_left <= 0:
                return
            self.probes_left -= 1
            yield generator.randrange(count) if number < count else number - count

    def _rotate(self, batch: int, generator: random.Random) -> Iterator[int]:
        """Yield the slots of a batch, from a random one on."""
        begin, end = self._bounds[batch], self._bounds[batch + 1]
        start = generator.randrange(begin, end)
        yield from range(start, end)
        yield from range(begin, start)

    def _read(self, slot: int) -> list[int]:
        return [text for text in self._texts[self._order[slot]].tolist() if text >= 0]

    def _hold(self, batch: int) -> dict[int, int]:
        """Return who holds a text in a batch: slots by text, rows that have no place yet left out."""
        if batch not in self._holders:
            slots = range(self._bounds[batch], self._bounds[batch + 1])
            rows = self._texts[self._order[slots.start : slots.stop]].tolist()
            self._holders[batch] = {
                text: slot
                for slot, texts in zip(slots, rows, strict=True)
                if slot not in self._unplaced
                for text in texts
                if text >= 0
            }
        return self._holders[batch]

    def _settle(self, slot: int, texts: list[int], holders: dict[int, int]) -> None:
        self._unplaced.discard(slot)
        holders.update(dict.fromkeys(texts, slot))

    def _swap(self, slot: int, partner: int, *, batch: int, other: int) -> None:
        mine, theirs = self._read(slot), self._read(partner)
        if partner not in self._unplaced:
            for text in theirs:
                del self._hold(other)[text]
        self._order[[slot, partner]] = self._order[[partner, slot]]
        self._settle(partner, mine, self._hold(other))
        self._settle(slot, theirs, self._hold(batch))
