"""Reading of own evaluation data: splits, limits, and checks that name the line."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from instructor_st.data.row_files import read_records
from instructor_st.evaluation.own_data import COLUMNS, DataSet

__all__ = [
    "ClassTexts",
    "DataRow",
    "DataRows",
    "JudgedPairs",
    "ScoredPairs",
    "choose_split",
    "draw",
    "read_class_texts",
    "read_data_rows",
    "read_judged_pairs",
    "read_scored_pairs",
    "read_text",
]

T = TypeVar("T")

_EVALUATED_SPLITS = ("test", "eval", "validation", "valid", "val", "dev")
_POSITIVE_LABELS = frozenset(
    {"1", "true", "yes", "positive", "supports", "supported", "entailment", "entails", "duplicate", "paraphrase"}
)
# As many as mteb's experiments draw per label, twice, so that they still differ.
_TRAIN_ROWS_PER_LABEL = 16


@dataclass(frozen=True)
class DataRow:
    """A row and where it stands (`file:line`)."""

    where: str
    values: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class DataRows:
    """The rows of a data set that are evaluated.

    Attributes:
        rows: The rows.
        train: The rows of the training split.
        left_out: Other rows, counted by reason.
    """

    rows: Sequence[DataRow]
    train: Sequence[DataRow]
    left_out: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """Pairs of texts, how similar they are, and what was left out."""

    first: Sequence[str]
    second: Sequence[str]
    scores: Sequence[float]
    left_out: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class JudgedPairs:
    """Pairs of texts, whether each is positive (1) or not (0), the positive label, and what was left out."""

    first: Sequence[str]
    second: Sequence[str]
    labels: Sequence[int]
    positive: str
    left_out: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class ClassTexts:
    """Texts with their classes, those to learn from (none for clustering), and what was left out."""

    texts: Sequence[str]
    labels: Sequence[str]
    train_texts: Sequence[str]
    train_labels: Sequence[str]
    left_out: Mapping[str, int]


def read_data_rows(data_set: DataSet, *, limit: int | None = None, seed: int = 0) -> DataRows:
    """Read the rows of any kind of data set but retrieval.

    Rows with a blank text are left out and counted. Which split is evaluated: see `choose_split`.

    Args:
        data_set: The data set.
        limit: Evaluate at most so many rows, drawn by the seed; training rows are not cut.
        seed: Of the draw.

    Returns:
        The rows.

    Raises:
        ValueError: If the data set has a fault, no row is left, a column is missing or a text is no text.
    """
    if data_set.fault:
        raise ValueError(data_set.fault)
    if data_set.kind is None or data_set.kind == "retrieval":
        raise ValueError(f"{data_set.name}: {data_set.kind} has no file of rows.")
    columns = COLUMNS[data_set.kind]
    read = [DataRow(where, values) for where, values in read_records(data_set.files["rows"])]
    left_out: Counter[str] = Counter()
    kept = [
        row for row in read if not _is_blank(row, columns[0], left_out) and not _is_blank(row, columns[1], left_out)
    ]
    for row in kept:
        for column in columns:
            if row.values.get(column) is None:
                raise ValueError(f"{row.where}: no {column!r}; every row of {data_set.kind} needs one.")
    split = choose_split((row.values.get("split") for row in kept), data_set)
    train = [row for row in kept if row.values.get("split") == (data_set.train_split or "train")]
    rows = kept if split is None else [row for row in kept if row.values.get("split") == split]
    if not rows:
        what = f" of split {split!r}" if split is not None else ""
        raise ValueError(f"{data_set.files['rows']}: no rows{what} with a text.")
    others = Counter(row.values.get("split") for row in kept) if split is not None else Counter()
    left_out.update({f"split {name!r}": count for name, count in others.items() if name != split})
    drawn = draw(rows, limit, f"{seed}/{data_set.name}")
    if len(drawn) < len(rows):
        left_out["beyond the limit"] += len(rows) - len(drawn)
    return DataRows(drawn, train, left_out)


def choose_split(splits: Any, data_set: DataSet) -> str | None:
    """Choose the split to evaluate.

    Args:
        splits: The rows' splits, `None` where a row has none.
        data_set: Its `split`, if it names one, is taken.

    Returns:
        `test` if there are such rows, else `eval`, `validation`, `valid`, `val` or `dev`; else `None`: all rows.

    Raises:
        ValueError: If the data set names a split that no row has.
    """
    known = set(splits)
    if data_set.split is not None:
        if data_set.split not in known:
            shown = ", ".join(sorted(map(str, known)))
            raise ValueError(f"{data_set.name}: no row has split {data_set.split!r}; there are {shown}.")
        return data_set.split
    return next((name for name in _EVALUATED_SPLITS if name in known), None)


def draw(rows: Sequence[T], limit: int | None, key: str) -> Sequence[T]:
    """Draw at most `limit` rows, in their order; the same key draws the same.

    Args:
        rows: The rows.
        limit: How many; `None` means all.
        key: The seed and what is drawn.

    Returns:
        The rows drawn.

    Raises:
        ValueError: If the limit is not positive.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"A limit must be at least 1, not {limit}.")
    if limit is None or limit >= len(rows):
        return rows
    return [rows[place] for place in sorted(random.Random(key).sample(range(len(rows)), limit))]


