"""Instruction finetuning: a new task from a few labelled rows, with every weight of the model frozen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env
from sentence_transformers import SentenceTransformer
from torch import Tensor
from tqdm.auto import tqdm

from instructor_st.data import LabelledTexts
from instructor_st.modules import DualEncoderConcat, TunedTask
from instructor_st.modules.tuned_tasks import check_task_name
from instructor_st.reinstruct import encode_text
from instructor_st.training.finetune_settings import FinetuneSettings
from instructor_st.training.heads import (
    ClassificationHead,
    PairsHead,
    Prediction,
    RegressionHead,
    SimilarityHead,
    TaskHead,
    restore_head,
    store_head,
)
from instructor_st.training.supervised_contrastive import SupervisedContrastiveLoss
from instructor_st.training.tuners import Tuner, make_tuner
from instructor_st.training.tuning_report import TuningReport, summarize_folds
from instructor_st.training.tuning_rows import Fold, TuningRows, balance_rows, split_folds
from instructor_st.training.tuning_scores import fit_head, score_vectors
from instructor_st.tuned_models import add_tuned_task, get_tuned_tasks, remove_tuned_task

__all__ = ["FinetuneResult", "find_processes", "finetune_instructions", "predict"]

# An evaluation costs more than a pass over few rows, and passes differ less and less.
_TRIED = (0, 2, 8, 16, 32, 64, 128)
_PATIENCE = 2
# Rows times classes; beyond it the folds' logistic regressions take longer than everything else.
_MOST_LOGISTIC_CELLS = 20_000


@dataclass(frozen=True)
class FinetuneResult:
    """What instruction finetuning gives.

    Attributes:
        tasks: The tuned task, and behind it that of the documents if they have an instruction of their own.
        report: What the cross-validation found.
    """

    tasks: tuple[TunedTask, ...]
    report: TuningReport


def finetune_instructions(
    model: SentenceTransformer,
    rows: LabelledTexts,
    *,
    name: str,
    instruction: str,
    document_instruction: str | None = None,
    settings: FinetuneSettings | None = None,
    show_progress_bar: bool = True,
) -> FinetuneResult:
    """Tune an instruction to a task, and add it to the model under a name.

    No weight of the model changes. A dual model's texts are encoded once; what is trained is the instruction's vector
    and, unless `tune_dense` is off, a change of the Dense for this task, so an embedded corpus stays valid (`reinstruct`).
    A prepend model gets a soft prompt. Folds of a cross-validation choose how long to train and tell whether it helps;
    if it does not, the written instruction is kept. Under `accelerate launch` the processes share folds and texts.

    Args:
        model: The model; afterwards `model.encode([[name, text]])` embeds for the task.
        rows: Labelled rows; their kind decides the loss and the metrics.
        name: The task's name; of documents with their own instruction `NAME-document`.
        instruction: The written instruction to begin with.
        document_instruction: For answers: that of the documents. By default they share the queries'.
        settings: What is trained and how.
        show_progress_bar: Whether to show progress.

    Returns:
        The tuned tasks, as they were added to the model, and the report.

    Raises:
        ValueError: If the rows, the name or a setting do not fit.
    """
    start = time.perf_counter()
    settings = settings or FinetuneSettings()
    get_tuned_tasks(model)
    check_task_name(name)
    data = TuningRows.from_labelled(rows)
    if document_instruction is not None and data.kind != "answers":
        raise ValueError(f"document_instruction is for rows with answers; these have {data.kind}.")
    instructions = [instruction] if document_instruction is None else [instruction, document_instruction]
    names = [name, f"{name}-document"][: len(instructions)]
    with _freeze(model):
        run = _Run(model, data, instructions, settings, show_progress_bar)
        report = run.cross_validate()
        tuner = run.train(np.arange(len(data)), report.epochs)
        tasks = tuner.make_tasks(names, instructions)
        head = fit_head(data, run.embed_rows(tuner)) if settings.keep_head else None
        trained = sum(parameter.numel() for parameter in tuner.parameters() if parameter.requires_grad)
        seconds = time.perf_counter() - start
        report = replace(report, seconds=seconds, text_seconds=run.text_seconds, trained_parameters=trained)
        notes = {
            "settings": settings.to_dict(),
            "report": report.to_dict(),
            "kind": data.kind,
            "left_out": dict(data.report),
        }
        # An earlier tuning may have had documents of its own.
        if (old := _find_document_task(model, name)) is not None:
            remove_tuned_task(model, old)
        finished = []
        for number, task in enumerate(tasks):
            task = replace(
                task,
                dense_delta=task.dense_delta if report.epochs else None,
                head=store_head(head) if head is not None and number == 0 else None,
                notes=notes if number == 0 else {**notes, "document_of": name},
            )
            finished.append(add_tuned_task(model, task))
    return FinetuneResult(tuple(finished), report)


def predict(
    model: SentenceTransformer,
    inputs: Sequence[str] | Sequence[tuple[str, str]],
    *,
    task: str,
    batch_size: int = 32,
    show_progress_bar: bool | None = None,
) -> Prediction:
    """Predict with a tuned task's head.

    Args:
        model: The model that has the task.
        inputs: Texts, or pairs of texts for tasks of pairs.
        task: The tuned task's name.
        batch_size: Texts embedded at once.
        show_progress_bar: As in `encode`.

    Returns:
        Labels and probabilities, or scores; see `heads`.

    Raises:
        KeyError: If the model has no such task.
        ValueError: If the task was stored without a head, or the inputs are not what it takes.
    """
    tasks = get_tuned_tasks(model)
    if task not in tasks:
        raise KeyError(f"no tuned task {task!r}; there are: {', '.join(tasks) or 'none'}")
    stored = tasks[task].head
    if stored is None:
        raise ValueError(f"Tuned task {task!r} has no head; tune it with keep_head=True.")
    head = restore_head(stored).to(model.device)
    columns = _split_columns(inputs, head.fewest_columns)
    sides = [task, _find_document_task(model, task) or task]
    vectors = []
    for side, column in zip(sides, columns, strict=False):
        pairs = [[side, text] for text in column]
        encoded: Any = model.encode(
            pairs, batch_size=batch_size, show_progress_bar=show_progress_bar, convert_to_tensor=True
        )
        vectors.append(encoded.reshape(len(pairs), model.get_embedding_dimension() or -1))
    return head.predict(vectors)


def _find_document_task(model: SentenceTransformer, name: str) -> str | None:
    """Return the name of the task for a tuned task's documents, if they have their own."""
    tasks, document = get_tuned_tasks(model), f"{name}-document"
    return document if document in tasks and tasks[document].notes.get("document_of") == name else None


