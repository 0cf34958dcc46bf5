"""Exact search for the most similar vectors, in bounded memory and with ties that do not depend on the blocks.

Matrix products in float32 are fast, but their last bits depend on the shape of the block. So they only choose the few
places that are near the best; those are scored again in float64, each alike whatever stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["TOLERANCE", "Floats", "Places", "Scores", "find_best_places", "score_exactly", "score_rows"]

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

TOLERANCE = 1e-5
"""More than twice what a float32 cosine, or a sum of two, is off by."""

_CHUNK = 4096


def score_rows(sides: Sequence[Floats], *, block: int, queries: Sequence[int] | None = None) -> Iterator[list[Floats]]:
    """Score vectors with all vectors of the same side, a block of rows at a time.

    Args:
        sides: Vectors of length 1, (number of places, dimension), one array a side.
        block: Rows at a time; memory grows with block x number of places.
        queries: The places to score; by default all, in order.

    Yields:
        For each query the cosines with all places, one array a side; they may be changed.
    """
    places = np.arange(len(sides[0])) if queries is None else np.asarray(queries, dtype=np.int64)
    for start in range(0, len(places), block):
        blocks = [side[places[start : start + block]] @ side.T for side in sides]
        for row in range(len(blocks[0])):
            yield [scores[row] for scores in blocks]


def score_exactly(vectors: Floats, place: int, others: Places) -> Scores:
    """Score one vector with a few others.

    Args:
        vectors: Vectors of length 1.
        place: The place of the one.
        others: The places of the others.

    Returns:
        Their cosines in float64; each depends on the two vectors alone.
    """
    own = vectors[place].astype(np.float64)
    scores = np.empty(len(others), dtype=np.float64)
    for start in range(0, len(others), _CHUNK):
        part = others[start : start + _CHUNK]
        scores[start : start + _CHUNK] = (vectors[part].astype(np.float64) * own).sum(axis=1)
    return scores


def find_best_places(
    scores: Floats,
    *,
    score: Callable[[Places], Scores],
    wanted: int = 1,
    text_numbers: Places | None = None,
) -> list[int]:
    """Find the places with the highest scores; ties go to the lower place.

    Args:
        scores: A float32 score by place, off by less than half of `TOLERANCE`; minus infinity where a place is out of
            question.
        score: Gives the float64 scores of places; minus infinity rejects a place after all.
        wanted: How many places.
        text_numbers: The number of each place's text, if no text may be found twice.

    Returns:
        Up to `wanted` places, best first.
    """
    look, lowest = wanted, np.inf
    places, exact = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float64)
    while wanted:
        floor = -np.inf
        if look < len(scores):
            floor = float(scores.max() if look == 1 else np.partition(scores, -look)[-look])
        everything = floor == -np.inf
        near = scores > -np.inf if everything else scores >= floor - TOLERANCE
        # What an earlier round has scored is not scored again.
        new = np.flatnonzero(near & (scores < lowest))
        places, exact = np.concatenate([places, new]), np.concatenate([exact, score(new)])
        lowest = floor - TOLERANCE
        # Below the floor there may be better places than those that were looked at.
        sure = np.flatnonzero((exact > -np.inf) & (exact >= floor - TOLERANCE / 2))
        best: dict[int, int] = {}
        for place in places[sure[np.lexsort((places[sure], -exact[sure]))]].tolist():
            best.setdefault(place if text_numbers is None else int(text_numbers[place]), place)
            if len(best) == wanted:
                break
        if len(best) == wanted or everything:
            return list(best.values())
        look *= 4
    return []
