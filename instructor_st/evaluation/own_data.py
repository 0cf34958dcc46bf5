"""Own data: which evaluation data sets a folder of files holds, told by file names, columns and an optional YAML file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from instructor_st.data.row_files import read_records
from instructor_st.data.sources.packed_files import strip_packed
from instructor_st.data.sources.record_files import RECORD_SUFFIXES, is_record_file

__all__ = ["SETTINGS_FILE", "DataKind", "DataSet", "find_data_sets"]

DataKind = Literal[
    "sts",
    "classification",
    "clustering",
    "pair_classification",
    "retrieval",
    "generation",
    "conditional",
    "prompt_retrieval",
]

SETTINGS_FILE = "data_sets.yaml"
"""Beside the data files; see `find_data_sets`."""

COLUMNS: Mapping[DataKind, tuple[str, ...]] = {
    "conditional": ("a", "b", "condition", "score"),
    "sts": ("a", "b", "score"),
    "pair_classification": ("a", "b", "label"),
    "generation": ("reference", "candidate", "score"),
    "prompt_retrieval": ("input", "output"),
    "classification": ("text", "label"),
    "clustering": ("text", "label"),
}
"""The columns of a kind's rows; the first kind whose columns are all there is taken."""

RETRIEVAL_PARTS = ("corpus", "queries", "qrels")
_CLUSTERING_PREFIXES = ("cl_", "clustering_")
_SETTINGS = ("kind", "split", "train_split", "positive")


@dataclass(frozen=True)
class DataSet:
    """An evaluation data set that has been found, not read.

    Attributes:
        name: The file's name without its endings; for retrieval what stands before `.corpus`.
        kind: What it is evaluated as; `None` if there is a fault.
        files: `rows`, or `corpus`, `queries` and `qrels`.
        split: The split to evaluate; `None` means that the data decide.
        train_split: The split that classifiers learn from; `None` means `train`.
        positive: The label of positive pairs; `None` means that the labels decide.
        fault: Why it cannot be evaluated; empty if it can. Reading the data set raises it, so that the data sets beside
            it are evaluated all the same.
    """

    name: str
    kind: DataKind | None
    files: Mapping[str, Path]
    split: str | None = None
    train_split: str | None = None
    positive: str | None = None
    fault: str = ""


