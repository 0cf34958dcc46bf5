"""The search for hard negatives: sentence-transformers' own, given instructions a text and texts that are ruled out.

`mine_hard_negatives` takes strings, one prompt a call, and knows no classes. It is handed numbers in place of texts, a
lookup of vectors in place of the model, and in the vectors a few columns more, which put a query far from all texts of
its class.
"""

from __future__ import annotations

import contextlib
import io
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from instructor_st.data.mining.options import MiningOptions
from instructor_st.pairs import InstructedText

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder

__all__ = ["PairScorer", "Searched", "SearchedQuery", "load_cross_encoder", "search_negatives"]

_Vectors = NDArray[np.float32]

_FAR = 4.0
"""Taken off the similarity of a query and a text of its class: more than lies between the nearest and the farthest."""
_LABELS_PER_SEARCH = 64
"""Each class costs a column in the vectors of a search."""
_SCORES_AT_ONCE = 2**27
"""Scores that are held at once, half a gigabyte of them."""


@dataclass(frozen=True)
class SearchedQuery:
    """A query, and the candidates that are not to be its negatives.

    Attributes:
        text: The query.
        right: Places of the candidates that are right for it; its least similar one sets the margins.
        labels: Its classes; candidates of a class of them are ruled out.
    """

    text: InstructedText
    right: tuple[int, ...]
    labels: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes:
        places: For each query the places of its negatives among the candidates, the most similar first.
        refused: Candidates that the cross-encoder's scores took out, over all queries.
    """

    places: tuple[tuple[int, ...], ...]
    refused: int = 0


def load_cross_encoder(cross_encoder: str | CrossEncoder | None, options: MiningOptions) -> CrossEncoder | None:
    """Load the cross-encoder, if there is to be one.

    Args:
        cross_encoder: It, or its name.
        options: What its scores are held against.

    Returns:
        The cross-encoder.

    Raises:
        ValueError: If it has nothing to refuse by, or gives several scores a pair.
    """
    if cross_encoder is None:
        return None
    if not options.has_limits:
        raise ValueError(
            "A cross-encoder refuses candidates by a margin or a score limit, and none is set; set relative_margin=0.05."
        )
    from sentence_transformers import CrossEncoder

    loaded = CrossEncoder(cross_encoder) if isinstance(cross_encoder, str) else cross_encoder
    if (scores := getattr(loaded, "num_labels", 1)) != 1:
        raise ValueError(f"The cross-encoder gives {scores} scores a pair; one that gives a single score is needed.")
    return loaded


class PairScorer:
    """A cross-encoder that scores no pair of texts twice, whatever their instructions."""

    def __init__(self, model: CrossEncoder):
        self._model = model
        self._known: dict[tuple[str, str], float] = {}

    def score(self, pairs: Sequence[tuple[str, str]], *, batch_size: int = 32) -> list[float]:
        """Score pairs.

        Args:
            pairs: A query and a candidate each.
            batch_size: Pairs that are scored at once.

        Returns:
            Their scores.
        """
        if new := [pair for pair in dict.fromkeys(pairs) if pair not in self._known]:
            scores = self._model.predict(new, batch_size=batch_size, show_progress_bar=False)
            self._known.update(zip(new, np.asarray(scores, dtype=np.float32).tolist(), strict=True))
        return [self._known[pair] for pair in pairs]


def search_negatives(
    queries: Sequence[SearchedQuery],
    query_vectors: _Vectors,
    document_vectors: _Vectors,
    *,
    candidates: Sequence[str],
    labels: Sequence[frozenset[str]],
    options: MiningOptions,
    use_faiss: bool = False,
    seed: str = "",
    device: Any = "cpu",
    pair_scorer: PairScorer | None = None,
) -> Searched:
    """Search the candidates for each query's hard negatives.

    Args:
        queries: The queries.
        query_vectors: Their unit vectors.
        document_vectors: The candidates' unit vectors.
        candidates: The candidates' texts, no two alike.
        labels: The candidates' classes.
        options: How they are chosen.
        use_faiss: Whether to search with FAISS; `options.faiss` is not looked at here.
        seed: Of the draws.
        device: Where similarities are computed.
        pair_scorer: Scores the candidates anew, by their texts without instructions, before margins and limits apply.

    Returns:
        The negatives of each query, fewer than `num_negatives` where there are no more.
    """
    found: dict[int, tuple[int, ...]] = {}
    refused = 0
    for number, (group, columns) in enumerate(_group_by_labels(queries)):
        members = [queries[place] for place in group]
        lookup = _VectorLookup(
            np.hstack([query_vectors[group], -_FAR * _mark([query.labels for query in members], columns)]),
            np.hstack([document_vectors, _mark(labels, columns)]),
            dimension=document_vectors.shape[1],
            device=device,
        )
        scorer = _TextScorer(pair_scorer, members, candidates, labels, options) if pair_scorer else None
        mined = _call_library(members, lookup, scorer, options=options, use_faiss=use_faiss, seed=f"{seed}/{number}")
        found.update((group[member], places) for member, places in mined.items())
        refused += scorer.count_refused() if scorer else 0
    return Searched(tuple(found.get(place, ()) for place in range(len(queries))), refused)


def _group_by_labels(queries: Sequence[SearchedQuery]) -> Iterator[tuple[list[int], dict[str, int]]]:
    """Yield the places of queries that are searched together, and the column of each of their classes."""
    group: list[int] = []
    columns: dict[str, int] = {}
    # Queries of a class stand together, so that few classes come in several groups.
    for place in sorted(range(len(queries)), key=lambda place: (min(queries[place].labels, default=""), place)):
        own = sorted(queries[place].labels - columns.keys())
        if columns and len(columns) + len(own) > _LABELS_PER_SEARCH:
            yield group, columns
            group, columns, own = [], {}, sorted(queries[place].labels)
        group.append(place)
        for label in own:
            columns[label] = len(columns)
    if group:
        yield group, columns


def _mark(labels: Sequence[frozenset[str]], columns: dict[str, int]) -> _Vectors:
    marks: _Vectors = np.zeros((len(labels), len(columns)), dtype=np.float32)
    for place, own in enumerate(labels):
        for label in own & columns.keys():
            marks[place, columns[label]] = 1
    return marks


class _VectorLookup:
    """Stands in for the model: it is asked for the vectors of numbers, which are the texts' places."""

    def __init__(self, queries: _Vectors, documents: _Vectors, *, dimension: int, device: Any):
        self.queries, self.documents, self.device = queries, documents, device
        self._dimension = dimension

    def get_embedding_dimension(self) -> int:
        return int(self.documents.shape[1])

    def encode_query(self, keys: Sequence[str], **_: Any) -> _Vectors:
        return self.queries[[int(key) for key in keys]]

    def encode_document(self, keys: Sequence[str], **_: Any) -> _Vectors:
        return self.documents[[int(key) for key in keys]]

    def similarity(self, queries: Any, documents: Any) -> torch.Tensor:
        return self._as_tensor(queries) @ self._as_tensor(documents).T

    def similarity_pairwise(self, queries: Any, documents: Any) -> torch.Tensor:
        # A query and its positive are of one class: the columns that keep them apart do not count here.
        own = [self._as_tensor(vectors)[:, : self._dimension] for vectors in (queries, documents)]
        return (own[0] * own[1]).sum(1)

    def _as_tensor(self, vectors: Any) -> torch.Tensor:
        import torch

        return torch.as_tensor(vectors).to(self.device)


