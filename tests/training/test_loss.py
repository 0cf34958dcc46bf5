from __future__ import annotations

import json
import math

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from instructor_st.training import MultitaskInstructionLoss
from instructor_st.training.false_negatives import RowFacts
from tests.training.naive_loss import naive_loss

LABELS = [0, 1, 0, 2, 1]


def draw(columns: int, *, rows: int = 5, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, 8, generator=generator, dtype=torch.float64) for _ in range(columns)]


def check(loss: MultitaskInstructionLoss, columns, labels=None, texts=None, guide=None) -> float:
    """Compare value, accuracy and gradients with the loops; return the value."""
    number = {text: place for place, text in enumerate({text for column in texts or [] for text in column})}
    facts = RowFacts(
        None if labels is None else torch.tensor(labels),
        None if texts is None else tuple(torch.tensor([number[text] for text in column]) for column in texts),
        None if guide is None else tuple(torch.nn.functional.normalize(column) for column in guide),
    )
    ours = [column.clone().requires_grad_() for column in columns]
    value = loss.calculate_loss([[column] for column in ours], facts)
    value.backward()
    plain = [column.clone().requires_grad_() for column in columns]
    expected, accuracy = naive_loss(loss.settings, plain, labels, texts, guide)
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), abs=1e-9)
    assert loss.last_accuracy.item() == pytest.approx(accuracy)
    assert not loss.last_accuracy.requires_grad
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-9, rtol=0)
    # The same a few rows at a time, the gradients propagated chunk by chunk.
    chunked = MultitaskInstructionLoss(None, **{**loss.settings.to_dict(), "mini_batch_size": 2})
    parts = [[part.clone().requires_grad_() for part in column.split(3)] for column in columns]
    cached = chunked.calculate_loss(parts, facts, with_backward=True)
    assert not cached.requires_grad
    assert cached.item() == pytest.approx(expected.item(), abs=1e-9)
    assert chunked.last_accuracy.item() == pytest.approx(accuracy)
    for column, theirs in zip(parts, plain, strict=True):
        torch.testing.assert_close(torch.cat([part.grad for part in column]), theirs.grad, atol=1e-9, rtol=0)
    return value.item()


@pytest.mark.parametrize("negatives", [0, 1, 3])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize("objective", ["infonce", "margin"])
def test_values_and_gradients_equal_the_naive_loop(negatives, share, labels, objective):
    loss = MultitaskInstructionLoss(
        None, temperature=0.1, share_hard_negatives=share, objective=objective, margin=0.5, weight=1.5
    )
    check(loss, draw(2 + negatives, seed=negatives), labels)


@pytest.mark.parametrize("objective", ["infonce", "margin"])
@pytest.mark.parametrize("share", [True, False])
def test_only_own_hard_negatives(objective, share):
    options = {"objective": objective, "share_hard_negatives": share, "temperature": 0.1, "margin": 0.5}
    check(MultitaskInstructionLoss(None, in_batch_negatives=False, **options), draw(4), LABELS)


@pytest.mark.parametrize("mode", ["in_batch_negatives", "hard_negatives", "all_negatives", None])
@pytest.mark.parametrize("labels", [None, LABELS])
def test_hardness(mode, labels):
    columns = draw(4)
    strength = 5.0 if mode else 0.0
    loss = MultitaskInstructionLoss(None, temperature=0.1, hardness_mode=mode, hardness_strength=strength)
    check(loss, columns, labels)


@pytest.mark.parametrize("mode", ["in_batch_negatives", "hard_negatives", "all_negatives"])
def test_hardness_and_softmax_are_those_of_sentence_transformers(mode):
    columns = draw(4)
    ours = MultitaskInstructionLoss(None, temperature=0.1, hardness_mode=mode, hardness_strength=5.0)
    value = ours.compute_loss_from_embeddings(columns)
    options = {"scale": 10.0, "partition_mode": "per_direction", "directions": ("query_to_doc", "doc_to_query")}
    stock = MultipleNegativesRankingLoss(None, hardness_mode=mode, hardness_strength=5.0, **options)
    # Theirs is the mean of the directions, ours their sum.
    assert value.item() == pytest.approx(2 * stock.compute_loss_from_embeddings(columns, None).item(), abs=1e-6)


