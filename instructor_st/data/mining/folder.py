"""A folder of rows given hard negatives, task by task, resumable at every task."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from instructor_st.atomic_files import write_text, write_texts
from instructor_st.data.mining.mine_task import MiningOptions, mine_task_negatives
from instructor_st.data.row_files import read_rows
from instructor_st.data.schema import Row
from instructor_st.data.shards import hash_file, write_rows
from instructor_st.data.sources.record_files import list_data_files

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

__all__ = ["MiningPlan", "PlannedTask", "format_mining_report", "mine_folder", "plan_mining", "write_mining_report"]

_FORMAT = 1
"""Raised when the same rows and options would give other negatives than before."""
_STATE = ".mining"


@dataclass(frozen=True)
class PlannedTask:
    """A task that is to be mined, or was.

    Attributes:
        task: Its name.
        rows: Its rows.
        shard: The file for its rows.
        state: The file that says what was made.
        fingerprint: Hash of all that the outcome depends on.
        counts: The counts of an earlier run that made just this, if its shard is as it was written.
    """

    task: str
    rows: tuple[Row, ...]
    shard: Path
    state: Path
    fingerprint: str
    counts: Mapping[str, int] | None


@dataclass(frozen=True)
class MiningPlan:
    """What a run has to do.

    Attributes:
        output: The folder to write.
        options: How negatives are chosen.
        tasks: The tasks, by name.
        copies: Held-out files and where they go.
        outdated: Files of earlier runs for tasks that the data no longer have.
        read: What was read and left out, with counts.
    """

    output: Path
    options: MiningOptions
    tasks: tuple[PlannedTask, ...]
    copies: Mapping[Path, Path]
    outdated: tuple[Path, ...]
    read: Mapping[str, int]


def plan_mining(data: str | Path, output: str | Path, *, identity: str, options: MiningOptions) -> MiningPlan:
    """Read the rows of a folder and find out what an earlier run has done.

    Args:
        data: A folder of rows, or a file. Rows in a sub-folder `held_out` are kept as they are; if there is one beside
            a sub-folder `train`, the latter has all rows to mine.
        output: The folder to write; `train` and `held_out` in it if the data hold rows out.
        identity: Tells the model, and the cross-encoder, from others (see `fingerprint_model`).
        options: How negatives are chosen.

    Returns:
        The plan; nothing is written.

    Raises:
        FileNotFoundError: If there is no row file.
        ValueError: If a record is not a row, or the output folder lies in the data or holds other row files.
    """
    data, output = Path(data), Path(output)
    if output.resolve().is_relative_to(data.resolve()):
        raise ValueError(f"{output} lies in the data, {data}, and would be read as data; name another output folder.")
    held_out = data / "held_out"
    copies = {path: output / path.relative_to(data) for path in sorted(held_out.rglob("*")) if path.is_file()}
    folder = data / "train" if copies and (data / "train").is_dir() else data
    read: Counter[str] = Counter()
    rows_by_task: dict[str, list[Row]] = defaultdict(list)
    for path in list_data_files(folder):
        if path not in copies:
            for row in read_rows(path, report=read):
                rows_by_task[row.task].append(row)
    shards = output / "train" if copies else output
    tasks = []
    for task, name in _name_files(sorted(rows_by_task)).items():
        rows = rows_by_task[task]
        shard, state = shards / f"{name}.parquet", output / _STATE / f"{name}.json"
        fingerprint = _fingerprint(rows, identity, options)
        tasks.append(
            PlannedTask(task, tuple(rows), shard, state, fingerprint, _read_counts(state, fingerprint, output))
        )
    outdated = _find_outdated(output, tasks)
    _check_output(output, {*(task.shard for task in tasks), *copies.values(), *outdated})
    return MiningPlan(output, options, tuple(tasks), copies, outdated, dict(sorted(read.items())))


def mine_folder(
    plan: MiningPlan,
    model: SentenceTransformer,
    *,
    cross_encoder: CrossEncoder | None = None,
    cache_folder: str | Path | None = None,
    identity: str | None = None,
    show_progress_bar: bool = True,
) -> dict[str, Mapping[str, int]]:
    """Do what a plan says: a Parquet file a task, and the held-out files copied.

    A run that was stopped at any moment and planned anew leaves, byte for byte, what an undisturbed one leaves.

    Args:
        plan: The plan.
        model: The model to search with.
        cross_encoder: A cross-encoder that may refuse candidates.
        cache_folder: Keeps the vectors for the next time, if given.
        identity: The model's `fingerprint_model` for the cache, if it is known already.
        show_progress_bar: Whether to show the progress.

    Returns:
        The counts of `MinedTask` by task.
    """
    for path in plan.outdated:
        path.unlink(missing_ok=True)
    for source, target in plan.copies.items():
        _copy_file(source, target)
    counts: dict[str, Mapping[str, int]] = {}
    total = sum(len(task.rows) for task in plan.tasks)
    with tqdm(total=total, unit="row", desc="Mining", disable=not show_progress_bar) as bar:
        for task in plan.tasks:
            bar.set_postfix_str(task.task)
            known = task.counts
            if known is None:
                mined = mine_task_negatives(
                    task.rows,
                    model,
                    options=plan.options,
                    cross_encoder=cross_encoder,
                    cache_folder=cache_folder,
                    identity=identity,
                )
                known = mined.counts
                digest = write_rows(task.shard, mined.rows)
                _write_state(task, known, digest, plan.output)
            counts[task.task] = known
            bar.update(len(task.rows))
    return counts


def write_mining_report(
    plan: MiningPlan, counts: Mapping[str, Mapping[str, int]], *, model: str, cross_encoder: str | None = None
) -> list[Path]:
    """Write `mining_report.json` and `mining_report.md` into the output folder.

    Args:
        plan: The plan.
        counts: What `mine_folder` gave.
        model: The model's name; of a folder the last part is given, not where it lies.
        cross_encoder: The cross-encoder's, likewise.

    Returns:
        The files.
    """
    report = {
        "model": _name_model(model),
        "cross_encoder": cross_encoder and _name_model(cross_encoder),
        "options": asdict(plan.options),
        "read": dict(plan.read),
        "held_out_files": len(plan.copies),
        "total": dict(sorted(sum((Counter(each) for each in counts.values()), Counter()).items())),
        "tasks": {task: dict(each) for task, each in counts.items()},
    }
    texts = {
        plan.output / "mining_report.json": json.dumps(report, indent=1, ensure_ascii=False) + "\n",
        plan.output / "mining_report.md": format_mining_report(report),
    }
    write_texts(texts)
    return list(texts)


def format_mining_report(report: Mapping[str, Any]) -> str:
    """Format what was mined.

    Args:
        report: What `mining_report.json` holds.

    Returns:
        Markdown: the settings, all counts, a line a task.
    """
    options = [f"`{name}` {value}" for name, value in report["options"].items() if value is not None]
    cross_encoder = f", checked with the cross-encoder `{report['cross_encoder']}`" if report["cross_encoder"] else ""
    lines = [
        "# Hard negatives",
        "",
        f"Found with `{report['model']}`{cross_encoder}. {', '.join(options)}.",
        "",
        "| what | count |",
        "|---|---:|",
        *(f"| {what} | {count} |" for part in ("read", "total") for what, count in report[part].items()),
        "",
        "| task | rows | candidates | kept | mined | rows with fewer negatives | candidates refused |",
        "|---|---:|---:|---:|---:|---|---|",
    ]
    for task, counts in report["tasks"].items():
        numbers = [counts.get(what, 0) for what in ("rows", "candidates", "negatives kept", "negatives mined")]
        reasons = [_list_counts(counts, what) for what in ("rows with fewer negatives: ", "candidates refused: ")]
        lines.append(f"| {' | '.join(map(str, [task.replace('|', '&#124;'), *numbers, *reasons]))} |")
    if report["total"].get("rows with fewer negatives: too few candidates"):
        lines += ["", "Tasks with too few candidates get more negatives with a lower `range_min`."]
    if report["total"].get("rows with fewer negatives: margins and score limits"):
        lines += [
            "",
            "Rows that margins and score limits left short get more with a higher `range_max`, or milder limits.",
        ]
    return "\n".join(lines) + "\n"


def _name_model(name: str) -> str:
    return Path(name).resolve().name if Path(name).is_dir() else name


def _list_counts(counts: Mapping[str, int], prefix: str) -> str:
    return "; ".join(f"{what.removeprefix(prefix)} {n}" for what, n in counts.items() if what.startswith(prefix) and n)


def _name_files(tasks: Sequence[str]) -> dict[str, str]:
    """File names for tasks whose names may hold anything; some file systems do not tell case apart."""
    often = Counter(task.lower() for task in tasks)
    names = {}
    for task in tasks:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", task).strip(".")[:100]
        if name != task or often[task.lower()] > 1:
            name = f"{name}-{hashlib.blake2b(task.encode(), digest_size=4).hexdigest()}"
        names[task] = name
    return names


def _fingerprint(rows: Iterable[Row], identity: str, options: MiningOptions) -> str:
    content = (_FORMAT, identity, asdict(options), [(tuple(row.texts), row.label, row.task) for row in rows])
    return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()


def _read_counts(state: Path, fingerprint: str, output: Path) -> dict[str, int] | None:
    try:
        known = json.loads(state.read_text(encoding="utf-8"))
        if known["fingerprint"] == fingerprint and hash_file(output / known["shard"]) == known["sha256"]:
            return dict(known["counts"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # never finished, or tampered with: mined anew
    return None


def _write_state(task: PlannedTask, counts: Mapping[str, int], digest: str, output: Path) -> None:
    shard = task.shard.relative_to(output).as_posix()
    known = {"fingerprint": task.fingerprint, "shard": shard, "sha256": digest, "counts": dict(counts)}
    write_text(task.state, json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def _find_outdated(output: Path, tasks: Sequence[PlannedTask]) -> tuple[Path, ...]:
    """Find what earlier runs wrote for tasks that are no more, or for another layout of the folder."""
    wanted = {path for task in tasks for path in (task.shard, task.state)}
    found = []
    for state in sorted((output / _STATE).glob("*.json")):
        try:
            shard = output / json.loads(state.read_text(encoding="utf-8"))["shard"]
        except (ValueError, KeyError, TypeError):
            continue
        found += [path for path in (shard, state) if path not in wanted]
    return tuple(found)


def _check_output(output: Path, own: set[Path]) -> None:
    try:
        strange = [path for path in list_data_files(output) if path not in own] if output.exists() else []
    except FileNotFoundError:
        return
    if strange:
        raise ValueError(
            f"{output} holds {strange[0].relative_to(output)}, which this run does not write and training would read. "
            "Move it away, or name another output folder."
        )


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    shutil.copyfile(source, partial)
    os.replace(partial, target)
