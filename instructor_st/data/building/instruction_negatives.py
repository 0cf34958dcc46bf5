"""Hard negatives that only the instruction tells from positives: right under one task, wrong under another.

Texts that several tasks share (a review with its sentiment and its product, a question with its topic and its answer)
make a model read the instruction: what is the positive of a query in one task becomes its negative in another.

What is right for a query under a task is known from the task's own rows. A text is taken for wrong only if it is not the
query; it was never paired with the query as its positive, nor the query with it; no text is paired with both; and, where
the query has a class in the task, the text has one too and they share none. Where the query has a class and the text is
not known to the task, nothing can be said, and the text is not taken, unless the task itself has it as a negative.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from instructor_st.data.building.best_places import Floats, Places, Scores, find_best_places, score_exactly, score_rows
from instructor_st.data.building.examples import TextPair
from instructor_st.data.embedding_cache import Scorer, embed_texts

__all__ = ["find_instruction_negatives"]


def find_instruction_negatives(
    pairs_by_task: Mapping[str, Sequence[TextPair]],
    *,
    scorer: Scorer | None = None,
    cache: Path | None = None,
    reports: Mapping[str, Counter[str]] | None = None,
    block: int = 512,
) -> dict[str, list[TextPair]]:
    """Give the rows of tasks over the same texts each other's positives as hard negatives.

    A query that has a class in two tasks gets a text of its class in the other task and of another class in its own:
    with a scorer the most similar one, else its positive in the other task, or, if that is right here too, one by hash.
    Any other query gets one of its positives in the other task. Where several tasks or positives offer one, the choice is
    by hash, so that the rows of a query differ. The new negative is the first, and a row has as many negatives as before,
    at least one. Rows for which nothing is found come back as they are.

    Args:
        pairs_by_task: The rows of each task.
        scorer: Embeds the texts that have classes; `None` does without.
        cache: A folder for their vectors, or `None`.
        reports: By task, receives the counts: rows with an instruction negative, and without one by reason.
        block: Rows scored at a time; memory grows with block x number of texts with classes.

    Returns:
        The rows by task, in their order.

    Raises:
        ValueError: If `block` is less than 1.
    """
    if block < 1:
        raise ValueError(f"block must be 1 or more, not {block}.")
    tasks = [_Task(name, pairs) for name, pairs in pairs_by_task.items()]
    vectors = None if scorer is None else _embed_classed_texts(tasks, scorer, cache)
    found: dict[str, list[TextPair]] = {}
    for task in tasks:
        others = [other for other in tasks if other is not task]
        offers: dict[str, dict[str, None]] = defaultdict(dict)
        for other in others:
            for query, texts in _offer_texts(task, other, vectors, block).items():
                offers[query].update(dict.fromkeys(texts))
        counts: Counter[str] = Counter()
        found[task.name] = []
        for pair in task.pairs:
            changed = _add_negative(pair, list(offers[pair.query]), task)
            found[task.name].append(pair if changed is None else changed)
            stands_elsewhere = any(other.stands_here(pair.query) for other in others)
            counts[_MADE if changed is not None else _NOT_WRONG if stands_elsewhere else _NOT_SHARED] += 1
        if reports is not None:
            reports[task.name].update(counts)
    return found


_MADE = "rows with an instruction negative"
_NOT_SHARED = "rows without an instruction negative: the query stands in no other task"
_NOT_WRONG = "rows without an instruction negative: no text of another task is known to be wrong here"


class _Task:
    """A task's rows, and what they say of its texts: classes, positives, hard negatives and partners on either side."""

    def __init__(self, name: str, pairs: Sequence[TextPair]) -> None:
        self.name, self.pairs = name, pairs
        self.labels: dict[str, dict[str, None]] = {}
        self.positives: dict[str, dict[str, None]] = {}
        self._negatives: dict[str, set[str]] = {}
        self._partners: dict[str, set[str]] = {}
        for pair in pairs:
            self.positives.setdefault(pair.query, {})[pair.positive] = None
            self._negatives.setdefault(pair.query, set()).update(pair.negatives)
            for text, partner in ((pair.query, pair.positive), (pair.positive, pair.query)):
                self._partners.setdefault(text, set()).add(partner)
                if pair.label is not None:
                    self.labels.setdefault(text, {})[pair.label] = None

    def stands_here(self, text: str) -> bool:
        return text in self._partners

    def is_wrong(self, query: str, text: str) -> bool:
        """Tell whether a text is wrong for a query, as far as it can be known (see the module's description)."""
        partners, text_partners = (self._partners.get(each, set()) for each in (query, text))
        # The query itself shares all its partners.
        if text in partners or not partners.isdisjoint(text_partners):
            return False
        if query not in self.labels:
            return True
        if text not in self.labels:
            return text in self._negatives.get(query, set())
        return self.labels[text].keys().isdisjoint(self.labels[query])


