"""From a source's records to a task's examples: rows selected, columns read by their roles, a capped draw by hash."""

from __future__ import annotations

import hashlib
import heapq
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from instructor_st.data.building.examples import ClassText, Example, InputOutput, ScoredPair, TextPair
from instructor_st.data.building.mixture import ROLES, RowKind, TaskSpec
from instructor_st.data.sources.records import BadRecord, OnBadRecord, Record

__all__ = ["draw_by_hash", "hash_texts", "select_examples"]

T = TypeVar("T", bound=Example)

_PAIR_ROLES: Mapping[RowKind, tuple[str, str]] = {
    "duplicates": ("a", "b"),
    "pairs": ("query", "positive"),
    "question_answer": ("question", "answer"),
    "title_body": ("title", "body"),
    "triplets": ("query", "positive"),
}
"""The query's and the positive's role of the kinds whose records are pairs already."""


def select_examples(
    spec: TaskSpec, records: Iterable[Record], *, on_bad: OnBadRecord, report: Counter[str]
) -> Iterator[Example]:
    """Read the examples of a task.

    Args:
        spec: The task.
        records: The records of its source.
        on_bad: Is told of each record that lacks a column or holds another thing than a text there.
        report: Receives the counts: records read, records of other tasks (`where`), pairs that are no duplicates.

    Yields:
        The examples, in the source's order.
    """
    wanted = {column: _read_wanted(value) for column, value in spec.where.items()}
    for record in records:
        if any(str(record.values.get(column)) not in values for column, values in wanted.items()):
            report["not selected by 'where'"] += 1
            continue
        report["records read"] += 1
        try:
            example = _READERS[spec.kind](_RoleValues(spec, record))
        except _ColumnError as error:
            on_bad(BadRecord(record.where, error.reason, error.detail))
            continue
        if example is None:
            report["left out: labelled as no duplicate"] += 1
            continue
        yield example


def draw_by_hash(examples: Iterable[T], count: int, *, seed: int, report: Counter[str]) -> list[T]:
    """Keep the examples whose first texts have the smallest hashes: a random draw that no order and no stop can change.

    The first text (the query's, or the class text) decides, so that tasks over the same texts draw the same ones. Memory
    depends on `count` alone. Exact copies of a kept example are left out, so that they cannot crowd the draw.

    Args:
        examples: The examples.
        count: How many to keep.
        seed: Of the draw.
        report: Receives the counts of what was left out.

    Returns:
        The kept examples, in their order.
    """
    # The largest key is on top, to be pushed out; a place tells copies in time apart.
    kept: list[tuple[tuple[int, int], int, T]] = []
    held: set[tuple[int, int]] = set()
    for place, example in enumerate(examples):
        whole = hash_texts(seed, *example.texts, getattr(example, "label", None) or "")
        key = (-hash_texts(seed, example.texts[0]), -whole)
        if key in held:
            report["left out: exact duplicate"] += 1
        elif len(kept) < count:
            heapq.heappush(kept, (key, place, example))
            held.add(key)
        else:
            report["left out: more than max_rows"] += 1
            if key > kept[0][0]:
                held.discard(heapq.heapreplace(kept, (key, place, example))[0])
                held.add(key)
    return [example for _, _, example in sorted(kept, key=lambda item: item[1])]


def hash_texts(seed: int, *texts: str) -> int:
    """Hash texts to a number from 0 to below 2 ** 64 that depends on nothing else than them and the seed.

    Args:
        seed: Of the draw that it serves.
        texts: The texts; where one ends matters.

    Returns:
        The number.
    """
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8)
    for text in texts:
        # A lone surrogate has no UTF-8; it is for the cleaning to leave such a text out.
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(digest.digest(), "little")


class _ColumnError(Exception):
    def __init__(self, reason: str, detail: str):
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def _read_wanted(value: Any) -> set[str]:
    return {str(each) for each in (value if isinstance(value, Sequence) and not isinstance(value, str) else [value])}


