"""Rows of training data: pairs with hard negatives, graded pairs, texts with a class; each text with its instruction."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from instructor_st.pairs import InstructedText, parse_input

__all__ = ["ClassRow", "GradedRow", "Row", "TrainingRow", "parse_row", "parse_training_row"]

_QUERY = ("query", "anchor")
_POSITIVE = ("positive", "pos")
_NEGATIVE = re.compile(r"(negative|neg)(_\d+)?")
_QUERY_INSTRUCTION = ("query_instruction", "instruction")
_DOCUMENT_INSTRUCTION = ("document_instruction",)
_TASK = ("task",)
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
        scores: A teacher's scores of the positive and of each negative, to be distilled.
    """

    query: InstructedText
    positive: InstructedText
    negatives: tuple[InstructedText, ...]
    task: str
    label: str | None = None
    ignored: tuple[str, ...] = ()
    scores: tuple[float, ...] | None = None

    @property
    def texts(self) -> tuple[InstructedText, ...]:
        """Query, positive and negatives, in loss order."""
        return (self.query, self.positive, *self.negatives)


@dataclass(frozen=True)
class GradedRow:
    """Two texts and how similar they are.

    Attributes:
        a: The first text.
        b: The second text.
        score: Their similarity, on any scale that is the same for the whole task.
        task: The name of its task.
        ignored: Names of columns that mean nothing here, for the report.
    """

    a: InstructedText
    b: InstructedText
    score: float
    task: str
    ignored: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[InstructedText, ...]:
        """Both texts."""
        return (self.a, self.b)


@dataclass(frozen=True)
class ClassRow:
    """A text and its class.

    Attributes:
        text: The text.
        label: Its class.
        task: The name of its task.
        ignored: Names of columns that mean nothing here, for the report.
    """

    text: InstructedText
    label: str
    task: str
    ignored: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[InstructedText, ...]:
        """The text alone."""
        return (self.text,)


TrainingRow = Row | GradedRow | ClassRow


def parse_training_row(
    record: Mapping[str, Any],
    where: str,
    *,
    task: str,
    query_instruction: str = "",
    document_instruction: str = "",
) -> TrainingRow:
    """Read one record of any kind of training rows.

    A record with `a`, `b` and `score` is a graded pair, one with `input` (or `text`) and `label` and no query a text with
    its class, any other is for `parse_row`. Both sides of a graded pair, and a text with a class, take the query's
    instruction if they bring none, the second of a pair the document's if there is one.

    Args:
        record: Column names and values.
        where: `file:line`, for the errors.
        task: The task's name if the record has no `task`.
        query_instruction: The instruction of texts that bring none.
        document_instruction: The instruction of documents that bring none.

    Returns:
        The row.

    Raises:
        ValueError: If a value is missing or has the wrong form; the message names `where`.
    """
    values = {name: _read_cell(value) for name, value in record.items() if value is not None}
    instruction = _read_first(values, _QUERY_INSTRUCTION, query_instruction, where)
    other = _read_first(values, _DOCUMENT_INSTRUCTION, document_instruction, where) or instruction
    name = _read_first(values, _TASK, task, where)
    is_pair = any(column in values for column in (*_QUERY, *_POSITIVE))
    if {"a", "b", "score"} <= values.keys() and not is_pair:
        return GradedRow(
            a=_read_text(values["a"], instruction, f"{where}, column 'a'"),
            b=_read_text(values["b"], other, f"{where}, column 'b'"),
            score=_read_number(values["score"], f"{where}, column 'score'"),
            task=name,
            ignored=_list_ignored(record, {"a", "b", "score"}),
        )
    text = next((column for column in ("input", "text") if column in values), None)
    if text is not None and values.get("label") not in (None, "") and not is_pair:
        return ClassRow(
            text=_read_text(values[text], instruction, f"{where}, column {text!r}"),
            label=str(values["label"]),
            task=name,
            ignored=_list_ignored(record, {text, "label"}),
        )
    return parse_row(
        record, where, task=task, query_instruction=query_instruction, document_instruction=document_instruction
    )


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
    query_instruction = _read_first(values, _QUERY_INSTRUCTION, query_instruction, where)
    document_instruction = _read_first(values, _DOCUMENT_INSTRUCTION, document_instruction, where)
    negatives = []
    for name in sorted((name for name in values if _NEGATIVE.fullmatch(name)), key=_order_negatives):
        negatives += _read_negatives(values[name], document_instruction, f"{where}, column {name!r}")
    known = {*_QUERY, *_POSITIVE, "label", "scores"}
    label = values.get("label")
    return Row(
        query=_read_text(_pick(values, _QUERY, where), query_instruction, f"{where}, column 'query'"),
        positive=_read_text(_pick(values, _POSITIVE, where), document_instruction, f"{where}, column 'positive'"),
        negatives=tuple(negatives),
        task=_read_first(values, _TASK, task, where),
        label=None if label is None else str(label),
        ignored=tuple(name for name in _list_ignored(record, known) if not _NEGATIVE.fullmatch(name)),
        scores=_read_scores(values.get("scores"), 1 + len(negatives), f"{where}, column 'scores'"),
    )


def _list_ignored(record: Mapping[str, Any], used: set[str]) -> tuple[str, ...]:
    return tuple(name for name in record if name not in {*used, *_QUERY_INSTRUCTION, *_DOCUMENT_INSTRUCTION, *_TASK})


def _read_first(values: Mapping[str, Any], names: tuple[str, ...], default: str, where: str) -> str:
    """The first of the columns that a record fills; an empty cell means "none"."""
    for name in names:
        value = values.get(name)
        if isinstance(value, (str, int, float)):
            if value != "":
                return str(value)
        elif value is not None:
            raise ValueError(f"{where}, column {name!r}: a text is expected, not {value!r}.")
    return default


def _read_number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(f"{where}: {value!r} is no number.")
    return number


def _read_scores(value: Any, count: int, where: str) -> tuple[float, ...] | None:
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise ValueError(f"{where}: {value!r} is no list of numbers.") from None
    if value is None or value == "":
        return None
    if not isinstance(value, (list, tuple)) or len(value) != count:
        raise ValueError(
            f"{where}: a number for the positive and for each negative is expected ({count}), not {value!r}."
        )
    return tuple(_read_number(each, where) for each in value)


def _pick(values: Mapping[str, Any], names: tuple[str, ...], where: str) -> Any:
    for name in names:
        if name in values:
            return values[name]
    if {"text", "label"} <= values.keys() or {"input", "label"} <= values.keys():
        raise ValueError(
            f"{where}: this is a text with its class, and pairs are wanted here. training_scripts/build_data.py pairs each "
            f"text with another one of its class; a row then reads {_FORM}."
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
