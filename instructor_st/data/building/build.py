"""A mixture built: each task read, cleaned, paired, instructed, split and written, resumable at every task."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from tqdm.auto import tqdm

from instructor_st.atomic_files import write_text
from instructor_st.data.building.cleaning import clean_examples
from instructor_st.data.building.contamination import (
    EvaluationSet,
    EvaluationSource,
    EvaluationTexts,
    list_evaluation_sources,
)
from instructor_st.data.building.examples import ClassText, Example, InputOutput, ScoredPair, TextPair
from instructor_st.data.building.instructing import instruct_pairs, split_pairs
from instructor_st.data.building.instruction_negatives import find_instruction_negatives
from instructor_st.data.building.mixture import Mixture, TaskSpec
from instructor_st.data.building.pair_construction import pair_classes, pair_inputs_outputs, pair_scored
from instructor_st.data.building.selection import draw_by_hash, select_examples
from instructor_st.data.embedding_cache import Scorer, load_scorer
from instructor_st.data.shards import hash_file, write_rows
from instructor_st.data.sources.open_source import open_source
from instructor_st.data.sources.records import BadRecord, raise_bad_record
from instructor_st.data.sources.source_files import SourceFile, list_source_files

__all__ = ["BuildReport", "TaskResult", "build_mixture"]

_FORMAT = 2
"""Raised when the same mixture would give other rows than before."""
_SCORED_KINDS = ("classes", "text_to_text")
_MAX_BAD_RECORDS = 200
_DRAW_FACTOR = 2
"""Records drawn for each one that may be kept, since cleaning leaves some out."""


@dataclass(frozen=True)
class TaskResult:
    """What became of a task.

    Attributes:
        task: Its name.
        counts: Records read, left out by reason, and what else happened, in numbers.
        train_rows: Rows to train on.
        held_out_rows: Rows to evaluate with.
        shards: The SHA-256 of each written file, by its path in the output folder.
        files: The files that it was read from.
        bad_records: The first bad records, each with its place and reason; `counts` has all.
    """

    task: str
    counts: Mapping[str, int]
    train_rows: int
    held_out_rows: int
    shards: Mapping[str, str]
    files: tuple[SourceFile, ...] = ()
    bad_records: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuildReport:
    """What became of a mixture.

    Attributes:
        results: The tasks' results, in the mixture's order.
        built: The tasks that this run built.
        kept: The tasks that an earlier run had built.
        evaluation_sets: The evaluation sets whose texts were looked for.
        evaluation_sources: What they were read from.
    """

    results: tuple[TaskResult, ...]
    built: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    evaluation_sets: tuple[EvaluationSet, ...] = ()
    evaluation_sources: tuple[EvaluationSource, ...] = ()

    @property
    def totals(self) -> Counter[str]:
        """All tasks' counts together."""
        totals: Counter[str] = Counter()
        for result in self.results:
            totals.update(result.counts)
        return totals


@dataclass(frozen=True)
class _Build:
    """What all tasks of a run share."""

    mixture: Mixture
    output: Path
    strict: bool
    scorer: Scorer | None
    forbidden: EvaluationTexts | None
    evaluation_sources: tuple[EvaluationSource, ...] = field(default=())

    @property
    def state(self) -> Path:
        return self.output / ".build"


