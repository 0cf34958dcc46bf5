"""Hard negatives for the rows of a task, found by a model among the task's own documents."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from instructor_st.data.mining.options import MiningOptions
from instructor_st.data.mining.search import PairScorer, SearchedQuery, load_cross_encoder, search_negatives
from instructor_st.data.mining.vectors import encode_instructed
from instructor_st.data.schema import Row
from instructor_st.pairs import InstructedText

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

__all__ = ["MinedTask", "MiningOptions", "mine_task_negatives"]

_Key = tuple[str, InstructedText]
_RIGHT = "right text of the query"
_LABEL = "same label"


@dataclass(frozen=True)
class MinedTask:
    """A task's rows with hard negatives.

    Attributes:
        rows: The rows, in the order they came in.
        counts: `rows`, `candidates`, `negatives kept` and `negatives mined`; `rows with fewer negatives: ...` by reason
            (`too few candidates`, or all others refused by `margins and score limits`); `left out: ...`, rows;
            `present negatives left out: ...`, by reason; `candidates refused: ...`, summed over the different queries:
            texts of the `same label`, each `right text of the query` beside the rows' own (the query itself is one),
            and what the `cross-encoder` took out of those that it scored.
        seconds: How long it took.
    """

    rows: tuple[Row, ...]
    counts: Mapping[str, int]
    seconds: float


def mine_task_negatives(
    rows: Sequence[Row],
    model: SentenceTransformer,
    *,
    options: MiningOptions | None = None,
    cross_encoder: str | CrossEncoder | None = None,
    cache_folder: str | Path | None = None,
    identity: str | None = None,
    show_progress_bar: bool = False,
) -> MinedTask:
    """Give the rows of one task hard negatives from the task's own positives and negatives.

    Both sides are embedded with the row's own instructions, and a row's new negatives carry its positive's instruction;
    where documents have several wordings, the candidates are embedded with each. Never negatives, whatever their case
    and spaces: the query itself, texts that are its positives anywhere in the task, texts whose positive it is, and
    texts of a class of the query. A row's present negatives stay first, but for those that this rules out too.

    Args:
        rows: The rows.
        model: An instruction model, or a stock one, to which the instructions are prompts.
        options: How negatives are chosen.
        cross_encoder: A cross-encoder or its name; margins and score limits then apply to its scores of query and
            candidate, without instructions.
        cache_folder: Keeps the vectors for the next time, if given.
        identity: The model's `fingerprint_model` for the cache, if it is known already.
        show_progress_bar: Whether to show the progress of the embedding.

    Returns:
        The rows and what was found, the same for the same seed.

    Raises:
        ValueError: If the rows are of several tasks, or there is a cross-encoder and no margin or score limit.
        ImportError: If FAISS is asked for and not installed.
    """
    started = time.perf_counter()
    options = options or MiningOptions()
    if len(tasks := sorted({row.task for row in rows})) > 1:
        raise ValueError(f"The rows are of the tasks {', '.join(tasks[:5])}; mine them one by one.")
    texts, counts = _TaskTexts(rows), Counter(rows=len(rows))
    counts["candidates"] = len(texts.candidates)
    drafts = [_draft_row(row, texts, options, counts) for row in rows]

    def embed(inputs: Sequence[InstructedText]) -> NDArray[np.float32]:
        return encode_instructed(
            inputs,
            model,
            batch_size=options.batch_size,
            cache_folder=cache_folder,
            identity=identity,
            show_progress_bar=show_progress_bar,
        )

    found = _search_task(
        [draft for draft in drafts if draft.missing],
        texts,
        counts,
        embed=embed,
        options=options,
        use_faiss=options.uses_faiss(len(texts.candidates)),
        cross_encoder=load_cross_encoder(cross_encoder, options),
        device=getattr(model, "device", "cpu"),
    )
    mined = [_complete_row(draft, found.get(draft.key), options, counts) for draft in drafts]
    complete = tuple(row for row in mined if row is not None)
    return MinedTask(complete, dict(sorted(counts.items())), time.perf_counter() - started)


@dataclass(frozen=True)
class _Draft:
    """A row, the negatives of it that stay and how many it misses."""

    row: Row
    kept: tuple[InstructedText, ...]
    missing: int

    @property
    def key(self) -> _Key:
        """Rows that are alike in this have the same candidates."""
        return self.row.positive.instruction, self.row.query


@dataclass(frozen=True)
class _Found:
    """What a search gave a query.

    Attributes:
        negatives: The most similar first.
        allowed: How many candidates nothing but margins, score limits and rank kept from it.
    """

    negatives: tuple[str, ...]
    allowed: int


class _TaskTexts:
    """What a task's rows say of its texts: which may be negatives, and of which queries they must not be."""

    def __init__(self, rows: Sequence[Row]):
        self._right: dict[str, set[str]] = defaultdict(set)
        self._labels: dict[str, set[str]] = defaultdict(set)
        texts: dict[str, None] = {}
        for row in rows:
            texts.update(
                dict.fromkeys([row.positive.text, *(each.text for each in row.negatives if each.text.strip())])
            )
            query, positive = _fold(row.query.text), _fold(row.positive.text)
            self._right[query] |= {query, positive}
            self._right[positive].add(query)
            if row.label is not None:
                self._labels[query].add(row.label)
                self._labels[positive].add(row.label)
        self.candidates = list(texts)

    @cached_property
    def labels(self) -> list[frozenset[str]]:
        """The candidates' classes."""
        return [self.find_labels(text) for text in self.candidates]

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        places: dict[str, list[int]] = defaultdict(list)
        for place, text in enumerate(self.candidates):
            places[_fold(text)].append(place)
        return places

    @cached_property
    def _places_by_label(self) -> dict[str, set[int]]:
        places: dict[str, set[int]] = defaultdict(set)
        for place, labels in enumerate(self.labels):
            for label in labels:
                places[label].add(place)
        return places

    def find_labels(self, text: str) -> frozenset[str]:
        """The classes of the rows in which a text is the query or the positive."""
        return frozenset(self._labels.get(_fold(text), ()))

    def find_right(self, query: str) -> tuple[int, ...]:
        """The candidates that are right for a query text."""
        return tuple(sorted(place for text in self._right[_fold(query)] for place in self._places.get(text, ())))

    def count_of_class(self, query: SearchedQuery) -> int:
        """How many other candidates are of a class of the query."""
        groups = [self._places_by_label.get(label, set()) for label in query.labels]
        of_class = groups[0] if len(groups) == 1 else set().union(*groups)
        return len(of_class) - sum(place in of_class for place in query.right)

    def find_fault(self, row: Row, negative: InstructedText) -> str | None:
        """Why a text must not be a negative of a row; with another instruction it may be one for that instruction."""
        if negative.instruction != row.positive.instruction:
            return None
        if _fold(negative.text) in self._right[_fold(row.query.text)]:
            return _RIGHT
        return None if self.find_labels(row.query.text).isdisjoint(self.find_labels(negative.text)) else _LABEL