class _SharedTexts:
    """The texts that have classes in two tasks."""

    def __init__(self, task: _Task, other: _Task) -> None:
        self.task, self.other = task, other
        self.numbers: dict[str, int] = {}
        for text in task.labels:
            if text in other.labels:
                self.numbers[text] = len(self.numbers)
        self.texts = list(self.numbers)
        self._own, self._others = (self._group_places(labels) for labels in (task.labels, other.labels))

    def mark_negatives(self, query: str) -> npt.NDArray[np.bool_]:
        """Mark the places of texts that share a class with the query in the other task and none in this one."""
        marked = np.zeros(len(self.texts), dtype=bool)
        for label in self.other.labels[query]:
            marked[self._others[label]] = True
        for label in self.task.labels[query]:
            marked[self._own[label]] = False
        return marked

    def _group_places(self, labels: Mapping[str, Mapping[str, None]]) -> dict[str, Places]:
        grouped: dict[str, list[int]] = defaultdict(list)
        for place, text in enumerate(self.texts):
            for label in labels[text]:
                grouped[label].append(place)
        return {label: np.array(places, dtype=np.int64) for label, places in grouped.items()}


@dataclass(frozen=True)
class _Vectors:
    """Vectors of all texts that have classes."""

    numbers: Mapping[str, int]
    values: Floats


def _embed_classed_texts(tasks: Iterable[_Task], scorer: Scorer, cache: Path | None) -> _Vectors:
    texts = list(dict.fromkeys(text for task in tasks for text in task.labels))
    numbers = {text: number for number, text in enumerate(texts)}
    return _Vectors(numbers, embed_texts(texts, scorer=scorer, cache=cache))


def _offer_texts(task: _Task, other: _Task, vectors: _Vectors | None, block: int) -> dict[str, list[str]]:
    """By query of a task, the texts that another task offers as negatives."""
    offers = {
        query: [text for text in other.positives.get(query, ()) if task.is_wrong(query, text)]
        for query in task.positives
    }
    shared = _SharedTexts(task, other)
    queries = [query for query in task.positives if query in shared.numbers]
    if vectors is not None:
        offers.update(_find_most_similar(shared, queries, vectors, block))
        return offers
    for query in queries:
        if not offers[query]:
            offers[query] = _draw_by_hash(shared, query)
    return offers


def _find_most_similar(
    shared: _SharedTexts, queries: Sequence[str], vectors: _Vectors, block: int
) -> Iterator[tuple[str, list[str]]]:
    if not queries:
        return
    values = vectors.values[[vectors.numbers[text] for text in shared.texts]]
    places = [shared.numbers[query] for query in queries]
    for query, place, (scores,) in zip(queries, places, score_rows([values], block=block, queries=places), strict=True):
        scores[~shared.mark_negatives(query)] = -np.inf
        best = find_best_places(scores, score=partial(_score_wrong_texts, shared, query, values, place))
        if best:
            yield query, [shared.texts[best[0]]]


def _score_wrong_texts(shared: _SharedTexts, query: str, values: Floats, place: int, others: Places) -> Scores:
    wrong = np.array([shared.task.is_wrong(query, shared.texts[other]) for other in others], dtype=bool)
    return np.where(wrong, score_exactly(values, place, others), -np.inf)


def _draw_by_hash(shared: _SharedTexts, query: str) -> list[str]:
    places = np.flatnonzero(shared.mark_negatives(query))
    start = _hash(shared.task.name, shared.other.name, query) % max(1, len(places))
    for place in np.roll(places, -start):
        if shared.task.is_wrong(query, shared.texts[place]):
            return [shared.texts[place]]
    return []


def _add_negative(pair: TextPair, offers: Sequence[str], task: _Task) -> TextPair | None:
    """Put one of the offered texts before a row's negatives; `None` if there is none."""
    if not offers:
        return None
    chosen = offers[_hash(task.name, pair.query, pair.positive) % len(offers)]
    negatives = (chosen, *(text for text in pair.negatives if text != chosen))
    return replace(pair, negatives=negatives[: max(1, len(pair.negatives))])


def _hash(*parts: str) -> int:
    data = json.dumps(parts).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
