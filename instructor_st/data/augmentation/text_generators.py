"""Candidates for a text from transformers checkpoints: translated there and back, or paraphrased."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from instructor_st.data.augmentation.generating_model import (
    CAUSAL_TEMPLATE,
    Checkpoint,
    GeneratingModel,
    GenerationOptions,
    Sampling,
)

__all__ = ["CAUSAL_TEMPLATE", "BackTranslator", "Checkpoint", "Paraphraser", "Sampling", "TextGenerator"]

TextGenerator = Callable[[list[str]], list[list[str]]]
"""Gives for each text its candidates, best first; none is an answer too."""


class BackTranslator:
    """Translates texts there and back; two sequence-to-sequence checkpoints, Marian's or any others.

    A text is translated in some ways (the square root of `num_candidates`, rounded up) and each translation back in as
    many, the best of each first, so that neighbouring candidates come from different translations. Texts too long for a
    model are not cut: they have no candidate. Outputs that do not end within `max_new_tokens` are left out.
    """

    def __init__(
        self,
        forward: str | Checkpoint,
        backward: str | Checkpoint,
        *,
        num_candidates: int = 4,
        num_beams: int = 4,
        sampling: Sampling | None = None,
        max_new_tokens: int = 512,
        batch_size: int = 32,
        dtype: str = "auto",
        device: str | None = None,
        use_safetensors: bool | None = None,
    ) -> None:
        """Find the checkpoints; they are loaded when they are first needed.

        Args:
            forward: Translates into another language.
            backward: Translates back.
            num_candidates: At most so many candidates a text; equal ones count once.
            num_beams: The width of the beam search; more if more outputs are asked.
            sampling: Draw the translations instead; the way back is searched all the same.
            max_new_tokens: At most so many tokens an output, and never more than twice the input's and 16.
            batch_size: Texts that a model is given at once.
            dtype: `float32`, `bfloat16`, `float16`, or `auto`: bfloat16 where the hardware computes in it.
            device: A torch device; by default the accelerator if there is one.
            use_safetensors: As in transformers: `None` takes safetensors if there are any, `True` nothing else.

        Raises:
            OSError: If a checkpoint cannot be found.
            ValueError: If one is not sequence-to-sequence, or an option is out of range.
        """
        self._num_candidates = num_candidates
        self._num_ways = math.ceil(math.sqrt(num_candidates))
        options = GenerationOptions(
            num_candidates, num_beams, max_new_tokens, batch_size, dtype, device, use_safetensors
        )
        self._forward = GeneratingModel(forward, options, sampling=sampling)
        self._backward = GeneratingModel(backward, options)
        for model in (self._forward, self._backward):
            if not model.is_seq2seq:
                raise ValueError(
                    f"{model.checkpoint.model} is not a sequence-to-sequence checkpoint, so it cannot translate."
                )

    @property
    def identity(self) -> str:
        """All that the candidates depend on, as JSON: models with their revisions, and the options."""
        models = {"forward": self._forward.identity, "backward": self._backward.identity}
        return json.dumps(
            {"kind": "back-translation", "num_candidates": self._num_candidates, **models}, sort_keys=True
        )

    def __call__(self, texts: list[str]) -> list[list[str]]:
        """Translate texts there and back.

        Args:
            texts: The texts.

        Returns:
            The candidates of each text.
        """
        ways = self._forward.generate(texts, num_outputs=self._num_ways)
        translations = list(dict.fromkeys(way for each in ways for way in each if way))
        back = dict(zip(translations, self._backward.generate(translations, num_outputs=self._num_ways), strict=True))
        return [_interleave([back[way] for way in each if way])[: self._num_candidates] for each in ways]


class Paraphraser:
    """Rewrites texts with one checkpoint, sequence-to-sequence or causal (its configuration says which).

    A causal checkpoint is asked in words, as a chat if its tokenizer has a chat template; without one its answer ends
    at the first blank line. Texts too long for the model are not cut: they have no candidate. Outputs that do not end
    within `max_new_tokens` are left out.
    """

    def __init__(
        self,
        model: str | Checkpoint,
        *,
        num_candidates: int = 4,
        num_beams: int = 4,
        sampling: Sampling | None = None,
        max_new_tokens: int = 512,
        batch_size: int = 32,
        dtype: str = "auto",
        device: str | None = None,
        use_safetensors: bool | None = None,
    ) -> None:
        """Find the checkpoint; it is loaded when it is first needed.

        Args:
            model: The checkpoint.
            num_candidates: At most so many candidates a text; equal ones count once.
            num_beams: The width of the beam search; more if more outputs are asked.
            sampling: Draw the candidates instead.
            max_new_tokens: At most so many tokens an output, and never more than twice the text's and 16.
            batch_size: Texts that the model is given at once.
            dtype: `float32`, `bfloat16`, `float16`, or `auto`: bfloat16 where the hardware computes in it.
            device: A torch device; by default the accelerator if there is one.
            use_safetensors: As in transformers: `None` takes safetensors if there are any, `True` nothing else.

        Raises:
            OSError: If the checkpoint cannot be found.
            ValueError: If an option is out of range.
        """
        self._num_candidates = num_candidates
        options = GenerationOptions(
            num_candidates, num_beams, max_new_tokens, batch_size, dtype, device, use_safetensors
        )
        self._model = GeneratingModel(model, options, sampling=sampling)

    @property
    def identity(self) -> str:
        """All that the candidates depend on, as JSON: the model with its revision, and the options."""
        content = {"kind": "paraphrase", "num_candidates": self._num_candidates, "model": self._model.identity}
        return json.dumps(content, sort_keys=True)

    def __call__(self, texts: list[str]) -> list[list[str]]:
        """Rewrite texts.

        Args:
            texts: The texts.

        Returns:
            The candidates of each text.
        """
        outputs = self._model.generate(texts, num_outputs=self._num_candidates)
        return [_interleave([each]) for each in outputs]


def _interleave(lists: list[list[str]]) -> list[str]:
    """The first of each list, the second of each, ...; equal ones once, and no empty one."""
    longest = max(map(len, lists), default=0)
    ranked = [each[rank] for rank in range(longest) for each in lists if rank < len(each)]
    return list(dict.fromkeys(text for text in ranked if text))
