"""Texts with or without labels, from one file, for choosing an instruction."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from instructor_st.data.row_files import read_records
from instructor_st.data.schema import parse_row

__all__ = ["LabelKind", "LabelledTexts", "read_labelled_texts"]

LabelKind = Literal["none", "classes", "label_sets", "values", "scores", "matches", "answers"]

_FORMS = (
    "a text a line (.txt), or rows (.jsonl, .csv, .parquet; gzip too) with the columns text; text, label; text, labels (a list); "
    "text, score; a, b, score; a, b, label (two values); or query, positive and any number of negatives"
)


@dataclass(frozen=True)
class LabelledTexts:
    """Texts and what is known of them.

    Attributes:
        kind: `none`; `classes` (a label a text), `label_sets` (any number of labels a text), `values` (a number a text),
            `scores` (a similarity a pair), `matches` (whether a pair matches) or `answers` (a query, its positive, its
            negatives).
        queries: The texts, or the first side of the pairs.
        documents: The second side; for `answers` the positive and the negatives of each query.
        labels: Class names, tuples of label names, numbers, or 1.0 and 0.0 for matches.
        report: What was left out, with counts.
    """

    kind: LabelKind
    queries: tuple[str, ...]
    documents: tuple[tuple[str, ...], ...]
    labels: tuple[str | float | tuple[str, ...], ...]
    report: Mapping[str, int]

    @property
    def texts(self) -> tuple[str, ...]:
        """All different texts, in order."""
        return tuple(dict.fromkeys([*self.queries, *(text for group in self.documents for text in group)]))


def read_labelled_texts(path: str | Path, *, max_rows: int | None = None, seed: int = 0) -> LabelledTexts:
    """Read texts and their labels, if they have any.

    Args:
        path: The file.
        max_rows: Keep at most so many rows, drawn at random.
        seed: Of the draw.

    Returns:
        The texts. Rows with a blank text are left out and counted.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a row has none of the known forms, or another one than the first (the message names
            `file:line`), or `max_rows` is below 1.
    """
    if max_rows is not None and max_rows < 1:
        raise ValueError(f"max_rows must be 1 or more, not {max_rows}.")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Wanted: {_FORMS}.")
    report: Counter[str] = Counter()
    kind: LabelKind | None = None
    rows: list[tuple[str, tuple[str, ...], Any]] = []
    for where, record in _read(path):
        found, row = _parse(record, where)
        kind = kind or found
        if found != kind:
            raise ValueError(f"{where}: the first row has {kind}, and this one {found}; use a file of one form.")
        if not row[0].strip() or any(not text.strip() for text in row[1]):
            report["left out: blank text"] += 1
            continue
        if kind == "classes" and not row[2].strip():
            report["left out: blank label"] += 1
            continue
        rows.append(row)
    if not rows or kind is None:
        raise ValueError(f"{path}: no row with a text. Wanted: {_FORMS}.")
    if kind == "matches":
        values = _read_matches(tuple(row[2] for row in rows), path)
        rows = [(query, others, value) for (query, others, _), value in zip(rows, values, strict=True)]
    if max_rows is not None and len(rows) > max_rows:
        report["left out: more rows than max_rows"] = len(rows) - max_rows
        rows = random.Random(seed).sample(rows, max_rows)
    queries, documents, labels = zip(*rows, strict=True)
    return LabelledTexts(kind, queries, documents, () if kind in ("none", "answers") else labels, dict(report))


def _read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix.lower() == ".txt":
        with open(path, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                yield f"{path}:{number}", {"text": line.rstrip("\n")}
        return
    yield from read_records(path)


def _parse(record: Mapping[str, Any], where: str) -> tuple[LabelKind, tuple[str, tuple[str, ...], Any]]:
    columns = {name for name, value in record.items() if value is not None}
    if {"a", "b", "score"} <= columns:
        return "scores", (_text(record, "a", where), (_text(record, "b", where),), _number(record["score"], where))
    if {"a", "b", "label"} <= columns:
        return "matches", (_text(record, "a", where), (_text(record, "b", where),), str(record["label"]))
    if {"text", "labels"} <= columns:
        return "label_sets", (_text(record, "text", where), (), _names(record["labels"], where))
    if {"text", "score"} <= columns:
        return "values", (_text(record, "text", where), (), _number(record["score"], where))
    if {"text", "label"} <= columns:
        return "classes", (_text(record, "text", where), (), str(record["label"]))
    if "text" in columns:
        return "none", (_text(record, "text", where), (), None)
    if columns & {"query", "anchor"} and columns & {"positive", "pos"}:
        row = parse_row(record, where, task="rows")
        return "answers", (row.query.text, tuple(text.text for text in row.texts[1:]), None)
    raise ValueError(f"{where}: the columns {sorted(record)} have none of the known forms. Wanted: {_FORMS}.")


def _text(record: Mapping[str, Any], name: str, where: str) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise ValueError(f"{where}, column {name!r}: a text is expected, not {type(value).__name__}.")
    return value


def _names(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str) and value.startswith("["):
        # CSV has no lists; a cell holds one as JSON.
        with suppress(json.JSONDecodeError):
            value = json.loads(value)
    # An array comes from Parquet.
    names = value if isinstance(value, (list, tuple)) else getattr(value, "tolist", lambda: None)()
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{where}, column 'labels': a list of names is expected, not {value!r}.")
    return tuple(dict.fromkeys(names))


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where}, column 'score': a number is expected, not {value!r}.")
    return number


def _read_matches(labels: tuple[str, ...], path: Path) -> tuple[float, ...]:
    words = sorted(set(labels))
    positive = {"1", "1.0", "true", "yes", "match", "duplicate", "entailment"} & {word.lower() for word in words}
    if len(words) != 2 or len(positive) != 1:
        raise ValueError(f"{path}: pair labels must be two values, such as 0 and 1; found {words[:5]}.")
    return tuple(float(label.lower() in positive) for label in labels)
