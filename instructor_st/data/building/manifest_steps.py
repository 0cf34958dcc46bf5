"""What was done to a built mixture afterwards, told in the manifest of the outcome: mining, augmentation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from instructor_st.atomic_files import write_texts
from instructor_st.data.building.manifest import MANIFEST_NAME, format_data_card
from instructor_st.data.row_folder import copy_file
from instructor_st.data.shards import count_rows, hash_file
from instructor_st.data.sources.record_files import is_record_file

__all__ = ["ManifestStep", "add_step", "read_manifest", "write_step"]

_CARD, _REPORT = "README.md", "report.md"
_TASK_FIELDS = frozenset({"name", "train_rows", "held_out_rows", "shards"})


@dataclass(frozen=True)
class ManifestStep:
    """What was done to the rows.

    Attributes:
        step: The name of what was done, `mine_negatives`.
        models: The models that did it, by role.
        options: How.
        counts: What was counted, all tasks together.
        rows_in: Training rows before it.
        details: What else the outcome depends on.
    """

    step: str
    models: Mapping[str, str]
    options: Mapping[str, Any]
    counts: Mapping[str, int]
    rows_in: int
    details: Mapping[str, Any] = field(default_factory=dict)


def read_manifest(folder: str | Path) -> dict[str, Any] | None:
    """Read the manifest of a folder of rows.

    Args:
        folder: The folder, or a file of rows, which has none.

    Returns:
        The manifest, as `build_manifest` and `add_step` give it; `None` if there is none.

    Raises:
        ValueError: If it is no such manifest.
    """
    path = Path(folder) / MANIFEST_NAME
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        # Every part that is read or changed here.
        sound = manifest.keys() >= {"name", "seed"} and all(task.keys() >= _TASK_FIELDS for task in manifest["tasks"])
        sound = sound and all(isinstance(task["shards"], dict) for task in manifest["tasks"])
        sound = sound and isinstance(manifest.get("steps", []), list)
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise ValueError(
            f"{path} is no manifest of a built mixture, so that it cannot be said what the rows come from. Restore it by "
            "building the mixture again, or move it away: the outcome then has none."
        )
    return dict(manifest)


def add_step(
    manifest: Mapping[str, Any], step: ManifestStep, *, data: Path, output: Path, shards: Mapping[str, Path]
) -> dict[str, Any]:
    """Say in a manifest what was done to the rows that it tells of.

    Its tasks get the number of their rows and the hashes of their files anew; all else stays. What the manifest does not
    vouch for is named: `changed_files`, row files that are not as it says, and `other_tasks`, those it does not have.

    Args:
        manifest: The data's manifest.
        step: What was done.
        data: The folder of the data.
        output: The folder of the outcome.
        shards: The file of each task's training rows in the outcome.

    Returns:
        The outcome's manifest; no texts, no paths of the machine, no times.
    """
    rows = {task: count_rows(path) for task, path in shards.items()}
    tasks = [
        _renew_task(task, output, shards.get(task["name"]), rows.get(task["name"], 0)) for task in manifest["tasks"]
    ]
    told = {task["name"] for task in tasks}
    entry = {
        **{name: value for name, value in asdict(step).items() if name != "details"},
        **step.details,
        "rows_out": sum(rows.values()),
        "instructor_st": version("instructor-st"),
    }
    if changed := _find_changed_files(manifest, data):
        entry["changed_files"] = changed
    if others := {task: count for task, count in sorted(rows.items()) if task not in told}:
        entry["other_tasks"] = others
    return {
        **manifest,
        "train_rows": sum(task["train_rows"] for task in tasks),
        "held_out_rows": sum(task["held_out_rows"] for task in tasks),
        "tasks": tasks,
        "steps": [*manifest.get("steps", []), entry],
    }


def write_step(
    manifest: Mapping[str, Any] | None, step: ManifestStep, *, data: Path, output: Path, shards: Mapping[str, Path]
) -> list[Path]:
    """Write the outcome's `manifest.json` and `README.md` (the data set's card), and copy the build's `report.md`.

    Data without a manifest give an outcome without one; what an earlier run of the same step wrote of other data goes.

    Args:
        manifest: The data's manifest, if they have one.
        step: What was done.
        data: The folder of the data.
        output: The folder of the outcome.
        shards: The file of each task's training rows in the outcome.

    Returns:
        The files.
    """
    if manifest is None:
        _remove_earlier_manifest(output, step.step)
        return []
    renewed = add_step(manifest, step, data=data, output=output, shards=shards)
    texts = {
        output / MANIFEST_NAME: json.dumps(renewed, indent=1, ensure_ascii=False) + "\n",
        output / _CARD: format_data_card(renewed),
    }
    write_texts(texts)
    if not (data / _REPORT).is_file():
        (output / _REPORT).unlink(missing_ok=True)
        return list(texts)
    copy_file(data / _REPORT, output / _REPORT)
    return [*texts, output / _REPORT]


def _renew_task(task: Mapping[str, Any], output: Path, shard: Path | None, rows: int) -> dict[str, Any]:
    files = [output / name for name in task["shards"] if name.startswith("held_out/") and (output / name).is_file()]
    written = [*([shard] if shard else []), *files]
    return {
        **task,
        "train_rows": rows,
        "held_out_rows": task["held_out_rows"] if files else 0,
        "shards": {path.relative_to(output).as_posix(): hash_file(path) for path in written},
    }


def _find_changed_files(manifest: Mapping[str, Any], data: Path) -> list[str]:
    """The row files that are not what the manifest says: others, new, or gone."""
    told = {name: digest for task in manifest["tasks"] for name, digest in task["shards"].items()}
    found = {path.relative_to(data).as_posix(): hash_file(path) for path in _list_row_files(data)}
    return sorted(name for name in told.keys() | found.keys() if told.get(name) != found.get(name))


def _list_row_files(data: Path) -> Iterator[Path]:
    for part in ("train", "held_out"):
        yield from (path for path in (data / part).rglob("*") if path.is_file() and is_record_file(path))


def _remove_earlier_manifest(output: Path, step: str) -> None:
    try:
        known = read_manifest(output)
    except ValueError:
        return
    steps = (known or {}).get("steps", [])
    if steps and steps[-1].get("step") == step:
        for name in (MANIFEST_NAME, _CARD, _REPORT):
            (output / name).unlink(missing_ok=True)
