from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine as cosine_distance
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, mean_squared_error

from instructor_st.training.heads import (
    HEADS,
    ClassificationHead,
    PairsHead,
    RegressionHead,
    ScorePrediction,
    SimilarityHead,
    balance_labels,
    restore_head,
    store_head,
)
from tests.training.naive_loss import cosine, naive_loss

DIMENSION = 6
LABELS = ["zebra", "ape", "mole"]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fill(head):
    """Give a head weights that are not 0."""
    for place, parameter in enumerate(head.parameters()):
        parameter.data.copy_(draw(*parameter.shape, seed=100 + place))
    return head


def make_heads() -> dict[str, torch.nn.Module]:
    return {
        "classes": fill(ClassificationHead(DIMENSION, LABELS, class_weights=[0.5, 1.25, 3.0])),
        "labels": fill(ClassificationHead(DIMENSION, LABELS, multi_label=True, scale=2.5)),
        "regression": fill(RegressionHead(DIMENSION, mean=-3.25, spread=1 / 3)),
        "infonce": PairsHead(temperature=0.1),
        "margin": PairsHead(objective="margin", margin=0.7, share_hard_negatives=False),
        "similarity": SimilarityHead(15.5),
    }


TARGETS = {
    "classes": torch.tensor([2, 0, 1, 0, 2]),
    "labels": torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0]]),
    "regression": torch.tensor([-3.0, -4.0, -2.5, -3.1, -3.3]),
    "infonce": None,
    "margin": torch.tensor([0, 1, 0, 2, 1]),
    "similarity": torch.tensor([0.1, 0.9, 0.4, 0.4, 0.7]),
}
NAMES = list(TARGETS)


def draw_columns(name: str) -> list[torch.Tensor]:
    counts = {"infonce": 2, "margin": 3, "similarity": 2}
    return [draw(5, DIMENSION, seed=place) for place in range(counts.get(name, 1))]


def read_numbers(prediction) -> torch.Tensor:
    return prediction.scores if isinstance(prediction, ScorePrediction) else prediction.probabilities


def find_outputs(head, vectors: torch.Tensor, scale: float) -> np.ndarray:
    unit = vectors.numpy() / np.linalg.norm(vectors.numpy(), axis=1, keepdims=True)
    return scale * unit @ head.linear.weight.detach().double().numpy().T + head.linear.bias.detach().double().numpy()


# Values.


@pytest.mark.parametrize("weights", [None, [0.5, 1.25, 3.0]])
def test_classes_have_the_weighted_cross_entropy(weights):
    head = fill(ClassificationHead(DIMENSION, LABELS, class_weights=weights, scale=2.0))
    vectors, targets = draw(5, DIMENSION), TARGETS["classes"]
    expected = softmax(find_outputs(head, vectors, 2.0), axis=1)
    shares = np.array([(weights or [1, 1, 1])[target] for target in targets])
    total = log_loss(targets, expected, labels=[0, 1, 2], sample_weight=shares, normalize=False)
    assert head.compute_loss([vectors], targets).item() == pytest.approx(total / 5, rel=1e-9)
    prediction = head.predict([vectors])
    np.testing.assert_allclose(prediction.probabilities, expected, rtol=1e-9)
    assert prediction.labels == [LABELS[place] for place in expected.argmax(axis=1)]
    assert len(set(prediction.labels)) > 1


def test_weights_hold_in_a_batch_of_one_class():
    vectors, targets = draw(2, DIMENSION), torch.tensor([2, 2])
    plain, weighted = (fill(ClassificationHead(DIMENSION, LABELS, class_weights=w)) for w in (None, [1, 1, 3]))
    assert weighted.compute_loss([vectors], targets).item() == pytest.approx(
        3 * plain.compute_loss([vectors], targets).item()
    )


