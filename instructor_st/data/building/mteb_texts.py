"""The texts that mteb's tasks evaluate on, of every type of task, found by the task's name."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructor_st.data.building.record_texts import is_text_column, list_texts

__all__ = ["MTEB_PREFIX", "MtebDataset", "find_mteb_task", "is_mteb_name", "list_mteb_datasets", "read_mteb_texts"]

MTEB_PREFIX = "mteb:"
"""What the name of an mteb task begins with where a path may stand too: `mteb:Banking77Classification`."""

_BATCH_SIZE = 1000


@dataclass(frozen=True)
class MtebDataset:
    """A data set that a task is evaluated on.

    Attributes:
        path: Its id on the Hub.
        revision: The revision that mteb's task asks for.
    """

    path: str
    revision: str


def is_mteb_name(source: str | Path) -> bool:
    """Say whether evaluation texts are given as the name of an mteb task, not as a path.

    Args:
        source: A path, or `mteb:` and a task's name.

    Returns:
        Whether it begins with `MTEB_PREFIX`.
    """
    return str(source).startswith(MTEB_PREFIX)


def find_mteb_task(name: str | Path) -> Any:
    """Find a task of mteb; nothing is loaded yet, but mteb seeds the global random generators.

    Args:
        name: The task's name with or without `MTEB_PREFIX`, in mteb's spelling.

    Returns:
        An `mteb.AbsTask`, of all its languages.

    Raises:
        ImportError: If mteb is not installed.
        ValueError: If mteb has no such task; the message has the nearest names.
    """
    try:
        mteb = importlib.import_module("mteb")
    except ImportError:
        raise ImportError('Evaluation texts of mteb tasks need mteb: pip install "instructor-st[eval]".') from None
    wanted = str(name).removeprefix(MTEB_PREFIX).strip()
    try:
        return mteb.get_task(wanted)
    except KeyError:
        # `mteb.get_tasks` is the function that hides the module of its name.
        known = [task.metadata.name for task in importlib.import_module("mteb.get_tasks").TASK_LIST]
        near = _find_near_names(wanted, known)
        hint = f"near names are {', '.join(near)}" if near else "mteb.get_tasks() lists all"
        raise ValueError(f"Evaluation texts: mteb has no task {wanted!r}; {hint}.") from None


def _find_near_names(wanted: str, known: Iterable[str]) -> list[str]:
    """A name that begins like the wanted one is nearer than one of like letters, however much longer it is."""
    spelled = {name.lower(): name for name in known}
    begins = [name for name in sorted(spelled, key=len) if len(wanted) > 1 and name.startswith(wanted.lower())]
    near = [*begins, *difflib.get_close_matches(wanted.lower(), spelled, n=3)]
    return [spelled[name] for name in dict.fromkeys(near)][:3]


def list_mteb_datasets(task: Any) -> list[MtebDataset]:
    """List the data sets of a task.

    Args:
        task: The task.

    Returns:
        One, or for a task that aggregates others theirs, in their order.
    """
    if task.is_aggregate:
        return [dataset for part in task.tasks for dataset in list_mteb_datasets(part)]
    dataset = task.metadata.dataset
    return [MtebDataset(str(dataset["path"]), str(dataset["revision"]))]


def read_mteb_texts(task: Any) -> Iterator[str]:
    """Load a task through mteb and list all texts of its evaluation splits, in all its languages.

    A text is every string of a row but for ids, splits and labels (`is_text_column`, and the columns that the task itself
    declares to be labels). Of retrieval and reranking, the texts are those of the corpus and of the queries; a document is
    listed with its title before it too, a query with its instruction behind it, since so mteb has them embedded. The
    candidate labels of zero-shot classification are no texts.

    Args:
        task: The task, see `find_mteb_task`; an aggregate's tasks are read one after the other. Only one is in memory.

    Yields:
        The texts that are not blank; one that stands in several rows comes several times.

    Raises:
        ValueError: If the data set cannot be loaded, lacks an evaluation split, or has no text at all.
    """
    if task.is_aggregate:
        for part in task.tasks:
            yield from read_mteb_texts(part)
        return
    _load(task)
    labels, inputs = _list_columns(task, labels=True), _list_columns(task, labels=False)
    found = False
    for part in _list_splits(task):
        for text in _list_split_texts(part, labels=labels, inputs=inputs):
            if text.strip():
                found = True
                yield text
    if not found:
        raise ValueError(f"Evaluation texts: the mteb task {task.metadata.name!r} has no text to evaluate on.")
    task.unload_data()


def _load(task: Any) -> None:
    try:
        task.load_data()
        if convert := getattr(task, "convert_v1_dataset_format_to_v2", None):
            # Older tasks hold corpus and queries apart; the first versions of mteb 2 take no number of processes.
            convert(**({"num_proc": None} if "num_proc" in inspect.signature(convert).parameters else {}))
    except Exception as error:
        # Tasks load by code of their own, which may raise anything.
        datasets = ", ".join(f"{dataset.path} at {dataset.revision}" for dataset in list_mteb_datasets(task))
        raise ValueError(
            f"Evaluation texts: the mteb task {task.metadata.name!r} cannot be loaded from {datasets}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _list_columns(task: Any, *, labels: bool) -> set[str]:
    """The columns that a task declares: one, several, or a mapping from columns to what they hold."""
    columns: set[str] = set()
    for name in dir(task):
        if name.endswith(("column_name", "column_names")) and ("label" in name) == labels:
            for declared in _as_list(getattr(task, name)):
                columns.update(_as_list(declared))
    return columns


def _as_list(value: Any) -> Iterable[Any]:
    return [value] if isinstance(value, str) else value


def _list_splits(task: Any) -> list[Any]:
    """The evaluation splits of all subsets, as `mteb.AbsTask.evaluate` picks them."""
    parts = []
    for split in task.eval_splits:
        # A task without subsets, and one whose subsets are columns, has its splits at the top.
        of_split = [task.dataset[split]] if split in task.dataset else []
        of_split += [
            task.dataset[subset][split]
            for subset in task.hf_subsets
            if subset in task.dataset and split in task.dataset[subset]
        ]
        if not of_split:
            raise ValueError(
                f"Evaluation texts: the mteb task {task.metadata.name!r} is evaluated on its split {split!r}, which its data "
                "set has not."
            )
        parts += of_split
    return parts


def _list_split_texts(part: Any, *, labels: set[str], inputs: set[str]) -> Iterator[str]:
    if isinstance(part, Mapping) and "corpus" in part and "queries" in part:
        yield from _list_joined_texts(part["corpus"], "title", "text")
        yield from _list_joined_texts(part["queries"], "text", "instruction")
        return
    for row in _list_rows(part, labels=labels, inputs=inputs):
        for value in row.values():
            yield from list_texts(value)


def _list_joined_texts(rows: Any, first: str, second: str) -> Iterator[str]:
    for row in _list_rows(rows, labels=set(), inputs=set()):
        yield from list_texts(row)
        head, tail = row.get(first), row.get(second)
        if isinstance(head, str) and isinstance(tail, str) and head and tail:
            yield f"{head} {tail}"


def _list_rows(rows: Any, *, labels: set[str], inputs: set[str]) -> Iterator[dict[str, Any]]:
    """The columns of texts, row by row, of a `datasets.Dataset`, a list of rows or a mapping of columns."""

    def keep(column: str) -> bool:
        return column not in labels and (column in inputs or is_text_column(column))

    if hasattr(rows, "features"):
        # Only the columns that hold strings are read, so that no image is decoded.
        columns = [name for name, feature in rows.features.items() if keep(name) and _holds_text(feature)]
        for batch in rows.select_columns(columns).with_format(None).iter(_BATCH_SIZE) if columns else ():
            yield from (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))
        return
    for row in [rows] if isinstance(rows, Mapping) else rows:
        yield {column: value for column, value in row.items() if keep(column)}


def _holds_text(feature: Any) -> bool:
    if isinstance(feature, Mapping):
        return any(map(_holds_text, feature.values()))
    if isinstance(feature, (list, tuple)):
        return any(map(_holds_text, feature))
    if hasattr(feature, "feature"):
        return _holds_text(feature.feature)
    # Class labels have strings behind their numbers; they and images are no texts.
    return type(feature).__name__ == "Value" and "string" in feature.dtype