def build_mixture(
    mixture: Mixture,
    output: str | Path,
    *,
    scorer: Scorer | None = None,
    strict: bool = False,
    show_progress_bar: bool = True,
) -> BuildReport:
    """Build the rows of a mixture: `train/TASK.parquet` and `held_out/TASK.parquet`.

    A task depends on its part of the mixture, its source files and the scoring model alone. A run that was stopped at any
    moment goes on with the task it was at, and what it leaves is, byte for byte, what an undisturbed run leaves.

    Args:
        mixture: The mixture.
        output: The folder; `.build` in it holds the state and the scoring model's vectors, and may be deleted afterwards.
        scorer: Scores pairs; by default the mixture's `scoring_model`, loaded if a task needs it.
        strict: Stop at the first bad record.
        show_progress_bar: Whether to show the progress.

    Returns:
        What became of each task.

    Raises:
        BadRecordError: If `strict` and a record cannot be used.
        FileNotFoundError: If a source is not there.
        ImportError: If the evaluation texts are of an mteb task and mteb is not installed.
        ValueError: If a task has no row, or evaluation texts cannot be read.
    """
    output = Path(output)
    if scorer is None and any(task.kind in _SCORED_KINDS for task in mixture.tasks):
        scorer = load_scorer(mixture.scoring_model)
    forbidden = EvaluationTexts.read(mixture.evaluation_texts) if mixture.evaluation_texts else None
    evaluation_sources = tuple(list_evaluation_sources(mixture.evaluation_texts))
    build = _Build(mixture, output, strict, scorer, forbidden, evaluation_sources)
    results: dict[str, TaskResult] = {}
    built: list[str] = []
    with tqdm(total=len(mixture.tasks), unit="task", desc="Building", disable=not show_progress_bar) as bar:
        for group in _group_tasks(mixture.tasks):
            bar.set_postfix_str(group[0].name)
            fingerprint = _fingerprint(build, group)
            known = _read_results(build, group, fingerprint)
            if known is None:
                known = _build_group(build, group)
                _write_results(build, known, fingerprint)
                built += [task.name for task in group]
            results.update((result.task, result) for result in known)
            bar.update(len(group))
    _remove_stray_shards(output, results.values())
    ordered = tuple(results[task.name] for task in mixture.tasks)
    kept = tuple(task.name for task in mixture.tasks if task.name not in built)
    return BuildReport(ordered, tuple(built), kept, forbidden.sets if forbidden else (), evaluation_sources)


def _group_tasks(tasks: Iterable[TaskSpec]) -> list[list[TaskSpec]]:
    """Tasks over the same texts are built together, since they give each other negatives."""
    groups: dict[str, list[TaskSpec]] = {}
    for task in tasks:
        groups.setdefault(f"group {task.shares_texts}" if task.shares_texts else f"task {task.name}", []).append(task)
    return list(groups.values())


def _build_group(build: _Build, group: Sequence[TaskSpec]) -> list[TaskResult]:
    reports: dict[str, Counter[str]] = {task.name: Counter() for task in group}
    bad: dict[str, list[str]] = {task.name: [] for task in group}
    pairs = {task.name: _make_pairs(build, task, reports[task.name], bad[task.name]) for task in group}
    if build.mixture.instruction_negatives and len(group) > 1:
        pairs = find_instruction_negatives(pairs, scorer=build.scorer, cache=build.state / "vectors", reports=reports)
    return [_write_task(build, task, pairs[task.name], reports[task.name], bad[task.name]) for task in group]


def _make_pairs(build: _Build, task: TaskSpec, report: Counter[str], bad: list[str]) -> list[TextPair]:
    def note(record: BadRecord) -> None:
        if build.strict:
            raise_bad_record(record)
        report[f"bad record: {record.reason}"] += 1
        if len(bad) < _MAX_BAD_RECORDS:
            bad.append(str(record))

    mixture = build.mixture
    records = open_source(task.source, on_bad=note)
    examples = select_examples(task, records, on_bad=note, report=report)
    drawn = draw_by_hash(examples, _DRAW_FACTOR * task.max_rows, seed=mixture.seed, report=report)
    clean = clean_examples(
        drawn,
        max_characters=mixture.max_characters,
        language=mixture.language,
        near_duplicates=mixture.near_duplicates,
        forbidden=build.forbidden,
        report=report,
    )
    kept = draw_by_hash(clean, task.max_rows, seed=mixture.seed, report=report)
    return _construct(build, task, kept, report)


