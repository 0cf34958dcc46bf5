from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from torch import nn

import instructor_st  # noqa: F401  (its import lets SentenceTransformer load our modules)
from instructor_st.modules import DenseDelta, TunedDense
from instructor_st.modules.tuned_dense import DENSE_DELTAS

SHAPES = [(6, 4), (4, 6), (5, 5)]  # in, out


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_dense(size_in: int, size_out: int, *, residual: bool = True, **options) -> Dense:
    torch.manual_seed(0)
    return Dense(size_in, size_out, use_residual=residual, **options).double()


def make_delta(dense: Dense, seed: int = 1, scale: float = 1.0) -> DenseDelta:
    zeros = DenseDelta.zeros(dense).tensors
    tensors = {name: draw(*zero.shape, seed=seed + place) for place, (name, zero) in enumerate(zeros.items())}
    return DenseDelta({name: scale * tensor for name, tensor in tensors.items()})


def multiply(matrix: torch.Tensor, vector: list[float]) -> list[float]:
    return [sum(w * x for w, x in zip(row, vector, strict=True)) for row in matrix.tolist()]


def apply_by_hand(dense: Dense, delta: dict[str, torch.Tensor], vectors: torch.Tensor, activation) -> list[list[float]]:
    """Row by row, with plain numbers and the changed matrices."""
    results = []
    for vector in vectors.tolist():
        hidden = multiply(dense.linear.weight.detach() + delta.get("linear", 0), vector)
        bias = torch.zeros(dense.out_features, dtype=torch.float64)
        bias = bias + (dense.linear.bias.detach() if dense.bias else 0) + delta.get("bias", 0)
        row = [activation(h + b) for h, b in zip(hidden, bias.tolist(), strict=True)]
        if dense.use_residual:
            shortcut = vector
            if hasattr(dense, "residual"):
                shortcut = multiply(dense.residual.weight.detach() + delta.get("residual", 0), vector)
            row = [r + s for r, s in zip(row, shortcut, strict=True)]
        results.append(row)
    return results


