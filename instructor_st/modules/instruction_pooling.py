"""Pooling that leaves the instruction's tokens out."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import Pooling

from instructor_st.modules.instruction_prepend import INSTRUCTION_MASK

__all__ = ["InstructionPooling"]


class InstructionPooling(Pooling):
    """Pools the text's tokens of each row, every row with its own instruction length.

    sentence-transformers' `Pooling(include_prompt=False)` applies one prompt length to a whole batch; this one reads
    the `instruction_mask` of `InstructionPrepend`, so one batch may mix any instructions. Everything else, the pooling
    modes, flattened batches and half precision included, is that class.

    Args:
        embedding_dimension: Size of the token embeddings.
        pooling_mode: A mode or several modes of `Pooling`; the INSTRUCTOR models use `"mean"`.
        include_instruction: Whether the instruction's tokens are pooled too.
    """

    __module__ = "instructor_st.modules"
    config_keys: list[str] = ["embedding_dimension", "pooling_mode", "include_instruction"]  # noqa: RUF012

    def __init__(
        self,
        embedding_dimension: int,
        pooling_mode: Any = "mean",
        *,
        include_instruction: bool = False,
    ) -> None:
        super().__init__(embedding_dimension, pooling_mode, include_prompt=include_instruction)

    @property
    def include_prompt(self) -> bool:
        """sentence-transformers' name for `include_instruction`, which its `set_pooling_include_prompt` sets."""
        return self.include_instruction

    @include_prompt.setter
    def include_prompt(self, value: bool) -> None:
        self.include_instruction = value

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Pool the token embeddings.

        Args:
            features: `token_embeddings` `(batch, sequence, hidden)`, `attention_mask` and `instruction_mask`
                `(batch, sequence)`; or flattened, with 1 as batch, all tokens as sequence, and `cu_seq_lens_q`.
            **kwargs: Not used.

        Returns:
            The same dict with `sentence_embedding`, `(batch, hidden)`, added.
        """
        if self.include_instruction or INSTRUCTION_MASK not in features:
            return super().forward(features)
        select = _select_flattened_text if "cu_seq_lens_q" in features else _select_padded_text
        features["sentence_embedding"] = super().forward(select(features))["sentence_embedding"]
        return features

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read the configuration; a stock `Pooling` one is read as a pooling without the instruction."""
        config: dict[str, Any] = super().load_config(*args, **kwargs)
        config.pop("include_prompt", None)
        return config


def _select_padded_text(features: dict[str, Any]) -> dict[str, Any]:
    """Switch the instruction off in the attention mask that the pooling sees, and only there."""
    return {**features, "attention_mask": features["attention_mask"] * (1 - features[INSTRUCTION_MASK])}


def _select_flattened_text(features: dict[str, Any]) -> dict[str, Any]:
    """Take the instruction's tokens out of a flattened batch and count the rows' boundaries anew."""
    keep = features[INSTRUCTION_MASK].squeeze(0) == 0
    kept_before = torch.nn.functional.pad(keep.cumsum(0), (1, 0))
    boundaries = features["cu_seq_lens_q"]
    selected = {
        "token_embeddings": features["token_embeddings"][:, keep],
        "cu_seq_lens_q": kept_before[boundaries.long()].to(boundaries.dtype),
    }
    if "seq_idx" in features:
        selected["seq_idx"] = features["seq_idx"][:, keep]
    return selected
