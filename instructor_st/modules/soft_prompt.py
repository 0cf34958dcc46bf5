"""Where the soft prompts of tuned tasks stand in a tokenised batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from instructor_st.modules.tuned_tasks import TunedTasks
from instructor_st.pairs import InstructedText

__all__ = ["SoftPromptTable"]


class SoftPromptTable:
    """Writes placeholders for soft prompts before tokenising, and finds them afterwards.

    A prompt of `k` vectors travels through the tokenizer as `k` copies of a special token, so windows, padding and the
    instruction's mask treat it as any instruction; the model then puts the vectors in the tokens' places.

    Args:
        tasks: The model's tuned tasks.
        tokenizer: The model's tokenizer.

    Raises:
        ValueError: If the tokenizer has no special token that can stand for a vector.
    """

    def __init__(self, tasks: TunedTasks, tokenizer: Any) -> None:
        self._lengths = {name: len(task.vectors) for name, task in tasks.items()}
        ends = accumulate(self._lengths.values())
        self._first = {name: end - self._lengths[name] + 1 for name, end in zip(self._lengths, ends, strict=True)}
        self._token, self._token_id = _choose_placeholder(tokenizer)
        self._num_special_tokens = tokenizer.num_special_tokens_to_add()

    def check_room(self, instructions: Sequence[str], max_seq_length: int | None) -> None:
        """Refuse prompts that leave no room for a token of the text.

        Args:
            instructions: The batch's instructions; those that name a tuned task are looked at.
            max_seq_length: The window, in tokens.

        Raises:
            ValueError: If one does.
        """
        for name in set(instructions) & self._lengths.keys() if max_seq_length is not None else ():
            if self._lengths[name] + self._num_special_tokens >= max_seq_length:
                raise ValueError(
                    f"Tuned task {name!r} has {self._lengths[name]} vectors, and the window max_seq_length="
                    f"{max_seq_length} leaves the text no room beside them; raise it."
                )

    def put_placeholders(self, pairs: Sequence[InstructedText]) -> list[InstructedText]:
        """Put placeholders where an instruction names a tuned task.

        Args:
            pairs: The inputs.

        Returns:
            The inputs as they are to be tokenised.
        """
        lengths = self._lengths
        return [
            InstructedText(self._token * lengths[pair.instruction], pair.text) if pair.instruction in lengths else pair
            for pair in pairs
        ]

    def locate(self, instructions: Sequence[str], input_ids: Tensor, starts: Tensor) -> Tensor:
        """Find the placeholders.

        Args:
            instructions: The batch's instructions as they were given.
            input_ids: `(batch, sequence)`, or flattened.
            starts: Where each row starts in the flattened `input_ids`, `(batch,)`.

        Returns:
            In the shape of `input_ids`: which vector of the table stands at a position, counted from 1; 0 elsewhere.
        """
        flat = input_ids.reshape(-1)
        places = torch.zeros_like(flat)
        for name, start in zip(instructions, starts.tolist(), strict=True):
            if name in self._lengths:
                # Special tokens, if the tokenizer puts any before the input, come first; they are no placeholders.
                while int(flat[start]) != self._token_id:
                    start += 1
                end = start + self._lengths[name]
                places[start:end] = torch.arange(self._first[name], self._first[name] + end - start)
        return places.view(input_ids.shape)


def _choose_placeholder(tokenizer: Any) -> tuple[str, int]:
    """Find a special token of which copies stay apart and beside which a text is cut as it is alone."""
    for token in (tokenizer.unk_token, tokenizer.mask_token, tokenizer.pad_token):
        if token is not None:
            token_id = tokenizer.convert_tokens_to_ids(token)
            if tokenizer.encode(token * 3, add_special_tokens=False, truncation=False) == [token_id] * 3:
                return str(token), int(token_id)
    raise ValueError("The tokenizer has no unknown, mask or padding token; a soft prompt needs one for its place.")
