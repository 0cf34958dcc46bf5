"""sentence-transformers' own losses, which slice, merge and re-embed features, on both architectures."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.losses import (
    AdaptiveLayerLoss,
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.modules import Pooling

from instructor_st import INSTRUCTOR
from tests.conftest import T5
from tests.modules.test_instruction_prepend import PAIRS

QUERIES = PAIRS
POSITIVES = [[f"Represent number {place % 2}: ", text + " again"] for place, (_, text) in enumerate(PAIRS)]
NEGATIVES = [["", "another text of some length, longer than the others by far"]] * len(PAIRS)


@pytest.fixture(params=["prepend", "dual"])
def model(request) -> INSTRUCTOR:
    if request.param == "prepend":
        return INSTRUCTOR(T5, device="cpu").eval()
    base = SentenceTransformer(modules=[Transformer(T5), Pooling(128)], device="cpu")
    model = INSTRUCTOR.from_encoder(base, "dual", device="cpu").eval()
    torch.nn.init.normal_(model[1].linear.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    return model


def compute(model: INSTRUCTOR, loss: torch.nn.Module) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    value = loss([model.preprocess(column) for column in (QUERIES, POSITIVES, NEGATIVES)], torch.zeros(len(PAIRS)))
    value.backward()
    return value.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("mini_batch_size", [1, 2, 16])
def test_gradcache_equals_the_plain_loss(model, mini_batch_size):
    plain, plain_gradients = compute(model, MultipleNegativesRankingLoss(model))
    cached, gradients = compute(model, CachedMultipleNegativesRankingLoss(model, mini_batch_size=mini_batch_size))
    assert cached == pytest.approx(plain, abs=1e-4)
    assert gradients.keys() == plain_gradients.keys()
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-4, rtol=1e-3, msg=name)


def test_matryoshka(model):
    inner = MultipleNegativesRankingLoss(model)
    value, gradients = compute(model, MatryoshkaLoss(model, inner, [32, 16]))
    vectors = [model.encode(column, convert_to_tensor=True) for column in (QUERIES, POSITIVES, NEGATIVES)]
    cut = [
        inner.compute_loss_from_embeddings([vector[:, :size] for vector in vectors], None).item() for size in (32, 16)
    ]
    assert value == pytest.approx(sum(cut), abs=1e-3)
    assert gradients


def test_adaptive_layers():
    model = INSTRUCTOR(T5, device="cpu").eval()
    inner = MultipleNegativesRankingLoss(model)
    value, gradients = compute(model, AdaptiveLayerLoss(model, inner, n_layers_per_step=-1, kl_div_weight=0))
    last, _ = compute(model, inner)
    assert value > last  # the last layer's loss and, weighted, those of the earlier ones
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
