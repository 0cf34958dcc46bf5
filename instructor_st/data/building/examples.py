"""A task's material before instructions are attached: plain texts, each with the place it came from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ClassText", "Example", "InputOutput", "ScoredPair", "TextPair"]


@dataclass(frozen=True)
class TextPair:
    """A query, a positive, and hard negatives if there are any.

    Attributes:
        query: The query text.
        positive: A text that is right for it.
        negatives: Texts that look right and are not.
        label: A class that query and positive share.
        where: `file:line` of the record.
    """

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    label: str | None = None
    where: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """Query, positive and negatives."""
        return (self.query, self.positive, *self.negatives)


@dataclass(frozen=True)
class ClassText:
    """A text and its class.

    Attributes:
        text: The text.
        label: Its class.
        where: `file:line` of the record.
    """

    text: str
    label: str
    where: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """The text."""
        return (self.text,)


@dataclass(frozen=True)
class InputOutput:
    """An input of a text-to-text task and its output.

    Attributes:
        input: The input.
        output: Its right output.
        where: `file:line` of the record.
    """

    input: str
    output: str
    where: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """Input and output."""
        return (self.input, self.output)


@dataclass(frozen=True)
class ScoredPair:
    """Two texts and how alike they are.

    Attributes:
        a: One text.
        b: The other.
        score: The higher, the more alike; the scale is the source's.
        where: `file:line` of the record.
    """

    a: str
    b: str
    score: float
    where: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """Both texts."""
        return (self.a, self.b)


Example = TextPair | ClassText | InputOutput | ScoredPair
"""What a source's records become."""
