"""Near-duplicates in a stream: is there an earlier example whose texts are nearly these?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NearDuplicateIndex"]

_SHINGLE = 5
_PERMUTATIONS = 128
_SEED = 1
_RECALL = 0.95
# Odd, so that a step of the rolling hash loses nothing; the value itself is of no importance.
_MULTIPLIER = 0x9E3779B97F4A7C15


class NearDuplicateIndex:
    """Remembers texts, and says whether new ones are near to earlier ones (MinHash and LSH by datasketch).

    How near two texts are is the Jaccard similarity of their sets of 5-character shingles, estimated from 128 hashes: its
    standard error is 0.027 at a similarity of 0.9. The locality-sensitive hashing finds 95 of 100 texts that stand exactly
    at the threshold, and more of nearer ones; what it finds is checked against the threshold, so nothing below it counts.
    The same texts in the same order always give the same answers. It takes about 5 kB an example of two texts.
    """

    def __init__(self, threshold: float):
        """Make an empty index.

        Args:
            threshold: From which similarity on texts are near, above 0 and at most 1.

        Raises:
            ImportError: If datasketch is not installed.
            ValueError: If the threshold is out of range.
        """
        import numpy as np

        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1, not {threshold}.")
        datasketch = _load_datasketch()
        self._least = _count_needed(threshold)
        # The shingles come hashed already, as integers.
        self._empty = datasketch.MinHash(num_perm=_PERMUTATIONS, seed=_SEED, hashfunc=int)
        self._lsh = datasketch.MinHashLSH(num_perm=_PERMUTATIONS, params=_choose_bands(threshold))
        self._signatures = np.empty((0, 1, _PERMUTATIONS), dtype=self._empty.hashvalues.dtype)
        self._count = 0

    def __len__(self) -> int:
        """Count what is remembered."""
        return self._count

    def add(self, *texts: str, any_order: bool = False) -> bool:
        """Remember texts, unless earlier ones are near.

        Several texts (a query and its positive) are near to earlier ones only if each is near to its counterpart. Their
        shingles together would not be enough: different questions with one long passage would all be the same.

        Args:
            texts: The texts of one example, as many as of every other; normalised, if case and spaces shall not matter.
            any_order: Whether the first of two texts may also be near to an earlier second, and the second to its first.

        Returns:
            Whether the texts are new. If they are not, they are not remembered either.

        Raises:
            ValueError: If these are more or fewer texts than before.
        """
        import numpy as np

        if self._count and len(texts) != self._signatures.shape[1]:
            raise ValueError(f"{len(texts)} texts, where earlier ones came as {self._signatures.shape[1]}.")
        signatures = np.stack([self._sketch(text) for text in texts])
        whole = self._empty.copy()
        # The sketch of a union of sets is the least value at each place.
        whole.hashvalues = signatures.min(axis=0)
        candidates = self._lsh.query(whole)
        if candidates and self._has_near(signatures, self._signatures[candidates], any_order=any_order):
            return False
        self._lsh.insert(self._count, whole, check_duplication=False)
        self._remember(signatures)
        return True

    def _has_near(self, new: NDArray[Any], earlier: NDArray[Any], *, any_order: bool) -> bool:
        orders = [new, new[::-1]] if any_order else [new]
        return any(bool(((earlier == order).sum(axis=2) >= self._least).all(axis=1).any()) for order in orders)

    def _sketch(self, text: str) -> NDArray[Any]:
        sketch = self._empty.copy()
        sketch.update_batch(_hash_shingles(text).tolist())
        values: NDArray[Any] = sketch.hashvalues
        return values

    def _remember(self, signatures: NDArray[Any]) -> None:
        import numpy as np

        if self._count == len(self._signatures):
            grown = np.empty((max(1024, 2 * self._count), *signatures.shape), dtype=self._signatures.dtype)
            if self._count:
                grown[: self._count] = self._signatures
            self._signatures = grown
        self._signatures[self._count] = signatures
        self._count += 1


def _hash_shingles(text: str) -> NDArray[np.uint32]:
    """Hash each run of 5 characters; a shorter text is its own and only shingle."""
    import numpy as np

    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    size = min(_SHINGLE, len(points))
    count = len(points) - size + 1
    # A shorter text must not equal a run of five; the size makes it another one.
    hashes = np.full(count, size, dtype=np.uint64)
    for place in range(size):
        hashes = (hashes + points[place : place + count]) * np.uint64(_MULTIPLIER)
    # Every character has moved the upper half; the last one has not moved all of the lower half.
    return (hashes >> np.uint64(32)).astype(np.uint32)


def _choose_bands(threshold: float) -> tuple[int, int]:
    """Choose the longest bands that still find 95 of 100 texts at the threshold: fewer and better candidates."""
    choices = [(_PERMUTATIONS // rows, rows) for rows in range(_PERMUTATIONS // 2, 0, -1)]
    for bands, rows in choices:
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands, rows
    return choices[-1]


def _count_needed(threshold: float) -> int:
    """How many of the hashes must be equal: the least number whose share is no less than the threshold."""
    return next(count for count in range(_PERMUTATIONS + 1) if count / _PERMUTATIONS >= threshold)


def _load_datasketch() -> Any:
    try:
        import datasketch
    except ImportError:
        raise ImportError('Near-duplicates need datasketch: pip install "instructor-st[data]".') from None
    return datasketch
