"""Checks of what heads are given: settings and targets."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_classes", "check_marks", "check_number", "check_numbers"]


def check_number(name: str, value: Any, *, above: float | None = None, whole: bool = False) -> Any:
    """Check a setting that is to be a finite number.

    Args:
        name: Of the setting.
        value: What it is.
        above: What it must be above.
        whole: Whether it must be a whole number.

    Returns:
        The number, as Python's own float, or int if `whole`.

    Raises:
        ValueError: If it is none; the message names the setting and the value.
    """
    if not isinstance(value, bool) and isinstance(value, Integral if whole else Real):
        number: float = int(value) if isinstance(value, Integral) and whole else float(value)
        if math.isfinite(number) and (above is None or number > above):
            return number
    wanted = "a whole number" if whole else "a finite number"
    raise ValueError(f"{name} must be {wanted}{'' if above is None else f' above {above:g}'}, not {value!r}.")


def check_numbers(kind: str, targets: Tensor | None, rows: int) -> Tensor:
    """Check that each row has a finite number.

    Args:
        kind: Of the head, for the errors.
        targets: The numbers, `(rows,)`.
        rows: How many there must be.

    Returns:
        The numbers, in single precision at least.

    Raises:
        ValueError: If they are something else.
    """
    if targets is None:
        raise ValueError(f"A {kind} head needs targets: a number for each row.")
    if tuple(targets.shape) != (rows,):
        raise ValueError(f"Targets of a {kind} head must have the shape ({rows},); {tuple(targets.shape)} came.")
    wrong = (~targets.isfinite()).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(f"The target of row {row} is {targets[row].item()}; it must be a finite number.")
    return targets.to(torch.promote_types(targets.dtype, torch.float32))


def check_classes(targets: Tensor | None, rows: int, count: int) -> Tensor:
    """Check that each row has a class.

    Args:
        targets: Places among the labels, `(rows,)`.
        rows: How many there must be.
        count: How many labels there are.

    Returns:
        The targets, 64-bit.

    Raises:
        ValueError: If they are something else; the message names the first row that is wrong.
    """
    if targets is None:
        raise ValueError("A classification head needs targets: the place of each row's class among the labels.")
    if tuple(targets.shape) != (rows,) or targets.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8):
        raise ValueError(
            f"Targets of classes must be integers of the shape ({rows},); {targets.dtype} of the shape "
            f"{tuple(targets.shape)} came."
        )
    wrong = ((targets < 0) | (targets >= count)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(f"The target of row {row} is {int(targets[row])}; classes go from 0 to {count - 1}.")
    return targets.long()


def check_marks(targets: Tensor | None, rows: int, count: int) -> Tensor:
    """Check that each row has a 0 or a 1 for each label.

    Args:
        targets: Zeros and ones, `(rows, labels)`.
        rows: How many there must be.
        count: How many labels there are.

    Returns:
        The targets as they are.

    Raises:
        ValueError: If they are something else; the message names the first row that is wrong.
    """
    if targets is None:
        raise ValueError("A classification head needs targets: a 0 or a 1 for each row and label.")
    if tuple(targets.shape) != (rows, count):
        raise ValueError(
            f"Targets of several labels must have the shape ({rows}, {count}); {tuple(targets.shape)} came."
        )
    wrong = ((targets != 0) & (targets != 1)).nonzero()
    if len(wrong):
        row, place = wrong[0].tolist()
        raise ValueError(f"The target of row {row}, label {place} is {targets[row, place].item()}; it must be 0 or 1.")
    return targets