def read_scored_pairs(data_set: DataSet, *, limit: int | None = None, seed: int = 0) -> ScoredPairs:
    """Read pairs with a score (sts, or conditional, whose conditions are not read here).

    Args:
        data_set: The data set.
        limit: Evaluate at most so many pairs.
        seed: Of the draw.

    Returns:
        The pairs.

    Raises:
        ValueError: As `read_data_rows`, and if a score is no finite number or all scores are equal.
    """
    found = read_data_rows(data_set, limit=limit, seed=seed)
    scores = [_read_number(row, "score") for row in found.rows]
    if len(set(scores)) < 2:
        raise ValueError(
            f"{data_set.files['rows']}: all {len(scores)} scores are {scores[0]}; no order to compare with."
        )
    return ScoredPairs(_read_texts(found.rows, "a"), _read_texts(found.rows, "b"), scores, found.left_out)


def read_judged_pairs(data_set: DataSet, *, limit: int | None = None, seed: int = 0) -> JudgedPairs:
    """Read pairs with a label.

    The positive label is the data set's `positive`; by default the only one of the labels that is, in any case, one of
    1, true, yes, positive, supports, supported, entailment, entails, duplicate, paraphrase. All others are negative.

    Args:
        data_set: The data set.
        limit: Evaluate at most so many pairs.
        seed: Of the draw.

    Returns:
        The pairs.

    Raises:
        ValueError: As `read_data_rows`, and if the positive label cannot be told or only one class is there.
    """
    found = read_data_rows(data_set, limit=limit, seed=seed)
    labels = [_read_label(row) for row in found.rows]
    path, known = data_set.files["rows"], sorted(set(labels))
    _require_two_classes(data_set, labels)
    positive = data_set.positive
    if positive is None:
        candidates = [label for label in known if label.lower() in _POSITIVE_LABELS]
        if len(candidates) != 1:
            raise ValueError(f"{path}: which of the labels {known} is positive? Name it in data_sets.yaml (positive:).")
        positive = candidates[0]
    if positive not in known:
        raise ValueError(f"{path}: no pair has the positive label {positive!r}; there are {known}.")
    numbers = [int(label == positive) for label in labels]
    return JudgedPairs(_read_texts(found.rows, "a"), _read_texts(found.rows, "b"), numbers, positive, found.left_out)


