"""One row of training data: a query, a positive and any number of hard negatives, each with its instruction."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from instructor_st.pairs import InstructedText, parse_input

__all__ = ["Row", "parse_row"]

_QUERY = ("query", "anchor")
_POSITIVE = ("positive", "pos")
_NEGATIVE = re.compile(r"(negative|neg)(_\d+)?")
_INSTRUCTION_COLUMNS = ("instruction", "query_instruction", "document_instruction")
_FORM = (
    '{"query": [instruction, text], "positive": [instruction, text], "negative_1": [instruction, text], ..., '
    '"task": name, "label": class}'
)


@dataclass(frozen=True)
class Row:
    """A training row.

    Attributes:
        query: The query side.
        positive: A document that is right for the query.
        negatives: Hard negatives, documents that look right and are not.
        task: The name of its task; a batch holds rows of one task.
        label: A class that the query and the positive share; rows of one class are not each other's negatives.
        ignored: Names of columns that mean nothing here, for the report.
    """

    query: InstructedText
    positive: InstructedText
    negatives: tuple[InstructedText, ...]
    task: str
    label: str | None = None
    ignored: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[InstructedText, ...]:
        """Query, positive and negatives, in loss order."""
        return (self.query, self.positive, *self.negatives)


def parse_row(
    record: Mapping[str, Any],
    where: str,
    *,
    task: str,
    query_instruction: str = "",
    document_instruction: str = "",
) -> Row:
    """Read one record in the row form, or in its flat form.

    In the flat form the texts are plain strings and their instructions come from the columns `query_instruction` (or
    `instruction`) and `document_instruction`. `anchor`, `pos` and `neg` are understood as `query`, `positive` and
    `negative_1`; a negative column may hold a list of strings. A cell that holds a JSON list is read as one (CSV).

    Args:
        record: Column names and values.
        where: `file:line`, for the errors.
        task: The task's name if the record has no `task`.
        query_instruction: The instruction of a query that brings none.
        document_instruction: The instruction of documents that bring none.

    Returns:
        The row.

    Raises:
        ValueError: If query or positive are missing, or a value has the wrong form; the message names `where`.
    """
    # An empty cell means "none" (CSV has no other way), but an empty query or positive is a blank text.
    texts = {*_QUERY, *_POSITIVE}
    values = {
        name: _read_cell(value)
        for name, value in record.items()
        if value is not None and (value != "" or name in texts)
    }
    query_instruction = values.get("query_instruction", values.get("instruction", query_instruction))
    document_instruction = values.get("document_instruction", document_instruction)
    negatives = []
    for name in sorted((name for name in values if _NEGATIVE.fullmatch(name)), key=_order_negatives):
        negatives += _read_negatives(values[name], document_instruction, f"{where}, column {name!r}")
    known = {*_QUERY, *_POSITIVE, *_INSTRUCTION_COLUMNS, "task", "label"}
    label = values.get("label")
    return Row(
        query=_read_text(_pick(values, _QUERY, where), query_instruction, f"{where}, column 'query'"),
        positive=_read_text(_pick(values, _POSITIVE, where), document_instruction, f"{where}, column 'positive'"),
        negatives=tuple(negatives),
        task=str(values.get("task", task)),
        label=None if label is None else str(label),
        ignored=tuple(name for name in record if name not in known and not _NEGATIVE.fullmatch(name)),
    )


def _pick(values: Mapping[str, Any], names: tuple[str, ...], where: str) -> Any:
    for name in names:
        if name in values:
            return values[name]
    if {"text", "label"} <= values.keys() or {"input", "label"} <= values.keys():
        raise ValueError(
            f"{where}: this is a class row (a text and its label), not a pair. Pair each text with another one of its "
            f"class first, so that the row reads {_FORM}."
        )
    raise ValueError(f"{where}: no {names[0]!r} among the columns {sorted(values)}. A row reads {_FORM}.")


def _read_cell(value: Any) -> Any:
    """CSV has no lists, so a cell may hold one as JSON."""
    if isinstance(value, str) and value.startswith('["') and value.endswith('"]'):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _read_text(value: Any, instruction: str, where: str) -> InstructedText:
    try:
        return parse_input(value, instruction)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _read_negatives(value: Any, instruction: str, where: str) -> list[InstructedText]:
    # A list of two strings is [instruction, text], as everywhere; a list of anything else is several negatives.
    if isinstance(value, list) and not (len(value) == 2 and all(isinstance(part, str) for part in value)):
        return [_read_text(each, instruction, where) for each in value]
    return [_read_text(value, instruction, where)]


def _order_negatives(name: str) -> tuple[int, str]:
    digits = re.search(r"\d+$", name)
    return (int(digits.group()) if digits else 0, name)
