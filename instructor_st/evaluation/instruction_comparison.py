"""Comparison of instructions on labelled texts, with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sentence_transformers import SentenceTransformer

from instructor_st.data.labelled import LabelledTexts
from instructor_st.evaluation.bootstrap import Interval, Metric, draw_samples, find_interval
from instructor_st.evaluation.candidates import InstructionCandidate

__all__ = ["InstructionComparison", "InstructionScore", "compare_instructions"]

Array = npt.NDArray[Any]

_METRIC_NAMES = {
    "classes": "nearest-neighbour accuracy",
    "scores": "Spearman correlation",
    "matches": "average precision",
    "answers": "mean reciprocal rank",
}


@dataclass(frozen=True)
class InstructionScore:
    """How good a candidate is.

    Attributes:
        candidate: The candidate.
        score: The metric.
        gain: Its difference to no instruction, on the same bootstrap samples.
    """

    candidate: InstructionCandidate
    score: Interval
    gain: Interval


@dataclass(frozen=True)
class InstructionComparison:
    """Candidates, best first.

    Attributes:
        metric: The metric's name.
        rows: Number of rows.
        scores: One a candidate, the one without instruction among them.
        best_over_worst: The best candidate's difference to the worst instruction.
        best_over_none: The best candidate's difference to no instruction. Choosing the best of many flatters it.
        cross_fitted_gain: The same, when one half of the rows chooses and the other half measures, averaged over both
            ways: what to expect on new texts.
    """

    metric: str
    rows: int
    scores: tuple[InstructionScore, ...]
    best_over_worst: Interval
    best_over_none: Interval
    cross_fitted_gain: float


def compare_instructions(
    model: SentenceTransformer,
    rows: LabelledTexts,
    *,
    candidates: Sequence[InstructionCandidate],
    resamples: int = 1000,
    seed: int = 0,
    batch_size: int = 32,
    show_progress_bar: bool = False,
) -> InstructionComparison:
    """Measure candidate instructions on labelled texts.

    The metric follows from the labels: nearest-neighbour accuracy, each text against all others (classes); Spearman's
    rank correlation of cosine and score (scores); average precision of the cosine (matches); mean reciprocal rank of
    the positive among all documents (answers). Intervals are percentile bootstraps over rows (Efron and Tibshirani
    1993, chapter 13); for classes and answers the neighbours are those of the whole sample.

    Args:
        model: An instruction model.
        rows: Labelled texts.
        candidates: The candidates; no instruction is measured in any case.
        resamples: Number of bootstrap samples.
        seed: Of the bootstrap and of the halves.
        batch_size: Inputs embedded at once.
        show_progress_bar: Whether to show the candidates' progress.

    Returns:
        The comparison.

    Raises:
        ValueError: If the texts have no labels, there are fewer than ten rows, or there is no candidate.
    """
    from tqdm.auto import tqdm

    if rows.kind == "none":
        raise ValueError("The texts have no labels to measure instructions with.")
    if len(rows.queries) < 10:
        raise ValueError(f"{len(rows.queries)} rows are too few to compare instructions; ten are the least.")
    plain = InstructionCandidate("", "", "none")
    tried = list(dict.fromkeys([plain, *candidates]))
    if len(tried) < 2:
        raise ValueError("There is no candidate instruction.")
    progress = tqdm(tried, desc="Measuring instructions", unit="instruction", disable=not show_progress_bar)
    metrics = [_build_metric(model, rows, candidate, batch_size) for candidate in progress]
    everything = np.arange(len(rows.queries))
    samples = draw_samples(len(everything), resamples=resamples, seed=seed)
    values = np.array([metric(everything) for metric in metrics])
    bootstrap = np.array([[metric(sample) for sample in samples] for metric in metrics])
    scores = [
        InstructionScore(candidate, find_interval(value, drawn), find_interval(value - values[0], drawn - bootstrap[0]))
        for candidate, value, drawn in zip(tried, values, bootstrap, strict=True)
    ]
    best = 1 + int(np.argmax(values[1:]))
    worst = 1 + int(np.argmin(values[1:]))
    return InstructionComparison(
        metric=_METRIC_NAMES[rows.kind],
        rows=len(everything),
        scores=tuple(sorted(scores, key=lambda score: -score.score.value)),
        best_over_worst=find_interval(values[best] - values[worst], bootstrap[best] - bootstrap[worst]),
        best_over_none=scores[best].gain,
        cross_fitted_gain=_cross_fit(metrics, len(everything), seed),
    )


def _cross_fit(metrics: Sequence[Metric], rows: int, seed: int) -> float:
    order = np.random.default_rng([seed, 1]).permutation(rows)
    halves = order[: rows // 2], order[rows // 2 :]
    gains = []
    for chooses, measures in (halves, halves[::-1]):
        best = 1 + int(np.argmax([metric(chooses) for metric in metrics[1:]]))
        gains.append(metrics[best](measures) - metrics[0](measures))
    return float(np.mean(gains))


def _build_metric(
    model: SentenceTransformer, rows: LabelledTexts, candidate: InstructionCandidate, batch_size: int
) -> Metric:
    """Embed the texts under a candidate; the metric then takes row numbers."""

    def embed(texts: Sequence[str], instruction: str) -> Array:
        inputs = [[instruction, text] for text in texts]
        vectors = model.encode(inputs, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    queries = embed(rows.queries, candidate.query)
    if rows.kind == "classes":
        return _average(_match_neighbours(queries, rows.labels))
    if rows.kind == "answers":
        documents = list(dict.fromkeys(text for group in rows.documents for text in group))
        return _average(_rank_positives(rows, documents, queries @ embed(documents, candidate.document).T))
    # Pairs are symmetric here: both sides carry the query's instruction.
    others = embed([group[0] for group in rows.documents], candidate.query)
    similarities = np.sum(queries * others, axis=1)
    return _rate_pairs(similarities, np.array(rows.labels, dtype=float), rows.kind)


def _average(outcomes: Array) -> Metric:
    return lambda sample: float(outcomes[sample].mean())


def _match_neighbours(vectors: Array, labels: Sequence[Any]) -> Array:
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -np.inf)
    classes = np.array(labels)
    return np.asarray(classes[similarities.argmax(axis=1)] == classes, dtype=float)


def _rank_positives(rows: LabelledTexts, documents: Sequence[str], similarities: Array) -> Array:
    places = {text: place for place, text in enumerate(documents)}
    own = similarities[np.arange(len(rows.queries)), [places[group[0]] for group in rows.documents]]
    return np.asarray(1 / (similarities >= own[:, None]).sum(axis=1))


def _rate_pairs(similarities: Array, labels: Array, kind: str) -> Metric:
    if kind == "scores":
        from scipy.stats import spearmanr

        return lambda sample: float(spearmanr(similarities[sample], labels[sample]).statistic)
    from sklearn.metrics import average_precision_score

    return lambda sample: float(average_precision_score(labels[sample], similarities[sample]))