@pytest.mark.parametrize("weights", [None, [0.5, 1.25, 3.0]])
def test_several_labels_have_the_binary_cross_entropy(weights):
    head = fill(ClassificationHead(DIMENSION, LABELS, multi_label=True, class_weights=weights, scale=2.0))
    vectors, targets = draw(5, DIMENSION), TARGETS["labels"]
    expected = expit(find_outputs(head, vectors, 2.0))
    terms = []
    for row in range(5):
        for place in range(3):
            p, weight = expected[row, place], (weights or [1, 1, 1])[place]
            terms.append(-weight * math.log(p) if targets[row, place] else -math.log(1 - p))
    assert head.compute_loss([vectors], targets).item() == pytest.approx(sum(terms) / 15, rel=1e-9)
    prediction = head.predict([vectors])
    np.testing.assert_allclose(prediction.probabilities, expected, rtol=1e-9)
    assert prediction.labels == [[LABELS[place] for place in range(3) if row[place] > 0.5] for row in expected]
    assert len({len(row) for row in prediction.labels}) > 1


def test_untrained_heads_predict_nothing_in_particular():
    vectors = draw(4, DIMENSION)
    assert ClassificationHead(DIMENSION, LABELS).predict([vectors]).probabilities.unique().tolist() == [1 / 3]
    assert ClassificationHead(DIMENSION, LABELS, multi_label=True).predict([vectors]).labels == [[], [], [], []]
    assert RegressionHead(DIMENSION, mean=7.5, spread=2).predict([vectors]).scores.tolist() == [7.5] * 4


def test_regression_has_the_squared_error_in_units_of_the_spread():
    head = fill(RegressionHead(DIMENSION, mean=20.0, spread=4.0, scale=3.0))
    vectors, targets = draw(5, DIMENSION), torch.tensor([11, 25, 19, 30, 22])
    expected = 20.0 + 4.0 * find_outputs(head, vectors, 3.0)[:, 0]
    np.testing.assert_allclose(head.predict([vectors]).scores, expected, rtol=1e-9)
    loss = mean_squared_error(targets, expected) / 16
    assert head.compute_loss([vectors], targets).item() == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("labels", [None, [0, 1, 0, 2, 1]])
@pytest.mark.parametrize("objective", ["infonce", "margin"])
def test_pairs_equal_the_naive_loop(objective, labels, share):
    head = PairsHead(objective=objective, temperature=0.3, margin=0.6, share_hard_negatives=share)
    columns = [draw(5, DIMENSION, seed=place) for place in range(4)]
    expected, _ = naive_loss(head.loss.settings, columns, labels)
    targets = None if labels is None else torch.tensor(labels)
    assert head.compute_loss(columns, targets).item() == pytest.approx(expected.item(), rel=1e-9)
    settings = head.loss.settings
    assert (settings.objective, settings.temperature, settings.margin) == (objective, 0.3, 0.6)


def test_similarity_equals_the_naive_loop():
    head, (a, b), grades = SimilarityHead(15.5), draw_columns("similarity"), TARGETS["similarity"].tolist()
    scores = [cosine(*pair).item() for pair in zip(a, b, strict=True)]
    terms = [math.exp(15.5 * (scores[k] - scores[i])) for i in range(5) for k in range(5) if grades[i] > grades[k]]
    assert len(terms) == 9
    loss = head.compute_loss([a, b], TARGETS["similarity"])
    assert loss.item() == pytest.approx(math.log1p(sum(terms)), rel=1e-6)


