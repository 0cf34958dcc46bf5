"""A guide: another model that says which negatives are false."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from sentence_transformers import SentenceTransformer
from torch import Tensor

from instructor_st.modules import DualEncoderConcat, InstructionPrepend
from instructor_st.modules.dual_encoder_concat import INSTRUCTION_ATTENTION_MASK, INSTRUCTION_IDS
from instructor_st.modules.instruction_prepend import INSTRUCTION_MASK

__all__ = ["Guide", "decode_rows"]


class Guide:
    """Embeds the texts of a batch with another model, without gradients.

    The texts are read back from the trained model's tokens, as sentence-transformers' `GISTEmbedLoss` does it, so the
    guide keeps its own tokenizer and window. A guide that takes instructions gets `[instruction, text]`; any other gets
    the text alone, with its own `query` or `document` prompt where it has one.

    It is no `nn.Module`, so that its weights are neither trained nor saved with the loss.

    Args:
        model: The trained model, for its tokenizers.
        guide: The guide.
    """

    def __init__(self, model: SentenceTransformer, guide: SentenceTransformer) -> None:
        first = model[0]
        self._text_tokenizer: Any = first.tokenizer
        self._instruction_tokenizer: Any = (
            first.instruction_encoder.tokenizer if isinstance(first, DualEncoderConcat) else first.tokenizer
        )
        self._guide = guide
        self._takes_instructions = isinstance(guide[0], (InstructionPrepend, DualEncoderConcat))
        self._last: tuple[list[weakref.ref[Tensor]], tuple[Tensor, ...]] | None = None

    @property
    def name(self) -> str:
        """The guide's model id or folder, else its class."""
        config = getattr(getattr(self._guide[0], "auto_model", None), "config", None)
        return (
            self._guide.model_card_data.base_model or getattr(config, "_name_or_path", "") or type(self._guide).__name__
        )

    def embed(self, columns: Sequence[Mapping[str, Any]], *, batch_size: int = 32) -> tuple[Tensor, ...]:
        """Embed the columns of a batch.

        The last batch is remembered, since MatryoshkaLoss asks for it once a dimension.

        Args:
            columns: The trained model's features of the query and of each column of documents.
            batch_size: How many texts are embedded at a time.

        Returns:
            One a column, each `(batch, guide's dimension)`, of length 1.
        """
        keys = [features["input_ids"] for features in columns]
        if self._last is not None:
            seen, vectors = self._last
            if len(seen) == len(keys) and all(ref() is key for ref, key in zip(seen, keys, strict=True)):
                return vectors
        vectors = tuple(self._embed_column(features, place, batch_size) for place, features in enumerate(columns))
        self._last = ([weakref.ref(key) for key in keys], vectors)
        return vectors

    def _embed_column(self, features: Mapping[str, Any], place: int, batch_size: int) -> Tensor:
        rows = decode_rows(features, self._text_tokenizer, instruction_tokenizer=self._instruction_tokenizer)
        inputs: Any = [list(row) for row in rows] if self._takes_instructions else [text for _, text in rows]
        encode = self._guide.encode_query if place == 0 else self._guide.encode_document
        device = features["input_ids"].device
        vectors = encode(
            inputs, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False, device=str(device)
        )
        # encode() works in inference mode, whose tensors autograd refuses.
        return F.normalize(vectors.to(device).clone().float(), dim=-1)


def decode_rows(
    features: Mapping[str, Any], text_tokenizer: Any, *, instruction_tokenizer: Any = None
) -> list[tuple[str, str]]:
    """Read instructions and texts back from a batch's tokens.

    Args:
        features: What `preprocess` made, padded or flattened.
        text_tokenizer: Of the texts.
        instruction_tokenizer: Of instructions that stand apart; by default the same.

    Returns:
        `(instruction, text)` a row; without an instruction `""`, else it ends in a space.
    """
    ids = features["input_ids"]
    in_instruction = features.get(INSTRUCTION_MASK, torch.zeros_like(ids)).bool()
    texts = _decode(features, ids, ~in_instruction, text_tokenizer)
    if INSTRUCTION_IDS in features:
        mask = features[INSTRUCTION_ATTENTION_MASK].squeeze(1)
        apart = {"attention_mask": mask}
        instructions = _decode(
            apart, features[INSTRUCTION_IDS].squeeze(1), mask.bool(), instruction_tokenizer or text_tokenizer
        )
    else:
        instructions = _decode(features, ids, in_instruction, text_tokenizer)
    # Word-piece tokenizers set the colon at an instruction's end apart.
    instructions = [f"{each.replace(' :', ':')} " if each else "" for each in instructions]
    return list(zip(instructions, texts, strict=True))


def _decode(features: Mapping[str, Any], ids: Tensor, chosen: Tensor, tokenizer: Any) -> list[str]:
    """Decode the chosen tokens of each row."""
    if "cu_seq_lens_q" in features:
        lengths = features["cu_seq_lens_q"].diff().tolist()
        pieces = list(zip(ids[0].split(lengths), chosen[0].split(lengths), strict=True))
    else:
        mask = features.get("attention_mask")
        pieces = list(zip(ids, chosen if mask is None else chosen & mask.bool(), strict=True))
    rows = [row[keep].tolist() for row, keep in pieces]
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]