TEXTS = {
    "a positive twice": [
        ["q0", "q1", "q2", "q3", "q4"],
        ["p0", "p1", "p0", "p3", "p4"],
        ["n0", "n1", "n2", "n3", "n4"],
    ],
    "a query twice": [["q0", "q1", "q1", "q3", "q4"], ["p0", "p1", "p2", "p3", "p4"], ["n0", "n1", "n2", "n3", "n4"]],
    "an own hard negative is the positive": [
        ["q0", "q1", "q2", "q3", "q4"],
        ["p0", "p1", "p2", "p3", "p4"],
        ["p0", "n1", "n2", "n3", "n4"],
    ],
    "another row's hard negative is the positive": [
        ["q0", "q1", "q2", "q3", "q4"],
        ["p0", "p1", "p2", "p3", "p4"],
        ["n0", "p3", "n2", "n3", "n4"],
    ],
    "documents are queries": [
        ["q0", "q1", "q2", "q3", "q4"],
        ["p0", "q0", "p2", "p3", "q4"],
        ["q0", "n1", "q3", "n3", "n4"],
    ],
    "everything": [["x"] * 5, ["x"] * 5, ["x"] * 5],
}


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("objective", ["infonce", "margin"])
@pytest.mark.parametrize("options", [{}, {"share_hard_negatives": False}, {"in_batch_negatives": False}])
def test_same_texts_are_no_negatives(texts, objective, options):
    columns = draw(3, seed=3)
    loss = MultitaskInstructionLoss(None, temperature=0.1, objective=objective, margin=1.5, **options)
    masked = check(loss, columns, None, texts)
    if texts is TEXTS["everything"]:
        assert masked == pytest.approx(0.0, abs=1e-12)
        assert loss.last_accuracy == 1


@pytest.mark.parametrize("strategy", ["absolute", "relative"])
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("margin", [-0.3, 0.0, 0.2])
@pytest.mark.parametrize("objective", ["infonce", "margin"])
def test_margin_of_false_negatives(strategy, guided, margin, objective):
    columns = draw(4, rows=8)
    guide = [column.flip(0) + 0.1 for column in draw(4, rows=8, seed=7)] if guided else None
    loss = MultitaskInstructionLoss(
        None,
        temperature=0.1,
        objective=objective,
        margin=0.7,
        false_negative_margin=margin,
        margin_strategy=strategy,
    )
    with_mask = check(loss, columns, [0, 1, 2, 3, 0, 4, 5, 6], None, guide)
    without = check(
        MultitaskInstructionLoss(None, temperature=0.1, objective=objective, margin=0.7),
        columns,
        [0, 1, 2, 3, 0, 4, 5, 6],
    )
    assert with_mask != pytest.approx(without)


def test_margin_by_hand():
    """Cosines: query 0 with its positive 1, with the other 0.6; query 1 with its positive 0.8, with the other 0."""
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    positives = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    loss = MultitaskInstructionLoss(None, objective="margin", margin=0.5)
    # max(0, 0.5 - 1 + 0.6) = 0.1 and max(0, 0.5 - 0.8 + 0) = 0
    assert loss.compute_loss_from_embeddings([queries, positives]).item() == pytest.approx(0.05, abs=1e-6)
    assert MultitaskInstructionLoss(None).settings.margin == 0.2


def test_by_hand():
    """Two orthogonal pairs, one hard negative each, temperature 1: every softmax is over cosines of 1 and 0."""
    eye = torch.eye(3)
    queries, positives, negatives = eye[:2], eye[:2], eye[[2, 2]]
    loss = MultitaskInstructionLoss(None, temperature=1.0)
    value = loss.compute_loss_from_embeddings([queries, positives, negatives])
    # query -> its positive (1), the other positive (0), two negatives (0); positive -> both queries (1 and 0)
    expected = -math.log(math.e / (math.e + 3)) - math.log(math.e / (math.e + 1))
    assert value.item() == pytest.approx(expected, abs=1e-6)
    own = MultitaskInstructionLoss(None, temperature=1.0, share_hard_negatives=False)
    expected = -math.log(math.e / (math.e + 2)) - math.log(math.e / (math.e + 1))
    assert own.compute_loss_from_embeddings([queries, positives, negatives]).item() == pytest.approx(expected, abs=1e-6)
    same_class = own.compute_loss_from_embeddings([queries, positives, negatives], torch.tensor([7, 7]))
    assert same_class.item() == pytest.approx(-math.log(math.e / (math.e + 1)), abs=1e-6)


def test_half_precision_embeddings_are_scored_in_full():
    columns = [torch.randn(4, 8, generator=torch.Generator().manual_seed(i)).bfloat16() for i in range(2)]
    loss = MultitaskInstructionLoss(None)
    value = loss.compute_loss_from_embeddings(columns)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(
        loss.compute_loss_from_embeddings([c.float() for c in columns]).item(), abs=1e-6
    )


