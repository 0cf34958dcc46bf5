"""From rows to what the trainer takes: one `datasets.Dataset` a task, and rows held out for evaluation."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from instructor_st.data.row_files import read_training_rows
from instructor_st.data.schema import ClassRow, GradedRow, Row, TrainingRow
from instructor_st.data.sources.record_files import list_data_files

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

__all__ = [
    "TrainingData",
    "TrainingRowKind",
    "build_train_dataset",
    "find_row_kind",
    "load_training_data",
    "split_held_out",
]

RowsByTask = Mapping[str, Sequence[Row]]
TrainingRowKind = Literal["pairs", "graded", "classes", "scores"]
"""Pairs with hard negatives, graded pairs, texts with a class, pairs with a teacher's scores."""

RowT = TypeVar("RowT", bound=TrainingRow)


@dataclass(frozen=True)
class TrainingData:
    """Rows to train on and rows to evaluate with, by task.

    Attributes:
        train: Training rows by task, of one kind in each; rows of one task with different numbers of negatives are tasks
            of their own.
        held_out: Evaluation rows by task, all of pairs; no query text of a task stands on both sides, unless the folder
            came split that way (then the report counts them).
        report: What was read, left out (and why) and not used, with counts.
    """

    train: Mapping[str, Sequence[TrainingRow]]
    held_out: dict[str, list[Row]]
    report: Counter[str] = field(default_factory=Counter)

    @property
    def labelled_tasks(self) -> set[str]:
        """Tasks whose pairs carry a class."""
        return {
            task
            for task, rows in self.train.items()
            if any(isinstance(row, Row) and row.label is not None for row in rows)
        }

    @property
    def kinds(self) -> dict[str, TrainingRowKind]:
        """The kind of each task's training rows."""
        return {task: find_row_kind(task, rows) for task, rows in self.train.items()}


