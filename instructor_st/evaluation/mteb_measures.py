"""Measures of own data through mteb: its protocol and main score, and that score on any rows for intervals."""

from __future__ import annotations

import json
import math
import random
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import mteb
import numpy as np
import numpy.typing as npt

from instructor_st.evaluation.bootstrap import Metric
from instructor_st.evaluation.embedder import InstructedEmbedder
from instructor_st.evaluation.measurement import Measurement
from instructor_st.evaluation.mteb import InstructionEncoder
from instructor_st.evaluation.mteb_tasks import SPLIT, TaskData, build_mteb_task, read_task_data
from instructor_st.evaluation.own_data import DataSet
from instructor_st.evaluation.own_data_queries import JudgedQueries
from instructor_st.evaluation.own_data_rows import ClassTexts, JudgedPairs, ScoredPairs
from instructor_st.evaluation.task_instructions import TaskInstruction

__all__ = ["measure_data_set", "measure_task_data"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_OTHERS = {
    "STS": ("cosine_pearson", "spearman", "euclidean_spearman"),
    "PairClassification": ("cosine_ap", "max_f1", "max_accuracy"),
    "Classification": ("f1", "f1_weighted", "ap"),
    "Clustering": ("v_measure_std", "ami"),
    "Retrieval": ("map_at_10", "mrr_at_10", "recall_at_10", "recall_at_100"),
}


def measure_data_set(
    embedder: InstructedEmbedder,
    data_set: DataSet,
    instruction: TaskInstruction,
    *,
    limit: int | None = None,
    seed: int = 0,
) -> Measurement:
    """Measure a data set of a kind that mteb has, by mteb's protocol.

    Args:
        embedder: Of the model.
        data_set: The data set.
        instruction: Its instructions.
        limit: Evaluate at most so many rows, for retrieval queries.
        seed: Of the rows drawn and of mteb's draws; 0 is mteb's own seed.

    Returns:
        The measurement; see `measure_task_data`.

    Raises:
        ValueError: If mteb does not have the kind, the files are at fault, or the model gives NaN.
    """
    data = read_task_data(data_set, limit=limit, seed=seed)
    return measure_task_data(embedder, data, instruction, name=data_set.name, seed=seed)


def measure_task_data(
    embedder: InstructedEmbedder, data: TaskData, instruction: TaskInstruction, *, name: str, seed: int = 0
) -> Measurement:
    """Run mteb's task on rows that have been read, and make its main score a metric over rows.

    The rows of the metric, and how it goes on from mteb's predictions:

    - sts: pairs; Spearman's correlation of cosine similarity and score;
    - pair_classification: pairs; the greatest average precision of mteb's similarity functions;
    - classification: test texts; accuracy, the mean over mteb's experiments. Training texts are not drawn again;
    - clustering: documents; V-measure, the mean over mteb's experiments, whose clusters are not computed again. On rows
      other than all it is the first-order change of the V-measure with the documents' weights (the infinitesimal
      jackknife, Efron and Tibshirani 1993, chapter 21): the V-measure itself rises when documents are repeated, so that
      its plain bootstrap lies above the value;
    - retrieval: queries; the mean nDCG@10. mteb rounds it to five decimals, the metric does not.

    Args:
        embedder: Of the model.
        data: The rows.
        instruction: The task's instructions.
        name: The task's name.
        seed: Of mteb's draws; 0 is mteb's own seed.

    Returns:
        The measurement. `others` has further scores of mteb, and its own `main_score`.

    Raises:
        ValueError: If the model gives NaN, or the score is not defined.
    """
    task = build_mteb_task(name, data, seed=seed)
    main_score, task_type = task.metadata.main_score, task.metadata.type
    encoder = InstructionEncoder(embedder, instructions={name: instruction}, name="local/model", revision="measured")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        found = mteb.evaluate(
            encoder,
            task,
            co2_tracker=False,
            encode_kwargs={"batch_size": embedder.batch_size, "show_progress_bar": embedder.show_progress_bar},
            cache=None,
            prediction_folder=folder,
            show_progress_bar=False,
        )
        saved = json.loads(Path(folder, task.prediction_file_name).read_text(encoding="utf-8"))
    scores = found.task_results[0].scores[SPLIT][0]
    if not math.isfinite(scores["main_score"]):
        raise ValueError(f"{name}: {main_score} is {scores['main_score']}; are all embeddings equal?")
    others = {key: float(scores[key]) for key in _OTHERS[task_type] if _is_number(scores.get(key))}
    others["main_score"] = float(scores["main_score"])
    rows = len(data.queries if isinstance(data, JudgedQueries) else _list_rows(data))
    metric = _build_metric(data, saved["default"][SPLIT], seed=task.seed)
    return Measurement(main_score, rows, metric, others, dict(data.left_out))


def _build_metric(data: TaskData, predictions: Any, *, seed: int) -> Metric:
    if isinstance(data, ScoredPairs):
        return _build_spearman(predictions, np.asarray(data.scores, dtype=float))
    if isinstance(data, JudgedPairs):
        return _build_average_precision(predictions, np.asarray(data.labels))
    if isinstance(data, JudgedQueries):
        return _build_mean(_score_queries(data, predictions))
    if data.train_texts:
        return _build_mean(_score_texts(data, predictions))
    return _build_mean(_score_documents(data, predictions["Level 0"], seed=seed))


def _build_mean(values: Floats) -> Metric:
    return lambda rows: float(values[rows].mean())


def _build_spearman(predictions: Mapping[str, list[float]], scores: Floats) -> Metric:
    from scipy.stats import rankdata

    similarities = np.asarray(predictions["cosine_scores"], dtype=float)

    def measure(rows: Integers) -> float:
        first, second = rankdata(similarities[rows]), rankdata(scores[rows])
        first, second = first - first.mean(), second - second.mean()
        norm = math.sqrt(float(first @ first) * float(second @ second))
        return float(first @ second) / norm if norm else math.nan

    return measure


def _build_average_precision(predictions: Mapping[str, list[float]], labels: Integers) -> Metric:
    # Distances are turned round, as mteb does.
    signs = {
        "similarity_scores": 1,
        "cosine_scores": 1,
        "dot_scores": 1,
        "manhattan_distances": -1,
        "euclidean_distances": -1,
    }
    ranked = []
    for name, sign in signs.items():
        scores = sign * np.asarray(predictions[name], dtype=float)
        order = np.argsort(-scores, kind="stable")
        # Ties share a threshold: only the last row of each counts.
        last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
        ranked.append((order, last))

    def measure(rows: Integers) -> float:
        counts = np.bincount(rows, minlength=len(labels))
        if not (counts @ labels):
            return math.nan
        return max(_average_precision(counts, labels, order, last) for order, last in ranked)

    return measure


def _average_precision(counts: Integers, labels: Integers, order: Integers, last: Integers) -> float:
    """Sum of (recall step) x (precision) over thresholds, as scikit-learn's, for rows that count several times."""
    counts, labels = counts[order], labels[order]
    positives, all_rows = np.cumsum(counts * labels)[last], np.cumsum(counts)[last]
    steps = np.diff(positives, prepend=0)
    return float((steps * positives / np.maximum(all_rows, 1)).sum() / positives[-1])


def _score_texts(data: ClassTexts, predictions: list[list[int]]) -> Floats:
    numbers = {label: place for place, label in enumerate(sorted({*data.labels, *data.train_labels}))}
    right = np.asarray([numbers[label] for label in data.labels])
    return np.asarray((np.asarray(predictions) == right).mean(axis=0), dtype=float)


def _score_queries(data: JudgedQueries, predictions: dict[str, dict[str, float]]) -> Floats:
    import pytrec_eval

    evaluator = pytrec_eval.RelevanceEvaluator(
        {key: dict(each) for key, each in data.judgements.items()}, {"ndcg_cut.10"}
    )
    scores = evaluator.evaluate(predictions)
    return np.asarray([scores[key]["ndcg_cut_10"] for key in data.queries])


def _score_documents(data: ClassTexts, assignments: list[list[int]], *, seed: int) -> Floats:
    """Give each document the value whose mean over all is the V-measure, and over others its first-order change."""
    places = {label: place for place, label in enumerate(sorted(set(data.labels)))}
    labels = np.asarray([places[label] for label in data.labels])
    draws = random.Random(seed)
    values = []
    for clusters in assignments:
        # What AbsTaskClustering draws from its generator, which it does not save.
        drawn = np.asarray(draws.choices(range(len(labels)), k=len(clusters)))
        table = np.zeros((max(clusters) + 1, len(places)))
        np.add.at(table, (clusters, labels[drawn]), 1)
        value, slopes = _differentiate_v_measure(table)
        weights = np.bincount(drawn, weights=slopes[clusters, labels[drawn]], minlength=len(labels))
        values.append(value + len(labels) * weights)
    return np.asarray(np.mean(values, axis=0), dtype=float)


def _differentiate_v_measure(table: Floats) -> tuple[float, Floats]:
    """Give the V-measure of a cluster x class table of counts and its derivative by each count.

    With the entropies of clusters K, of classes C and of both, V = 2 - 2 H(K, C) / (H(K) + H(C)) (Rosenberg and
    Hirschberg 2007, beta = 1), and dH / dn = (-log p - H) / N for the share p that a count n belongs to.
    """
    total = table.sum()
    shares = table / total
    both, both_slopes = _differentiate_entropy(shares, total)
    clusters, cluster_slopes = _differentiate_entropy(shares.sum(axis=1, keepdims=True), total)
    classes, class_slopes = _differentiate_entropy(shares.sum(axis=0, keepdims=True), total)
    alone = clusters + classes
    if not alone:
        return 1.0, np.zeros_like(table)
    slopes = -2 * (both_slopes * alone - both * (cluster_slopes + class_slopes)) / alone**2
    return 2 - 2 * both / alone, slopes


def _differentiate_entropy(shares: Floats, total: float) -> tuple[float, Floats]:
    # Empty cells hold no document; any finite slope will do for them.
    logs = np.log(np.where(shares > 0, shares, 1))
    entropy = float(-(shares * logs).sum())
    return entropy, (-logs - entropy) / total


def _list_rows(data: ScoredPairs | JudgedPairs | ClassTexts) -> Any:
    return data.texts if isinstance(data, ClassTexts) else data.first


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the bars of `datasets`, which would break into a caller's own progress, and what is not about main scores."""
    from sklearn.exceptions import UndefinedMetricWarning

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            # Precision and recall of classes that are not predicted, or not drawn.
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()
