from __future__ import annotations

import math

import pytest
import torch

from instructor_st.training import MultitaskInstructionLoss, build_losses


def naive_loss(queries, positives, negatives, labels, temperature, share):
    """The formula of the docstring, written as loops."""
    cosine = torch.nn.functional.cosine_similarity
    n = len(queries)
    total = 0.0
    for i in range(n):
        own = cosine(queries[i], positives[i], dim=0) / temperature
        documents = [own]
        for j in range(n):
            if j != i and labels[j] != labels[i]:
                documents.append(cosine(queries[i], positives[j], dim=0) / temperature)
            if share or j == i:
                documents += [cosine(queries[i], column[j], dim=0) / temperature for column in negatives]
        to_queries = [
            cosine(queries[j], positives[i], dim=0) / temperature for j in range(n) if j == i or labels[j] != labels[i]
        ]
        total = total + torch.logsumexp(torch.stack(documents), 0) - own
        total = total + torch.logsumexp(torch.stack(to_queries), 0) - own
    return total / n


@pytest.mark.parametrize("negatives", [0, 1, 3])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("labels", [None, [0, 1, 0, 2, 1]])
def test_values_and_gradients_equal_the_naive_loop(negatives, share, labels):
    generator = torch.Generator().manual_seed(negatives)
    columns = [torch.randn(5, 8, generator=generator, dtype=torch.float64) for _ in range(2 + negatives)]
    loss = MultitaskInstructionLoss(None, temperature=0.1, share_hard_negatives=share)
    ours = [column.clone().requires_grad_() for column in columns]
    value = loss.compute_loss_from_embeddings(ours, None if labels is None else torch.tensor(labels))
    value.backward()
    plain = [column.clone().requires_grad_() for column in columns]
    expected = naive_loss(plain[0], plain[1], plain[2:], labels or list(range(5)), 0.1, share)
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), abs=1e-5)
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=0)


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


def test_bad_arguments():
    with pytest.raises(ValueError, match="temperature must be above 0, not 0"):
        MultitaskInstructionLoss(None, temperature=0)
    with pytest.raises(ValueError, match="1 column"):
        MultitaskInstructionLoss(None).compute_loss_from_embeddings([torch.ones(2, 2)])


def test_losses_by_task_and_their_settings(t5_model):
    losses = build_losses(t5_model, ["a", "b", "c"], labelled_tasks={"b"}, temperature=0.02)
    assert losses["a"] is losses["c"]
    assert losses["a"].get_config_dict() == {
        "temperature": 0.02,
        "share_hard_negatives": True,
        "gather_across_devices": False,
    }
    assert losses["b"].share_hard_negatives is False
    assert "2212.09741" in losses["a"].citation
