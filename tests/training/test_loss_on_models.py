"""The loss on whole models: in mini-batches, under MatryoshkaLoss, and on several processes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from sentence_transformers.base.losses.gradcache import _minibatch_ranges
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

from instructor_st.training import MultitaskInstructionLoss, SupervisedContrastiveLoss
from instructor_st.training.false_negatives import RowFacts, hash_rows
from tests.training.naive_loss import assert_same_gradients, build_small_model, naive_loss, read_gradients

WORDS = ["harbour", "gate", "cell", "energy", "apple", "paper", "river", "window", "market", "garden"]
SIZE = 7
LABELS = torch.tensor([0, 1, 2, 0, 3, 4, 5])


def make_columns(size: int = SIZE, negatives: int = 2) -> list[list[list[str]]]:
    """Texts of different lengths under two instructions; row 4 has the positive of row 1."""
    rows = range(size)
    columns = [[[f"Find {'a' if i % 2 else 'the best'}: ", f"{WORDS[i]} " * (1 + i % 3)] for i in rows]]
    for shift in range(1 + negatives):
        columns.append([["Doc: ", f"{WORDS[i - shift - 1]} of {WORDS[i % 4]}" + " far away" * (i % 2)] for i in rows])
    columns[1][4] = columns[1][1]
    return columns


def preprocess(model, columns) -> list[dict[str, torch.Tensor]]:
    return [model.preprocess(column) for column in columns]


def read_texts(columns) -> list[list[tuple[str, str]]]:
    return [[tuple(row) for row in column] for column in columns]


@pytest.fixture(scope="module", params=["prepend", "dual"])
def model(request, tmp_path_factory):
    return build_small_model(tmp_path_factory.mktemp(request.param), request.param)


OPTIONS = [
    {},
    {"objective": "margin", "margin": 0.5, "weight": 2.0},
    {"false_negative_margin": -0.1, "hardness_mode": "all_negatives", "hardness_strength": 2.0},
    {"in_batch_negatives": False},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_forward_equals_the_naive_loop(model, options):
    columns = make_columns()
    features = preprocess(model, columns)
    before = [{key: value.clone() for key, value in column.items() if torch.is_tensor(value)} for column in features]
    loss = MultitaskInstructionLoss(model, temperature=0.5, **options)
    value = loss(features, LABELS)
    for column, old in zip(features, before, strict=True):
        for key, tensor in old.items():
            assert torch.equal(column[key], tensor), key  # the inputs are as they were
    value.backward()
    found = read_gradients(model)
    vectors = [model(column)["sentence_embedding"] for column in preprocess(model, columns)]
    expected, accuracy = naive_loss(loss.settings, vectors, LABELS.tolist(), read_texts(columns))
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), abs=1e-8)
    assert loss.last_accuracy.item() == pytest.approx(accuracy)
    assert_same_gradients(found, read_gradients(model))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("mini_batch", [{"mini_batch_size": 3}, {"mini_batch_num_tokens": 25}, {"mini_batch_size": 50}])
def test_gradient_cache_equals_the_plain_loss(model, options, mini_batch):
    columns = make_columns()
    plain = MultitaskInstructionLoss(model, temperature=0.5, **options)
    value = plain(preprocess(model, columns), LABELS)
    (3 * value).backward()
    expected = read_gradients(model)
    cached = MultitaskInstructionLoss(model, temperature=0.5, **options, **mini_batch)
    assert cached.uses_gradient_cache
    assert not plain.uses_gradient_cache
    cached_value = cached(preprocess(model, columns), LABELS)
    assert cached_value.item() == pytest.approx(value.item(), abs=1e-8)
    assert cached.last_accuracy.item() == plain.last_accuracy.item()
    assert read_gradients(model) == {}  # they come with the backward pass
    (3 * cached_value).backward()
    assert_same_gradients(read_gradients(model), expected)
    with torch.no_grad():
        assert cached(preprocess(model, columns), LABELS).item() == pytest.approx(value.item(), abs=1e-8)


@pytest.mark.parametrize("architecture", ["prepend", "dual"])
def test_gradient_cache_replays_dropout(tmp_path, architecture):
    """By hand: every mini-batch is embedded in turn, so that dropout draws what the first of the two passes drew."""
    model = build_small_model(tmp_path, architecture, dropout=0.2)
    columns = make_columns()
    loss = MultitaskInstructionLoss(model, temperature=0.5, mini_batch_size=3)
    torch.manual_seed(5)
    value = loss(preprocess(model, columns), LABELS)
    value.backward()
    found = read_gradients(model)
    torch.manual_seed(5)
    reps = [
        [model(model.preprocess(column[begin : begin + 3]))["sentence_embedding"] for begin in range(0, SIZE, 3)]
        for column in columns
    ]
    hashes = tuple(hash_rows(column) for column in preprocess(model, columns))
    plain = MultitaskInstructionLoss(model, temperature=0.5)
    expected = plain.calculate_loss(reps, RowFacts(LABELS, hashes))
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), abs=1e-8)
    assert_same_gradients(found, read_gradients(model))


def test_loss_stage_holds_no_square_of_the_batch(monkeypatch):
    """No tensor of the loss stage is larger than a chunk of rows times the documents."""
    sizes = []
    masked_fill = torch.Tensor.masked_fill

    def watch(self, *args):
        sizes.append(tuple(self.shape))
        return masked_fill(self, *args)

    monkeypatch.setattr(torch.Tensor, "masked_fill", watch)
    columns = [torch.randn(50, 4).requires_grad_() for _ in range(3)]
    loss = MultitaskInstructionLoss(None, mini_batch_size=8)
    loss.calculate_loss([[column] for column in columns], with_backward=True)
    assert {size[0] for size in sizes} == {8, 2}
    assert {size[1] for size in sizes} == {50, 100}


DIMENSIONS, WEIGHTS = [16, 8, 4], [1.0, 0.5, 2.0]


@pytest.mark.parametrize("mini_batch", [{}, {"mini_batch_size": 3}])
@pytest.mark.parametrize("guided", [False, True])
def test_matryoshka_is_the_sum_over_dimensions(model, t5_model, mini_batch, guided):
    columns = make_columns()
    options = {"guide": t5_model, "false_negative_margin": 0.05} if guided else {}
    loss = MultitaskInstructionLoss(model, temperature=0.5, **options, **mini_batch)
    texts, judges = read_texts(columns), None
    if guided:
        judges = loss.guide.embed(preprocess(model, columns))
    value = MatryoshkaLoss(model, loss, DIMENSIONS, WEIGHTS)(preprocess(model, columns), LABELS)
    value.backward()
    found = read_gradients(model)
    vectors = [model(column)["sentence_embedding"] for column in preprocess(model, columns)]
    expected = sum(
        weight * naive_loss(loss.settings, [v[:, :dimension] for v in vectors], LABELS.tolist(), texts, judges)[0]
        for dimension, weight in zip(DIMENSIONS, WEIGHTS, strict=True)
    )
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    assert_same_gradients(found, read_gradients(model))


def test_mini_batches_of_tokens_really_are_several(model):
    features = preprocess(model, make_columns())
    assert all(1 < len(_minibatch_ranges(column, 1, 25)) < SIZE for column in features)


CASES = {
    "prepend": ("prepend", {"false_negative_margin": -0.1}),
    "cached": ("prepend", {"mini_batch_size": 3, "hardness_mode": "all_negatives", "hardness_strength": 2.0}),
    "dual": ("dual", {"objective": "margin", "margin": 0.5, "mini_batch_size": 3}),
    "classes": ("prepend", {"mini_batch_size": 3}),
}


def compute_case(name: str, model, rows: slice, **options) -> dict:
    """Loss, accuracy and gradients of a part of the batch of eight."""
    columns = [column[rows] for column in make_columns(8)]
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 5, 2])[rows]
    build = SupervisedContrastiveLoss if name == "classes" else MultitaskInstructionLoss
    loss = build(model, temperature=0.5, **{**CASES[name][1], **options})
    value = loss(preprocess(model, columns[:1] if name == "classes" else columns), labels)
    value.backward()
    return {"loss": value.detach(), "accuracy": loss.last_accuracy.double(), "gradients": read_gradients(model)}


def work(rank: int, port: int, folder: str) -> None:
    """One of two processes: its half of the batch, everything averaged as DDP does it."""
    torch.set_num_threads(1)
    models = {kind: build_small_model(Path(folder, f"{kind}{rank}"), kind) for kind in ("prepend", "dual")}
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for name, (kind, _) in CASES.items():
        half = slice(4 * rank, 4 * rank + 4)
        result = compute_case(name, models[kind], half, gather_across_devices=True)
        for tensor in (result["loss"], result["accuracy"], *result["gradients"].values()):
            torch.distributed.all_reduce(tensor)
            tensor /= 2
        if rank == 0:
            torch.save(result, Path(folder, f"{name}.pt"))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one_with_the_whole_batch(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, str(tmp_path)), nprocs=2)
    for name, (kind, _) in CASES.items():
        found = torch.load(tmp_path / f"{name}.pt")
        model = build_small_model(tmp_path / name, kind)
        expected = compute_case(name, model, slice(None), mini_batch_size=None)
        assert found["loss"].item() == pytest.approx(expected["loss"].item(), abs=1e-8), name
        assert found["accuracy"].item() == pytest.approx(expected["accuracy"].item()), name
        assert_same_gradients(found["gradients"], expected["gradients"])