class _RoleValues:
    """A record by the roles that its columns play."""

    def __init__(self, spec: TaskSpec, record: Record):
        self.spec, self.where = spec, record.where
        self._values = record.values

    def name(self, role: str) -> str:
        """The column of a role, or its columns."""
        columns = self._columns(role)
        return f"column {columns[0]!r}" if len(columns) == 1 else f"columns {', '.join(map(repr, columns))}"

    def get(self, role: str) -> Any:
        """The value of a role, several columns' texts together, without what the task wants removed."""
        columns = self._columns(role)
        value = self._values.get(columns[0]) if len(columns) == 1 else self._join(columns)
        pattern = self.spec.remove.get(role)
        if pattern is None:
            return value
        if isinstance(value, (list, tuple)):
            return [re.sub(pattern, "", each) if isinstance(each, str) else each for each in value]
        return re.sub(pattern, "", value) if isinstance(value, str) else value

    def read_text(self, role: str) -> str:
        """The value of a role that must be a text."""
        value = self.get(role)
        if value is None:
            raise _ColumnError(f"no {self.name(role)}", f"the record has {', '.join(sorted(self._values))}")
        if not isinstance(value, str):
            raise _ColumnError(f"{self.name(role)} is no text", f"it holds {type(value).__name__}")
        return value

    def _columns(self, role: str) -> tuple[str, ...]:
        columns = self.spec.columns.get(role, role)
        return (columns,) if isinstance(columns, str) else tuple(columns)

    def _join(self, columns: Iterable[str]) -> str | None:
        """The columns' texts on lines of their own; one that says the same again, or nothing, is left out."""
        texts: dict[str, None] = {}
        for column in columns:
            value = self._values.get(column)
            if value is not None and not isinstance(value, str):
                raise _ColumnError(f"column {column!r} is no text", f"it holds {type(value).__name__}")
            if value is not None and value.strip():
                texts[value] = None
        return "\n".join(texts) if texts else None


def _read_pair(values: _RoleValues) -> Example | None:
    spec = values.spec
    label = values.get("label") if spec.kind == "duplicates" else None
    if label is not None and str(label).lower() not in {each.lower() for each in spec.positive_labels}:
        return None
    query, positive = (values.read_text(role) for role in _PAIR_ROLES[spec.kind])
    return TextPair(query, positive, _read_negatives(values), where=values.where)


def _read_negatives(values: _RoleValues) -> tuple[str, ...]:
    """A text, or a list of texts; only triplets must have it."""
    kind = values.spec.kind
    if "negative" not in {*ROLES[kind][0], *ROLES[kind][1]}:
        return ()
    value = values.get("negative")
    if kind != "triplets" and not value:
        return ()
    if not isinstance(value, (list, tuple)):
        return (values.read_text("negative"),)
    if not value or not all(isinstance(each, str) for each in value):
        raise _ColumnError(f"{values.name('negative')} is no list of texts", "each hard negative is a text")
    return tuple(value)


def _read_class(values: _RoleValues) -> Example:
    label = values.get("label")
    if label is None or isinstance(label, (list, dict)):
        raise _ColumnError(f"no label in {values.name('label')}", "a text, a number or a truth value is expected")
    return ClassText(values.read_text("text"), str(label), values.where)


def _read_input_output(values: _RoleValues) -> Example:
    return InputOutput(values.read_text("input"), values.read_text("output"), values.where)


def _read_scored(values: _RoleValues) -> Example:
    value = values.get("score")
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise _ColumnError(f"{values.name('score')} is no number", f"it holds {value!r}")
    return ScoredPair(values.read_text("a"), values.read_text("b"), score, values.where)


_READERS: Mapping[RowKind, Callable[[_RoleValues], Example | None]] = {
    "classes": _read_class,
    "duplicates": _read_pair,
    "pairs": _read_pair,
    "question_answer": _read_pair,
    "scored": _read_scored,
    "text_to_text": _read_input_output,
    "title_body": _read_pair,
    "triplets": _read_pair,
}
