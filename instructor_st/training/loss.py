"""The contrastive loss of instruction finetuning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.util import all_gather, all_gather_with_grad, get_rank
from torch import Tensor, nn

__all__ = ["MultitaskInstructionLoss"]


class MultitaskInstructionLoss(nn.Module):
    r"""InfoNCE over the positive, the hard negatives and the batch, in both directions.

    With the cosine :math:`s` and the temperature :math:`\tau`, each query :math:`q_i` with its positive :math:`p_i` adds

    .. math::
        -\log \frac{e^{s(q_i, p_i)/\tau}}{\sum_{d \in D_i} e^{s(q_i, d)/\tau}}
        -\log \frac{e^{s(q_i, p_i)/\tau}}{\sum_{q \in Q_i} e^{s(q, p_i)/\tau}}

    averaged over the batch: equation 1 of Su et al. 2022 (arXiv 2212.09741, section 2.2) and the same with the sides
    swapped, added up. :math:`D_i` holds the batch's positives and hard negatives, :math:`Q_i` its queries; of other rows
    with the same label, the positives and the queries are left out, since they would be false negatives.

    Args:
        model: The model.
        temperature: :math:`\tau`, above 0.
        share_hard_negatives: Whether a row's hard negatives serve the other rows of the batch too. Say `False` for rows
            of classes, where the negative of one row may belong to the class of another.
        gather_across_devices: Whether the rows of all processes are one batch.

    Raises:
        ValueError: If the temperature is not above 0.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        temperature: float = 0.05,
        share_hard_negatives: bool = True,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}.")
        self.model = model
        self.temperature = temperature
        self.share_hard_negatives = share_hard_negatives
        self.gather_across_devices = gather_across_devices

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch.

        Args:
            sentence_features: The features of query, positive and any number of negatives.
            labels: Integers, `(batch,)`; equal for rows that are not each other's negatives. `None`: all differ.

        Returns:
            The loss, a scalar.

        Raises:
            ValueError: If there are fewer than two columns.
        """
        return self.compute_loss_from_embeddings(embed_columns(self.model, sentence_features), labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compute the loss from embedded columns.

        Args:
            embeddings: Query, positive and negatives, each `(batch, dimension)`.
            labels: See `forward`.

        Returns:
            The loss, a scalar.

        Raises:
            ValueError: If there are fewer than two columns.
        """
        if len(embeddings) < 2:
            raise ValueError(f"A row needs a query and a positive at least; {len(embeddings)} column(s) came.")
        # Half precision would round the similarities before the softmax sharpens them.
        queries, *documents = [F.normalize(column.float(), dim=-1) for column in embeddings]
        own = torch.arange(len(queries), device=queries.device)
        local_queries, local_positives = queries, documents[0]
        if self.gather_across_devices:
            own = own + get_rank() * len(queries)
            queries, *documents = [all_gather_with_grad(column) for column in (queries, *documents)]
            labels = None if labels is None else all_gather(labels)
        all_labels = torch.arange(len(queries), device=queries.device) if labels is None else labels.view(-1)
        others = torch.arange(len(queries), device=queries.device) != own[:, None]
        false_negatives = others & (all_labels[own][:, None] == all_labels)
        unshared = torch.zeros_like(others) if self.share_hard_negatives else others
        excluded_documents = torch.cat([false_negatives, *[unshared] * (len(documents) - 1)], dim=1)
        to_documents = local_queries @ torch.cat(documents).T / self.temperature
        to_queries = local_positives @ queries.T / self.temperature
        return F.cross_entropy(to_documents.masked_fill(excluded_documents, -torch.inf), own) + F.cross_entropy(
            to_queries.masked_fill(false_negatives, -torch.inf), own
        )

    def get_config_dict(self) -> dict[str, Any]:
        """Return the loss's settings, for the model card."""
        return {
            "temperature": self.temperature,
            "share_hard_negatives": self.share_hard_negatives,
            "gather_across_devices": self.gather_across_devices,
        }

    @property
    def citation(self) -> str:
        """The paper's BibTeX entry, for the model card."""
        return """
@inproceedings{su2023instructor,
    title = {One Embedder, Any Task: Instruction-Finetuned Text Embeddings},
    author = {Su, Hongjin and Shi, Weijia and Kasai, Jungo and Wang, Yizhong and Hu, Yushi and Ostendorf, Mari and Yih, Wen-tau and Smith, Noah A. and Zettlemoyer, Luke and Yu, Tao},
    booktitle = {Findings of the Association for Computational Linguistics: ACL 2023},
    year = {2023},
    url = {https://arxiv.org/abs/2212.09741},
}
"""
