"""Reading of `[instruction, text]` inputs: every accepted form, and one error for everything else.

This module knows nothing of torch or sentence-transformers, so that scripts can check their data cheaply.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

__all__ = ["InstructedText", "check_inputs", "parse_input", "parse_inputs"]

ACCEPTED_FORMS = (
    "[instruction, text], (instruction, text), {'instruction': ..., 'text': ...} or a plain string; "
    'write ["", text] for a text without an instruction'
)
_MAX_SHOWN = 120


class InstructedText(NamedTuple):
    """One input of the model.

    Attributes:
        instruction: What the text is to be represented for; `""` means no instruction.
        text: The text itself, as given.
    """

    instruction: str
    text: str


def parse_input(value: Any, prompt: str | None = None) -> InstructedText:
    """Read one input in any of the accepted forms.

    Args:
        value: `[instruction, text]`, `(instruction, text)`, `{"instruction": ..., "text": ...}` or a string.
        prompt: The instruction for a bare string (sentence-transformers' `prompt=`). An instruction that comes
            with the text, the empty one too, wins over it.

    Returns:
        The instruction and the text.

    Raises:
        ValueError: If the value has none of these forms; the message shows the value and what is accepted.
    """
    pair: InstructedText | None = None
    if isinstance(value, str):
        pair = InstructedText(prompt or "", value)
    elif isinstance(value, (list, tuple)):
        if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], str):
            pair = InstructedText(value[0], value[1])
    elif isinstance(value, dict) and value.keys() == {"instruction", "text"}:
        instruction, text = value["instruction"], value["text"]
        if isinstance(instruction, str) and isinstance(text, str):
            pair = InstructedText(instruction, text)
    if pair is None:
        raise ValueError(f"Cannot embed {_show(value)}: {_find_fault(value)} Accepted: {ACCEPTED_FORMS}.")
    if not (pair.text.isascii() and pair.instruction.isascii()):
        _check_unicode(pair, value)
    return pair


def parse_inputs(values: Iterable[Any], prompt: str | None = None) -> list[InstructedText]:
    """Read many inputs; see `parse_input`.

    Args:
        values: The inputs, each in any accepted form, mixed at will.
        prompt: The instruction for bare strings.

    Returns:
        One `InstructedText` an input, in order.

    Raises:
        ValueError: For the first input that cannot be read.
    """
    return [parse_input(value, prompt) for value in values]


def check_inputs(values: Sequence[Any]) -> None:
    """Check a whole collection before anything of it is embedded.

    Args:
        values: The inputs.

    Raises:
        ValueError: For the first input that cannot be read; the message names its position (from 0).
    """
    for position, value in enumerate(values):
        try:
            parse_input(value)
        except ValueError as error:
            raise ValueError(f"Input {position} of {len(values)}: {error}") from None


def _check_unicode(pair: InstructedText, value: Any) -> None:
    """Refuse half characters (lone surrogates), on which tokenizers fail with a message about types."""
    for part in pair:
        try:
            part.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Cannot embed {_show(value)}: character {error.start} is a lone surrogate, half of a character that "
                "was cut in two. Decode the source as UTF-8, or clean it with text.encode(errors='replace').decode()."
            ) from None


def _show(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[: _MAX_SHOWN - 1]}…"


def _find_fault(value: Any) -> str:
    """Say in one sentence what is wrong with an input that `parse_input` refuses."""
    if isinstance(value, dict):
        if value.keys() != {"instruction", "text"}:
            return f"a dict needs exactly the keys 'instruction' and 'text', this one has {sorted(map(str, value))}."
        return _find_part_fault(value["instruction"], value["text"])
    if isinstance(value, (list, tuple)):
        if len(value) == 3:
            return "it has 3 parts; the third one (ignored by the old InstructorEmbedding package) must go."
        if len(value) != 2:
            return f"an input with an instruction has 2 parts, this one has {len(value)}."
        return _find_part_fault(*value)
    return f"{type(value).__name__} is neither a string nor a pair."


def _find_part_fault(instruction: Any, text: Any) -> str:
    name, part = ("text", text) if isinstance(instruction, str) else ("instruction", instruction)
    return f"the {name} must be a string, not {type(part).__name__}."
