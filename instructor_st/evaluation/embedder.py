"""Embedding for evaluations: any model, an instruction a text, each distinct input once, and no silent NaN."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sentence_transformers import SentenceTransformer

from instructor_st.modules import DualEncoderConcat, InstructionPrepend

__all__ = ["InstructedEmbedder", "takes_instructions"]

Array = npt.NDArray[np.float32]


def takes_instructions(model: SentenceTransformer) -> bool:
    """Whether a model takes `[instruction, text]`; others are given the instruction as ST's `prompt`."""
    return isinstance(model[0], InstructionPrepend | DualEncoderConcat)


class InstructedEmbedder:
    """Embeds texts under instructions with any SentenceTransformer.

    A model with one of this package's modules gets `[instruction, text]`; any other gets its instructions as
    `encode(texts, prompt=instruction)`, one call an instruction.

    Args:
        model: The model.
        batch_size: Inputs embedded at once.
        show_progress_bar: Whether to show `encode`'s progress.

    Attributes:
        texts: Inputs embedded so far, repeats of one call counted once.
        seconds: Wall time of that.
    """

    def __init__(self, model: SentenceTransformer, *, batch_size: int = 32, show_progress_bar: bool = False) -> None:
        self.model = model
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.takes_instructions = takes_instructions(model)
        self.texts = 0
        self.seconds = 0.0

    def embed(self, texts: Sequence[str], instructions: str | Sequence[str] = "") -> Array:
        """Embed texts; equal inputs are embedded once.

        Args:
            texts: The texts.
            instructions: One for all, or one a text.

        Returns:
            `(texts, dimension)`, float32, not normalised unless the model does it.

        Raises:
            ValueError: If there are not as many instructions as texts, or an embedding is not finite; the message
                names the first such text's position.
        """
        if isinstance(instructions, str):
            instructions = [instructions] * len(texts)
        if len(instructions) != len(texts):
            raise ValueError(f"{len(texts)} texts and {len(instructions)} instructions; one each, or one for all.")
        if not len(texts):
            return np.zeros((0, self.model.get_embedding_dimension() or 0), dtype=np.float32)
        pairs = list(zip(instructions, texts, strict=True))
        distinct = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
        start = time.perf_counter()
        vectors = self._encode(list(distinct))
        self.seconds += time.perf_counter() - start
        self.texts += len(distinct)
        vectors = vectors[[distinct[pair] for pair in pairs]]
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            place = int(np.flatnonzero(~finite)[0])
            raise ValueError(
                f"The model gives an embedding that is not finite for {int((~finite).sum())} of {len(texts)} texts, "
                f"first for text {place}; its weights or its precision are at fault."
            )
        return vectors

    def _encode(self, pairs: Sequence[tuple[str, str]]) -> Array:
        options: Any = {"batch_size": self.batch_size, "show_progress_bar": self.show_progress_bar}
        if self.takes_instructions:
            return np.asarray(self.model.encode([list(pair) for pair in pairs], **options), dtype=np.float32)
        groups: dict[str, list[int]] = {}
        for place, (instruction, _) in enumerate(pairs):
            groups.setdefault(instruction, []).append(place)
        vectors: Array | None = None
        for instruction, places in groups.items():
            # An empty prompt is said too, or a model's default prompt would step in.
            found = self.model.encode([pairs[place][1] for place in places], prompt=instruction, **options)
            if vectors is None:
                vectors = np.zeros((len(pairs), np.shape(found)[1]), dtype=np.float32)
            vectors[places] = found
        assert vectors is not None
        return vectors
