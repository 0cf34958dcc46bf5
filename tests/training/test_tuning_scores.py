"""What instruction finetuning is judged by, against scikit-learn, scipy, naive loops and values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import normalize

from instructor_st.training.heads import PairsHead, RegressionHead, SimilarityHead
from instructor_st.training.tuning_rows import Fold, TuningRows
from instructor_st.training.tuning_scores import fit_head, score_vectors

# What heads scale vectors to.
LENGTH = 10.0


def point(*degrees, lengths=None):
    """Vectors of a plane by their angles; lengths must not matter, so they differ."""
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    lengths = torch.tensor(lengths or [1.0 + 3 * (place % 3) for place in range(len(degrees))])
    return (torch.stack([angles.cos(), angles.sin()], dim=1) * lengths[:, None]).float()


def draw(rows, dimension, seed):
    """Vectors of very different lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.rand(rows, 1, generator=generator) * 9 + 0.2
    return torch.randn(rows, dimension, generator=generator) * lengths


def make_rows(kind, targets, *, columns=None, labels=()):
    targets = np.asarray(targets)
    columns = np.arange(len(targets))[:, None] if columns is None else np.asarray(columns)
    texts = tuple(map(str, range(int(columns.max()) + 1)))
    return TuningRows(kind, texts, columns, targets, tuple(labels), {})


def make_fold(rows, held_out):
    return Fold(np.array([place for place in range(rows) if place not in set(held_out)]), np.array(held_out))


def rank_labels(marks, margins):
    """Mean over rows and their labels: how many of the labels ranked as high or higher are right."""
    precisions = []
    for wanted, row in zip(marks, margins, strict=True):
        right = [label for label in range(len(row)) if wanted[label]]
        shares = [
            sum(row[other] >= row[label] for other in right) / sum(value >= row[label] for value in row)
            for label in right
        ]
        precisions.append(sum(shares) / len(shares) if 0 < len(right) < len(row) else 1.0)
    return sum(precisions) / len(precisions)


def test_the_nearest_centroid_is_found_by_cosine():
    # Class 0 lies around 0 degrees, class 2 at 100; class 1 has no row to learn from. The long vector must not pull its
    # centroid to it, nor must the short centroid of the wide class 0 lose at 45.
    angles = [-60, 60, 95, 105, 45, 20, 40, 80]
    vectors = point(*angles, lengths=[10.0, 1.0, 2.0, 1.0, 3.0, 5.0, 1.0, 2.0])
    rows = make_rows("classes", [0, 0, 2, 2, 0, 2, 0, 2])
    scores = score_vectors(rows, [vectors], make_fold(8, [4, 5, 6, 7]), with_logistic=False)
    # 45, 20 and 40 are nearer to 0, 80 to 100; 20 should be class 2.
    assert scores == {"centroid_accuracy": 0.75}


def test_classes_are_judged_as_scikit_learn_does():
    vectors, targets = draw(60, 5, 0), np.minimum(np.arange(60) % 6, 2)
    vectors[:, :3] += 6 * torch.nn.functional.one_hot(torch.tensor(targets), 3)
    fold = make_fold(60, range(10, 40))
    scores = score_vectors(make_rows("classes", targets), [vectors], fold)
    unit = normalize(vectors.numpy())
    model = LogisticRegression().fit(unit[fold.train], targets[fold.train])
    logistic = model.score(unit[fold.held_out], targets[fold.held_out])
    centroids = [unit[fold.train][targets[fold.train] == label].mean(axis=0) for label in range(3)]
    right = 0
    for place in fold.held_out:
        cosines = [unit[place] @ centroid / np.linalg.norm(centroid) for centroid in centroids]
        right += int(np.argmax(cosines)) == targets[place]
    assert scores == {"centroid_accuracy": right / 30, "logistic_accuracy": logistic}
    # The comparison is worth something: neither is perfect, and they differ.
    assert len({logistic, right / 30, 1.0}) == 3


def test_label_sets_are_judged_by_the_rank_of_their_labels():
    vectors = draw(50, 4, 3)
    noise = draw(50, 3, 4).numpy() / 4
    marks = (vectors[:, :3].numpy() + noise > np.array([0.5, 1.5, -1.0])).astype(float)
    fold = make_fold(50, range(20))
    scores = score_vectors(make_rows("label_sets", marks, labels="abc"), [vectors], fold)
    unit = normalize(vectors.numpy())
    model = OneVsRestClassifier(LogisticRegression(class_weight="balanced", max_iter=1000))
    margins = model.fit(unit[fold.train], marks[fold.train]).decision_function(unit[fold.held_out])
    wanted = rank_labels(marks[fold.held_out], margins)
    assert scores == {"label_ranking_precision": pytest.approx(wanted, abs=1e-12)}
    assert 0.5 < wanted < 0.99


