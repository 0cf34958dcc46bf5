"""The contrastive loss as its docstring states it, written as loops over rows; and small models to try it on."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from instructor_st import INSTRUCTOR
from instructor_st.training import set_dropout
from tests.conftest import MINILM


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b) / (a.norm() * b.norm())


def naive_loss(settings, columns, labels=None, texts=None, guide=None):
    """Return the loss and the accuracy.

    `texts` has one list of anything comparable a column; `guide` has one tensor a column.
    """
    queries, positives, *_ = columns
    size = len(queries)
    labels = list(range(size)) if labels is None else labels
    texts = texts or [[(place, row) for row in range(size)] for place in range(len(columns))]
    judges = guide or [column.detach() for column in columns]
    # Every column has a gradient, if only of 0.
    total, hits = sum(0.0 * column.sum() for column in columns), 0

    def too_near(score, own):
        if settings.false_negative_margin is None:
            return False
        slack = settings.false_negative_margin * (1 if settings.margin_strategy == "absolute" else abs(own))
        return score > own - slack

    for i in range(size):
        own = cosine(queries[i], positives[i])
        judged_own = cosine(judges[0][i], judges[1][i])
        negatives = []  # (cosine, is another row's)
        for place in range(1, len(columns)):
            for j in range(size):
                if place == 1 and (j == i or labels[j] == labels[i] or texts[0][j] == texts[0][i]):
                    continue
                if j != i and (not settings.in_batch_negatives or (place > 1 and not settings.share_hard_negatives)):
                    continue
                if texts[place][j] in (texts[1][i], texts[0][i]):
                    continue
                if too_near(cosine(judges[0][i], judges[place][j]), judged_own):
                    continue
                negatives.append((cosine(queries[i], columns[place][j]), j != i))
        hits += all(score < own for score, _ in negatives)
        if settings.objective == "margin":
            hinges = [torch.relu(settings.margin - own + score) for score, _ in negatives]
            total = total + (sum(hinges) / len(hinges) if hinges else 0.0)
            continue
        logits = [own / settings.temperature]
        for score, elsewhere in negatives:
            weighed = settings.hardness_mode == "all_negatives" or settings.hardness_mode == (
                "in_batch_negatives" if elsewhere else "hard_negatives"
            )
            logits.append(score / settings.temperature + settings.hardness_strength * weighed * score.detach())
        total = total + torch.logsumexp(torch.stack(logits), 0) - logits[0]
        if not settings.in_batch_negatives:
            continue
        backwards = [own / settings.temperature]
        for j in range(size):
            if j == i or labels[j] == labels[i] or texts[1][j] == texts[1][i]:
                continue
            if texts[0][j] in (texts[0][i], texts[1][i]):
                continue
            if too_near(cosine(judges[0][j], judges[1][i]), judged_own):
                continue
            backwards.append(cosine(queries[j], positives[i]) / settings.temperature)
        total = total + torch.logsumexp(torch.stack(backwards), 0) - backwards[0]
    return settings.weight * total / size, hits / size


def build_small_model(folder: Path, architecture: str, *, dropout: float = 0.0, seed: int = 0) -> INSTRUCTOR:
    """A random two-layer BERT in double precision, as an instruction model in training mode."""
    torch.manual_seed(seed)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64
    )
    encoder = BertModel(config)
    for parameter in encoder.parameters():
        if parameter.ndim > 1:  # wider than BERT's own start, so that texts differ
            torch.nn.init.normal_(parameter, std=1 / math.sqrt(16))
    encoder.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder)
    model = INSTRUCTOR.from_encoder(str(folder), architecture, device="cpu").double()
    if architecture == "dual":
        for parameter in model[1].parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    set_dropout(model, dropout)
    return model.train()


def read_gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The gradients of the parameters that have one; they are cleared."""
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return gradients


def assert_same_gradients(found: dict, expected: dict, *, tolerance: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