@dataclass
class _TextScorer:
    """Stands in for the cross-encoder: it is given numbers and scores the texts."""

    pair_scorer: PairScorer
    queries: Sequence[SearchedQuery]
    candidates: Sequence[str]
    labels: Sequence[frozenset[str]]
    options: MiningOptions
    scores: dict[tuple[int, int], float] = field(default_factory=dict)

    def predict(self, keys: Sequence[tuple[str, str]], *, batch_size: int = 32, **_: Any) -> torch.Tensor:
        import torch

        pairs = [(int(query), int(document)) for query, document in keys]
        asked = [pair for pair in pairs if not self._are_of_one_class(*pair)]
        texts = [(self.queries[query].text.text, self.candidates[document]) for query, document in asked]
        self.scores.update(zip(asked, self.pair_scorer.score(texts, batch_size=batch_size), strict=True))
        return torch.tensor([self.scores.get(pair, float("-inf")) for pair in pairs])

    def count_refused(self) -> int:
        by_query: dict[int, dict[int, float]] = defaultdict(dict)
        for (query, document), score in self.scores.items():
            by_query[query][document] = score
        refused = 0
        for query, scores in by_query.items():
            right = self.queries[query].right
            lowest = min(scores[document] for document in right)
            others = (score for document, score in scores.items() if document not in right)
            refused += sum(self.options.refuses(score, lowest) for score in others)
        return refused

    def _are_of_one_class(self, query: int, document: int) -> bool:
        own = self.queries[query]
        return document not in own.right and not own.labels.isdisjoint(self.labels[document])


def _call_library(
    queries: Sequence[SearchedQuery],
    lookup: _VectorLookup,
    scorer: _TextScorer | None,
    *,
    options: MiningOptions,
    use_faiss: bool,
    seed: str,
) -> dict[int, tuple[int, ...]]:
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    pairs = [(str(place), str(document)) for place, query in enumerate(queries) for document in query.right]
    size = len(lookup.documents)
    min_score = options.min_score
    if scorer is None:
        # Texts of the query's class lie below any similarity, and are taken out as too dissimilar.
        min_score = -2.0 if min_score is None else max(-2.0, min_score)
    state = random.getstate()  # the library draws from the global generator
    random.seed(seed)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars cannot be switched off
            mined = mine_hard_negatives(
                Dataset.from_dict({"query": [query for query, _ in pairs], "positive": [right for _, right in pairs]}),
                lookup,  # type: ignore[arg-type]
                corpus=[str(place) for place in range(size)],
                cross_encoder=scorer,  # type: ignore[arg-type]
                num_negatives=options.num_negatives,
                range_min=options.range_min,
                range_max=options.range_max,
                max_score=options.max_score,
                min_score=min_score,
                absolute_margin=options.absolute_margin,
                relative_margin=options.relative_margin,
                sampling_strategy=options.sampling_strategy,
                output_format="labeled-list",
                batch_size=options.batch_size,
                faiss_batch_size=max(1, min(16_384, _SCORES_AT_ONCE // size)),
                use_faiss=use_faiss,
                verbose=False,
            )
    finally:
        random.setstate(state)
    # A query with several right texts comes several times, each time with the same negatives after one of them.
    return {int(record["query"]): tuple(int(place) for place in record["positive"][1:]) for record in mined}