def test_a_label_on_all_rows_or_none_is_a_constant():
    # To learn from: the first label stands on all rows, the second on none, the third on those to the right.
    marks = [[1, 0, 1], [1, 0, 1], [1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    vectors = point(-10, 10, 170, 190, 0, 0, 0)
    scores = score_vectors(make_rows("label_sets", marks), [vectors], make_fold(7, [4, 5, 6]))
    # At 0 degrees the order is first, third, second.
    assert scores == {"label_ranking_precision": pytest.approx((1 / 3 + 1 + 1 / 2) / 3)}


def test_values_are_judged_by_the_order_of_a_ridge_regression():
    vectors = draw(40, 6, 5)
    unit = normalize(vectors.numpy())
    values = unit @ np.array([3.0, -2.0, 1.0, 0.0, 0.0, 0.5]) + draw(40, 1, 6).numpy()[:, 0] / 8
    fold = make_fold(40, range(0, 40, 2))
    scores = score_vectors(make_rows("values", values), [vectors], fold)
    predicted = Ridge().fit(unit[fold.train], values[fold.train]).predict(unit[fold.held_out])
    wanted = spearmanr(predicted, values[fold.held_out]).statistic
    assert scores == {"spearman": pytest.approx(wanted, abs=1e-12)}
    assert 0.3 < wanted < 0.99


@pytest.mark.parametrize(
    ("values", "held_out", "angles"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], [4], [0, 10, 20, 30, 40]),
        ([1.0, 2.0, 3.0, 7.0, 7.0], [3, 4], [0, 10, 20, 30, 40]),
        ([5.0, 5.0, 5.0, 4.0, 7.0], [3, 4], [0, 10, 20, 30, 40]),
    ],
    ids=["one row", "equal values", "equal predictions"],
)
def test_there_is_no_correlation_where_nothing_varies(values, held_out, angles):
    rows = make_rows("values", values)
    assert score_vectors(rows, [point(*angles)], make_fold(5, held_out)) == {"spearman": 0.0}


def test_scores_are_judged_by_the_order_of_the_cosines():
    first, second = point(0, 0, 0, 0, 0, 0), point(90, 10, 20, 50, 30, 80, lengths=[1.0, 0.1, 2.0, 9.0, 1.0, 30.0])
    rows = make_rows("scores", [9.0, 4.0, 5.0, 1.0, 3.0, 2.0])
    scores = score_vectors(rows, [first, second], make_fold(6, [1, 2, 3, 4, 5]))
    # Ranks by cosine 5, 4, 2, 3, 1; by score 4, 5, 1, 3, 2: 1 - 6 (1 + 1 + 1 + 0 + 1) / (5 * 24).
    assert scores == {"spearman": pytest.approx(0.8)}


