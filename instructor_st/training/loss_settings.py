"""The settings of the contrastive loss, and their check."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["ContrastiveSettings", "HardnessMode", "MarginStrategy", "Objective"]

Objective = Literal["infonce", "margin"]
MarginStrategy = Literal["absolute", "relative"]
HardnessMode = Literal["in_batch_negatives", "hard_negatives", "all_negatives"]

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "objective": ("infonce", "margin"),
    "margin_strategy": ("absolute", "relative"),
    "hardness_mode": (None, "in_batch_negatives", "hard_negatives", "all_negatives"),
}
_SWITCHES = ("in_batch_negatives", "share_hard_negatives", "mask_same_text", "gather_across_devices")
_ABOVE_ZERO = ("temperature", "weight")
_NOT_BELOW_ZERO = ("margin", "hardness_strength")
_COUNTS = ("mini_batch_size", "mini_batch_num_tokens")


@dataclass(frozen=True)
class ContrastiveSettings:
    r"""What `MultitaskInstructionLoss` can be told.

    Attributes:
        objective: `infonce` (a softmax over the candidates, both directions) or `margin` (a hinge on the cosine of each
            negative, from query to documents).
        temperature: :math:`\tau` of `infonce`, above 0. The paper says 0.01 for its T5; with all-MiniLM-L6-v2 on 24 rows of
            each of 124 tasks, once through (one seed, held-out accuracy and its gap to a wrong instruction), 0.01 gave 0.580
            and 0.027, 0.02 0.578 and 0.023, 0.05 0.593 and 0.037, 0.1 0.585 and 0.010: hence 0.05.
        margin: By how much `margin` wants the positive above each negative, on the cosine; 0 or more.
        weight: A factor of the loss, above 0, so that one task counts more or less than another.
        in_batch_negatives: Whether other rows of the batch are negatives. If not, a row has its own hard ones only, and
            `infonce` has one direction.
        share_hard_negatives: Whether a row's hard negatives serve the other rows of the batch too. Say `False` for rows
            of classes, where the negative of one row may belong to the class of another.
        mask_same_text: Whether false negatives are found by their text (see `instructor_st.training.false_negatives`).
        false_negative_margin: If given, negatives that score above the positive's score less this margin are left out.
        margin_strategy: `absolute`: the margin is subtracted from the positive's score; `relative`: this share of its
            size is.
        hardness_mode: Which negatives of a query get `hardness_strength` times their own cosine (without gradient)
            added to their logit: those of other rows, the own hard ones, all, or (`None`) none.
        hardness_strength: That factor, 0 or more.
        gather_across_devices: Whether the rows of all processes are one batch.
        mini_batch_size: If given, texts are embedded, and the loss is worked out, for so many rows at a time (GradCache,
            arXiv 2101.06983): the memory does not grow with the batch, every text is embedded twice.
        mini_batch_num_tokens: The same with a number of tokens at a time.

    Raises:
        ValueError: If a value is not of its kind or out of range.
    """

    objective: Objective = "infonce"
    temperature: float = 0.05
    margin: float = 0.2
    weight: float = 1.0
    in_batch_negatives: bool = True
    share_hard_negatives: bool = True
    mask_same_text: bool = True
    false_negative_margin: float | None = None
    margin_strategy: MarginStrategy = "absolute"
    hardness_mode: HardnessMode | None = None
    hardness_strength: float = 0.0
    gather_across_devices: bool = False
    mini_batch_size: int | None = None
    mini_batch_num_tokens: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}.")
        for name in _SWITCHES:
            if not isinstance(value := getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, not {value!r}.")
        for name in _ABOVE_ZERO:
            if not (_is_number(value := getattr(self, name)) and value > 0):
                raise ValueError(f"{name} must be above 0, not {value!r}.")
        for name in _NOT_BELOW_ZERO:
            if not (_is_number(value := getattr(self, name)) and value >= 0):
                raise ValueError(f"{name} must be 0 or more, not {value!r}.")
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number of 1 or more, or nothing, not {value!r}.")
        if self.false_negative_margin is not None and not _is_number(self.false_negative_margin):
            raise ValueError(f"false_negative_margin must be a number or nothing, not {self.false_negative_margin!r}.")
        if self.hardness_strength > 0 and self.hardness_mode is None:
            raise ValueError(
                f"hardness_strength is {self.hardness_strength}, but hardness_mode says that no negative gets it."
            )
        if self.hardness_strength > 0 and self.objective == "margin":
            raise ValueError("hardness_strength belongs to the softmax; the objective 'margin' has none. Set it to 0.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by name, as JSON can hold them."""
        return asdict(self)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
