"""Settings of instruction finetuning."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

__all__ = ["ClassObjective", "FinetuneSettings", "TunedPart"]

TunedPart = Literal["vector", "lora", "encoder"]
ClassObjective = Literal["contrastive", "cross_entropy"]


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """What of the instruction side is trained, and how.

    Attributes:
        part: Dual: the instruction's `"vector"`, or `"lora"` on its encoder, or the whole `"encoder"`. The encoder is a
            way to find a vector: what is kept is the vector, and the model's own encoder stays as it is.
        tune_dense: Dual: whether the Dense behind the concatenation changes for this task too.
        dense_rank: Dual: the change of the Dense is stored as factors of this rank; `None` stores it whole.
        prompt_length: Prepend: how many vectors; `None`: as many as the written instruction has tokens (8 without one).
        class_objective: Classes: `"contrastive"` (texts of a class together) or `"cross_entropy"` of a head.
        learning_rate: Of AdamW; `None` chooses by the part.
        max_epochs: Most passes over the rows.
        batch_size: Rows a step.
        temperature: Of the contrastive objectives.
        dropout: Of the text vectors, against learning few rows by heart (dual only).
        weight_decay: Of the Dense's change, towards none.
        balance_classes: Whether rows of rare classes are repeated, at most `max_repeats` times an epoch.
        max_repeats: See there.
        folds: Parts of the cross-validation that chooses the number of epochs and tells whether tuning helps; 1 holds one
            fifth out once; `None`: 5 for a dual model, 1 for a prepend model, whose texts must be encoded in each epoch.
        keep_head: Whether a head for predictions is fitted and kept.
        seed: Of everything random.
    """

    part: TunedPart = "vector"
    tune_dense: bool = True
    dense_rank: int | None = None
    prompt_length: int | None = None
    class_objective: ClassObjective = "contrastive"
    learning_rate: float | None = None
    max_epochs: int = 32
    batch_size: int = 256
    temperature: float = 0.05
    dropout: float = 0.3
    weight_decay: float = 0.01
    balance_classes: bool = True
    max_repeats: int = 4
    folds: int | None = None
    keep_head: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {"part": ("vector", "lora", "encoder"), "class_objective": ("contrastive", "cross_entropy")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}.")
        for name in ("max_epochs", "batch_size", "max_repeats", "dense_rank", "prompt_length", "folds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}.")
        if not self.temperature > 0 or (self.learning_rate is not None and not self.learning_rate > 0):
            raise ValueError("temperature and learning_rate must be above 0.")
        if not 0 <= self.dropout < 1 or self.weight_decay < 0:
            raise ValueError("dropout must be from 0 to below 1, and weight_decay 0 or more.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by name, JSON-able."""
        return {each.name: getattr(self, each.name) for each in fields(self)}
