"""Text vectors of a dual model, and their embeddings under any instruction without encoding the texts again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from tqdm.auto import tqdm

from instructor_st.modules import DualEncoderConcat
from instructor_st.modules.tuned_dense import DENSE_DELTAS
from instructor_st.pairs import check_inputs

__all__ = ["encode_text", "reinstruct"]


def encode_text(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    batch_size: int = 32,
    show_progress_bar: bool | None = None,
) -> np.ndarray[Any, Any]:
    """Embed texts by a dual model's text encoder alone.

    These vectors hold for every instruction; `reinstruct` turns them into embeddings.

    Args:
        model: A dual model.
        texts: The texts.
        batch_size: Texts embedded at once.
        show_progress_bar: Whether to show progress; by default as `SentenceTransformer.encode` decides.

    Returns:
        `(texts, h_text)`, float32.

    Raises:
        ValueError: If the model is not dual, or something is no text.
    """
    concat = _get_concat(model)
    _check_texts(texts)
    pipeline = SentenceTransformer(
        modules=[concat.text_encoder, concat.text_pooling_module], device=str(model.device), similarity_fn_name="cosine"
    )
    with _evaluating(model):
        vectors: np.ndarray[Any, Any] = pipeline.encode(
            list(texts), batch_size=batch_size, show_progress_bar=show_progress_bar
        )
    return vectors.reshape(len(texts), concat.text_encoder.get_embedding_dimension()).astype(np.float32, copy=False)


@torch.inference_mode()
def reinstruct(
    model: SentenceTransformer,
    text_vectors: np.ndarray[Any, Any] | Tensor,
    instruction: str,
    *,
    block_size: int = 8192,
    show_progress_bar: bool = False,
) -> np.ndarray[Any, Any]:
    """Turn a dual model's text vectors into embeddings under an instruction.

    Args:
        model: The dual model that made the vectors.
        text_vectors: `(texts, h_text)`, as `encode_text` gives them.
        instruction: The instruction, or a tuned task's name.
        block_size: Vectors handled at once.
        show_progress_bar: Whether to show progress.

    Returns:
        `(texts, dimension)`, float32: what `model.encode([[instruction, text], ...])` gives.

    Raises:
        ValueError: If the model is not dual, or the vectors have another size.
    """
    concat = _get_concat(model)
    width = concat.text_encoder.get_embedding_dimension()
    if text_vectors.ndim != 2 or text_vectors.shape[1] != width:
        raise ValueError(f"text_vectors must be (texts, {width}) for this model, not {tuple(text_vectors.shape)}.")
    blocks = []
    with _evaluating(model):
        vector = concat.embed_instruction(instruction)
        delta = concat.tuned_tasks[instruction].dense_delta if instruction in concat.tuned_tasks else None
        for start in tqdm(range(0, len(text_vectors), block_size), disable=not show_progress_bar, desc="Reinstruct"):
            block = text_vectors[start : start + block_size]
            block = (block if isinstance(block, Tensor) else torch.from_numpy(np.array(block))).to(vector)
            features: dict[str, Any] = {"sentence_embedding": torch.cat([vector.expand(len(block), -1), block], dim=1)}
            if delta is not None:
                features[DENSE_DELTAS] = [(torch.arange(len(block), device=block.device), delta)]
            for module in list(model)[1:]:
                features = module(features)
            blocks.append(features["sentence_embedding"][:, : model.truncate_dim].float().cpu().numpy())
    dimension = model.get_embedding_dimension() or width
    return np.concatenate(blocks) if blocks else np.zeros((0, dimension), dtype=np.float32)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, and put each module's mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training


def _check_texts(texts: Sequence[str]) -> None:
    """Refuse a single string, whose characters would be embedded, and pairs, which would be tokenised as two texts."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ValueError("encode_text takes a list of strings, without instructions; reinstruct gives them theirs.")
    check_inputs(texts)


def _get_concat(model: SentenceTransformer) -> DualEncoderConcat:
    first = model[0]
    if not isinstance(first, DualEncoderConcat):
        raise ValueError(
            f"Only a dual model's text vectors are free of the instruction; this one begins with {type(first).__name__}."
        )
    return first