def find_data_sets(folder: str | Path) -> list[DataSet]:
    """Find the data sets of a folder (not of its sub-folders).

    A file is JSON Lines, CSV or Parquet, plain or packed (`.gz`, `.zst`), with one of these sets of columns; further
    columns do no harm:

    - sts: `a`, `b`, `score`;
    - conditional (the same texts under several conditions): `a`, `b`, `condition`, `score`;
    - pair_classification: `a`, `b`, `label`;
    - classification, or clustering if the file's name begins with `cl_` or `clustering_`: `text`, `label`;
    - generation: `reference` (one or several), `candidate`, `score`;
    - prompt_retrieval: `input`, `output`;
    - retrieval is three files (BEIR's layout): `NAME.corpus` with `_id`, `text` and perhaps `title`, `NAME.queries` with
      `_id`, `text`, and `NAME.qrels` with `query-id`, `corpus-id`, `score`.

    Rows, and queries, may have a `split`. `data_sets.yaml` beside the files changes what is taken for granted, all of
    it optional:

    ```yaml
    NAME:
      kind: clustering       # one of the kinds above
      split: dev             # the split to evaluate; else test, else eval, validation, valid, val or dev, else all rows
      train_split: train     # what classifiers learn from; without such rows a half of the others is taken
      positive: SUPPORTS     # the label of positive pairs
    ```

    Args:
        folder: The folder.

    Returns:
        The data sets, sorted by name; those that cannot be evaluated have a `fault`.

    Raises:
        FileNotFoundError: If there is no such folder, or it has no data file.
        ValueError: If two files make one name, or `data_sets.yaml` is not as above.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of evaluation data.")
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and is_record_file(path)]
    if not files:
        raise FileNotFoundError(f"{folder} holds no data file; known are {', '.join(RECORD_SUFFIXES)}, .gz and .zst.")
    settings = _read_settings(folder / SETTINGS_FILE)
    groups = _group_files(files)
    if unknown := sorted(settings.keys() - groups.keys()):
        raise ValueError(
            f"{folder / SETTINGS_FILE}: {unknown[0]!r} is no data set here; there are {', '.join(groups)}."
        )
    return [_describe(name, groups[name], settings.get(name, {})) for name in sorted(groups)]


def _group_files(files: Iterable[Path]) -> dict[str, dict[str, Path]]:
    groups: dict[str, dict[str, Path]] = {}
    for path in files:
        name, part = strip_packed(path.name).rsplit(".", 1)[0], "rows"
        if "." in name and name.rsplit(".", 1)[1].lower() in RETRIEVAL_PARTS:
            name, part = name.rsplit(".", 1)
        group = groups.setdefault(name, {})
        if other := group.get(part.lower()):
            raise ValueError(f"{other} and {path} make one data set's name; rename one.")
        group[part.lower()] = path
    for name, group in groups.items():
        if "rows" in group and len(group) > 1:
            raise ValueError(f"{group['rows']}: there is also a retrieval data set {name!r}; rename one.")
    return groups


def _describe(name: str, files: Mapping[str, Path], settings: Mapping[str, Any]) -> DataSet:
    data_set = DataSet(
        name, None, files, **{key: str(value) for key, value in settings.items() if key != "kind" and value is not None}
    )
    wanted: DataKind | None = settings.get("kind")
    try:
        return replace(data_set, kind=_find_kind(name, files, wanted))
    except (ValueError, OSError) as error:
        return replace(data_set, fault=str(error))


def _find_kind(name: str, files: Mapping[str, Path], wanted: DataKind | None) -> DataKind:
    if "rows" not in files:
        if missing := [part for part in RETRIEVAL_PARTS if part not in files]:
            beside = next(iter(files.values()))
            raise ValueError(
                f"{beside}: {name}.{missing[0]} is missing beside it; retrieval needs corpus, queries, qrels."
            )
        if wanted not in (None, "retrieval"):
            raise ValueError(f"{files['corpus']}: corpus, queries and qrels are retrieval, not {wanted}.")
        return "retrieval"
    path = files["rows"]
    first = next(iter(read_records(path)), None)
    if first is None:
        raise ValueError(f"{path}: no rows.")
    where, record = first
    if wanted == "retrieval":
        raise ValueError(f"{path}: retrieval needs {name}.corpus, {name}.queries and {name}.qrels.")
    if wanted is not None:
        if missing := [column for column in COLUMNS[wanted] if column not in record]:
            raise ValueError(f"{where}: {wanted} needs a column {missing[0]!r}; there are {', '.join(record)}.")
        return wanted
    for kind, columns in COLUMNS.items():
        if all(column in record for column in columns):
            return "clustering" if kind == "classification" and name.startswith(_CLUSTERING_PREFIXES) else kind
    raise ValueError(
        f"{where}: the columns {', '.join(record)} are no known kind of data set; known are "
        + "; ".join(f"{kind}: {', '.join(columns)}" for kind, columns in COLUMNS.items())
        + "."
    )


def _read_settings(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {error}") from None
    found = {} if found is None else found
    if not isinstance(found, dict):
        raise ValueError(f"{path}: wanted a mapping from names to settings, not {type(found).__name__}.")
    for name, settings in found.items():
        if not isinstance(settings, dict):
            raise ValueError(f"{path}: {name}: wanted settings ({', '.join(_SETTINGS)}), not {settings!r}.")
        if unknown := sorted(map(str, settings.keys() - set(_SETTINGS))):
            raise ValueError(f"{path}: {name}: unknown {unknown[0]!r}; known are {', '.join(_SETTINGS)}.")
        if settings.get("kind") not in (None, *get_args(DataKind)):
            raise ValueError(f"{path}: {name}: no such kind {settings['kind']!r}; there are {get_args(DataKind)}.")
    return {str(name): dict(settings) for name, settings in found.items()}
