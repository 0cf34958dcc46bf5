"""Losses that are a sum over the rows of a batch: plain, or with GradCache a few rows at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import CachedLossMixin, has_static_embedding_input
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.util import all_gather_with_grad, get_rank
from torch import Tensor, nn

from instructor_st.training.false_negatives import RowFacts

__all__ = ["RowLoss", "RowTerms"]

_DEFAULT_ROWS = 32  # at a time, where only the number of tokens is given


@dataclass(frozen=True)
class RowTerms:
    """What some rows add to the loss.

    Attributes:
        loss: The sum of their losses, a scalar.
        hits: How many of them rank right, a scalar without gradient.
    """

    loss: Tensor
    hits: Tensor


class RowLoss(CachedLossMixin, nn.Module):
    """The frame of a loss that compares each row of a batch with all others.

    It embeds the columns, normalizes the vectors to length 1 in single precision at least (autocast is off from there
    on), joins the rows of all processes if asked to, and averages what `compute_rows` gives over this process's rows.

    With `mini_batch_size` or `mini_batch_num_tokens` it is sentence-transformers' GradCache (Gao et al. 2021, arXiv
    2101.06983): texts are embedded some at a time, once without and once with gradients, and the scores are worked out
    for `mini_batch_size` rows (32 if not given) at a time, so that memory does not grow with the square of the batch.

    Attributes:
        last_accuracy: The share of this process's rows that ranked right in the last forward pass, a scalar; under
            MatryoshkaLoss that of the dimension that came last, its smallest. `None` before the first.

    Args:
        model: The model.
        weight: A factor of the loss.
        gather_across_devices: Whether the rows of all processes are one batch.
        mini_batch_size: How many rows at a time; `None` with no `mini_batch_num_tokens` either: all.
        mini_batch_num_tokens: How many tokens at a time.

    Raises:
        ValueError: If a model whose inputs have no rows is to be embedded in mini-batches.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        weight: float = 1.0,
        gather_across_devices: bool = False,
        mini_batch_size: int | None = None,
        mini_batch_num_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.uses_gradient_cache = mini_batch_size is not None or mini_batch_num_tokens is not None
        if self.uses_gradient_cache and model is not None and has_static_embedding_input(model):
            raise ValueError("A model with a StaticEmbedding cannot be embedded in mini-batches; leave them out.")
        self.model = model
        self.weight = weight
        self.gather_across_devices = gather_across_devices
        self.mini_batch_size = mini_batch_size or _DEFAULT_ROWS
        self.mini_batch_num_tokens = mini_batch_num_tokens
        self.last_accuracy: Tensor | None = None

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch.

        Args:
            sentence_features: The features of each column, as the model's `preprocess` made them. Outputs are added to
                them, inputs stay as they are.
            labels: Integers, `(batch,)`; rows of one label belong together. `None`: all differ.

        Returns:
            The loss, a scalar.

        Raises:
            ValueError: If the columns or the labels are not what the loss needs.
        """
        columns = list(sentence_features)
        facts = self.collect_facts(columns, labels)
        if self.uses_gradient_cache:
            # The mixin hands its labels through to calculate_loss as they are.
            return self.forward_cached(columns, facts)  # type: ignore[arg-type]
        return self.calculate_loss([[column] for column in embed_columns(self.model, columns)], facts)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compute the loss from embedded columns, without what only the features tell (texts, a guide).

        Args:
            embeddings: One a column, each `(batch, dimension)`.
            labels: See `forward`.

        Returns:
            The loss, a scalar.

        Raises:
            ValueError: If the columns or the labels are not what the loss needs.
        """
        return self.calculate_loss([[column] for column in embeddings], labels)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | RowFacts | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Compute the loss from columns that were embedded in mini-batches; GradCache and MatryoshkaLoss call it.

        Args:
            reps: For each column its mini-batches, each `(rows, dimension)`.
            labels: The labels, or all that is known of the rows.
            with_backward: Whether to propagate the gradients to `reps` at once, chunk by chunk.

        Returns:
            The loss, a scalar; without a graph if `with_backward`.

        Raises:
            ValueError: If the columns or the labels are not what the loss needs.
        """
        facts = labels if isinstance(labels, RowFacts) else RowFacts(labels)
        local = [torch.cat(mini_batches) for mini_batches in reps]
        facts = self._check(local, facts)
        # Half precision would round the similarities before the softmax sharpens them.
        with torch.autocast(local[0].device.type, enabled=False):
            columns = [_normalize(column) for column in local]
            if self.gather_across_devices:
                columns = [all_gather_with_grad(column) for column in columns]
                facts = facts.gather()
            # One pass backward through the gathering, however many chunks there are.
            leaves = [column.detach().requires_grad_() for column in columns] if with_backward else columns
            loss = self._sum_chunks(leaves, facts, len(local[0]), with_backward)
            if with_backward:
                grown = [(column, leaf.grad) for column, leaf in zip(columns, leaves, strict=True)]
                torch.autograd.backward([column for column, _ in grown], [grad for _, grad in grown])
        return loss

    @abstractmethod
    def compute_rows(self, columns: list[Tensor], facts: RowFacts, rows: Tensor) -> RowTerms:
        """Compute what some rows add to the loss.

        Args:
            columns: The vectors of the whole batch, one a column, each `(batch, dimension)`, of length 1.
            facts: Of the whole batch.
            rows: Which rows, `(rows,)`.

        Returns:
            Their terms.
        """

    @abstractmethod
    def check_columns(self, count: int, facts: RowFacts) -> None:
        """Refuse a batch that the loss cannot work on.

        Args:
            count: How many columns there are.
            facts: Of this process's rows.

        Raises:
            ValueError: If the loss needs something else.
        """

    def collect_facts(self, features: list[dict[str, Any]], labels: Tensor | None) -> RowFacts:
        """Read from a batch, before it is embedded, what the loss needs to know of its rows.

        Args:
            features: One a column.
            labels: See `forward`.

        Returns:
            The facts of this process's rows.
        """
        facts = RowFacts(labels)
        self.check_columns(len(features), facts)
        return facts

    def _check(self, columns: list[Tensor], facts: RowFacts) -> RowFacts:
        self.check_columns(len(columns), facts)
        if facts.labels is None:
            return facts
        if facts.labels.numel() != len(columns[0]):
            raise ValueError(
                f"{type(self).__name__} needs one label a row, {len(columns[0])}; labels of the shape "
                f"{tuple(facts.labels.shape)} came."
            )
        return RowFacts(facts.labels.view(-1), facts.hashes, facts.guide_vectors)

    def _sum_chunks(self, columns: list[Tensor], facts: RowFacts, local_rows: int, with_backward: bool) -> Tensor:
        """Average over this process's rows, a chunk of them at a time."""
        start = get_rank() * local_rows if self.gather_across_devices else 0
        rows = torch.arange(start, start + local_rows, device=columns[0].device)
        losses, hits = [], []
        for chunk in rows.split(self.mini_batch_size if self.uses_gradient_cache else local_rows):
            terms = self.compute_rows(columns, facts, chunk)
            loss = self.weight * terms.loss / local_rows
            if with_backward:
                loss.backward()
                loss = loss.detach()
            losses.append(loss)
            hits.append(terms.hits)
        self.last_accuracy = torch.stack(hits).sum() / local_rows
        return torch.stack(losses).sum()


def _normalize(vectors: Tensor) -> Tensor:
    """Scale vectors to length 1, in single precision or better."""
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)
