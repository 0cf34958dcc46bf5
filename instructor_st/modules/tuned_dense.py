"""A Dense layer that differs by tuned task, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers.base.modules import Dense
from torch import Tensor, nn

__all__ = ["DENSE_DELTAS", "DenseDelta", "TunedDense"]

DENSE_DELTAS = "dense_deltas"
_LAYERS = ("linear", "residual")


@dataclass(frozen=True, eq=False)
class DenseDelta:
    """What a tuned task adds to the weights of a Dense.

    Attributes:
        tensors: `linear` and `residual`, each `(out, in)`, or its two factors `linear_out` `(out, rank)` and `linear_in`
            `(rank, in)` (`residual_out`, `residual_in`); `bias`, `(out,)`. What is absent is zero.

    Raises:
        ValueError: If a name is not known, or a factor does not fit or lacks the other.
    """

    tensors: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        known = {"bias", *_LAYERS, *(f"{layer}_{side}" for layer in _LAYERS for side in ("out", "in"))}
        if unknown := sorted(self.tensors.keys() - known):
            raise ValueError(f"A Dense has no {', '.join(unknown)}; known: {', '.join(sorted(known))}.")
        for layer in _LAYERS:
            self._check_factors(layer)

    @classmethod
    def zeros(cls, dense: Dense) -> DenseDelta:
        """Return a delta of zeros for a Dense, full size."""
        layers = {name: getattr(dense, name) for name in _LAYERS if hasattr(dense, name)}
        tensors = {name: torch.zeros_like(layer.weight) for name, layer in layers.items()}
        return cls({**tensors, "bias": dense.linear.weight.new_zeros(dense.out_features)})

    def compress(self, rank: int) -> DenseDelta:
        """Return the nearest delta of a rank, as factors (truncated singular value decomposition).

        Args:
            rank: At most so many singular values a matrix are kept.

        Returns:
            The delta; a matrix whose factors would be no smaller stays whole.

        Raises:
            ValueError: If `rank` is below 1.
        """
        if rank < 1:
            raise ValueError(f"A rank must be 1 or more, not {rank}.")
        tensors = {}
        for name, tensor in self.tensors.items():
            if name not in _LAYERS or rank * sum(tensor.shape) >= tensor.numel():
                tensors[name] = tensor
                continue
            left, values, right = torch.linalg.svd(tensor.detach().float(), full_matrices=False)
            tensors[f"{name}_out"] = left[:, :rank] * values[:rank]
            tensors[f"{name}_in"] = right[:rank]
        return DenseDelta(tensors)

    def apply(self, dense: Dense, vectors: Tensor) -> Tensor:
        """Compute what the changed Dense gives.

        Args:
            dense: The Dense as it is without the task.
            vectors: Its input, `(rows, in)`.

        Returns:
            `(rows, out)`.
        """
        hidden = dense.linear(vectors) + self._multiply("linear", vectors)
        if "bias" in self.tensors:
            hidden = hidden + self.tensors["bias"].to(vectors)
        result: Tensor = dense.activation_function(hidden)
        if dense.use_residual:
            shortcut = vectors if dense.in_features == dense.out_features else dense.residual(vectors)
            result = result + shortcut + self._multiply("residual", vectors)
        return result

    def check_fit(self, dense: nn.Module) -> None:
        """Refuse a module that the delta does not fit.

        Raises:
            ValueError: If it is no Dense, has no such layer or other sizes.
        """
        if not isinstance(dense, Dense):
            raise ValueError(f"A tuned Dense needs a Dense behind the concatenation, not {type(dense).__name__}.")
        for name, tensor in self.tensors.items():
            layer, _, side = name.partition("_")
            if not hasattr(dense, layer if name != "bias" else "linear"):
                raise ValueError(f"The tuned task changes the Dense's {layer}, which this model's has not.")
            out_features, in_features = dense.out_features, dense.in_features
            wanted = {"out": tensor.shape[:1] == (out_features,), "in": tensor.shape[-1:] == (in_features,)}
            whole = (out_features,) if name == "bias" else (out_features, in_features)
            if not wanted.get(side, tuple(tensor.shape) == whole):
                raise ValueError(
                    f"The tuned task's {name} is {tuple(tensor.shape)}, this model's Dense {out_features} x {in_features}."
                )

    def _check_factors(self, layer: str) -> None:
        """Refuse one factor without the other, two that cannot be multiplied, and factors beside the whole."""
        out_name, in_name = f"{layer}_out", f"{layer}_in"
        found = {name: self.tensors[name] for name in (out_name, in_name) if name in self.tensors}
        if not found:
            return
        if layer in self.tensors:
            raise ValueError(f"A tuned Dense has its {layer} whole and as factors; keep one of the two.")
        if len(found) < 2:
            missing = in_name if out_name in found else out_name
            raise ValueError(f"A tuned Dense has {next(iter(found))}, but {missing} is missing; copy the task anew.")
        outer, inner = tuple(found[out_name].shape), tuple(found[in_name].shape)
        if len(outer) != 2 or len(inner) != 2 or outer[1] != inner[0]:
            raise ValueError(f"{out_name} and {in_name} must be (out, rank) and (rank, in), not {outer} and {inner}.")

    def _multiply(self, layer: str, vectors: Tensor) -> Tensor | float:
        if layer in self.tensors:
            return vectors @ self.tensors[layer].to(vectors).T
        if f"{layer}_in" in self.tensors:
            into, out = self.tensors[f"{layer}_in"].to(vectors), self.tensors[f"{layer}_out"].to(vectors)
            return vectors @ into.T @ out.T
        return 0.0


class TunedDense(Dense):
    """sentence-transformers' `Dense`, plus the deltas of tuned tasks for the rows that name them.

    It keeps nothing itself: `DualEncoderConcat` holds the tasks and says which rows are whose.
    """

    __module__ = "instructor_st.modules"

    @classmethod
    def from_dense(cls, dense: Dense) -> TunedDense:
        """Turn a `Dense` into a `TunedDense` with the same weights, which the two share.

        Args:
            dense: The layer.

        Returns:
            The new module.
        """
        module = cls.__new__(cls)
        module.__dict__.update(dense.__dict__)
        return module

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        """Apply the layer.

        Args:
            features: `sentence_embedding`, `(batch, in)`, and, where a row belongs to a tuned task with a delta,
                `dense_deltas`: pairs of the rows' places and the delta.

        Returns:
            The same dict with `sentence_embedding`, `(batch, out)`.
        """
        vectors = features[self.module_input_name]
        super().forward(features)
        if deltas := features.get(DENSE_DELTAS):
            output = features[self.module_output_name].clone()
            for rows, delta in deltas:
                output[rows] = delta.apply(self, vectors[rows]).to(output.dtype)
            features[self.module_output_name] = output
        return features
