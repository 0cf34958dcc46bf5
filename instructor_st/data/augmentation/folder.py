"""A folder of rows augmented: task by task, resumable at every batch, with a report."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructor_st.atomic_files import write_texts
from instructor_st.data.augmentation.augment_rows import augment_rows, normalize_text
from instructor_st.data.augmentation.text_generators import TextGenerator
from instructor_st.data.building.manifest_steps import ManifestStep, read_manifest, write_step
from instructor_st.data.embedding_cache import Scorer
from instructor_st.data.row_files import read_rows
from instructor_st.data.row_folder import OutputFolder, check_output_place
from instructor_st.data.schema import Row
from instructor_st.data.sources.record_files import list_data_files

__all__ = [
    "AugmentationReport",
    "RowFolder",
    "augment_folder",
    "check_output",
    "format_augmentation_report",
    "read_row_folder",
]

_FORMAT = 1
"""Raised when the same rows and rules would give other new rows than before."""
_STATE = ".augment"
_CHUNK = 128
"""Rows whose texts are sorted by length and generated for together; the progress bar moves by as many."""
_NOT_SPLIT = (
    "the rows were not split into train/ and held_out/. Rows held out of the outcome may say what rows trained on say, in "
    "other words: split first, or evaluate on other rows."
)


@dataclass(frozen=True)
class RowFolder:
    """The rows of a folder.

    Attributes:
        folder: The folder.
        tasks: The rows to augment, by task.
        held_out: Those held out for evaluation, which stay as they are.
        held_out_files: Their files.
        is_split: Whether the folder has `train/` and `held_out/`.
        counts: What was read and left out.
        manifest: What the folder says it is made of, if it does (see `read_manifest`).
    """

    folder: Path
    tasks: Mapping[str, Sequence[Row]]
    held_out: Sequence[Row]
    held_out_files: Sequence[Path]
    is_split: bool
    counts: Counter[str]
    manifest: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class AugmentationReport:
    """What became of a folder.

    Attributes:
        settings: What the new rows were made with.
        tasks: Counts by task.
        read: Counts of what was read and left out.
        notes: What to know before training on the outcome.
        made: The tasks that this run augmented.
        kept: The tasks that an earlier run had augmented.
    """

    settings: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, int]]
    read: Mapping[str, int]
    notes: tuple[str, ...] = ()
    made: tuple[str, ...] = field(default=(), compare=False)
    kept: tuple[str, ...] = field(default=(), compare=False)

    @property
    def totals(self) -> Counter[str]:
        """All tasks' counts together."""
        totals: Counter[str] = Counter()
        for counts in self.tasks.values():
            totals.update(counts)
        return totals