def read_class_texts(data_set: DataSet, *, limit: int | None = None, seed: int = 0) -> ClassTexts:
    """Read texts with a class.

    Classification without a training split learns from a half of each class, drawn by the seed, and is evaluated on the
    other; the half is counted in `left_out`. With a limit, training rows are cut to as many, or to 16 a class if that
    is more, since mteb draws 8 a class for each of its experiments.

    Args:
        data_set: The data set.
        limit: Evaluate at most so many texts.
        seed: Of the draws.

    Returns:
        The texts.

    Raises:
        ValueError: As `read_data_rows`, and if only one class is there.
    """
    found = read_data_rows(data_set, seed=seed)
    rows, train, left_out = list(found.rows), list(found.train), Counter(found.left_out)
    key = f"{seed}/{data_set.name}"
    _require_two_classes(data_set, [_read_label(row) for row in rows])
    if data_set.kind == "classification":
        if not train or train == rows:
            train, rows = _halve(rows, key)
            left_out["half of each class, to learn from (no training split)"] += len(train)
        else:
            # Without a split to evaluate all rows are here, the training rows too.
            rows = [row for row in rows if row.values.get("split") != (data_set.train_split or "train")]
        left_out.pop(f"split {data_set.train_split or 'train'!r}", None)
    drawn = list(draw(rows, limit, key))
    if len(drawn) < len(rows):
        left_out["beyond the limit"] += len(rows) - len(drawn)
    _require_two_classes(data_set, [_read_label(row) for row in drawn])
    if data_set.kind != "classification":
        train = []
    elif limit is not None:
        train = _cut_classes(train, limit, key)
    if train:
        _require_two_classes(data_set, [_read_label(row) for row in train])
    return ClassTexts(
        _read_texts(drawn, "text"),
        [_read_label(row) for row in drawn],
        _read_texts(train, "text"),
        [_read_label(row) for row in train],
        left_out,
    )


def read_text(values: Mapping[str, Any], column: str, where: str) -> str:
    """Read a text.

    Args:
        values: The row.
        column: The column.
        where: For the message.

    Returns:
        The text.

    Raises:
        ValueError: If it is no text.
    """
    text = values.get(column)
    if not isinstance(text, str):
        raise ValueError(f"{where}: {column!r} must be a text, not {text!r}.")
    return text


def _is_blank(row: DataRow, column: str, left_out: Counter[str]) -> bool:
    value = row.values.get(column)
    blank = isinstance(value, str) and not value.strip() and column != "label"
    left_out.update([f"blank {column}"] if blank else [])
    return blank


def _read_texts(rows: Sequence[DataRow], column: str) -> list[str]:
    return [read_text(row.values, column, row.where) for row in rows]


def _read_number(row: DataRow, column: str) -> float:
    value = row.values[column]
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{row.where}: {column!r} must be a number, not {value!r}.") from None
    if not math.isfinite(number):
        raise ValueError(f"{row.where}: {column!r} is {number}; it must be finite.")
    return number


def _read_label(row: DataRow) -> str:
    value = row.values["label"]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{row.where}: 'label' is {value}; it must be a text or a number.")
    if not isinstance(value, str | int | float) or value == "":
        raise ValueError(f"{row.where}: 'label' must be a text or a number, not {value!r}.")
    return str(int(value)) if isinstance(value, bool | float) and value == int(value) else str(value)


def _require_two_classes(data_set: DataSet, labels: Sequence[str]) -> None:
    if len(set(labels)) < 2:
        raise ValueError(
            f"{data_set.files['rows']}: only one class, {labels[0]!r}, in {len(labels)} rows; two are needed. If there "
            "are more in the file, raise the limit or name another split (data_sets.yaml)."
        )


def _group(rows: Sequence[DataRow]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(_read_label(row), []).append(place)
    return places


def _pick(rows: Sequence[DataRow], key: str, count: Callable[[int], int]) -> set[int]:
    return {
        place
        for label, places in _group(rows).items()
        for place in random.Random(f"{key}/{label}").sample(places, min(count(len(places)), len(places)))
    }


def _halve(rows: Sequence[DataRow], key: str) -> tuple[list[DataRow], list[DataRow]]:
    train = _pick(rows, f"{key}/half", lambda size: (size + 1) // 2)
    return [rows[place] for place in sorted(train)], [row for place, row in enumerate(rows) if place not in train]


def _cut_classes(rows: list[DataRow], limit: int, key: str) -> list[DataRow]:
    classes = len(_group(rows))
    each = max(_TRAIN_ROWS_PER_LABEL, math.ceil(limit / classes))
    return [rows[place] for place in sorted(_pick(rows, f"{key}/train", lambda size: each))]