def _search_task(
    drafts: Sequence[_Draft],
    texts: _TaskTexts,
    counts: Counter[str],
    *,
    embed: Callable[[Sequence[InstructedText]], NDArray[np.float32]],
    options: MiningOptions,
    use_faiss: bool,
    cross_encoder: CrossEncoder | None,
    device: Any,
) -> dict[_Key, _Found]:
    """Search the candidates in each wording of the documents for the queries that go with it."""
    if not drafts:
        return {}
    queries: dict[str, dict[InstructedText, SearchedQuery]] = defaultdict(dict)
    own: dict[_Key, set[str]] = defaultdict(set)
    for draft in drafts:
        wording, query = draft.key
        queries[wording][query] = SearchedQuery(query, texts.find_right(query.text), texts.find_labels(query.text))
        own[draft.key].add(draft.row.positive.text)
    vectors = _embed_sides(queries, texts.candidates, embed)
    pair_scorer = PairScorer(cross_encoder) if cross_encoder else None
    found: dict[_Key, _Found] = {}
    for wording, group in queries.items():
        searched = search_negatives(
            list(group.values()),
            *vectors[wording],
            candidates=texts.candidates,
            labels=texts.labels,
            options=options,
            use_faiss=use_faiss,
            seed=f"{options.seed}/{drafts[0].row.task}/{wording}",
            device=device,
            pair_scorer=pair_scorer,
        )
        counts["candidates refused: cross-encoder"] += searched.refused
        for about, places in zip(group.values(), searched.places, strict=True):
            of_class = texts.count_of_class(about)
            counts[f"candidates refused: {_LABEL}"] += of_class
            counts[f"candidates refused: {_RIGHT}"] += len(about.right) - len(own[wording, about.text])
            allowed = len(texts.candidates) - len(about.right) - of_class
            found[wording, about.text] = _Found(tuple(texts.candidates[place] for place in places), allowed)
    return found