@pytest.mark.parametrize("head", [PairsHead(), SimilarityHead()])
def test_pairs_are_predicted_by_their_cosine(head):
    a, b = draw_columns("similarity")
    expected = [1 - cosine_distance(*pair) for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(head.predict([a, b]).scores, expected, rtol=1e-9)


# Vectors of any kind.


@pytest.mark.parametrize("name", NAMES)
def test_gradient_flows_to_the_embeddings_and_not_from_predictions(name):
    head, columns = make_heads()[name], [column.requires_grad_() for column in draw_columns(name)]
    head.compute_loss(columns, TARGETS[name]).backward()
    for column in columns:
        assert column.grad.isfinite().all()
        assert (column.grad.abs().sum(dim=1) > 0).any()
    assert not read_numbers(head.predict(columns[:2])).requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_lengths_and_half_precision_do_not_matter(name):
    head, columns = make_heads()[name], [column.bfloat16() for column in draw_columns(name)]
    expected = head.compute_loss([column.float() for column in columns], TARGETS[name])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head.compute_loss([column * 4 for column in columns], TARGETS[name])
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_for_an_empty_batch(name):
    head = make_heads()[name]
    empty = [column[:0] for column in draw_columns("regression" if name in ("classes", "labels") else name)[:2]]
    prediction = head.predict(empty)
    if name in ("classes", "labels"):
        assert prediction.labels == []
        assert prediction.probabilities.shape == (0, 3)
    else:
        assert prediction.scores.shape == (0,)
    with pytest.raises(ValueError, match="without rows"):
        head.compute_loss(empty, TARGETS[name])


# Learning.


def train(head, columns, targets, *, steps: int = 200, rate: float = 0.05) -> None:
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        head.compute_loss(columns, targets).backward()
        optimizer.step()


def draw_groups(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows about three axes, and which axis each is about."""
    targets = torch.arange(rows) % 3
    return (torch.eye(DIMENSION)[targets] + 0.1 * draw(rows, DIMENSION, seed=seed)).float(), targets


def test_learns_classes_whose_labels_keep_their_order():
    head = ClassificationHead(DIMENSION, LABELS)
    train(head, [draw_groups(12, 0)[0]], draw_groups(12, 0)[1], steps=50)
    vectors, targets = draw_groups(30, 1)
    prediction = head.predict([vectors])
    assert head.labels == ("zebra", "ape", "mole")
    assert prediction.labels == [("zebra", "ape", "mole")[target] for target in targets]
    assert prediction.probabilities.argmax(dim=1).tolist() == targets.tolist()


def test_learns_what_a_logistic_regression_does():
    vectors, targets = draw(40, DIMENSION, seed=5).float(), torch.arange(40) % 3
    head = ClassificationHead(DIMENSION, LABELS, scale=1.0)
    train(head, [vectors], targets, steps=1500)
    unit = torch.nn.functional.normalize(vectors).numpy()
    expected = LogisticRegression(C=np.inf, max_iter=5000, tol=1e-8).fit(unit, targets).predict_proba(unit)
    np.testing.assert_allclose(head.predict([vectors]).probabilities, expected, atol=2e-3)


def test_learns_several_labels():
    vectors, _ = draw_groups(30, 2)
    marks = (vectors[:, :3] > 0.5).long()
    marks[:, 2] = 1 - marks[:, 2]
    head = ClassificationHead(DIMENSION, LABELS, multi_label=True, class_weights=balance_labels(marks))
    train(head, [vectors], marks)
    assert head.predict([vectors[:3]]).labels == [["zebra", "mole"], ["ape", "mole"], []]


def test_learns_numbers_in_their_units():
    vectors = torch.nn.functional.normalize(draw(40, DIMENSION, seed=7)).float()
    numbers = 1000 + 300 * vectors[:, 0] + 20 * draw(40, seed=8).float()
    head = RegressionHead(DIMENSION, mean=numbers.mean().item(), spread=numbers.std().item())
    train(head, [vectors], numbers, steps=800)
    expected = Ridge(alpha=1e-6).fit(vectors, numbers).predict(vectors)
    np.testing.assert_allclose(head.predict([vectors]).scores, expected, atol=1.0)


def test_heads_without_weights_move_the_embeddings():
    a, b = (torch.nn.Parameter(draw(5, DIMENSION, seed=seed).float()) for seed in (0, 1))
    head = SimilarityHead()
    optimizer = torch.optim.Adam([a, b], lr=0.1)
    for _ in range(50):
        optimizer.zero_grad()
        head.compute_loss([a, b], TARGETS["similarity"]).backward()
        optimizer.step()
    scores = head.predict([a, b]).scores
    assert scores.argsort().tolist() in ([0, 2, 3, 4, 1], [0, 3, 2, 4, 1])
    assert [len(list(each.parameters())) for each in (head, PairsHead())] == [0, 0]


# Storing.


@pytest.mark.parametrize("name", NAMES)
def test_stored_heads_come_back_bit_for_bit(name, tmp_path):
    head = make_heads()[name]
    stored = store_head(head)
    stored.save(tmp_path)
    restored = restore_head(type(stored).load(tmp_path))
    assert type(restored) is type(head)
    assert restored.config() == head.config() == json.loads(json.dumps(head.config()))
    assert {key: value.numpy().tobytes() for key, value in restored.state_dict().items()} == {
        key: value.numpy().tobytes() for key, value in head.state_dict().items()
    }
    columns = [column.float() for column in draw_columns(name)]
    assert torch.equal(restored.compute_loss(columns, TARGETS[name]), head.compute_loss(columns, TARGETS[name]))
    ours, theirs = (each.predict(columns[:2]) for each in (restored, head))
    assert torch.equal(read_numbers(ours), read_numbers(theirs))
    assert getattr(ours, "labels", None) == getattr(theirs, "labels", None)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_stored_is_a_copy_in_single_precision(precision):
    head = make_heads()["classes"].to(precision)
    stored = store_head(head)
    before = head.linear.weight.detach().to(torch.float32, copy=True)
    with torch.no_grad():
        head.linear.weight.zero_()
    assert torch.equal(stored.tensors["linear.weight"], before)
    assert stored.tensors["linear.weight"].dtype == torch.float32


def test_what_is_restored_is_a_copy():
    stored = store_head(make_heads()["regression"])
    with torch.no_grad():
        restore_head(stored).linear.weight.zero_()
    assert stored.tensors["linear.weight"].all()


def test_heads_are_known_by_their_kind():
    assert sorted(HEADS) == ["classification", "pairs", "regression", "similarity"]
    assert all(HEADS[head.kind] is type(head) for head in make_heads().values())


# Errors.


@pytest.mark.parametrize(
    ("name", "columns", "targets", "message"),
    [
        ("classes", [(5, 6), (5, 6)], "own", r"classification head needs 1 column\(s\) of embeddings; 2 came"),
        ("infonce", [(5, 6)], "own", r"pairs head needs 2 or more column\(s\) of embeddings; 1 came"),
        ("similarity", [(5, 6)] * 3, "own", r"similarity head needs 2 column\(s\) of embeddings; 3 came"),
        ("regression", [], "own", "0 came"),
        ("regression", [(6,)], "own", r"must all be \(batch, dimension\); the shapes \[\(6,\)\] came"),
        ("infonce", [(5, 6), (4, 6)], "own", r"shapes \[\(5, 6\), \(4, 6\)\] came"),
        ("classes", [(5, 7)], "own", "vectors of dimension 6; 7 came"),
        ("classes", None, None, "needs targets: the place of each row's class"),
        ("classes", None, [0.0, 1, 2, 0, 1], r"integers of the shape \(5,\); torch.float32"),
        ("classes", None, [0, 1], r"shape \(2,\) came"),
        ("classes", None, [0, 1, -1, 3, 0], "row 2 is -1; classes go from 0 to 2"),
        ("classes", None, [0, 1, 0, 3, 0], "row 3 is 3; classes go from 0 to 2"),
        ("labels", None, None, "needs targets: a 0 or a 1 for each row and label"),
        ("labels", None, [0, 1, 0, 1, 0], r"shape \(5, 3\); \(5,\) came"),
        ("labels", None, [[0, 1, 0]] * 4 + [[0, 0.5, 1]], "row 4, label 1 is 0.5"),
        ("regression", None, None, "regression head needs targets: a number for each row"),
        ("regression", None, [[1.0]] * 5, r"regression head must have the shape \(5,\); \(5, 1\) came"),
        ("regression", None, [1.0, 2, 3, math.nan, 4], "row 3 is nan"),
        ("similarity", None, None, "similarity head needs targets"),
        ("similarity", None, [1.0, 2, 3, 4, math.inf], "row 4 is inf"),
        ("infonce", None, [1, 2], "needs one label a row, 5"),
    ],
)
def test_batches_that_are_refused(name, columns, targets, message):
    embeddings = draw_columns(name) if columns is None else [draw(*shape) for shape in columns]
    goal = TARGETS[name] if targets == "own" else None if targets is None else torch.tensor(targets)
    with pytest.raises(ValueError, match=message):
        make_heads()[name].compute_loss(embeddings, goal)


def test_pairs_are_predicted_two_columns_at_a_time():
    with pytest.raises(ValueError, match="compares 2 columns; 3 came"):
        PairsHead().predict(draw_columns("margin"))


def test_a_head_that_went_astray_is_not_stored():
    head = make_heads()["classes"]
    with torch.no_grad():
        head.linear.bias[1] = math.nan
    with pytest.raises(ValueError, match=r"linear.bias has 1 value\(s\) that are not finite"):
        store_head(head)