def run(dense: Dense, vectors: torch.Tensor, deltas=None) -> torch.Tensor:
    features = {"sentence_embedding": vectors} | ({} if deltas is None else {DENSE_DELTAS: deltas})
    return dense(features)["sentence_embedding"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_apply_is_a_dense_with_changed_weights(shape, residual, bias):
    dense = make_dense(*shape, residual=residual, bias=bias)
    delta = make_delta(dense)
    has_residual = residual and shape[0] != shape[1]
    assert set(delta.tensors) == {"linear", "bias"} | ({"residual"} if has_residual else set())
    delta.check_fit(dense)
    vectors = draw(3, shape[0], seed=9)
    expected = apply_by_hand(dense, dict(delta.tensors), vectors, math.tanh)
    torch.testing.assert_close(delta.apply(dense, vectors), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("absent", ["linear", "residual", "bias"])
def test_what_is_absent_is_zero(absent):
    dense = make_dense(6, 4, activation_function=nn.Identity())
    tensors = {name: tensor for name, tensor in make_delta(dense).tensors.items() if name != absent}
    vectors = draw(2, 6, seed=9)
    expected = apply_by_hand(dense, tensors, vectors, lambda value: value)
    torch.testing.assert_close(DenseDelta(tensors).apply(dense, vectors), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("residual", [False, True])
def test_zeros_change_nothing(residual):
    dense = make_dense(6, 4, residual=residual)
    vectors = draw(3, 6)
    torch.testing.assert_close(DenseDelta.zeros(dense).apply(dense, vectors), run(dense, vectors))


def test_a_compressed_delta_of_that_rank_is_the_delta():
    dense = make_dense(12, 10)
    full = DenseDelta(
        {
            "linear": draw(10, 2, seed=1) @ draw(2, 12, seed=2),
            "residual": draw(10, 2, seed=3) @ draw(2, 12, seed=4),
            "bias": draw(10, seed=5),
        }
    )
    small = full.compress(2)
    shapes = {name: tuple(tensor.shape) for name, tensor in small.tensors.items()}
    assert shapes == {
        "linear_out": (10, 2),
        "linear_in": (2, 12),
        "residual_out": (10, 2),
        "residual_in": (2, 12),
        "bias": (10,),
    }
    small.check_fit(dense)
    vectors = draw(3, 12, seed=9)
    expected = torch.tensor(apply_by_hand(dense, dict(full.tensors), vectors, math.tanh), dtype=torch.float64)
    torch.testing.assert_close(small.apply(dense, vectors), expected, atol=1e-5, rtol=0)
    one = full.compress(1).apply(dense, vectors)
    assert (one - expected).abs().max() > 1e-2


def test_compression_is_the_nearest_of_its_rank():
    matrix = draw(10, 12)
    small = DenseDelta({"linear": matrix}).compress(3).tensors
    values = torch.linalg.svdvals(matrix)
    # Eckart and Young 1936: the error of the best approximation is what the left-out singular values make.
    error = torch.linalg.matrix_norm(matrix - small["linear_out"].double() @ small["linear_in"].double())
    assert error.item() == pytest.approx(values[3:].square().sum().sqrt().item(), rel=1e-5)


def test_a_matrix_whose_factors_are_no_smaller_stays_whole():
    matrix = draw(4, 4)
    assert DenseDelta({"linear": matrix}).compress(2).tensors == {"linear": matrix}  # 2 * 8 = 16
    assert set(DenseDelta({"linear": matrix}).compress(1).tensors) == {"linear_out", "linear_in"}
    for rank in (0, -1):
        with pytest.raises(ValueError, match=f"1 or more, not {rank}"):
            DenseDelta({"linear": matrix}).compress(rank)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"linear": draw(4, 6), "weight": draw(4, 6)}, "no weight; known: bias, linear, linear_in"),
        ({"linear_in": draw(2, 6)}, "linear_out is missing"),
        ({"residual_out": draw(4, 2)}, "residual_in is missing"),
        ({"linear_out": draw(4, 2), "linear_in": draw(3, 6)}, r"\(4, 2\) and \(3, 6\)"),
        ({"linear_out": draw(4, 2, 1), "linear_in": draw(2, 6)}, r"\(4, 2, 1\) and \(2, 6\)"),
        ({"linear": draw(4, 6), "linear_out": draw(4, 2), "linear_in": draw(2, 6)}, "whole and as factors"),
    ],
)
def test_tensors_that_are_no_delta_are_refused(tensors, message):
    with pytest.raises(ValueError, match=message):
        DenseDelta(tensors)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"linear": draw(6, 4)}, r"linear is \(6, 4\), this model's Dense 4 x 6"),
        ({"linear_out": draw(6, 2), "linear_in": draw(2, 6)}, r"linear_out is \(6, 2\)"),
        ({"linear_out": draw(4, 2), "linear_in": draw(2, 4)}, r"linear_in is \(2, 4\)"),
        ({"bias": draw(6)}, r"bias is \(6,\)"),
        ({"bias": draw(4, 1)}, r"bias is \(4, 1\)"),
        ({"residual": draw(4, 6)}, "changes the Dense's residual, which this model's has not"),
        ({"residual_out": draw(4, 1), "residual_in": draw(1, 6)}, "residual, which this model's has not"),
    ],
)
def test_a_dense_of_other_sizes_is_refused(tensors, message):
    with pytest.raises(ValueError, match=message):
        DenseDelta(tensors).check_fit(make_dense(6, 4, residual=False))


def test_another_module_is_refused():
    with pytest.raises(ValueError, match="needs a Dense behind the concatenation, not Linear"):
        DenseDelta({"bias": draw(4)}).check_fit(nn.Linear(6, 4))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_compressed", [False, True])
