"""Vectors of texts, each with its own instruction, by an instruction model or a stock one."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from instructor_st.data.embedding_cache import Scorer, embed_texts
from instructor_st.pairs import InstructedText

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

__all__ = ["encode_instructed", "fingerprint_model"]


def encode_instructed(
    inputs: Sequence[InstructedText],
    model: SentenceTransformer,
    *,
    batch_size: int = 32,
    cache_folder: str | Path | None = None,
    identity: str | None = None,
    show_progress_bar: bool = False,
) -> NDArray[np.float32]:
    """Embed texts, each with its instruction, as unit vectors.

    Args:
        inputs: The texts.
        model: An instruction model, which takes pairs; or a stock one, to which the instruction is given as `prompt=`.
        batch_size: Texts that are embedded at once.
        cache_folder: Where the vectors are kept for the next time, if given.
        identity: The model's `fingerprint_model` for the cache, if it is known already.
        show_progress_bar: Whether to show the progress.

    Returns:
        One vector an input.
    """
    if cache_folder is not None and identity is None:
        identity = fingerprint_model(model)

    def embed(keys: list[str]) -> NDArray[Any]:
        return _encode([InstructedText(*json.loads(key)) for key in keys], model, batch_size=batch_size)

    # The cache knows texts without instructions; as JSON the two are one text.
    return embed_texts(
        [json.dumps(each) for each in inputs],
        scorer=Scorer(embed=embed, identity=f"{identity}/{batch_size}"),
        cache=None if cache_folder is None else Path(cache_folder),
        show_progress_bar=show_progress_bar,
    )


def fingerprint_model(model: torch.nn.Module) -> str:
    """Tell a model from others by its modules and weights.

    Args:
        model: A sentence-transformers model or a cross-encoder.

    Returns:
        A hash; the same weights give the same one wherever they were loaded from.
    """
    import torch

    settings = {name: getattr(model, name, None) for name in ("max_seq_length", "truncate_dim", "max_length")}
    digest = hashlib.blake2b(repr((repr(model), settings)).encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        # numpy has no bfloat16, but it has bytes.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _encode(inputs: Sequence[InstructedText], model: SentenceTransformer, *, batch_size: int) -> NDArray[Any]:
    if _takes_pairs(model):
        pairs: list[Any] = [list(each) for each in inputs]
        return np.asarray(model.encode(pairs, batch_size=batch_size, show_progress_bar=False))
    # A stock model takes one prompt a call, and would tokenise a pair as a pair of texts.
    places: dict[str, list[int]] = defaultdict(list)
    for place, each in enumerate(inputs):
        places[each.instruction].append(place)
    vectors: dict[int, Any] = {}
    for instruction, group in places.items():
        texts = [inputs[place].text for place in group]
        found = model.encode(texts, prompt=instruction, batch_size=batch_size, show_progress_bar=False)
        vectors.update(zip(group, found, strict=True))
    return np.stack([vectors[place] for place in range(len(inputs))])


def _takes_pairs(model: SentenceTransformer) -> bool:
    from sentence_transformers import SentenceTransformer

    from instructor_st.modules import DualEncoderConcat, InstructionPrepend

    return not isinstance(model, SentenceTransformer) or isinstance(model[0], (InstructionPrepend, DualEncoderConcat))