def _embed_sides(
    queries: Mapping[str, Iterable[InstructedText]],
    candidates: Sequence[str],
    embed: Callable[[Sequence[InstructedText]], NDArray[np.float32]],
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Embed the queries and, in each wording, the candidates; nothing twice."""
    documents = {wording: [InstructedText(wording, text) for text in candidates] for wording in queries}
    # One list in one order: batches, and so the last digits of vectors, depend on it.
    numbers: dict[InstructedText, int] = {}
    for group in (*queries.values(), *documents.values()):
        for each in group:
            numbers.setdefault(each, len(numbers))
    vectors = embed(list(numbers))

    def look_up(group: Iterable[InstructedText]) -> NDArray[np.float32]:
        return vectors[[numbers[each] for each in group]]

    return {wording: (look_up(group), look_up(documents[wording])) for wording, group in queries.items()}


def _draft_row(row: Row, texts: _TaskTexts, options: MiningOptions, counts: Counter[str]) -> _Draft:
    kept = []
    for negative in row.negatives:
        if not options.keep_existing:
            counts["present negatives left out: replaced"] += 1
        elif fault := texts.find_fault(row, negative):
            counts[f"present negatives left out: {fault}"] += 1
        else:
            kept.append(negative)
    return _Draft(row, tuple(kept), max(0, options.num_negatives - len(kept)))


def _complete_row(draft: _Draft, found: _Found | None, options: MiningOptions, counts: Counter[str]) -> Row | None:
    row, kept = draft.row, draft.kept
    new: list[str] = []
    if found is not None:
        # Texts that differ in case and spaces only are different candidates, but one row needs no two of them.
        seen = {_fold(negative.text) for negative in kept}
        for text in found.negatives:
            if _fold(text) not in seen:
                seen.add(_fold(text))
                new.append(text)
        if options.sampling_strategy == "random" and len(new) > draft.missing:
            draw = random.Random(f"{options.seed}/{row.task}/{row.query}/{row.positive}")
            new = [new[place] for place in sorted(draw.sample(range(len(new)), draft.missing))]
        new = new[: draft.missing]
        if len(new) < draft.missing:
            is_small = found.allowed < options.range_min + options.num_negatives
            reason = "too few candidates" if is_small else "margins and score limits"
            counts[f"rows with fewer negatives: {reason}"] += 1
            if options.drop_incomplete:
                counts["left out: fewer negatives than wanted"] += 1
                return None
    counts["negatives kept"] += len(kept)
    counts["negatives mined"] += len(new)
    return replace(row, negatives=(*kept, *(InstructedText(row.positive.instruction, text) for text in new)))


def _fold(text: str) -> str:
    """Texts that differ in case and spaces only are the same answer."""
    return " ".join(text.casefold().split())
