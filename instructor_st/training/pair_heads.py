"""The heads of tasks that compare texts; they have no weights, what learns is the model."""

from __future__ import annotations

from typing import Any, ClassVar

from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from sentence_transformers.util import pairwise_cos_sim
from torch import Tensor

from instructor_st.training.head_checks import check_number, check_numbers
from instructor_st.training.loss import MultitaskInstructionLoss
from instructor_st.training.loss_settings import Objective
from instructor_st.training.task_head import ScorePrediction, TaskHead

__all__ = ["PairsHead", "SimilarityHead"]

# The losses embed with their model; these heads are given vectors, so there is none.
_NO_MODEL: Any = None


class PairsHead(TaskHead):
    """Draws a query to its positive and away from negatives: `MultitaskInstructionLoss` on vectors.

    Columns are the query, its positive, and any number of hard negatives; the other rows of the batch are negatives too.
    Texts are not compared, so give each row a class where a text may come twice. A prediction is the cosine of two
    columns.

    `targets` are integers, `(batch,)`: rows of one class are not each other's negatives. `None`: all differ.

    Args:
        objective: `infonce` or `margin`; see `ContrastiveSettings`, as for all that follow.
        temperature: As there.
        margin: As there.
        share_hard_negatives: As there.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind: ClassVar[str] = "pairs"
    fewest_columns: ClassVar[int] = 2
    most_columns: ClassVar[int | None] = None

    def __init__(
        self,
        *,
        objective: Objective = "infonce",
        temperature: float = 0.05,
        margin: float = 0.2,
        share_hard_negatives: bool = True,
    ) -> None:
        super().__init__()
        self.loss = MultitaskInstructionLoss(
            _NO_MODEL,
            objective=objective,
            temperature=temperature,
            margin=margin,
            share_hard_negatives=share_hard_negatives,
        )

    def config(self) -> dict[str, Any]:
        """Return what `from_config` makes the head of."""
        settings = self.loss.settings
        return {
            "kind": self.kind,
            "objective": settings.objective,
            "temperature": settings.temperature,
            "margin": settings.margin,
            "share_hard_negatives": settings.share_hard_negatives,
        }

    def _compute_loss(self, columns: list[Tensor], targets: Tensor | None) -> Tensor:
        labels = None if targets is None else targets.to(columns[0].device)
        return self.loss.compute_loss_from_embeddings(columns, labels)

    def _predict(self, columns: list[Tensor]) -> ScorePrediction:
        if len(columns) != 2:
            raise ValueError(f"A pairs head compares 2 columns; {len(columns)} came. Predict negatives one at a time.")
        return ScorePrediction(pairwise_cos_sim(*columns))


class SimilarityHead(TaskHead):
    """Ranks pairs as their grades do: sentence-transformers' `CoSENTLoss` on vectors.

    Only the order of the grades within a batch counts, not their range. A prediction is the cosine.

    `targets` are the grades, `(batch,)`.

    Args:
        scale: What cosines are multiplied with, above 0.

    Raises:
        ValueError: If the scale is none.
    """

    kind: ClassVar[str] = "similarity"
    fewest_columns: ClassVar[int] = 2
    most_columns: ClassVar[int | None] = 2

    def __init__(self, scale: float = 20.0) -> None:
        super().__init__()
        self.loss = CoSENTLoss(_NO_MODEL, scale=check_number("scale", scale, above=0))

    def config(self) -> dict[str, Any]:
        """Return what `from_config` makes the head of."""
        return {"kind": self.kind, "scale": self.loss.scale}

    def _compute_loss(self, columns: list[Tensor], targets: Tensor | None) -> Tensor:
        grades = check_numbers(self.kind, targets, len(columns[0])).to(columns[0].device)
        return self.loss.compute_loss_from_embeddings(columns, grades)

    def _predict(self, columns: list[Tensor]) -> ScorePrediction:
        return ScorePrediction(pairwise_cos_sim(*columns))