def _split_columns(inputs: Sequence[Any], width: int) -> list[list[str]]:
    """Give one column a side, and refuse what is no text or no pair."""
    if isinstance(inputs, str):
        raise ValueError("predict takes a list of inputs, not one string.")
    rows = [[each] if width == 1 else each for each in inputs]
    for place, row in enumerate(rows):
        if isinstance(row, str) or len(row) != width or not all(isinstance(text, str) for text in row):
            wanted = "a text" if width == 1 else "a pair of texts"
            raise ValueError(f"Input {place}: this task predicts from {wanted}, not from {inputs[place]!r}.")
    return [[row[side] for row in rows] for side in range(width)]


def find_processes() -> PartialState:
    """Return accelerate's view of the processes; `accelerate launch` names the CPU in an environment variable."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


class _Run:
    """The texts, encoded once, and the trainings over them."""

    def __init__(
        self,
        model: SentenceTransformer,
        data: TuningRows,
        instructions: Sequence[str],
        settings: FinetuneSettings,
        show_progress_bar: bool,
    ) -> None:
        self.model, self.data, self.settings = model, data, settings
        self.instructions = instructions
        self.is_dual = isinstance(model[0], DualEncoderConcat)
        self.show = show_progress_bar and find_processes().is_main_process
        self.columns = torch.as_tensor(data.columns, device=model.device)
        self.targets = torch.as_tensor(data.targets, device=model.device)
        self.vectors: Tensor | None = None
        start = time.perf_counter()
        if self.is_dual:
            self.vectors = self._encode_texts()
        self.text_seconds = time.perf_counter() - start

    def cross_validate(self) -> TuningReport:
        """Train and judge in folds."""
        folds = split_folds(self.data, self.settings.folds or (5 if self.is_dual else 1), self.settings.seed)
        tried = [passes for passes in _TRIED if passes < self.settings.max_epochs] + [self.settings.max_epochs]
        state = find_processes()
        mine = list(range(state.process_index, len(folds), state.num_processes))
        curves = []
        for number in tqdm(mine, desc="Folds", disable=not self.show):
            curves.append((number, self._follow(folds[number], tried)))
        if state.num_processes > 1:
            curves = gather_object(curves)
        return summarize_folds([curve for _, curve in sorted(curves)], tried, len(self.data))

    def train(self, places: np.ndarray, epochs: int) -> Tuner:
        """Train on some rows."""
        tuner, steps = self._begin(places)
        for epoch in tqdm(range(epochs), desc="Epochs", disable=not self.show):
            steps(epoch)
        return tuner

    def embed_rows(self, tuner: Tuner) -> list[Tensor]:
        """Embed all rows' columns, each text and side once."""
        sides = [0] + [1] * (self.columns.shape[1] - 1)
        found: dict[int, Tensor] = {}
        shared = len(self.instructions) == 1
        columns = []
        for column, side in zip(self.columns.T, sides, strict=True):
            side = 0 if shared else side
            if side not in found:
                found[side] = tuner.embed_all(torch.arange(len(self.data.texts), device=self.model.device), side)
            columns.append(found[side][column])
        return columns

    def _follow(self, fold: Fold, tried: Sequence[int]) -> list[dict[str, float]]:
        """Train on a fold and judge after each number of passes; stop when it gets worse twice in a row."""
        tuner, steps = self._begin(fold.train)
        few = len(fold.train) * len(self.data.labels) <= _MOST_LOGISTIC_CELLS

        def judge() -> dict[str, float]:
            return score_vectors(self.data, self.embed_rows(tuner), fold, with_logistic=few)

        curve = [judge()]
        done = 0
        for passes in tried[1:]:
            for epoch in range(done, passes):
                steps(epoch)
            done = passes
            curve.append(judge())
            means = [np.mean(list(point.values())) for point in curve]
            if len(means) - 1 - int(np.argmax(means)) >= _PATIENCE and not self.is_dual:
                break
        return curve

    def _begin(self, places: np.ndarray) -> tuple[Tuner, _Epochs]:
        tuner = make_tuner(
            self.model,
            self.data.texts,
            text_vectors=self.vectors,
            instructions=self.instructions,
            settings=self.settings,
        )
        return tuner, _Epochs(self, tuner, places)

    def _encode_texts(self) -> Tensor:
        """Encode all texts, each process its share."""
        texts, state = list(self.data.texts), find_processes()
        shares = np.array_split(np.arange(len(texts)), state.num_processes)
        own = [texts[place] for place in shares[state.process_index]]
        vectors = encode_text(self.model, own, show_progress_bar=self.show)
        if state.num_processes > 1:
            vectors = np.concatenate(gather_object([vectors]))
        return torch.as_tensor(vectors, device=self.model.device)


