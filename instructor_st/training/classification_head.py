"""The head of a task whose texts have one class, or several labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from instructor_st.training.head_checks import check_classes, check_marks, check_number
from instructor_st.training.task_head import DEFAULT_SCALE, ClassPrediction, ScaledLinear, TaskHead

__all__ = ["ClassificationHead", "balance_classes", "balance_labels"]

_THRESHOLD = 0.5


class ClassificationHead(TaskHead):
    r"""Tells the class of a text: a linear layer, and the cross-entropy.

    With the logits :math:`z`, the class :math:`y_i` of row :math:`i` and the class weights :math:`w`, the loss of
    :math:`n` rows is

    .. math::
        -\frac{1}{n} \sum_i w_{y_i} \log \frac{e^{z_{i y_i}}}{\sum_c e^{z_{ic}}}

    It is divided by the rows, not by the sum of their weights as torch's mean is: that would take the weights away
    again from a small batch, wholly from one of a single class. Balanced weights average 1 over the data.

    With `multi_label` it is the mean over rows and labels of the binary cross-entropy, with the weight on the rows that
    have the label (torch's `pos_weight`).

    The input is scaled to the length `scale`, and weights start at 0: see `ScaledLinear`.

    `targets` are integers, places in `labels`, `(batch,)`; with `multi_label` zeros and ones, `(batch, labels)`.

    Args:
        dimension: Of the embeddings.
        labels: The names of the classes, all different, two at least (with `multi_label` one); their order stays.
        multi_label: Whether a text may have any number of labels.
        class_weights: One a label, above 0; `balance_classes` and `balance_labels` make them. `None`: all weigh 1.
        scale: The length that vectors are scaled to, above 0.

    Raises:
        ValueError: If a setting is none.
    """

    kind: ClassVar[str] = "classification"

    def __init__(
        self,
        dimension: int,
        labels: Sequence[str],
        *,
        multi_label: bool = False,
        class_weights: Sequence[float] | Tensor | None = None,
        scale: float = DEFAULT_SCALE,
    ) -> None:
        super().__init__()
        if not isinstance(multi_label, bool):
            raise ValueError(f"multi_label must be true or false, not {multi_label!r}.")
        self.labels = _check_labels(labels, fewest=1 if multi_label else 2)
        self.multi_label = multi_label
        dimension = check_number("dimension", dimension, above=0, whole=True)
        self.linear = ScaledLinear(dimension, len(self.labels), scale=check_number("scale", scale, above=0))
        self.class_weights = None if class_weights is None else _check_weights(class_weights, self.labels)

    def config(self) -> dict[str, Any]:
        """Return what `from_config` makes the head of."""
        return {
            "kind": self.kind,
            "dimension": self.linear.weight.shape[1],
            "labels": list(self.labels),
            "multi_label": self.multi_label,
            "class_weights": None if self.class_weights is None else list(self.class_weights),
            "scale": self.linear.scale,
        }

    def _compute_loss(self, columns: list[Tensor], targets: Tensor | None) -> Tensor:
        logits = self.linear(columns[0])
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        if self.multi_label:
            marks = check_marks(targets, len(logits), len(self.labels)).to(logits)
            return F.binary_cross_entropy_with_logits(logits, marks, pos_weight=weights)
        classes = check_classes(targets, len(logits), len(self.labels)).to(logits.device)
        return F.cross_entropy(logits, classes, weight=weights, reduction="sum") / len(logits)

    def _predict(self, columns: list[Tensor]) -> ClassPrediction:
        logits = self.linear(columns[0])
        if not self.multi_label:
            best = logits.argmax(dim=1).tolist()
            return ClassPrediction([self.labels[place] for place in best], logits.softmax(dim=1))
        probabilities = logits.sigmoid()
        # A label on the threshold itself, as all are before training, is not given.
        marks = (probabilities > _THRESHOLD).tolist()
        chosen = [[label for label, mark in zip(self.labels, row, strict=True) if mark] for row in marks]
        return ClassPrediction(chosen, probabilities)


def balance_classes(targets: Tensor, count: int) -> Tensor:
    r"""Weigh classes so that each counts alike, however many rows it has.

    Class :math:`c` with :math:`n_c` of the :math:`n` rows, one of :math:`k` classes, gets :math:`n / (k n_c)`: what
    scikit-learn calls `class_weight="balanced"` (King and Zeng 2001, "Logistic Regression in Rare Events Data").

    Args:
        targets: The classes of all training rows, integers from 0, `(rows,)`.
        count: How many classes there are.

    Returns:
        The weights, `(count,)`.

    Raises:
        ValueError: If a class has no row, or a target is no class.
    """
    rows = torch.bincount(check_classes(targets, targets.numel(), count).long(), minlength=count)
    if absent := (rows == 0).nonzero().view(-1).tolist():
        raise ValueError(
            f"Classes {absent} of {count} have no row: they cannot be learned. Add rows or leave them out."
        )
    return targets.numel() / (count * rows.to(torch.get_default_dtype()))


def balance_labels(targets: Tensor) -> Tensor:
    """Weigh each label's rows so that those with it count as much as those without it.

    Args:
        targets: Of all training rows, zeros and ones, `(rows, labels)`.

    Returns:
        For each label its rows without it, divided by its rows with it, `(labels,)`.

    Raises:
        ValueError: If a label stands on no row or on every row, or a target is neither 0 nor 1.
    """
    shape = tuple(targets.shape)
    if len(shape) != 2:
        raise ValueError(f"Targets of several labels must be (rows, labels); the shape {shape} came.")
    marked = check_marks(targets, shape[0], shape[1]).to(torch.get_default_dtype()).sum(dim=0)
    if one_sided := ((marked == 0) | (marked == shape[0])).nonzero().view(-1).tolist():
        raise ValueError(
            f"Labels {one_sided} stand on no row or on all {shape[0]}: they cannot be learned. Add rows or leave them out."
        )
    return (shape[0] - marked) / marked


def _check_labels(labels: Sequence[str], *, fewest: int) -> tuple[str, ...]:
    names = () if isinstance(labels, str) else tuple(labels)
    if len(names) < fewest or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"labels must be {fewest} or more names that are not empty, not {labels!r}.")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"labels must differ; {', '.join(map(repr, repeated))} came more than once.")
    return names


def _check_weights(weights: Sequence[float] | Tensor, labels: tuple[str, ...]) -> tuple[float, ...]:
    values = weights.tolist() if isinstance(weights, Tensor) else list(weights)
    if not isinstance(values, list) or len(values) != len(labels):
        raise ValueError(f"class_weights must be one number a label, {len(labels)}; {weights!r} came.")
    return tuple(
        check_number(f"The class weight of {label!r}", value, above=0)
        for label, value in zip(labels, values, strict=True)
    )
