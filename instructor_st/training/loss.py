"""The contrastive loss of instruction finetuning."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from sentence_transformers import SentenceTransformer
from torch import Tensor

from instructor_st.training.false_negatives import (
    RowFacts,
    exceeds_margin,
    find_false_documents,
    find_false_queries,
    hash_rows,
)
from instructor_st.training.guide import Guide
from instructor_st.training.loss_settings import ContrastiveSettings, HardnessMode, MarginStrategy, Objective
from instructor_st.training.row_loss import RowLoss, RowTerms

__all__ = ["MultitaskInstructionLoss"]


class MultitaskInstructionLoss(RowLoss):
    r"""Contrasts each query's positive with its hard negatives and with the batch.

    With the cosine :math:`s` and the temperature :math:`\tau`, the objective `infonce` adds for each query :math:`q_i`
    with its positive :math:`p_i`

    .. math::
        -\log \frac{e^{s(q_i, p_i)/\tau}}{\sum_{d \in D_i} e^{s(q_i, d)/\tau}}
        -\log \frac{e^{s(q_i, p_i)/\tau}}{\sum_{q \in Q_i} e^{s(q, p_i)/\tau}}

    averaged over the batch: equation 1 of Su et al. 2022 (arXiv 2212.09741, section 2.2) and the same with the sides
    swapped, added up. :math:`D_i` holds :math:`p_i` and the negatives, :math:`Q_i` holds :math:`q_i` and the other
    queries. The objective `margin` is, averaged over the query's :math:`n_i` negatives and then over the batch (a query
    without any counts 0),

    .. math::
        \frac{1}{n_i} \sum_{d \in D_i \setminus p_i} \max(0, m - s(q_i, p_i) + s(q_i, d))

    Negatives are the batch's other positives and hard negatives, less the false ones: those of one label, the same texts
    (`instructor_st.training.false_negatives`), and, with `false_negative_margin`, what scores too near to the positive
    by the guide, or, without one, by the model itself, in both directions. The own pair always stays. With
    `in_batch_negatives=False` a row has its own hard negatives only and nothing is contrasted from :math:`p_i`.

    Hardness weighting is that of sentence-transformers' `MultipleNegativesRankingLoss`: `hardness_strength` times the
    negative's cosine, taken as a constant, is added to its logit (Lan et al. 2025, arXiv 2503.04812, eq. 5; with own
    hard negatives Schechter Vera et al. 2025, arXiv 2509.20354), from the queries' side.

    A row's accuracy (`last_accuracy`) is whether the positive scores above all of the query's negatives.

    Args:
        model: The model.
        guide: Another model that scores for `false_negative_margin`; it is not trained.
        objective: See `ContrastiveSettings`, as for all that follow.
        temperature: As there.
        margin: As there.
        weight: As there.
        in_batch_negatives: As there.
        share_hard_negatives: As there.
        mask_same_text: As there.
        false_negative_margin: As there.
        margin_strategy: As there.
        hardness_mode: As there.
        hardness_strength: As there.
        gather_across_devices: As there.
        mini_batch_size: As there.
        mini_batch_num_tokens: As there.

    Raises:
        ValueError: If a setting is out of range, or there is a guide and no `false_negative_margin`.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        guide: SentenceTransformer | None = None,
        objective: Objective = "infonce",
        temperature: float = 0.05,
        margin: float = 0.2,
        weight: float = 1.0,
        in_batch_negatives: bool = True,
        share_hard_negatives: bool = True,
        mask_same_text: bool = True,
        false_negative_margin: float | None = None,
        margin_strategy: MarginStrategy = "absolute",
        hardness_mode: HardnessMode | None = None,
        hardness_strength: float = 0.0,
        gather_across_devices: bool = False,
        mini_batch_size: int | None = None,
        mini_batch_num_tokens: int | None = None,
    ) -> None:
        # One list of names: the dataclass checks and keeps what the signature shows.
        given = dict(locals())
        settings = ContrastiveSettings(**{name: given[name] for name in ContrastiveSettings.__dataclass_fields__})
        if guide is not None and settings.false_negative_margin is None:
            raise ValueError(
                "A guide says nothing without false_negative_margin; 0.0 leaves out what beats the positive."
            )
        super().__init__(
            model,
            weight=settings.weight,
            gather_across_devices=settings.gather_across_devices,
            mini_batch_size=settings.mini_batch_size,
            mini_batch_num_tokens=settings.mini_batch_num_tokens,
        )
        self.settings = settings
        self.guide = None if guide is None else Guide(model, guide)

    @property
    def temperature(self) -> float:
        r""":math:`\tau`."""
        return self.settings.temperature

    @property
    def share_hard_negatives(self) -> bool:
        """Whether a row's hard negatives serve the other rows of the batch too."""
        return self.settings.share_hard_negatives

    def check_columns(self, count: int, facts: RowFacts) -> None:
        """Refuse a batch without positives, or without any negative.

        Args:
            count: How many columns there are.
            facts: Of this process's rows.

        Raises:
            ValueError: If a column is missing.
        """
        if count < 2:
            raise ValueError(f"A row needs a query and a positive at least; {count} column(s) came.")
        if count < 3 and not self.settings.in_batch_negatives:
            raise ValueError(
                "Without in_batch_negatives a row needs hard negatives; only a query and a positive came. "
                "Mine some, or say in_batch_negatives=True."
            )

    def collect_facts(self, features: list[dict[str, Any]], labels: Tensor | None) -> RowFacts:
        """Read labels, texts and the guide's vectors; see `RowLoss.collect_facts`.

        Args:
            features: One a column.
            labels: See `forward`.

        Returns:
            The facts of this process's rows.
        """
        facts = super().collect_facts(features, labels)
        hashes = tuple(map(hash_rows, features)) if self.settings.mask_same_text else None
        vectors = None if self.guide is None else self.guide.embed(features, batch_size=self.mini_batch_size)
        return RowFacts(facts.labels, hashes, vectors)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compute the loss from embedded columns; texts are not compared then.

        Args:
            embeddings: Query, positive and negatives, each `(batch, dimension)`.
            labels: See `forward`.

        Returns:
            The loss, a scalar.

        Raises:
            ValueError: If there are fewer than two columns, or there is a guide, which reads texts.
        """
        if self.guide is not None:
            raise ValueError("The guide reads texts, and vectors have none: call the loss with the features.")
        return super().compute_loss_from_embeddings(embeddings, labels)

    def compute_rows(self, columns: list[Tensor], facts: RowFacts, rows: Tensor) -> RowTerms:
        """Compute what some rows add to the loss; see `RowLoss.compute_rows`.

        Args:
            columns: The vectors of the whole batch, query first, each `(batch, dimension)`.
            facts: Of the whole batch.
            rows: Which rows, `(rows,)`.

        Returns:
            Their terms.
        """
        queries, positives, *_ = columns
        scores = queries[rows] @ torch.cat(columns[1:]).T
        # Documents come column after column, so a row's positive has the row's own number.
        own_scores = scores.gather(1, rows[:, None])
        excluded = self._exclude_documents(columns, facts, rows, scores.detach())
        rivals = excluded.scatter(1, rows[:, None], True)
        with torch.no_grad():
            hits = (scores.masked_fill(rivals, -torch.inf) < own_scores).all(dim=1).sum()
        if self.settings.objective == "margin":
            hinges = F.relu(self.settings.margin - own_scores + scores).masked_fill(rivals, 0.0)
            counts = (~rivals).sum(dim=1).clamp(min=1)
            return RowTerms((hinges.sum(dim=1) / counts).sum(), hits)
        logits = scores / self.settings.temperature
        if self.settings.hardness_mode is not None and self.settings.hardness_strength > 0:
            logits = logits + self._weigh_hardness(scores.detach(), rows, len(queries))
        loss = F.cross_entropy(logits.masked_fill(excluded, -torch.inf), rows, reduction="sum")
        if self.settings.in_batch_negatives:
            scores = positives[rows] @ queries.T
            excluded = self._exclude_queries(facts, rows, scores.detach())
            logits = (scores / self.settings.temperature).masked_fill(excluded, -torch.inf)
            loss = loss + F.cross_entropy(logits, rows, reduction="sum")
        return RowTerms(loss, hits)

    def _exclude_documents(self, columns: list[Tensor], facts: RowFacts, rows: Tensor, scores: Tensor) -> Tensor:
        """Mark the documents that a query is not to be contrasted with, `(rows, documents)`."""
        size = len(columns[0])
        excluded = find_false_documents(facts, rows, size=size, columns=len(columns) - 1)
        elsewhere = rows[:, None] != torch.arange(size, device=rows.device)
        if not self.settings.in_batch_negatives:
            excluded |= elsewhere.repeat(1, len(columns) - 1)
        elif not self.settings.share_hard_negatives:
            excluded[:, size:] |= elsewhere.repeat(1, len(columns) - 2)
        if facts.guide_vectors is not None:
            queries, *documents = facts.guide_vectors
            scores = queries[rows] @ torch.cat(documents).T
        return self._exclude_near_positive(excluded, scores, rows)

    def _exclude_queries(self, facts: RowFacts, rows: Tensor, scores: Tensor) -> Tensor:
        """Mark the queries that a positive is not to be contrasted with, `(rows, batch)`."""
        excluded = find_false_queries(facts, rows, size=scores.shape[1])
        if facts.guide_vectors is not None:
            queries, positives, *_ = facts.guide_vectors
            scores = positives[rows] @ queries.T
        return self._exclude_near_positive(excluded, scores, rows)

    def _exclude_near_positive(self, excluded: Tensor, scores: Tensor, rows: Tensor) -> Tensor:
        """Mark what scores too near to the own pair, and take the mark off the own pair."""
        if self.settings.false_negative_margin is not None:
            own_scores = scores.gather(1, rows[:, None]).squeeze(1)
            excluded = excluded | exceeds_margin(
                scores,
                own_scores,
                margin=self.settings.false_negative_margin,
                strategy=self.settings.margin_strategy,
            )
        return excluded.scatter(1, rows[:, None], False)

    def _weigh_hardness(self, scores: Tensor, rows: Tensor, size: int) -> Tensor:
        """Compute what hardness adds to the logits, `(rows, documents)`."""
        is_own = rows[:, None] == torch.arange(size, device=rows.device)
        is_hard = is_own.repeat(1, scores.shape[1] // size).scatter(1, rows[:, None], False)
        is_elsewhere = ~is_own.repeat(1, scores.shape[1] // size)
        weighed = {
            "hard_negatives": is_hard,
            "in_batch_negatives": is_elsewhere,
            "all_negatives": is_hard | is_elsewhere,
        }[str(self.settings.hardness_mode)]
        return self.settings.hardness_strength * scores * weighed

    def get_config_dict(self) -> dict[str, Any]:
        """Return the loss's settings, for the model card."""
        return {**self.settings.to_dict(), "guide": None if self.guide is None else self.guide.name}

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