def load_training_data(
    folder: str | Path,
    *,
    held_out_share: float = 0.1,
    max_held_out_per_task: int = 100,
    max_rows_per_task: int | None = None,
    query_instruction: str = "",
    document_instruction: str = "",
    skip_broken_files: bool = False,
    seed: int = 0,
) -> TrainingData:
    """Read a folder of rows.

    A folder with the sub-folders `train/` and `held_out/` is taken as split; otherwise a share of each task's rows is
    held out.

    Args:
        folder: The folder, or one file.
        held_out_share: The share of each task to hold out, from 0 to below 1, where the folder is not split.
        max_held_out_per_task: Hold out at most so many different queries a task where the folder is not split.
        max_rows_per_task: Keep at most so many training rows a task, drawn at random.
        query_instruction: The instruction of queries that bring none.
        document_instruction: The instruction of documents that bring none.
        skip_broken_files: Leave a file out that holds a record that is no row, with the reason in the report.
        seed: Of the draws.

    Returns:
        The rows by task, with a report.

    Raises:
        FileNotFoundError: If there is nothing to read.
        ValueError: If a record is not a row, an option is out of range, or no training row is left.
    """
    if not 0 <= held_out_share < 1:
        raise ValueError(f"held_out_share must be from 0 to below 1, not {held_out_share}.")
    for name, value in (("max_rows_per_task", max_rows_per_task), ("max_held_out_per_task", max_held_out_per_task)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be 1 or more, not {value}.")
    folder, report = Path(folder), Counter[str]()
    instructions = {"query_instruction": query_instruction, "document_instruction": document_instruction}

    def read(part: Path) -> tuple[dict[str, list[Row]], dict[str, list[TrainingRow]]]:
        return _separate_pairs(_read_by_task(part, report, skip_broken=skip_broken_files, **instructions))

    others: dict[str, list[TrainingRow]]
    train: dict[str, list[Row]]
    if (folder / "train").is_dir() and (folder / "held_out").is_dir():
        train, others = read(folder / "train")
        held_out, unused = read(folder / "held_out")
        if shared := _count_shared_queries(train, held_out):
            report["held-out rows whose query is trained on too"] = shared
        if unused:
            report["left out: held-out rows that are no pairs"] = sum(map(len, unused.values()))
    else:
        pairs, others = read(folder)
        train, held_out = split_held_out(pairs, share=held_out_share, max_per_task=max_held_out_per_task, seed=seed)
    if others:
        report["rows that are no pairs, none of them held out"] = sum(map(len, others.values()))
    if max_rows_per_task is not None:
        train = _draw_rows(train, max_rows_per_task, seed, report)
        others = _draw_rows(others, max_rows_per_task, seed, report)
    rows_by_task = _separate_negative_counts({**train, **others})
    if not rows_by_task:
        raise ValueError(f"{folder} has no training row. Read: {dict(report)}.")
    return TrainingData(rows_by_task, held_out, report)


def find_row_kind(task: str, rows: Sequence[TrainingRow]) -> TrainingRowKind:
    """Say of which kind a task's rows are.

    Args:
        task: Its name, for the error.
        rows: The rows.

    Returns:
        The kind.

    Raises:
        ValueError: If they are of several kinds.
    """
    kinds: set[TrainingRowKind] = {_name_kind(row) for row in rows}
    if len(kinds) != 1:
        raise ValueError(
            f"Task {task!r} has rows of several kinds ({', '.join(sorted(kinds))}); name them differently."
        )
    return kinds.pop()


def split_held_out(
    rows_by_task: RowsByTask, *, share: float, max_per_task: int = 100, seed: int = 0
) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
    """Hold out a share of each task; rows with the same query text stay together.

    Args:
        rows_by_task: The rows.
        share: The share to hold out, from 0 to below 1.
        max_per_task: At most so many query texts a task.
        seed: Of the draw.

    Returns:
        Training rows and held-out rows by task. A task of a single query text is trained on only.
    """
    train: dict[str, list[Row]] = {}
    held_out: dict[str, list[Row]] = {}
    for task, rows in rows_by_task.items():
        queries = list(dict.fromkeys(row.query.text for row in rows))
        count = min(round(share * len(queries)), len(queries) - 1, max_per_task)
        chosen = set(random.Random(f"{seed}/{task}").sample(queries, count))
        train[task] = [row for row in rows if row.query.text not in chosen]
        if chosen:
            held_out[task] = [row for row in rows if row.query.text in chosen]
    return train, held_out


def build_train_dataset(rows_by_task: Mapping[str, Sequence[TrainingRow]]) -> DatasetDict:
    """Make the trainer's data set.

    Args:
        rows_by_task: Training rows by task, as `load_training_data` gives them.

    Returns:
        One data set a task, its text columns `[instruction, text]` in loss order. Pairs have `query`, `positive`,
        `negative_1`, ..., and an integer `label`, equal for rows that must not be each other's negatives (one class, or
        one query or positive text), or a teacher's `scores`; graded pairs have `a`, `b`, `score`; texts with a class have
        `text` and an integer `label`.

    Raises:
        ValueError: If the rows of a task have different numbers of negatives, or are of several kinds.
    """
    from datasets import DatasetDict

    return DatasetDict({task: _build_task_dataset(task, rows) for task, rows in rows_by_task.items()})


def _build_task_dataset(task: str, rows: Sequence[TrainingRow]) -> Dataset:
    from datasets import Dataset

    kind = find_row_kind(task, rows)
    graded = [row for row in rows if isinstance(row, GradedRow)]
    pairs = [row for row in rows if isinstance(row, Row)]
    columns: dict[str, list[Any]]
    if kind == "graded":
        columns = {"a": [list(row.a) for row in graded], "b": [list(row.b) for row in graded]}
        return Dataset.from_dict({**columns, "score": [row.score for row in graded]})
    if kind == "classes":
        classed = [row for row in rows if isinstance(row, ClassRow)]
        numbers: dict[str, int] = {}
        labels = [numbers.setdefault(row.label, len(numbers)) for row in classed]
        return Dataset.from_dict({"text": [list(row.text) for row in classed], "label": labels})
    counts = {len(row.negatives) for row in pairs}
    if len(counts) > 1:
        raise ValueError(f"Task {task!r} has rows with {sorted(counts)} negatives; a data set needs one number.")
    names = ["query", "positive", *(f"negative_{number}" for number in range(1, counts.pop() + 1))]
    columns = {name: [list(row.texts[place]) for row in pairs] for place, name in enumerate(names)}
    if kind == "scores":
        return Dataset.from_dict({**columns, "scores": [list(row.scores or ()) for row in pairs]})
    return Dataset.from_dict({**columns, "label": _number_classes(pairs)})


def _name_kind(row: TrainingRow) -> TrainingRowKind:
    if isinstance(row, GradedRow):
        return "graded"
    if isinstance(row, ClassRow):
        return "classes"
    return "pairs" if row.scores is None else "scores"


def _read_by_task(
    part: Path, report: Counter[str], *, skip_broken: bool, **instructions: str
) -> dict[str, list[TrainingRow]]:
    rows: list[TrainingRow] = []
    for path in list_data_files(part):
        counts: Counter[str] = Counter()
        try:
            rows += list(read_training_rows(path, report=counts, **instructions))
        except ValueError as error:
            if not skip_broken:
                raise
            counts = Counter({f"left out: broken file, {error}": 1})
        report.update(counts)
    return _group_by_task(rows)


def _separate_pairs(
    rows_by_task: Mapping[str, Sequence[TrainingRow]],
) -> tuple[dict[str, list[Row]], dict[str, list[TrainingRow]]]:
    pairs: dict[str, list[Row]] = {}
    others: dict[str, list[TrainingRow]] = {}
    for task, rows in rows_by_task.items():
        if find_row_kind(task, rows) == "pairs":
            pairs[task] = [row for row in rows if isinstance(row, Row)]
        else:
            others[task] = list(rows)
    return pairs, others


def _draw_rows(
    rows_by_task: Mapping[str, Sequence[RowT]], count: int, seed: int, report: Counter[str]
) -> dict[str, list[RowT]]:
    drawn = {}
    for task, rows in rows_by_task.items():
        if len(rows) > count:
            report["left out: more rows than max_rows_per_task"] += len(rows) - count
            drawn[task] = random.Random(f"{seed}/{task}").sample(rows, count)
        else:
            drawn[task] = list(rows)
    return drawn


def _count_shared_queries(train: RowsByTask, held_out: RowsByTask) -> int:
    queries = {task: {row.query.text for row in rows} for task, rows in train.items()}
    return sum(row.query.text in queries.get(task, ()) for task, rows in held_out.items() for row in rows)


def _separate_negative_counts(rows_by_task: Mapping[str, Sequence[TrainingRow]]) -> dict[str, list[TrainingRow]]:
    """Give rows of one task with different numbers of negatives data sets of their own."""
    separated: dict[str, list[TrainingRow]] = {}
    for task, rows in rows_by_task.items():
        parts: dict[int, list[TrainingRow]] = defaultdict(list)
        for row in rows:
            parts[len(row.negatives) if isinstance(row, Row) else 0].append(row)
        for count in sorted(parts):
            separated[f"{task} ({count} negatives)" if len(parts) > 1 else task] = parts[count]
    return separated


def _group_by_task(rows: Iterable[RowT]) -> dict[str, list[RowT]]:
    grouped: dict[str, list[RowT]] = defaultdict(list)
    for row in rows:
        # The trainer makes module names of task names, and those must not contain a dot.
        grouped[row.task.replace(".", "_")].append(row)
    return dict(sorted(grouped.items()))


def _number_classes(rows: Sequence[Row]) -> list[int]:
    """Number the rows' classes: joined by label, else by a shared query or positive text."""
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def find(key: tuple[str, str]) -> tuple[str, str]:
        while parents.setdefault(key, key) != key:
            parents[key] = parents[parents[key]]
            key = parents[key]
        return key

    keys = []
    for row in rows:
        first = ("label", row.label) if row.label is not None else ("query", row.query.text)
        if row.label is None:
            parents[find(first)] = find(("positive", row.positive.text))
        keys.append(first)
    numbers: dict[tuple[str, str], int] = {}
    return [numbers.setdefault(find(key), len(numbers)) for key in keys]
