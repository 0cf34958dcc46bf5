"""The loss of single texts with a class."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from instructor_st.training.false_negatives import RowFacts
from instructor_st.training.loss_settings import ContrastiveSettings
from instructor_st.training.row_loss import RowLoss, RowTerms

__all__ = ["SupervisedContrastiveLoss"]


class SupervisedContrastiveLoss(RowLoss):
    r"""Draws every text of a batch towards all others of its class.

    With the cosine :math:`s`, the temperature :math:`\tau` and the other rows of its class :math:`P_i`, the text
    :math:`x_i` adds

    .. math::
        -\frac{1}{|P_i|} \sum_{p \in P_i} \log \frac{e^{s(x_i, x_p)/\tau}}{\sum_{a \ne i} e^{s(x_i, x_a)/\tau}}

    averaged over the batch, where a text without a fellow counts 0: :math:`\mathcal{L}^{sup}_{out}` (equation 2) of Khosla
    et al. 2020, "Supervised Contrastive Learning" (arXiv 2004.11362).

    A row's accuracy (`last_accuracy`) is whether the nearest other text is of its class; a text without a fellow is not
    right.

    Args:
        model: The model.
        temperature: :math:`\tau`, above 0.
        weight: A factor of the loss, above 0.
        gather_across_devices: Whether the rows of all processes are one batch.
        mini_batch_size: How many rows at a time (GradCache); see `RowLoss`.
        mini_batch_num_tokens: How many tokens at a time.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        temperature: float = 0.05,
        weight: float = 1.0,
        gather_across_devices: bool = False,
        mini_batch_size: int | None = None,
        mini_batch_num_tokens: int | None = None,
    ) -> None:
        frame: dict[str, Any] = {
            "weight": weight,
            "gather_across_devices": gather_across_devices,
            "mini_batch_size": mini_batch_size,
            "mini_batch_num_tokens": mini_batch_num_tokens,
        }
        ContrastiveSettings(temperature=temperature, **frame)  # checks them
        super().__init__(model, **frame)
        self._settings = {"temperature": temperature, **frame}
        self.temperature = temperature

    def check_columns(self, count: int, facts: RowFacts) -> None:
        """Refuse a batch of pairs or without classes.

        Args:
            count: How many columns there are.
            facts: Of this process's rows.

        Raises:
            ValueError: If there is more than one column, or no labels.
        """
        if count != 1:
            raise ValueError(f"Rows of classes have one text column; {count} came.")
        if facts.labels is None:
            raise ValueError("Rows of classes need an integer column `label`; none came.")

    def compute_rows(self, columns: list[Tensor], facts: RowFacts, rows: Tensor) -> RowTerms:
        """Compute what some rows add to the loss; see `RowLoss.compute_rows`.

        Args:
            columns: The vectors of the whole batch, one column of `(batch, dimension)`.
            facts: Of the whole batch.
            rows: Which rows, `(rows,)`.

        Returns:
            Their terms.
        """
        (texts,) = columns
        labels: Any = facts.labels
        scores = texts[rows] @ texts.T
        own = rows[:, None] == torch.arange(len(texts), device=rows.device)
        fellows = (labels[rows][:, None] == labels) & ~own
        logits = (scores / self.temperature).masked_fill(own, -torch.inf)
        # The own place is -inf even after the softmax, and -inf * 0 is no number.
        log_shares = torch.log_softmax(logits, dim=1).masked_fill(~fellows, 0.0)
        loss = -(log_shares.sum(dim=1) / fellows.sum(dim=1).clamp(min=1)).sum()
        nearest = scores.detach().masked_fill(own, -torch.inf).argmax(dim=1, keepdim=True)
        return RowTerms(loss, fellows.gather(1, nearest).sum())

    def get_config_dict(self) -> dict[str, Any]:
        """Return the loss's settings, for the model card."""
        return dict(self._settings)

    @property
    def citation(self) -> str:
        """The paper's BibTeX entry, for the model card."""
        return """
@inproceedings{khosla2020supervised,
    title = {Supervised Contrastive Learning},
    author = {Khosla, Prannay and Teterwak, Piotr and Wang, Chen and Sarna, Aaron and Tian, Yonglong and Isola, Phillip and Maschinot, Aaron and Liu, Ce and Krishnan, Dilip},
    booktitle = {Advances in Neural Information Processing Systems},
    volume = {33},
    year = {2020},
    url = {https://arxiv.org/abs/2004.11362},
}
"""
