"""From rows to what the trainer takes: one `datasets.Dataset` a task, and rows held out for evaluation."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from instructor_st.data.row_files import read_rows
from instructor_st.data.schema import Row

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

__all__ = ["TrainingData", "build_train_dataset", "load_training_data", "split_held_out"]

RowsByTask = Mapping[str, Sequence[Row]]


@dataclass(frozen=True)
class TrainingData:
    """Rows to train on and rows to evaluate with, by task.

    Attributes:
        train: Training rows by task; rows of one task with different numbers of negatives are tasks of their own.
        held_out: Evaluation rows by task; no query text of a task stands on both sides, unless the folder came split
            that way (then the report counts them).
        report: What was read, left out (and why) and not used, with counts.
    """

    train: dict[str, list[Row]]
    held_out: dict[str, list[Row]]
    report: Counter[str] = field(default_factory=Counter)

    @property
    def labelled_tasks(self) -> set[str]:
        """Tasks whose rows carry a class."""
        return {task for task, rows in self.train.items() if any(row.label is not None for row in rows)}


def load_training_data(
    folder: str | Path,
    *,
    held_out_share: float = 0.1,
    max_held_out_per_task: int = 100,
    max_rows_per_task: int | None = None,
    query_instruction: str = "",
    document_instruction: str = "",
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

    def read(part: Path) -> dict[str, list[Row]]:
        instructions = {"query_instruction": query_instruction, "document_instruction": document_instruction}
        return _group_by_task(read_rows(part, report=report, **instructions))

    if (folder / "train").is_dir() and (folder / "held_out").is_dir():
        train, held_out = read(folder / "train"), read(folder / "held_out")
        if shared := _count_shared_queries(train, held_out):
            report["held-out rows whose query is trained on too"] = shared
    else:
        train, held_out = split_held_out(
            read(folder), share=held_out_share, max_per_task=max_held_out_per_task, seed=seed
        )
    if max_rows_per_task is not None:
        for task, rows in train.items():
            if len(rows) > max_rows_per_task:
                report["left out: more rows than max_rows_per_task"] += len(rows) - max_rows_per_task
                train[task] = random.Random(f"{seed}/{task}").sample(rows, max_rows_per_task)
    if not train:
        raise ValueError(f"{folder} has no training row. Read: {dict(report)}.")
    return TrainingData(_separate_negative_counts(train), held_out, report)


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


def build_train_dataset(rows_by_task: RowsByTask) -> DatasetDict:
    """Make the trainer's data set.

    Args:
        rows_by_task: Training rows by task, as `load_training_data` gives them.

    Returns:
        One data set a task: the columns `query`, `positive`, `negative_1`, ... of `[instruction, text]`, in loss order,
        and an integer `label`, equal for rows that must not be each other's negatives (one class, or one query or
        positive text).

    Raises:
        ValueError: If the rows of a task have different numbers of negatives.
    """
    from datasets import DatasetDict

    return DatasetDict({task: _build_task_dataset(task, rows) for task, rows in rows_by_task.items()})


def _build_task_dataset(task: str, rows: Sequence[Row]) -> Dataset:
    from datasets import Dataset

    counts = {len(row.negatives) for row in rows}
    if len(counts) > 1:
        raise ValueError(f"Task {task!r} has rows with {sorted(counts)} negatives; a data set needs one number.")
    names = ["query", "positive", *(f"negative_{number}" for number in range(1, counts.pop() + 1))]
    columns = {name: [list(row.texts[place]) for row in rows] for place, name in enumerate(names)}
    return Dataset.from_dict({**columns, "label": _number_classes(rows)})


def _count_shared_queries(train: RowsByTask, held_out: RowsByTask) -> int:
    queries = {task: {row.query.text for row in rows} for task, rows in train.items()}
    return sum(row.query.text in queries.get(task, ()) for task, rows in held_out.items() for row in rows)


def _separate_negative_counts(rows_by_task: RowsByTask) -> dict[str, list[Row]]:
    """Give rows of one task with different numbers of negatives data sets of their own."""
    separated: dict[str, list[Row]] = {}
    for task, rows in rows_by_task.items():
        counts = sorted({len(row.negatives) for row in rows})
        for count in counts:
            name = f"{task} ({count} negatives)" if len(counts) > 1 else task
            separated[name] = [row for row in rows if len(row.negatives) == count]
    return separated


def _group_by_task(rows: Iterable[Row]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = defaultdict(list)
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