def test_matches_are_judged_by_average_precision():
    first, second = point(5, 15, 25, 35, 45, 0), point(15, 45, 45, 75, 95, 0, lengths=[0.1, 9.0, 1.0, 5.0, 50.0, 1.0])
    rows = make_rows("matches", [1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    scores = score_vectors(rows, [first, second], make_fold(6, [0, 1, 2, 3, 4]))
    # 10, 20, 30, 40 and 50 degrees apart: right, wrong, wrong, right, wrong.
    apart = torch.rad2deg(torch.cosine_similarity(first, second).acos())
    assert apart[:5].round().tolist() == [10, 30, 20, 40, 50]
    assert scores == {"average_precision": pytest.approx((1 + 2 / 4) / 2)}


def test_answers_are_ranked_among_the_other_rows_positives():
    # Queries, and from which angle their positive comes; the last row is not held out, or it would spoil all.
    queries, positives = point(0, 100, 200, 150, 20), point(10, 160, 210, 155, 0)
    rows = make_rows("answers", np.zeros(5), columns=[[place, place + 5] for place in range(5)])
    scores = score_vectors(rows, [queries, positives], make_fold(5, [0, 1, 2, 3]))
    # The second's is 60 away, and behind it the fourth's, 55 away; the first's is 90 away. All others come first.
    assert scores == {"accuracy": 0.75, "mean_reciprocal_rank": pytest.approx((1 + 1 / 2 + 1 + 1) / 4)}


def test_rows_that_share_a_positive_are_no_rivals():
    # Rows 0 and 2 have the same positive, text 3; row 1 has its own behind it.
    rows = make_rows("answers", np.zeros(3), columns=[[0, 3], [1, 4], [2, 3]])
    columns = [point(0, 40, 30), point(20, 90, 20, lengths=[1.0, 1.0, 1.0])]
    scores = score_vectors(rows, columns, make_fold(3, [0, 2]))
    assert scores == {"accuracy": 1.0, "mean_reciprocal_rank": 1.0}
    scores = score_vectors(rows, columns, make_fold(3, [0, 1]))
    assert scores == {"accuracy": 0.5, "mean_reciprocal_rank": 0.75}


def test_a_shared_document_counts_once():
    rows = make_rows("answers", np.zeros(3), columns=[[0, 3], [1, 4], [2, 3]])
    columns = [point(0, 40, 30), point(20, 90, 20, lengths=[1.0, 1.0, 1.0])]
    scores = score_vectors(rows, columns, make_fold(3, [0, 1, 2]))
    # Before the second row's positive stands one text.
    assert scores["mean_reciprocal_rank"] == pytest.approx((1 + 1 / 2 + 1) / 3)


def test_a_row_has_its_own_negatives_as_rivals():
    queries, positives = point(0, 90, 180), point(20, 120, 210)
    # The first row's second negative is nearer than its positive; both of the second's; none of the third's, though the
    # first's would be nearer to the third than its positive is.
    first, second = point(180, 80, 270), point(10, 110, 0)
    columns = [[place, place + 3, place + 6, place + 9] for place in range(3)]
    rows = make_rows("answers", np.zeros(3), columns=columns)
    scores = score_vectors(rows, [queries, positives, first, second], make_fold(3, [0, 1, 2]))
    assert scores == {"accuracy": pytest.approx(1 / 3), "mean_reciprocal_rank": pytest.approx((1 / 2 + 1 / 3 + 1) / 3)}


def test_a_tie_is_not_won():
    # All vectors are axes, so that cosines are exact.
    queries, positives = point(0, 0), torch.tensor([[1.0, 0.0], [4.0, 0.0]])
    queries[:, 1] = 0
    rows = make_rows("answers", np.zeros(2), columns=[[0, 2], [1, 3]])
    scores = score_vectors(rows, [queries, positives], make_fold(2, [0, 1]))
    assert scores == {"accuracy": 0.0, "mean_reciprocal_rank": 0.5}
    rows = make_rows("answers", np.zeros(2), columns=[[0, 2, 3], [1, 2, 3]])
    scores = score_vectors(rows, [queries, positives, positives.flip(0)], make_fold(2, [0, 1]))
    assert scores == {"accuracy": 0.0, "mean_reciprocal_rank": 0.5}


def test_vectors_may_have_half_precision():
    vectors = point(0, 5, 90, 95, 10, 80).bfloat16()
    rows = make_rows("classes", [0, 0, 1, 1, 0, 0], labels="ab")
    assert score_vectors(rows, [vectors], make_fold(6, [4, 5]), with_logistic=False) == {"centroid_accuracy": 0.5}
    assert fit_head(rows, [vectors]).predict([vectors.float()[:4]]).labels == ["a", "a", "b", "b"]


def fit_alike(unit, targets):
    """Logistic regression on vectors of length 1, fitted closely."""
    return LogisticRegression(class_weight="balanced", max_iter=10_000, tol=1e-8).fit(unit, targets)


@pytest.mark.parametrize("labels", [["ape", "zebra"], ["ape", "mole", "zebra"]])
def test_a_head_for_classes_predicts_what_logistic_regression_does(labels):
    targets = np.minimum(np.arange(60) % 7, len(labels) - 1)
    vectors, new = draw(60, 5, 8), draw(20, 5, 9)
    vectors[:, : len(labels)] += 2 * torch.nn.functional.one_hot(torch.tensor(targets), len(labels))
    head = fit_head(make_rows("classes", targets, labels=labels), [vectors])
    model = fit_alike(normalize(vectors.double().numpy()), targets)
    predicted = head.predict([new])
    unit = normalize(new.double().numpy())
    np.testing.assert_allclose(predicted.probabilities.numpy(), model.predict_proba(unit), atol=2e-3)
    assert predicted.labels == [labels[place] for place in model.predict(unit)]
    assert set(predicted.labels) == set(labels)


def test_a_head_weighs_classes_alike():
    # 12 rows of one class and 4 of the other, which lie among each other: weighed alike, both are as likely.
    vectors = torch.cat([point(*[80, 100] * 6), point(*[80, 100] * 2)])
    head = fit_head(make_rows("classes", [0] * 12 + [1] * 4, labels="ab"), [vectors])
    np.testing.assert_allclose(head.predict([point(70, 90, 110)]).probabilities.numpy(), 0.5, atol=1e-3)
    # A row that comes three times counts as three of weight 1.
    vectors, new = draw(16, 3, 10), draw(9, 3, 11)
    head = fit_head(make_rows("classes", [0] * 12 + [1] * 4, labels="ab"), [vectors])
    unit = normalize(vectors.double().numpy())
    # The weights of 16 rows add up to 16, those of 24 to 24; C makes up for it.
    model = LogisticRegression(C=16 / 24, max_iter=10_000, tol=1e-8)
    model.fit(np.concatenate([unit, unit[12:], unit[12:]]), [0] * 12 + [1] * 12)
    wanted = model.predict_proba(normalize(new.double().numpy()))
    np.testing.assert_allclose(head.predict([new]).probabilities.numpy(), wanted, atol=2e-3)


def test_a_head_for_label_sets_is_one_regression_a_label():
    vectors, new = draw(40, 4, 12), draw(15, 4, 13)
    marks = np.ones((40, 4))
    marks[:, 1] = vectors[:, 0] > 2
    marks[:, 2] = 0
    marks[:, 3] = vectors[:, 1] + draw(40, 1, 14)[:, 0] / 4 > 0
    head = fit_head(make_rows("label_sets", marks, labels="abcd"), [vectors])
    unit, others = normalize(vectors.double().numpy()), normalize(new.double().numpy())
    wanted = np.empty((15, 4))
    wanted[:, 0], wanted[:, 2] = expit(10), expit(-10)
    for label in (1, 3):
        wanted[:, label] = fit_alike(unit, marks[:, label]).predict_proba(others)[:, 1]
    predicted = head.predict([new])
    np.testing.assert_allclose(predicted.probabilities.numpy(), wanted, atol=2e-3)
    np.testing.assert_allclose(predicted.probabilities[:, [0, 2]].numpy(), wanted[:, [0, 2]], rtol=1e-5)
    assert predicted.labels == [
        [name for name, share in zip("abcd", row, strict=True) if share > 0.5] for row in wanted
    ]
    assert len(set(map(tuple, predicted.labels))) > 2


def test_a_head_for_values_predicts_on_their_own_scale():
    vectors, new = draw(30, 4, 15), draw(10, 4, 16)
    scaled = LENGTH * normalize(vectors.double().numpy())
    values = 500 + scaled @ np.array([20.0, -7.0, 3.0, 0.0]) + draw(30, 1, 17).numpy()[:, 0] * 5
    head = fit_head(make_rows("values", values), [vectors])
    # Ridge regression's normal equations; the constant is not held down.
    centred = scaled - scaled.mean(axis=0)
    weights = np.linalg.solve(centred.T @ centred + LENGTH**2 * np.eye(4), centred.T @ (values - values.mean()))
    wanted = values.mean() + (LENGTH * normalize(new.double().numpy()) - scaled.mean(axis=0)) @ weights
    np.testing.assert_allclose(head.predict([new]).scores.numpy(), wanted, rtol=1e-4)
    assert isinstance(head, RegressionHead)
    assert (head.mean, head.spread) == (pytest.approx(values.mean()), pytest.approx(np.std(values)))
    assert np.ptp(wanted) > 100


@pytest.mark.parametrize(
    ("kind", "head"), [("scores", SimilarityHead), ("matches", SimilarityHead), ("answers", PairsHead)]
)
def test_pairs_are_predicted_by_their_cosine(kind, head):
    columns = [point(0, 0, 0, 0), point(0, 60, 90, 180)]
    made = fit_head(make_rows(kind, [0.0, 1.0, 0.0, 1.0], columns=[[place, place + 4] for place in range(4)]), columns)
    assert type(made) is head
    np.testing.assert_allclose(made.predict(columns).scores.numpy(), [1, 0.5, 0, -1], atol=1e-6)