def read_row_folder(folder: str | Path, *, query_instruction: str = "", document_instruction: str = "") -> RowFolder:
    """Read the rows to augment. Of a folder with `train/` and `held_out/` those of `train/` are augmented.

    Args:
        folder: The folder, or one file; see `list_data_files`.
        query_instruction: The instruction of queries that bring none.
        document_instruction: The instruction of documents that bring none.

    Returns:
        The rows.

    Raises:
        FileNotFoundError: If there is nothing to read.
        ValueError: If a record is not a row, there is no row, or the manifest cannot be read.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)

    def read(part: Path, report: Counter[str]) -> Iterator[Row]:
        return read_rows(
            part, query_instruction=query_instruction, document_instruction=document_instruction, report=report
        )

    counts: Counter[str] = Counter()
    is_split = (folder / "train").is_dir() and (folder / "held_out").is_dir()
    tasks: dict[str, list[Row]] = {}
    for row in read(folder / "train" if is_split else folder, counts):
        tasks.setdefault(row.task, []).append(row)
    if not tasks:
        raise ValueError(f"{folder} has no row to augment. Read: {dict(counts)}.")
    held_out_files = list_data_files(folder / "held_out") if is_split else []
    held_out = list(read(folder / "held_out", Counter())) if is_split else []
    return RowFolder(folder, dict(sorted(tasks.items())), held_out, held_out_files, is_split, counts, manifest)


def augment_folder(
    rows: RowFolder,
    output: str | Path,
    *,
    generator: TextGenerator,
    identity: str,
    scorer: Scorer | None,
    only_new: bool = False,
    show_progress_bar: bool = True,
    **rules: Any,
) -> AugmentationReport:
    """Augment a folder: `train/TASK.parquet`, `held_out/` as it was, `augmentation_report.json` and `.md`, a manifest.

    A task's new rows depend on its rows, the held-out texts, the generator, the scorer and the rules. A run that was
    stopped at any moment goes on with the task it was at, and what it leaves is, byte for byte, what an undisturbed run
    leaves, if the generator gives the same candidates again (`CachedGenerator` sees to that).

    Args:
        rows: The rows, as `read_row_folder` gives them.
        output: The folder to write; `.augment` in it holds the state, and may be deleted afterwards.
        generator: Gives candidates.
        identity: All that the candidates depend on, as JSON.
        scorer: Compares texts; `None` leaves the cosines out.
        only_new: Leave out the original rows, and what is held out.
        show_progress_bar: Whether to show the progress.
        **rules: Options of `augment_rows`.

    Returns:
        What became of each task.

    Raises:
        OutputFolderError: If the output folder holds something that was not made here, or lies in the rows' folder.
        ValueError: If a rule is out of range.
    """
    from tqdm.auto import tqdm

    output = Path(output)
    check_output(output, rows.folder)
    target = _prepare_output(rows, output, only_new=only_new)
    run = _Run(target, generator, json.loads(identity), scorer, only_new, rules, _find_held_out_texts(rows))
    tasks: dict[str, Mapping[str, int]] = {}
    made: list[str] = []
    with tqdm(total=sum(map(len, rows.tasks.values())), unit="row", disable=not show_progress_bar) as bar:
        for task, own in rows.tasks.items():
            bar.set_description(task)
            known = target.read_counts(task, fingerprint=run.fingerprint(own))
            if known is None:
                tasks[task] = run.augment(task, own, bar)
                made.append(task)
            else:
                tasks[task] = known
                bar.update(len(own))
    report = AugmentationReport(
        settings=run.settings,
        tasks=tasks,
        read=dict(sorted(rows.counts.items())),
        notes=() if rows.is_split else (_NOT_SPLIT,),
        made=tuple(made),
        kept=tuple(task for task in tasks if task not in made),
    )
    _write_report(report, output)
    _write_manifest(rows, report, target)
    return report


def check_output(output: Path, folder: Path) -> None:
    """Refuse to write into a folder where that would do harm.

    Args:
        output: The folder to write.
        folder: Where the rows are.

    Raises:
        OutputFolderError: If the output folder holds something that was not made here, or lies in the rows' folder.
    """
    check_output_place(output, folder, state=_STATE)


def format_augmentation_report(report: AugmentationReport) -> str:
    """Write a report for readers, in Markdown.

    Args:
        report: The report.

    Returns:
        The text.
    """
    totals, rejected = report.totals, _count_rejected(report.totals)
    lines = ["# Augmentation", ""]
    lines.append(
        f"{totals['rows']} rows of {len(report.tasks)} tasks gave {totals['new rows']} new rows; "
        f"{totals['rows without a new row']} rows gave none."
    )
    lines += ["", *(f"Note: {note}" for note in report.notes), ""] if report.notes else [""]
    lines += ["## Candidates", "", "| What became of them | Candidates | Share |", "| --- | ---: | ---: |"]
    fates = Counter(
        {name: totals[name] for name in totals if name.startswith(("new rows: ", "rejected: ", "not need"))}
    )
    for name, count in sorted(fates.items(), key=lambda item: (-item[1], item[0])):
        lines.append(
            f"| {name.replace('new rows: ', 'taken: ')} | {count} | {count / max(1, totals['candidates']):.1%} |"
        )
    lines.append(f"| all | {totals['candidates']} | |")
    lines += ["", f"{totals['texts without a candidate']} texts had no candidate; {rejected} candidates were rejected."]
    lines += ["", "## Tasks", "", "| Task | Rows | New rows | Rows without one | Candidates | Rejected |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    columns = ("rows", "new rows", "rows without a new row", "candidates")
    for task, counts in report.tasks.items():
        cells = [*(counts.get(column, 0) for column in columns), _count_rejected(counts)]
        lines.append(f"| {task.replace('|', '/')} | {' | '.join(map(str, cells))} |")
    lines += ["", "## What was read", "", *(f"- {name}: {count}" for name, count in report.read.items())]
    settings = json.dumps(report.settings, indent=1, ensure_ascii=False)
    return "\n".join([*lines, "", "## Settings", "", "```json", settings, "```", ""])


@dataclass(frozen=True)
class _Run:
    """What all tasks of a run share."""

    output: OutputFolder
    generator: TextGenerator
    generator_settings: Mapping[str, Any]
    scorer: Scorer | None
    only_new: bool
    rules: Mapping[str, Any]
    forbidden: frozenset[str]

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "generator": self.generator_settings,
            "scorer": self.scorer.identity if self.scorer else None,
            "only_new": self.only_new,
            "rules": {name: list(rule) if isinstance(rule, tuple) else rule for name, rule in self.rules.items()},
        }

    def augment(self, task: str, rows: Sequence[Row], bar: Any) -> dict[str, int]:
        """Augment a task and write it; its counts."""
        report: Counter[str] = Counter()
        augmented: list[Row] = []
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            augmented += augment_rows(
                chunk,
                self.generator,
                scorer=self.scorer,
                include_originals=not self.only_new,
                forbidden=self.forbidden,
                chunk_size=_CHUNK,
                report=report,
                **self.rules,
            )
            bar.update(len(chunk))
        return self.output.write_task(task, augmented, fingerprint=self.fingerprint(rows), counts=report)

    def fingerprint(self, rows: Sequence[Row]) -> str:
        """Hash all that the new rows of a task depend on."""
        content = [_FORMAT, self.settings, sorted(self.forbidden), [(*row.texts, row.task, row.label) for row in rows]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _prepare_output(rows: RowFolder, output: Path, *, only_new: bool) -> OutputFolder:
    """Make the folder ready: what is held out copied, what is outdated gone."""
    files = [] if only_new else rows.held_out_files
    copies = {path: output / path.relative_to(rows.folder) for path in files}
    target = OutputFolder(output, _STATE, "train", tuple(rows.tasks), copies)
    outdated = target.find_outdated()
    target.check_row_files(outdated)
    target.prepare(outdated)
    return target


def _find_held_out_texts(rows: RowFolder) -> frozenset[str]:
    return frozenset(normalize_text(side.text) for row in rows.held_out for side in (row.query, row.positive))


def _write_report(report: AugmentationReport, output: Path) -> None:
    content = {
        "settings": report.settings,
        "read": report.read,
        "notes": report.notes,
        "tasks": report.tasks,
        "totals": dict(sorted(report.totals.items())),
    }
    data = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    name = output / "augmentation_report"
    write_texts({name.with_suffix(".json"): data, name.with_suffix(".md"): format_augmentation_report(report)})


def _write_manifest(rows: RowFolder, report: AugmentationReport, output: OutputFolder) -> None:
    generator = report.settings["generator"]
    models = {role: part["model"] for role, part in generator.items() if isinstance(part, Mapping)}
    step = ManifestStep(
        step="augment",
        models={**models, **({"scorer": report.settings["scorer"]} if report.settings["scorer"] else {})},
        options={**report.settings["rules"], "only_new": report.settings["only_new"]},
        counts=dict(sorted(report.totals.items())),
        rows_in=sum(map(len, rows.tasks.values())),
        details={"generator": generator},
    )
    shards = {task: output.find_shard(task) for task in output.tasks}
    write_step(rows.manifest, step, data=rows.folder, output=output.folder, shards=shards)


def _count_rejected(counts: Mapping[str, int]) -> int:
    return sum(count for name, count in counts.items() if name.startswith("rejected: "))
