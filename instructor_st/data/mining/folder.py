"""A folder of rows given hard negatives, task by task, resumable at every task."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from instructor_st.atomic_files import write_texts
from instructor_st.data.building.manifest_steps import ManifestStep, read_manifest, write_step
from instructor_st.data.mining.mine_task import MiningOptions, mine_task_negatives
from instructor_st.data.row_files import read_rows
from instructor_st.data.row_folder import OutputFolder, check_output_place
from instructor_st.data.schema import Row
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
        fingerprint: Hash of all that the outcome depends on.
        counts: The counts of an earlier run that made just this, if its shard is as it was written.
    """

    task: str
    rows: tuple[Row, ...]
    fingerprint: str
    counts: Mapping[str, int] | None


@dataclass(frozen=True)
class MiningPlan:
    """What a run has to do.

    Attributes:
        data: The folder, or file, of the rows.
        output: The folder to write, and the held-out files to copy.
        identity: Tells the model, and the cross-encoder, from others.
        options: How negatives are chosen.
        tasks: The tasks, by name.
        outdated: Files of earlier runs that are to be removed.
        read: What was read and left out, with counts.
        manifest: What the data say they are made of, if they do (see `read_manifest`).
    """

    data: Path
    output: OutputFolder
    identity: str
    options: MiningOptions
    tasks: tuple[PlannedTask, ...]
    outdated: tuple[Path, ...]
    read: Mapping[str, int]
    manifest: Mapping[str, Any] | None = None


def plan_mining(data: str | Path, output: str | Path, *, identity: str, options: MiningOptions) -> MiningPlan:
    """Read the rows of a folder and find out what an earlier run has done.

    Args:
        data: A folder of rows, or a file. Rows in a sub-folder `held_out` are kept as they are; if there is one, or a
            manifest, beside a sub-folder `train`, the latter has all rows to mine.
        output: The folder to write; `train` and `held_out` in it if the data hold rows out.
        identity: Tells the model, and the cross-encoder, from others (see `fingerprint_model`).
        options: How negatives are chosen.

    Returns:
        The plan; nothing is written.

    Raises:
        FileNotFoundError: If there is no row file.
        ValueError: If a record is not a row, the manifest cannot be read, or the output folder lies in the data, holds
            other row files or was not made here.
    """
    data, output = Path(data), Path(output)
    check_output_place(output, data, state=_STATE)
    manifest = read_manifest(data)
    held_out = data / "held_out"
    copies = {path: output / path.relative_to(data) for path in sorted(held_out.rglob("*")) if path.is_file()}
    is_split = bool(copies) or (manifest is not None and (data / "train").is_dir())
    folder = data / "train" if is_split and (data / "train").is_dir() else data
    read: Counter[str] = Counter()
    rows_by_task: dict[str, list[Row]] = defaultdict(list)
    for path in list_data_files(folder):
        if path not in copies:
            for row in read_rows(path, report=read):
                rows_by_task[row.task].append(row)
    target = OutputFolder(output, _STATE, "train" if is_split else "", tuple(sorted(rows_by_task)), copies)
    outdated = target.find_outdated()
    target.check_row_files(outdated)
    tasks = []
    for task in target.tasks:
        fingerprint = _fingerprint(rows_by_task[task], identity, options)
        counts = target.read_counts(task, fingerprint=fingerprint)
        tasks.append(PlannedTask(task, tuple(rows_by_task[task]), fingerprint, counts))
    return MiningPlan(data, target, identity, options, tuple(tasks), outdated, dict(sorted(read.items())), manifest)


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
    plan.output.prepare(plan.outdated)
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
                known = plan.output.write_task(task.task, mined.rows, fingerprint=task.fingerprint, counts=mined.counts)
            counts[task.task] = known
            bar.update(len(task.rows))
    return counts


def write_mining_report(
    plan: MiningPlan, counts: Mapping[str, Mapping[str, int]], *, model: str, cross_encoder: str | None = None
) -> list[Path]:
    """Write `mining_report.json` and `mining_report.md` into the output folder, and its manifest if the data have one.

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
        "held_out_files": len(plan.output.copies),
        "total": dict(sorted(sum((Counter(each) for each in counts.values()), Counter()).items())),
        "tasks": {task: dict(each) for task, each in counts.items()},
    }
    texts = {
        plan.output.folder / "mining_report.json": json.dumps(report, indent=1, ensure_ascii=False) + "\n",
        plan.output.folder / "mining_report.md": format_mining_report(report),
    }
    write_texts(texts)
    return [*texts, *_write_manifest(plan, report)]


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


def _write_manifest(plan: MiningPlan, report: Mapping[str, Any]) -> list[Path]:
    step = ManifestStep(
        step="mine_negatives",
        models={role: report[role] for role in ("model", "cross_encoder") if report[role]},
        options=report["options"],
        counts=report["total"],
        rows_in=sum(len(task.rows) for task in plan.tasks),
        details={"fingerprint": plan.identity},
    )
    shards = {task: plan.output.find_shard(task) for task in plan.output.tasks}
    return write_step(plan.manifest, step, data=plan.data, output=plan.output.folder, shards=shards)


def _name_model(name: str) -> str:
    return Path(name).resolve().name if Path(name).is_dir() else name


def _list_counts(counts: Mapping[str, int], prefix: str) -> str:
    return "; ".join(f"{what.removeprefix(prefix)} {n}" for what, n in counts.items() if what.startswith(prefix) and n)


def _fingerprint(rows: Iterable[Row], identity: str, options: MiningOptions) -> str:
    content = (_FORMAT, identity, asdict(options), [(tuple(row.texts), row.label, row.task) for row in rows])
    return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()
