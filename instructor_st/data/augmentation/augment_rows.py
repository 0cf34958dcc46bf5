"""More rows out of rows: one text replaced by a candidate that says the same in other words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from instructor_st.data.augmentation.text_generators import TextGenerator
from instructor_st.data.embedding_cache import Scorer, embed_texts
from instructor_st.data.schema import Row
from instructor_st.pairs import InstructedText

__all__ = ["Side", "augment_rows", "count_repeats", "normalize_text"]

Side = Literal["query", "positive"]
"""A text of a row that may be replaced."""

_CLOSING = ".,;:!?…。、؟"
_MAX_RUN = 12
"""The longest run of words whose repetition is looked for."""
_MAX_REPEATS = 2
"""A run of words may stand twice in a row ("very, very"), or as often as in the original."""
_STUTTER = re.compile(r"(\D{1,10}?)\1{4,}")
"""The same few characters five times or more, for words that fell apart and scripts without spaces."""


def augment_rows(
    rows: Iterable[Row],
    generator: TextGenerator,
    *,
    scorer: Scorer | None,
    num_augments: int = 2,
    sides: Sequence[Side] = ("query", "positive"),
    min_similarity: float = 0.85,
    max_similarity: float = 1.0,
    min_length_ratio: float = 0.5,
    max_length_ratio: float = 2.0,
    forbidden: Container[str] = frozenset(),
    include_originals: bool = False,
    chunk_size: int = 256,
    report: Counter[str] | None = None,
) -> Iterator[Row]:
    """Make new rows of rows: the query or the positive replaced by one of its candidates.

    A new row has one text replaced, the sides taking turns, so that it shares the other with its original: rows without
    a label are thereby known to belong together and are not trained on as each other's negatives. Instructions,
    negatives, task and label stay. A row with too few good candidates gets fewer new rows.

    A candidate is rejected, and counted by reason, if it is blank; if it is the original, another candidate, the row's
    other text or a negative but for case, white space and closing punctuation; if it is forbidden; if it is much shorter
    or longer; if it repeats itself; if its numbers are not the original's; if its cosine with the original is out of
    bounds, or not higher than with every negative.

    Args:
        rows: The rows.
        generator: Gives candidates, best first; see `CachedGenerator` for one that remembers.
        scorer: Whose cosine compares; `None` leaves the cosines out.
        num_augments: At most so many new rows a row.
        sides: The texts to replace, the first one first.
        min_similarity: The lowest cosine of a candidate with its original.
        max_similarity: The highest.
        min_length_ratio: A candidate has at least so many times the original's characters.
        max_length_ratio: And at most so many.
        forbidden: Texts that no candidate may be, as `normalize_text` gives them: those held out for evaluation.
        include_originals: Give each row before its new ones.
        chunk_size: Rows that the generator and the scorer are given at once.
        report: Receives the counts.

    Returns:
        The new rows, in the order of the rows.

    Raises:
        ValueError: If an option is out of range.
    """
    if num_augments < 1 or chunk_size < 1:
        raise ValueError(f"num_augments and chunk_size must be 1 or more, not {num_augments} and {chunk_size}.")
    if not sides or len(set(sides)) < len(sides) or not set(sides) <= {"query", "positive"}:
        raise ValueError(f"sides must be query, positive or both, not {list(sides)}.")
    if not -1 <= min_similarity <= max_similarity <= 1:
        raise ValueError(
            f"min_similarity and max_similarity must be from -1 to 1 and in order, not {min_similarity}, {max_similarity}."
        )
    if not 0 < min_length_ratio <= max_length_ratio:
        raise ValueError(
            "min_length_ratio and max_length_ratio must be above 0 and in order, "
            f"not {min_length_ratio}, {max_length_ratio}."
        )
    limits = _Limits(min_similarity, max_similarity, min_length_ratio, max_length_ratio)
    report = Counter() if report is None else report
    augmenter = _Augmenter(generator, scorer, num_augments, tuple(sides), limits, forbidden, report)
    return _augment_chunks(iter(rows), augmenter, chunk_size, include_originals)


def normalize_text(text: str) -> str:
    """Make texts equal that differ in form only: compatibility characters, case, white space, closing punctuation.

    Args:
        text: The text.

    Returns:
        What is left to compare.
    """
    words = unicodedata.normalize("NFKC", text).casefold().split()
    return " ".join(words).rstrip(_CLOSING + " ")


def count_repeats(text: str) -> int:
    """Count how often the most repeated run of words stands in a row.

    Args:
        text: The text.

    Returns:
        The number of times, for runs of up to 12 words: 1 if nothing is repeated at once.
    """
    words = re.findall(r"\w+", text.casefold())
    most = 1
    for length in range(1, min(_MAX_RUN, len(words) // 2) + 1):
        equal = 0
        for first, second in zip(words, words[length:], strict=False):
            equal = equal + 1 if first == second else 0
            most = max(most, equal // length + 1)
    return most


@dataclass(frozen=True)
class _Limits:
    min_similarity: float
    max_similarity: float
    min_length_ratio: float
    max_length_ratio: float


@dataclass(frozen=True)
class _Place:
    """A text that may be replaced, and those that its candidates must not turn into."""

    text: str
    other: str
    negatives: tuple[str, ...]


@dataclass(frozen=True)
class _Augmenter:
    generator: TextGenerator
    scorer: Scorer | None
    num_augments: int
    sides: tuple[Side, ...]
    limits: _Limits
    forbidden: Container[str]
    report: Counter[str]

    def augment(self, rows: Sequence[Row]) -> list[list[Row]]:
        """The new rows of each row."""
        places = [[_find_place(row, side) for side in self.sides] for row in rows]
        texts = list(dict.fromkeys(place.text for each in places for place in each))
        candidates = dict(zip(texts, self.generator(texts), strict=True))
        self.report["texts without a candidate"] += sum(not candidates[place.text] for each in places for place in each)
        screened = [[self._screen(place, candidates[place.text]) for place in each] for each in places]
        if self.scorer is not None:
            screened = self._compare(places, screened, self.scorer)
        return [self._build(row, each) for row, each in zip(rows, screened, strict=True)]

    def _screen(self, place: _Place, candidates: Sequence[str]) -> list[str]:
        """The candidates without a fault that can be seen without the scorer."""
        forms: dict[str, str] = {normalize_text(text): "same as a negative" for text in place.negatives}
        forms |= {normalize_text(place.other): "same as the row's other text"}
        forms |= {normalize_text(place.text): "same as the original", "": "blank"}
        good = []
        for candidate in map(str.strip, candidates):
            form = normalize_text(candidate)
            fault = forms.get(form) or self._find_fault(candidate, form, place.text)
            forms.setdefault(form, "same as another candidate")
            self.report["candidates"] += 1
            if fault:
                self.report[f"rejected: {fault}"] += 1
            else:
                good.append(candidate)
        return good

    def _find_fault(self, candidate: str, form: str, original: str) -> str | None:
        ratio = len(candidate) / max(1, len(original.strip()))
        if form in self.forbidden:
            return "forbidden"
        if ratio < self.limits.min_length_ratio:
            return "too short"
        if ratio > self.limits.max_length_ratio:
            return "too long"
        if _is_stuck(candidate, original):
            return "repeats itself"
        if _find_numbers(candidate) != _find_numbers(original):
            return "numbers lost or changed"
        return None

    def _compare(
        self, places: Sequence[Sequence[_Place]], screened: Sequence[Sequence[list[str]]], scorer: Scorer
    ) -> list[list[list[str]]]:
        """The candidates that the scorer finds near to the original, and not too near to a negative."""
        pairs = [
            (place, good)
            for each, goods in zip(places, screened, strict=True)
            for place, good in zip(each, goods, strict=True)
        ]
        texts = dict.fromkeys(text for place, good in pairs if good for text in (place.text, *place.negatives, *good))
        vectors = dict(zip(texts, embed_texts(list(texts), scorer=scorer, cache=None), strict=True))
        kept = []
        for place, good in pairs:
            if good:
                others = np.array([vectors[text] for text in (place.text, *place.negatives)])
                good = [text for text in good if self._accept(others @ vectors[text])]
            kept.append(good)
        width = len(self.sides)
        return [kept[start : start + width] for start in range(0, len(kept), width)]

    def _accept(self, cosines: npt.NDArray[np.float32]) -> bool:
        """Whether the cosines with the original, the first, and with the negatives are as they should be."""
        original, negatives = cosines[0], cosines[1:]
        fault = ""
        if original < self.limits.min_similarity:
            fault = "too far from the original"
        elif min(original, 1.0) > self.limits.max_similarity:
            fault = "too near to the original"
        elif (negatives >= original).any():
            fault = "nearer to a negative than to the original"
        if fault:
            self.report[f"rejected: {fault}"] += 1
        return not fault

    def _build(self, row: Row, good: Sequence[list[str]]) -> list[Row]:
        """One new row a candidate, the sides in turn, up to the number wanted."""
        ranks = range(max(map(len, good)))
        turns = [
            (side, candidates[rank])
            for rank in ranks
            for side, candidates in zip(self.sides, good, strict=True)
            if rank < len(candidates)
        ]
        chosen = turns[: self.num_augments]
        self.report["rows"] += 1
        self.report["rows without a new row"] += not chosen
        self.report["new rows"] += len(chosen)
        self.report["not needed: the row has its new rows"] += len(turns) - len(chosen)
        for side, _ in chosen:
            self.report[f"new rows: {side} replaced"] += 1
        return [_replace_text(row, side, text) for side, text in chosen]


def _augment_chunks(
    rows: Iterator[Row], augmenter: _Augmenter, chunk_size: int, include_originals: bool
) -> Iterator[Row]:
    while chunk := list(islice(rows, chunk_size)):
        for row, new in zip(chunk, augmenter.augment(chunk), strict=True):
            if include_originals:
                yield row
            yield from new


def _find_place(row: Row, side: Side) -> _Place:
    text, other = (row.query, row.positive) if side == "query" else (row.positive, row.query)
    return _Place(text.text, other.text, tuple(negative.text for negative in row.negatives))


def _replace_text(row: Row, side: Side, text: str) -> Row:
    if side == "query":
        return replace(row, query=InstructedText(row.query.instruction, text))
    return replace(row, positive=InstructedText(row.positive.instruction, text))


def _is_stuck(candidate: str, original: str) -> bool:
    """Whether a decoder ran in circles, in words or within one; what the original repeats may be repeated."""
    if count_repeats(candidate) > max(_MAX_REPEATS, count_repeats(original)):
        return True
    return bool(_STUTTER.search(candidate)) and not _STUTTER.search(original)


def _find_numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d+", unicodedata.normalize("NFKC", text)))
