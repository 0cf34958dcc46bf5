"""How well embeddings serve a task: what instruction finetuning is judged by, before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from instructor_st.training.heads import ClassificationHead, PairsHead, RegressionHead, SimilarityHead, TaskHead
from instructor_st.training.task_head import ScaledLinear
from instructor_st.training.tuning_rows import Fold, TuningRows

__all__ = ["fit_head", "score_vectors"]

Array = np.ndarray
# What MTEB's classification tasks use.
_MAX_ITERATIONS = 100


def score_vectors(
    rows: TuningRows, columns: list[Tensor], fold: Fold, *, with_logistic: bool = True
) -> dict[str, float]:
    """Judge embeddings on held-out rows; what is fitted is fitted on the others.

    Args:
        rows: The rows.
        columns: The embeddings of each column of all rows, each `(rows, dimension)`.
        fold: Which rows are held out.
        with_logistic: Classes: whether to fit a logistic regression too, which takes long for many classes.

    Returns:
        By kind of the rows: `centroid_accuracy` (nearest centroid, by cosine) and `logistic_accuracy` (logistic
        regression) for classes; `label_ranking_precision` for label sets; `spearman` for values (of a ridge
        regression's predictions) and scores (of the cosines); `average_precision` for matches; `accuracy` (the positive
        above all other positives and the row's negatives) and `mean_reciprocal_rank` for answers.
    """
    vectors = [F.normalize(column.float(), dim=1).cpu().numpy() for column in columns]
    train, held_out, targets = fold.train, fold.held_out, rows.targets
    if rows.kind == "classes":
        known, unknown = (vectors[0][train], targets[train]), (vectors[0][held_out], targets[held_out])
        scores = {"centroid_accuracy": _score_centroids(*known, *unknown)}
        if with_logistic:
            logistic: Any = LogisticRegression(max_iter=_MAX_ITERATIONS).fit(*known)
            scores["logistic_accuracy"] = float((logistic.predict(unknown[0]) == unknown[1]).mean())
        return scores
    if rows.kind == "label_sets":
        marks = _fit_marks(vectors[0][train], targets[train])
        margins = vectors[0][held_out] @ marks[0].T + marks[1]
        return {"label_ranking_precision": float(label_ranking_average_precision_score(targets[held_out], margins))}
    if rows.kind == "values":
        predicted = Ridge().fit(vectors[0][train], targets[train]).predict(vectors[0][held_out])
        return {"spearman": _correlate(predicted, targets[held_out])}
    if rows.kind == "answers":
        return _score_answers([column[held_out] for column in vectors], rows.columns[held_out])
    cosines = (vectors[0][held_out] * vectors[1][held_out]).sum(axis=1)
    if rows.kind == "scores":
        return {"spearman": _correlate(cosines, targets[held_out])}
    return {"average_precision": float(average_precision_score(targets[held_out], cosines))}


def fit_head(rows: TuningRows, columns: list[Tensor]) -> TaskHead:
    """Fit a head for predictions on finished embeddings.

    Args:
        rows: The rows.
        columns: The embeddings of each column of all rows, each `(rows, dimension)`.

    Returns:
        The head: scikit-learn's logistic or ridge regression (classes weighted alike), or the cosine for pairs.
    """
    if rows.kind in ("scores", "matches"):
        return SimilarityHead()
    if rows.kind == "answers":
        return PairsHead()
    dimension = columns[0].shape[1]
    head: ClassificationHead | RegressionHead
    if rows.kind == "values":
        head = RegressionHead(dimension, mean=float(rows.targets.mean()), spread=float(rows.targets.std()))
        standard = (rows.targets - head.mean) / head.spread
        # As for classes: on longer vectors the same ridge would be weaker than the one that score_vectors judges.
        scaled = _scale(columns[0], head.linear)
        fitted = Ridge(alpha=float((scaled**2).sum(axis=1).mean())).fit(scaled, standard)
        weight, bias = fitted.coef_[None], np.array([fitted.intercept_])
    elif rows.kind == "label_sets":
        head = ClassificationHead(dimension, rows.labels, multi_label=True)
        weight, bias = _fit_marks(_scale(columns[0], head.linear), rows.targets)
    else:
        head = ClassificationHead(dimension, rows.labels)
        weight, bias = _fit_classes(_scale(columns[0], head.linear), rows.targets)
    with torch.no_grad():
        head.linear.weight.copy_(torch.as_tensor(weight))
        head.linear.bias.copy_(torch.as_tensor(bias))
    return head


def _scale(vectors: Tensor, linear: ScaledLinear) -> Array:
    scaled: Array = (linear.scale * F.normalize(vectors.float(), dim=1)).cpu().numpy()
    return scaled


def _fit_classes(vectors: Array, targets: Array) -> tuple[Array, Array]:
    # The input is longer than 1, so the same ridge would be far weaker; C undoes that.
    strength = 1.0 / float((vectors**2).sum(axis=1).mean())
    model = LogisticRegression(C=strength, max_iter=1000, class_weight="balanced").fit(vectors, targets)
    if len(model.classes_) > 2:
        return model.coef_, model.intercept_
    # Two classes have one row of weights; half of it each way has the same difference.
    return np.concatenate([-model.coef_, model.coef_]) / 2, np.concatenate([-model.intercept_, model.intercept_]) / 2


def _fit_marks(vectors: Array, targets: Array) -> tuple[Array, Array]:
    """One logistic regression a label; a label that stands on no row or on all of them is a constant."""
    weight, bias = np.zeros((targets.shape[1], vectors.shape[1])), np.zeros(targets.shape[1])
    strength = 1.0 / float((vectors**2).sum(axis=1).mean())
    for label, marks in enumerate(targets.T):
        if marks.min() == marks.max():
            bias[label] = 10.0 if marks[0] else -10.0
            continue
        model = LogisticRegression(C=strength, max_iter=1000, class_weight="balanced").fit(vectors, marks)
        weight[label], bias[label] = model.coef_[0], model.intercept_[0]
    return weight, bias


def _score_centroids(vectors: Array, targets: Array, queries: Array, wanted: Array) -> float:
    # On vectors of length 1 the nearest centroid by cosine is the nearest normalised centroid.
    centroids = NearestCentroid().fit(vectors, targets)
    centres = centroids.centroids_ / np.linalg.norm(centroids.centroids_, axis=1, keepdims=True)
    nearest = centroids.classes_[(queries @ centres.T).argmax(axis=1)]
    return float((nearest == wanted).mean())


def _score_answers(columns: list[Array], places: Array) -> dict[str, float]:
    """Rank each positive among the positives of all rows and the row's own negatives; the same text counts once."""
    queries, positives, *negatives = columns
    documents, first = np.unique(places[:, 1], return_index=True)
    own = (queries * positives).sum(axis=1)
    above = ((queries @ positives[first].T >= own[:, None]) & (documents != places[:, 1:2])).sum(axis=1)
    for number, column in enumerate(negatives, 2):
        counted = np.isin(places[:, number], documents) | (places[:, number : number + 1] == places[:, 2:number]).any(
            axis=1
        )
        above += ((queries * column).sum(axis=1) >= own) & ~counted
    return {"accuracy": float((above == 0).mean()), "mean_reciprocal_rank": float((1 / (1 + above)).mean())}


def _correlate(predicted: Array, wanted: Array) -> float:
    """Spearman's rank correlation; 0 where one side does not vary."""
    if len(predicted) < 2 or predicted.min() == predicted.max() or wanted.min() == wanted.max():
        return 0.0
    return float(spearmanr(predicted, wanted).statistic)
