"""The head of a task whose texts have a number each."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from instructor_st.training.head_checks import check_number, check_numbers
from instructor_st.training.task_head import DEFAULT_SCALE, ScaledLinear, ScorePrediction, TaskHead

__all__ = ["RegressionHead"]


class RegressionHead(TaskHead):
    r"""Tells a number of a text: a linear layer, and the squared error on standardized targets.

    With the layer's output :math:`z`, the loss is the mean of :math:`(z - (y - m) / s)^2`, :math:`m` and :math:`s` being
    `mean` and `spread`; the prediction is :math:`m + s z`, in the targets' units. So the loss, and with it the learning
    rate, does not depend on these units, and an untrained head predicts the mean. The input is scaled to the length
    `scale`, and weights start at 0: see `ScaledLinear`.

    `targets` are numbers, `(batch,)`.

    Args:
        dimension: Of the embeddings.
        mean: Of the training targets.
        spread: Their standard deviation, above 0.
        scale: The length that vectors are scaled to, above 0.

    Raises:
        ValueError: If a setting is none.
    """

    kind: ClassVar[str] = "regression"

    def __init__(self, dimension: int, *, mean: float, spread: float, scale: float = DEFAULT_SCALE) -> None:
        super().__init__()
        self.mean = check_number("mean", mean)
        if spread == 0:
            raise ValueError("spread is 0: all targets are equal, and there is nothing to learn. Add rows that differ.")
        self.spread = check_number("spread", spread, above=0)
        dimension = check_number("dimension", dimension, above=0, whole=True)
        self.linear = ScaledLinear(dimension, 1, scale=check_number("scale", scale, above=0))

    def config(self) -> dict[str, Any]:
        """Return what `from_config` makes the head of."""
        return {
            "kind": self.kind,
            "dimension": self.linear.weight.shape[1],
            "mean": self.mean,
            "spread": self.spread,
            "scale": self.linear.scale,
        }

    def _compute_loss(self, columns: list[Tensor], targets: Tensor | None) -> Tensor:
        outputs = self.linear(columns[0]).squeeze(1)
        numbers = check_numbers(self.kind, targets, len(outputs))
        return F.mse_loss(outputs, ((numbers - self.mean) / self.spread).to(outputs))

    def _predict(self, columns: list[Tensor]) -> ScorePrediction:
        return ScorePrediction(self.mean + self.spread * self.linear(columns[0]).squeeze(1))