class _Epochs:
    """Passes over some rows: batches, loss, optimiser."""

    def __init__(self, run: _Run, tuner: Tuner, places: np.ndarray) -> None:
        self.run, self.tuner = run, tuner
        settings, data = run.settings, run.data
        is_classes = data.kind == "classes"
        balanced = is_classes and settings.balance_classes
        self.places = balance_rows(data.targets, places, settings.max_repeats) if balanced else places
        self.objective = _make_objective(data, places, settings, run.model.get_embedding_dimension() or 0)
        self.objective.to(run.model.device)
        groups = tuner.group_parameters(settings)
        if head_parameters := list(self.objective.parameters()):
            # A head starts from nothing and must outrun the vectors that it reads.
            groups.append({"params": head_parameters, "weight_decay": 0.0, "lr": 1e-2})
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate or tuner.default_learning_rate)

    def __call__(self, epoch: int) -> None:
        settings = self.run.settings
        order = np.random.default_rng([settings.seed, epoch]).permutation(self.places)
        self.tuner.train()
        device = self.run.model.device
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed * 100_003 + epoch)
            for batch in np.array_split(order, max(1, round(len(order) / settings.batch_size))):
                rows = torch.as_tensor(batch, device=device)
                columns = self.run.columns[rows]
                sides = [0] + [1] * (columns.shape[1] - 1)
                vectors = [self.tuner.embed(column, side) for column, side in zip(columns.T, sides, strict=True)]
                targets = None if self.run.data.kind == "answers" else self.run.targets[rows]
                loss = _compute_loss(self.objective, vectors, targets)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()


def _make_objective(
    data: TuningRows, places: np.ndarray, settings: FinetuneSettings, dimension: int
) -> TaskHead | SupervisedContrastiveLoss:
    """Choose the loss by the rows' kind."""
    if data.kind == "classes":
        if settings.class_objective == "contrastive":
            return SupervisedContrastiveLoss(None, temperature=settings.temperature)  # type: ignore[arg-type]
        return ClassificationHead(dimension, data.labels)
    if data.kind == "label_sets":
        return ClassificationHead(dimension, data.labels, multi_label=True)
    if data.kind == "values":
        targets = data.targets[places]
        return RegressionHead(dimension, mean=float(targets.mean()), spread=float(targets.std()) or 1.0)
    if data.kind == "answers":
        return PairsHead(temperature=settings.temperature)
    return SimilarityHead(scale=1 / settings.temperature)


def _compute_loss(
    objective: TaskHead | SupervisedContrastiveLoss, vectors: list[Tensor], targets: Tensor | None
) -> Tensor:
    if isinstance(objective, TaskHead):
        return objective.compute_loss(vectors, targets)
    return objective.compute_loss_from_embeddings(vectors, targets)


@contextmanager
def _freeze(model: SentenceTransformer) -> Iterator[None]:
    """Take gradients and dropout from a model for a while."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    modes, mode = {module: module.training for module in model.modules()}, model.training
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        # A tuned task may put a module into the place of another.
        for module in model.modules():
            module.training = modes.get(module, mode)
