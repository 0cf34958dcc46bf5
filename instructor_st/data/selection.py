"""From a source's records to a task's examples: rows selected, columns read by their roles, a capped draw by hash."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from instructor_st.data.examples import ClassText, Example, InputOutput, ScoredPair, TextPair
from instructor_st.data.mixture import ROLES, RowKind, TaskSpec
from instructor_st.data.records import BadRecord, OnBadRecord, Record

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
    columns = {role: str(spec.columns.get(role, role)) for role in (*ROLES[spec.kind][0], *ROLES[spec.kind][1])}
    wanted = {column: _read_wanted(value) for column, value in spec.where.items()}
    for record in records:
        if any(str(record.values.get(column)) not in values for column, values in wanted.items()):
            report["not selected by 'where'"] += 1
            continue
        report["records read"] += 1
        try:
            example = _READERS[spec.kind](spec, record, columns)
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


def _read_text(record: Record, column: str) -> str:
    if record.values.get(column) is None:
        raise _ColumnError(f"no column {column!r}", f"the record has {', '.join(sorted(record.values))}")
    value = record.values[column]
    if not isinstance(value, str):
        raise _ColumnError(f"column {column!r} is no text", f"it holds {type(value).__name__}")
    return value


def _read_pair(spec: TaskSpec, record: Record, columns: Mapping[str, str]) -> Example | None:
    label = record.values.get(columns["label"]) if spec.kind == "duplicates" else None
    if label is not None and str(label).lower() not in {each.lower() for each in spec.positive_labels}:
        return None
    query, positive = (_read_text(record, columns[role]) for role in _PAIR_ROLES[spec.kind])
    return TextPair(query, positive, _read_negatives(spec, record, columns), where=record.where)


def _read_negatives(spec: TaskSpec, record: Record, columns: Mapping[str, str]) -> tuple[str, ...]:
    """A text, or a list of texts; only triplets must have it."""
    column = columns.get("negative")
    if column is None or (spec.kind != "triplets" and not record.values.get(column)):
        return ()
    value = record.values.get(column)
    if not isinstance(value, (list, tuple)):
        return (_read_text(record, column),)
    if not value or not all(isinstance(each, str) for each in value):
        raise _ColumnError(f"column {column!r} is no list of texts", "each hard negative is a text")
    return tuple(value)


def _read_class(spec: TaskSpec, record: Record, columns: Mapping[str, str]) -> Example:
    label = record.values.get(columns["label"])
    if label is None or isinstance(label, (list, dict)):
        raise _ColumnError(f"no label in column {columns['label']!r}", "a text, a number or a truth value is expected")
    return ClassText(_read_text(record, columns["text"]), str(label), record.where)


def _read_input_output(spec: TaskSpec, record: Record, columns: Mapping[str, str]) -> Example:
    return InputOutput(_read_text(record, columns["input"]), _read_text(record, columns["output"]), record.where)


def _read_scored(spec: TaskSpec, record: Record, columns: Mapping[str, str]) -> Example:
    value = record.values.get(columns["score"])
    try:
        score = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise _ColumnError(f"column {columns['score']!r} is no number", f"it holds {value!r}") from None
    if not math.isfinite(score):
        raise _ColumnError(f"column {columns['score']!r} is no number", f"it holds {value!r}")
    return ScoredPair(_read_text(record, columns["a"]), _read_text(record, columns["b"]), score, record.where)


_READERS: Mapping[RowKind, Callable[[TaskSpec, Record, Mapping[str, str]], Example | None]] = {
    "classes": _read_class,
    "duplicates": _read_pair,
    "pairs": _read_pair,
    "question_answer": _read_pair,
    "scored": _read_scored,
    "text_to_text": _read_input_output,
    "title_body": _read_pair,
    "triplets": _read_pair,
}
