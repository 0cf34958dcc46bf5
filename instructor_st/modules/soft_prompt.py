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
        self._tokenizer = tokenizer
        self._num_special_tokens = tokenizer.num_special_tokens_to_add()

    def put_placeholders(self, pairs: Sequence[InstructedText]) -> list[InstructedText]:
        """Put placeholders where an instruction names a tuned task.

        Args:
            pairs: The inputs.

        Returns:
            The inputs as they are to be tokenised.
        """
        # With the blank a text is cut behind the vectors as it is behind "...: ", where blanks are parts of words.
        prompts = {name: self._token * length + " " for name, length in self._lengths.items()}
        return [InstructedText(prompts.get(pair.instruction, pair.instruction), pair.text) for pair in pairs]

    def locate(
        self, instructions: Sequence[str], joined: Sequence[str], input_ids: Tensor, starts: Tensor, lengths: Tensor
    ) -> Tensor:
        """Find the placeholders.

        Args:
            instructions: The batch's instructions as they were given.
            joined: What was tokenised, placeholders and texts.
            input_ids: `(batch, sequence)`, or flattened, as the tokenizer made them.
            starts: Where each row starts in the flattened `input_ids`, `(batch,)`.
            lengths: How many tokens each row has, `(batch,)`.

        Returns:
            In the shape of `input_ids`: which vector of the table stands at a position, counted from 1; 0 elsewhere.

        Raises:
            ValueError: If the window cuts a prompt, or leaves no room for a token of the text.
        """
        flat = input_ids.reshape(-1)
        places = torch.zeros_like(flat)
        for row, (name, start, length) in enumerate(zip(instructions, starts.tolist(), lengths.tolist(), strict=True)):
            if name not in self._lengths:
                continue
            wanted = self._lengths[name]
            tokens = flat[start : start + length].tolist()
            # Special tokens, if the tokenizer puts any before the input, come first; they are no placeholders.
            opening = tokens.index(self._token_id) if self._token_id in tokens else 0
            is_cut = tokens[opening : opening + wanted] != [self._token_id] * wanted
            if is_cut or (length <= wanted + self._num_special_tokens and self._count_tokens(joined[row]) > length):
                raise ValueError(
                    f"Tuned task {name!r} has {wanted} vectors, and the window of {length} tokens leaves the text no room "
                    "beside them; raise max_seq_length, or the max_length of the call."
                )
            places[start + opening : start + opening + wanted] = torch.arange(wanted) + self._first[name]
        return places.view(input_ids.shape)

    def _count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text, truncation=False, verbose=False))


def _choose_placeholder(tokenizer: Any) -> tuple[str, int]:
    """Find a special token of which copies stay apart and beside which a text is cut as it is alone."""
    for token in (tokenizer.unk_token, tokenizer.mask_token, tokenizer.pad_token):
        if token is not None:
            token_id = tokenizer.convert_tokens_to_ids(token)
            if tokenizer.encode(token * 3, add_special_tokens=False, truncation=False) == [token_id] * 3:
                return str(token), int(token_id)
    raise ValueError("The tokenizer has no unknown, mask or padding token; a soft prompt needs one for its place.")
