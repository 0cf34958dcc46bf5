"""Evaluation of models on a folder of own data: every data set, several instructions side by side, resumable."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm

from instructor_st.atomic_files import write_text
from instructor_st.evaluation.embedder import InstructedEmbedder
from instructor_st.evaluation.measure_data import measure_data
from instructor_st.evaluation.measurement import Measurement
from instructor_st.evaluation.own_data import DataSet
from instructor_st.evaluation.results import Result, find_versions
from instructor_st.evaluation.task_instructions import NO_INSTRUCTION, TaskInstruction, find_instruction

__all__ = [
    "Failure",
    "FolderEvaluation",
    "InstructionSet",
    "ModelSource",
    "check_instruction_sets",
    "evaluate_data_sets",
]

InstructionSet = Mapping[str, TaskInstruction]


@dataclass(frozen=True)
class ModelSource:
    """A model to evaluate.

    Attributes:
        name: How tables call it.
        load: Loads it; called only if one of its data sets has no result yet.
        identity: What its results depend on: the folder and its weights' size and time, or the Hub id and revision.
        revision: The model's revision, if it has one.
    """

    name: str
    load: Callable[[], SentenceTransformer]
    identity: str
    revision: str | None = None


@dataclass(frozen=True)
class Failure:
    """A data set that could not be evaluated.

    Attributes:
        model: The model's name.
        task: The data set.
        reason: Why.
    """

    model: str
    task: str
    reason: str


@dataclass(frozen=True)
class FolderEvaluation:
    """What `evaluate_data_sets` found.

    Attributes:
        results: By model, data set and instruction, in order.
        failures: What could not be evaluated.
        reused: How many data sets' results were there already.
    """

    results: tuple[Result, ...]
    failures: tuple[Failure, ...] = ()
    reused: int = 0


def evaluate_data_sets(
    models: Sequence[ModelSource],
    data_sets: Sequence[DataSet],
    *,
    instruction_sets: Mapping[str, InstructionSet],
    folder: str | Path,
    limit: int | None = None,
    batch_size: int = 32,
    resamples: int = 1000,
    seed: int = 0,
    overwrite: bool = False,
    show_progress_bar: bool = True,
) -> FolderEvaluation:
    """Evaluate models on data sets under several sets of instructions.

    Each model and data set gets one file, `FOLDER/MODEL/DATA_SET.json`, with the results under all instructions; a file
    that was made from the same model, data, instructions and settings is used again. An error of one data set is
    reported, and the others go on. Under each instruction but the first, `notes["gain"]` has the difference to the
    first with its 95 % interval (paired bootstrap).

    Args:
        models: The models.
        data_sets: What `find_data_sets` found.
        instruction_sets: By the name of the condition, for each data set (by its name, kind, or `default`) its
            instructions; an empty mapping means none.
        folder: Where the files go.
        limit: Use at most so many rows of each data set, drawn at random.
        batch_size: Texts embedded at once.
        resamples: Bootstrap samples of the intervals.
        seed: Of everything random.
        overwrite: Whether to evaluate anew what is there already.
        show_progress_bar: Whether to show progress and time left.

    Returns:
        The results and the failures.

    Raises:
        ValueError: If there is nothing to do, two models have one name, or a set of instructions lacks a data set.
    """
    check_instruction_sets(instruction_sets, data_sets)
    if len({_make_file_name(source.name) for source in models}) < len(models):
        raise ValueError(f"Two models have one name: {', '.join(source.name for source in models)}; rename a folder.")
    run = _Run(Path(folder), instruction_sets, limit, batch_size, resamples, seed, overwrite)
    results: list[Result] = []
    failures: list[Failure] = []
    with tqdm(total=len(models) * len(data_sets), unit="data set", disable=not show_progress_bar) as bar:
        for source in models:
            embedder = _LazyEmbedder(source, batch_size)
            for data_set in data_sets:
                bar.set_description(f"{source.name}: {data_set.name}")
                try:
                    results += run.evaluate(embedder, data_set)
                # What a data set or a model can do wrong is not known beforehand; the others must go on.
                except Exception as error:
                    failures.append(Failure(source.name, data_set.name, f"{type(error).__name__}: {error}"))
                bar.update()
    return FolderEvaluation(tuple(results), tuple(failures), run.reused)


def check_instruction_sets(instruction_sets: Mapping[str, InstructionSet], data_sets: Sequence[DataSet]) -> None:
    """Refuse sets of instructions that lack a data set.

    Args:
        instruction_sets: By the name of the condition.
        data_sets: The data sets.

    Raises:
        ValueError: If there is no set or no data set, or a set has instructions, but none for a data set; the message
            names all that are missing.
    """
    if not instruction_sets or not data_sets:
        raise ValueError("There is nothing to evaluate: no data set, or no set of instructions.")
    for name, given in instruction_sets.items():
        missing = [each.name for each in data_sets if given and find_instruction(given, each.name, each.kind) is None]
        if missing:
            raise ValueError(
                f"The instructions {name!r} have none for {', '.join(missing)}; add these names, their kinds, or default."
            )


class _LazyEmbedder:
    """A model that is loaded when the first data set needs it."""

    def __init__(self, source: ModelSource, batch_size: int) -> None:
        self.source, self._batch_size = source, batch_size
        self._embedder: InstructedEmbedder | None = None
        self._error: Exception | None = None

    def get(self) -> InstructedEmbedder:
        """Load the model; an error is kept, so that a broken model is not loaded once a data set."""
        if self._error is not None:
            raise self._error
        if self._embedder is None:
            try:
                self._embedder = InstructedEmbedder(self.source.load(), batch_size=self._batch_size)
            except Exception as error:
                self._error = error
                raise
        return self._embedder


@dataclass
class _Run:
    """The settings of an evaluation, and where its files lie."""

    folder: Path
    instruction_sets: Mapping[str, InstructionSet]
    limit: int | None
    batch_size: int
    resamples: int
    seed: int
    overwrite: bool
    reused: int = 0

    def evaluate(self, lazy: _LazyEmbedder, data_set: DataSet) -> list[Result]:
        """Evaluate a data set under all instructions, or read the file that has it."""
        if data_set.fault:
            raise ValueError(data_set.fault)
        conditions = {
            name: find_instruction(given, data_set.name, data_set.kind) or NO_INSTRUCTION
            for name, given in self.instruction_sets.items()
        }
        source = lazy.source
        path = self.folder / _make_file_name(source.name) / f"{_make_file_name(data_set.name)}.json"
        key = self._make_key(source, data_set, conditions)
        stored = None if self.overwrite else _read_stored(path, key)
        if stored is not None:
            self.reused += 1
            return stored
        results: list[Result] = []
        first: Measurement | None = None
        for name, instruction in conditions.items():
            embedder = lazy.get()
            start, texts = time.perf_counter(), embedder.texts
            measured = measure_data(embedder, data_set, instruction, limit=self.limit, seed=self.seed)
            seconds = time.perf_counter() - start
            made = self._make_result(source, data_set, name, instruction, measured, first)
            spent = max(seconds, 1e-9)
            results.append(
                replace(made, seconds=round(seconds, 2), texts_per_second=round((embedder.texts - texts) / spent, 1))
            )
            first = first or measured
        write_text(path, _format_file(key, results))
        return results

    def _make_result(
        self,
        source: ModelSource,
        data_set: DataSet,
        condition: str,
        instruction: TaskInstruction,
        measured: Measurement,
        first: Measurement | None,
    ) -> Result:
        interval = measured.find_interval(resamples=self.resamples, seed=self.seed)
        if not math.isfinite(interval.value):
            raise ValueError(f"{measured.name} is not a number under the instruction {condition!r}.")
        notes: dict[str, Any] = {}
        if measured.others:
            notes["others"] = dict(measured.others)
        if measured.left_out:
            notes["left_out"] = dict(measured.left_out)
        if first is not None and first.rows == measured.rows:
            gain = measured.find_gain(first, resamples=self.resamples, seed=self.seed)
            over = next(iter(self.instruction_sets))
            notes["gain"] = {"over": over, "value": gain.value, "low": _number(gain.low), "high": _number(gain.high)}
        return Result(
            model=source.name,
            suite="own",
            task=data_set.name,
            category=str(data_set.kind),
            condition=condition,
            instruction=instruction.query,
            document_instruction=instruction.document,
            metric=measured.name,
            value=interval.value,
            low=_number(interval.low),
            high=_number(interval.high),
            rows=measured.rows,
            revision=source.revision,
            seed=self.seed,
            notes=notes,
        )

    def _make_key(self, source: ModelSource, data_set: DataSet, conditions: Mapping[str, TaskInstruction]) -> str:
        """Hash what the results depend on."""
        parts = {
            "model": [source.identity, source.revision],
            "data": [data_set.kind, _hash_files(data_set)],
            "conditions": {name: asdict(each) for name, each in conditions.items()},
            "settings": [self.limit, self.resamples, self.seed],
            "versions": dict(find_versions()),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _hash_files(data_set: DataSet) -> dict[str, str]:
    """Hash the files of a data set and what is set for it."""
    hashes = {"settings": f"{data_set.split}/{data_set.train_split}/{data_set.positive}"}
    for part, path in data_set.files.items():
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        hashes[part] = digest.hexdigest()
    return hashes


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _make_file_name(name: str) -> str:
    """Turn a model's or data set's name into one that no file system takes for a path."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "__", name).strip("._")
    return cleaned or "unnamed"


def _format_file(key: str, results: Sequence[Result]) -> str:
    return json.dumps({"key": key, "results": [asdict(each) for each in results]}, indent=1, ensure_ascii=False) + "\n"


def _read_stored(path: Path, key: str) -> list[Result] | None:
    """Read the results of a file that was made from the same things; anything else is made anew."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == key:
            return [Result(**row) for row in stored["results"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None