def test_forward_embeds_the_columns_with_their_instructions(t5_model):
    rows = [["Represent a: ", "one"], ["Represent b: ", "two"]]
    others = [["Represent c: ", "three"], ["", "four"]]
    loss = MultitaskInstructionLoss(t5_model)
    value = loss([t5_model.preprocess(rows), t5_model.preprocess(others)], torch.tensor([0, 1]))
    vectors = [t5_model.encode(column, convert_to_tensor=True) for column in (rows, others)]
    assert value.item() == pytest.approx(loss.compute_loss_from_embeddings(vectors).item(), abs=1e-4)


def test_autocast_does_not_round_the_similarities():
    columns = [column.float() for column in draw(3)]
    loss = MultitaskInstructionLoss(None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss.compute_loss_from_embeddings(columns)
    assert value.dtype == torch.float32
    assert value.item() == loss.compute_loss_from_embeddings(columns).item()


def test_accuracy_counts_ties_as_wrong_and_leaves_masked_documents_out():
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    positives = torch.tensor([[1.0, 0.1], [1.0, 0.0], [1.0, 1.0]])
    loss = MultitaskInstructionLoss(None)
    assert loss.last_accuracy is None
    loss.compute_loss_from_embeddings([queries, positives])
    # Query 0 prefers positive 1, query 1 positive 2, query 2 its own.
    assert loss.last_accuracy.item() == pytest.approx(1 / 3)
    loss.compute_loss_from_embeddings([queries, positives], torch.tensor([5, 5, 6]))
    assert loss.last_accuracy.item() == pytest.approx(2 / 3)
    loss.compute_loss_from_embeddings([queries, positives, positives])
    assert loss.last_accuracy.item() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature must be above 0, not 0"),
        ({"temperature": "1e-2"}, "temperature must be above 0, not '1e-2'"),
        ({"weight": -1.0}, "weight must be above 0, not -1.0"),
        ({"weight": True}, "weight must be above 0, not True"),
        ({"margin": -0.1}, "margin must be 0 or more"),
        ({"objective": "triplet"}, "objective must be one of 'infonce', 'margin', not 'triplet'"),
        ({"margin_strategy": "both"}, "margin_strategy must be one of"),
        ({"hardness_mode": "some"}, "hardness_mode must be one of"),
        ({"hardness_strength": 1.0}, "hardness_strength is 1.0, but hardness_mode"),
        (
            {"hardness_strength": 1.0, "hardness_mode": "all_negatives", "objective": "margin"},
            "hardness_strength belongs to the softmax",
        ),
        ({"in_batch_negatives": "no"}, "in_batch_negatives must be true or false, not 'no'"),
        ({"false_negative_margin": "0.1"}, "false_negative_margin must be a number"),
        ({"mini_batch_size": 0}, "mini_batch_size must be a whole number"),
        ({"mini_batch_num_tokens": 1.5}, "mini_batch_num_tokens must be a whole number"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        MultitaskInstructionLoss(None, **options)


def test_bad_batches(t5_model):
    with pytest.raises(ValueError, match="1 column"):
        MultitaskInstructionLoss(None).compute_loss_from_embeddings([torch.ones(2, 2)])
    pair = [torch.ones(2, 2), torch.ones(2, 2)]
    with pytest.raises(ValueError, match="Without in_batch_negatives a row needs hard negatives"):
        MultitaskInstructionLoss(None, in_batch_negatives=False).compute_loss_from_embeddings(pair)
    with pytest.raises(ValueError, match="one label a row, 2"):
        MultitaskInstructionLoss(None).compute_loss_from_embeddings(pair, torch.ones(3))
    with pytest.raises(ValueError, match="A guide says nothing without false_negative_margin"):
        MultitaskInstructionLoss(t5_model, guide=t5_model)
    guided = MultitaskInstructionLoss(t5_model, guide=t5_model, false_negative_margin=0.0)
    with pytest.raises(ValueError, match="The guide reads texts"):
        guided.compute_loss_from_embeddings(pair)


def test_config_and_citation(t5_model):
    loss = MultitaskInstructionLoss(t5_model, guide=t5_model, false_negative_margin=0.1, temperature=0.02)
    config = json.loads(json.dumps(loss.get_config_dict()))
    assert config == {
        "objective": "infonce",
        "temperature": 0.02,
        "margin": 0.2,
        "weight": 1.0,
        "in_batch_negatives": True,
        "share_hard_negatives": True,
        "mask_same_text": True,
        "false_negative_margin": 0.1,
        "margin_strategy": "absolute",
        "hardness_mode": None,
        "hardness_strength": 0.0,
        "gather_across_devices": False,
        "mini_batch_size": None,
        "mini_batch_num_tokens": None,
        "guide": loss.guide.name,
    }
    assert config["guide"]
    assert "2212.09741" in loss.citation
    # Only the trained model's parameters are the loss's.
    assert len(list(loss.parameters())) == len(list(t5_model.parameters()))