def test_rows_of_several_tasks_in_one_batch(shape, is_compressed):
    stock = make_dense(*shape)
    dense = TunedDense.from_dense(copy.deepcopy(stock))
    first, second = make_delta(stock, seed=1), make_delta(stock, seed=5)
    if is_compressed:
        first, second = first.compress(1), second.compress(1)
    vectors = draw(7, shape[0], seed=9)
    owners = [0, 1, 0, 2, 2, 1, 0]
    rows = [torch.tensor([at for at, owner in enumerate(owners) if owner == each]) for each in (1, 2)]
    output = run(dense, vectors, [(rows[0], first), (rows[1], second)])
    plain = run(stock, vectors)
    for at, owner in enumerate(owners):
        if owner == 0:
            assert torch.equal(output[at], plain[at])
            continue
        changed = dict((first, second)[owner - 1].tensors)
        for layer in ("linear", "residual"):
            if f"{layer}_out" in changed:
                changed[layer] = changed[f"{layer}_out"] @ changed[f"{layer}_in"]
        expected = apply_by_hand(stock, changed, vectors[at : at + 1], math.tanh)
        torch.testing.assert_close(output[at], torch.tensor(expected[0], dtype=torch.float64), atol=1e-5, rtol=0)
        assert (output[at] - plain[at]).abs().max() > 1e-3


def test_without_deltas_it_is_the_dense_and_shares_its_weights():
    stock = make_dense(6, 4).eval()
    dense = TunedDense.from_dense(stock)
    vectors = draw(3, 6)
    for deltas in (None, []):
        assert torch.equal(run(dense, vectors, deltas), run(stock, vectors))
    assert dense.linear.weight is stock.linear.weight
    assert dense.training is False
    assert dense.get_config_dict() == stock.get_config_dict()
    assert isinstance(dense, Dense)


def test_other_keys_of_the_features():
    dense = TunedDense.from_dense(make_dense(6, 4, module_input_name="first", module_output_name="second"))
    delta, vectors = make_delta(dense), draw(3, 6)
    features = dense({"first": vectors, DENSE_DELTAS: [(torch.tensor([1]), delta)]})
    assert torch.equal(features["first"], vectors)
    torch.testing.assert_close(features["second"][1], delta.apply(dense, vectors[1:2])[0])
    assert torch.equal(features["second"][0], run(make_dense(6, 4), vectors)[0])


def test_gradients_reach_the_delta_and_the_weights_from_their_rows():
    dense = TunedDense.from_dense(make_dense(6, 4))
    delta = DenseDelta({name: nn.Parameter(zero) for name, zero in DenseDelta.zeros(dense).tensors.items()})
    run(dense, draw(3, 6), [(torch.tensor([0, 2]), delta)])[1].sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in delta.tensors.values())
    dense.zero_grad()
    run(dense, draw(3, 6), [(torch.tensor([0, 2]), delta)])[0].sum().backward()
    assert all(parameter.grad.any() for parameter in delta.tensors.values())
    # At zero the change's gradient is that of the weights themselves.
    torch.testing.assert_close(delta.tensors["linear"].grad, dense.linear.weight.grad)
    torch.testing.assert_close(delta.tensors["residual"].grad, dense.residual.weight.grad)


def test_half_precision_dense_and_single_precision_delta():
    dense = TunedDense.from_dense(make_dense(6, 4).bfloat16())
    delta = DenseDelta({name: tensor.float() for name, tensor in make_delta(dense).tensors.items()})
    vectors = draw(2, 6).bfloat16()
    output = run(dense, vectors, [(torch.tensor([0]), delta)])
    assert output.dtype == torch.bfloat16
    exact = delta.apply(make_dense(6, 4), vectors.double())
    torch.testing.assert_close(output[0].double(), exact[0], atol=5e-2, rtol=0)


def test_a_saved_tuned_dense_is_loaded_as_one(tmp_path):
    dense = TunedDense.from_dense(make_dense(6, 4).float())
    SentenceTransformer(modules=[dense], device="cpu").save_pretrained(str(tmp_path))
    assert "instructor_st.modules.TunedDense" in (tmp_path / "modules.json").read_text()
    loaded = SentenceTransformer(str(tmp_path), device="cpu")[0]
    assert type(loaded) is TunedDense
    vectors = draw(2, 6).float()
    assert torch.equal(run(loaded, vectors), run(dense, vectors))
    again = pickle.loads(pickle.dumps(dense))
    assert type(again) is TunedDense
    assert torch.equal(run(again, vectors), run(dense, vectors))