def _construct(build: _Build, task: TaskSpec, examples: Sequence[Example], report: Counter[str]) -> list[TextPair]:
    cache = build.state / "vectors"
    if task.kind == "classes":
        return pair_classes(
            cast("list[ClassText]", examples),
            scorer=cast("Scorer", build.scorer),
            cache=cache,
            negatives=task.negatives,
            report=report,
        )
    if task.kind == "text_to_text":
        return pair_inputs_outputs(
            cast("list[InputOutput]", examples),
            scorer=cast("Scorer", build.scorer),
            cache=cache,
            negatives=task.negatives,
            report=report,
            answers=task.answers,
        )
    if task.kind == "scored":
        return pair_scored(
            cast("list[ScoredPair]", examples),
            positive_score=cast("float", task.positive_score),
            negative_score=task.negative_score,
            report=report,
            negatives=task.negatives,
        )
    return cast("list[TextPair]", examples)


def _write_task(
    build: _Build, task: TaskSpec, pairs: Sequence[TextPair], report: Counter[str], bad: Sequence[str]
) -> TaskResult:
    mixture = build.mixture
    train, held_out = split_pairs(pairs, mixture, report=report)
    if not train:
        raise ValueError(f"Task {task.name!r} has no training row. Counts: {dict(sorted(report.items()))}.")
    parts = {
        "train": instruct_pairs(train, task, share=mixture.paraphrase_share, seed=mixture.seed),
        "held_out": instruct_pairs(held_out, task, share=0, seed=mixture.seed),
    }
    shards = {}
    for part, rows in parts.items():
        name = f"{part}/{task.name}.parquet"
        if rows:
            shards[name] = write_rows(build.output / name, rows)
    return TaskResult(
        task=task.name,
        counts=dict(sorted(report.items())),
        train_rows=len(train),
        held_out_rows=len(held_out),
        shards=shards,
        files=tuple(list_source_files(task.source)),
        bad_records=tuple(bad),
    )


def _fingerprint(build: _Build, group: Sequence[TaskSpec]) -> str:
    """Hash all that the rows of a group of tasks depend on."""
    settings = build.mixture.model_dump(mode="json", exclude={"tasks", "name", "evaluation_texts"})
    content = {
        "format": _FORMAT,
        "settings": settings,
        "tasks": [task.model_dump(mode="json", exclude={"weight", "license", "loss"}) for task in group],
        "sides": [task.sides.model_dump(mode="json") for task in group],
        "files": [asdict(file) for task in group for file in list_source_files(task.source)],
        "evaluation": [asdict(source) for source in build.evaluation_sources],
        "scorer": build.scorer.identity if build.scorer and any(t.kind in _SCORED_KINDS for t in group) else None,
        "strict": build.strict,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_results(build: _Build, group: Sequence[TaskSpec], fingerprint: str) -> list[TaskResult] | None:
    """The results of an earlier run, if they are of the same task and its shards are as they were written."""
    results = []
    for task in group:
        try:
            state = json.loads((build.state / "tasks" / f"{task.name}.json").read_text(encoding="utf-8"))
            if state["fingerprint"] != fingerprint:
                return None
            result = _parse_result(state["result"])
            if any(hash_file(build.output / name) != digest for name, digest in result.shards.items()):
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        results.append(result)
    return results


def _write_results(build: _Build, results: Sequence[TaskResult], fingerprint: str) -> None:
    for result in results:
        state = {"fingerprint": fingerprint, "result": asdict(result)}
        write_text(build.state / "tasks" / f"{result.task}.json", json.dumps(state, indent=1))


def _parse_result(values: dict[str, Any]) -> TaskResult:
    return TaskResult(
        **{
            **values,
            "files": tuple(SourceFile(**file) for file in values["files"]),
            "bad_records": tuple(values["bad_records"]),
        }
    )


def _remove_stray_shards(output: Path, results: Iterable[TaskResult]) -> None:
    """Take away shards of tasks that the mixture no longer has, and what a killed run left half written."""
    wanted = {output / name for result in results for name in result.shards}
    for part in ("train", "held_out"):
        for path in (output / part).glob("*.parquet*"):
            if path not in wanted:
                path.unlink()
