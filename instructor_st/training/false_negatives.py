"""False negatives: documents and queries of a batch that are no negatives of a row.

Row `i` has the query `q_i`, the positive `p_i` and hard negatives. Two rows are *alike* if they have one label. Texts are
the same if they agree with their instruction, token by token. What is no negative of row `i`:

- from the query, a document that is the same text as `p_i` or `q_i`, and the positive of a row that is alike or has the
  same query;
- from the positive, a query that is the same text as `q_i` or `p_i`, and the query of a row that is alike or has the same
  positive;
- with a margin, whatever scores above the row's own pair less the margin (`exceeds_margin`).

Which texts are the same is read from the tokens, so neither dropout nor rounding matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers.util import all_gather
from torch import Tensor

from instructor_st.modules.dual_encoder_concat import INSTRUCTION_ATTENTION_MASK, INSTRUCTION_IDS, TUNED_TASK
from instructor_st.modules.instruction_prepend import INSTRUCTION_MASK, SOFT_PROMPT
from instructor_st.training.loss_settings import MarginStrategy

__all__ = ["RowFacts", "exceeds_margin", "find_false_documents", "find_false_queries", "hash_rows"]

# The constants of the splitmix64 generator (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_FIRST_FACTOR = 0xBF58476D1CE4E5B9 - 2**64
_SECOND_FACTOR = 0x94D049BB133111EB - 2**64
_INSTRUCTION_SALT = 0x5851F42D4C957F2D


@dataclass(frozen=True)
class RowFacts:
    """What is known of a batch's rows besides the model's own vectors.

    Attributes:
        labels: `(batch,)`; equal for rows that are not each other's negatives. `None`: all differ.
        hashes: One a column, query first, each `(batch,)`: equal where instruction and text are. `None`: not compared.
        guide_vectors: One a column, each `(batch, guide's dimension)`, of length 1. `None`: there is no guide.
    """

    labels: Tensor | None = None
    hashes: tuple[Tensor, ...] | None = None
    guide_vectors: tuple[Tensor, ...] | None = None

    def gather(self) -> RowFacts:
        """Join the facts of all processes, in the order of their ranks."""
        return RowFacts(
            None if self.labels is None else all_gather(self.labels),
            None if self.hashes is None else tuple(map(all_gather, self.hashes)),
            None if self.guide_vectors is None else tuple(map(all_gather, self.guide_vectors)),
        )


def hash_rows(features: Mapping[str, Any]) -> Tensor:
    """Hash the tokens of each row, instruction and text, whatever the padding and its side.

    A row's hash is the sum over its tokens of a pseudo-random 64-bit number for token and position (splitmix64's
    finaliser). Different texts share one with a probability of about 2^-64.

    Args:
        features: What `preprocess` made: `input_ids` and `attention_mask` `(batch, sequence)`; or, flattened,
            `input_ids` `(1, total tokens)` and `cu_seq_lens_q` `(batch + 1,)`. Which tokens are the instruction's
            (`instruction_mask`), an instruction that stands apart (`instruction_ids`), and the tuned task that stands in
            its place (`soft_prompt`, `tuned_task`) count too.

    Returns:
        Integers, `(batch,)`.

    Raises:
        ValueError: If the features have no tokens in rows.
    """
    ids = features.get("input_ids")
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        raise ValueError(
            f"Cannot compare the texts of a batch: its features ({', '.join(features)}) have no rows of input_ids. "
            "Say mask_same_text=False."
        )
    # The same tokens, cut into instruction and text elsewhere, are pooled elsewhere.
    tokens = ids.long() * 2 + features.get(INSTRUCTION_MASK, torch.zeros_like(ids)).long()
    if SOFT_PROMPT in features:
        # Placeholders are alike for all tuned tasks; their vectors, counted from 1, are not.
        tokens = torch.where(features[SOFT_PROMPT] > 0, -features[SOFT_PROMPT].long(), tokens)
    if "cu_seq_lens_q" in features:
        boundaries = features["cu_seq_lens_q"].long()
        rows = torch.repeat_interleave(boundaries.diff(), output_size=ids.numel())
        places = torch.arange(ids.numel(), device=ids.device) - boundaries[rows]
        empty = torch.zeros(len(boundaries) - 1, dtype=torch.long, device=ids.device)
        return empty.index_add(0, rows, _mix(tokens.view(-1), places))
    mask = features.get("attention_mask")
    hashes = _sum_hashes(tokens, torch.ones_like(tokens) if mask is None else mask.long())
    if INSTRUCTION_IDS in features:
        instruction_ids, instruction_mask = features[INSTRUCTION_IDS], features[INSTRUCTION_ATTENTION_MASK]
        hashes = hashes + _INSTRUCTION_SALT * _sum_hashes(
            instruction_ids.squeeze(1).long(), instruction_mask.squeeze(1).long()
        )
    if TUNED_TASK in features:
        places = features[TUNED_TASK].long()
        hashes = hashes + _INSTRUCTION_SALT * _sum_hashes(-places, (places > 0).long())
    return hashes


def find_false_documents(facts: RowFacts, rows: Tensor, *, size: int, columns: int) -> Tensor:
    """Find the documents that are no negatives of some queries, by text and label.

    Args:
        facts: Of the whole batch.
        rows: Which rows' queries, `(rows,)`.
        size: The rows of the whole batch.
        columns: How many columns of documents there are, the positives' first.

    Returns:
        Booleans, `(rows, columns * size)`, column after column; the rows' own positives are marked too.
    """
    false = torch.zeros(len(rows), columns * size, dtype=torch.bool, device=rows.device)
    if facts.labels is not None:
        false[:, :size] |= _equal(facts.labels, facts.labels[rows])
    if facts.hashes is not None:
        queries, positives, *_ = facts.hashes
        documents = torch.cat(facts.hashes[1:])
        false |= _equal(documents, positives[rows]) | _equal(documents, queries[rows])
        false[:, :size] |= _equal(queries, queries[rows])
    return false


def find_false_queries(facts: RowFacts, rows: Tensor, *, size: int) -> Tensor:
    """Find the queries that are no negatives of some positives, by text and label.

    Args:
        facts: Of the whole batch.
        rows: Which rows' positives, `(rows,)`.
        size: The rows of the whole batch.

    Returns:
        Booleans, `(rows, size)`; the rows' own queries are marked too.
    """
    false = torch.zeros(len(rows), size, dtype=torch.bool, device=rows.device)
    if facts.labels is not None:
        false |= _equal(facts.labels, facts.labels[rows])
    if facts.hashes is not None:
        queries, positives, *_ = facts.hashes
        false |= _equal(queries, queries[rows]) | _equal(queries, positives[rows])
        false |= _equal(positives, positives[rows])
    return false


def exceeds_margin(scores: Tensor, own_scores: Tensor, *, margin: float, strategy: MarginStrategy) -> Tensor:
    """Find candidates that score too near to the own pair, or above it, to be believed negatives.

    The threshold is `own - margin` (absolute) or `own - |own| * margin` (relative), as in sentence-transformers'
    `GISTEmbedLoss` (after Solatorio 2024, "GISTEmbed", arXiv 2402.16829; the margins after de Souza et al. 2024,
    "NV-Retriever", arXiv 2407.15831).

    Args:
        scores: `(rows, candidates)`.
        own_scores: `(rows,)`, those of the rows' own pairs.
        margin: The margin.
        strategy: `absolute` or `relative`.

    Returns:
        Booleans, `(rows, candidates)`.
    """
    slack = margin if strategy == "absolute" else own_scores.abs() * margin
    return scores > (own_scores - slack)[:, None]


def _equal(values: Tensor, row_values: Tensor) -> Tensor:
    return row_values[:, None] == values


def _sum_hashes(tokens: Tensor, mask: Tensor) -> Tensor:
    """Hash padded rows, `(batch, sequence)`."""
    return (_mix(tokens, mask.cumsum(dim=1) - 1) * mask).sum(dim=1)


def _mix(tokens: Tensor, places: Tensor) -> Tensor:
    """Give every token at every place its pseudo-random number; integers wrap around."""
    # Vocabularies and windows are far below 2^31, so no two (token, place) share a state.
    state = ((tokens << 31) + places + 1) * _GAMMA
    state = (state ^ _shift_right(state, 30)) * _FIRST_FACTOR
    state = (state ^ _shift_right(state, 27)) * _SECOND_FACTOR
    return state ^ _shift_right(state, 31)


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """Shift without the sign, which torch's shift would draw in from the left."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
