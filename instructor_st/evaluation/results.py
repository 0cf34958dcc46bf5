"""One result: the row of every results.json, from which tables, plots and cards are made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from instructor_st.atomic_files import write_text

__all__ = ["Result", "find_versions", "read_results", "write_results"]

_PACKAGES = ("instructor-st", "sentence-transformers", "transformers", "torch")


@cache
def find_versions() -> Mapping[str, str]:
    """Return the versions of the packages that decide a result."""
    return {package: version(package) for package in _PACKAGES}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One value of one metric.

    Attributes:
        model: Its name or folder.
        suite: What the task belongs to: `own`, `mteb`, `billboard`, `prompt_retrieval`, `robustness`, `following`,
            `held_out`.
        task: The task.
        category: The task's type, as mteb names it where it has it (`STS`, `Classification`, ...).
        condition: Which of several instructions this is (`none`, `right`, `short`, `paraphrase 3`, ...).
        instruction: What the texts, or the queries, were given.
        document_instruction: What documents were given, if something else.
        metric: The metric.
        value: Its value, as the metric defines it (mostly 0 to 1).
        low: Lower bound of the 95 % interval, if there is one.
        high: Upper bound.
        rows: Number of rows that the value is of.
        seconds: Wall time of the task.
        texts_per_second: Texts embedded in a second.
        revision: The model's revision, if it has one.
        seed: Of everything random.
        versions: Of the packages.
        notes: What else there is to say: rows left out with the reason, published figures.
    """

    model: str
    suite: str
    task: str
    category: str
    condition: str
    instruction: str
    metric: str
    value: float
    document_instruction: str | None = None
    low: float | None = None
    high: float | None = None
    rows: int | None = None
    seconds: float | None = None
    texts_per_second: float | None = None
    revision: str | None = None
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=find_versions)
    notes: Mapping[str, Any] = field(default_factory=dict)


def write_results(results: Iterable[Result | Mapping[str, Any]], path: str | Path) -> None:
    """Write a file of results, in full or not at all.

    Args:
        results: Of as many models, tasks and conditions as wanted.
        path: The file.
    """
    rows = [asdict(each) if isinstance(each, Result) else dict(each) for each in results]
    write_text(Path(path), json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def read_results(paths: str | Path | Sequence[str | Path]) -> list[Result]:
    """Read files of results.

    Args:
        paths: One or several files, or folders, whose `*.json` files are read.

    Returns:
        The results, in the order of the files.

    Raises:
        FileNotFoundError: If there is no such file, or a folder has none.
        ValueError: If a file has another form; the message names the file and the entry.
    """
    given = [paths] if isinstance(paths, str | Path) else paths
    found: list[Result] = []
    for path in map(Path, given):
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            raise FileNotFoundError(f"{path}: no results (*.json) in this folder.")
        for file in files:
            found += _read_file(file)
    return found


def _read_file(path: Path) -> list[Result]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of results.")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(rows, list):
        raise ValueError(f"{path}: wanted a list of results, not {type(rows).__name__}.")
    return [_parse(row, f"{path}: result {number}") for number, row in enumerate(rows)]


def _parse(row: Any, where: str) -> Result:
    known = {each.name for each in fields(Result)}
    if not isinstance(row, dict):
        raise ValueError(f"{where}: wanted an object, not {type(row).__name__}.")
    if unknown := sorted(row.keys() - known):
        raise ValueError(f"{where}: unknown {', '.join(unknown)}.")
    try:
        return Result(**row)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None
