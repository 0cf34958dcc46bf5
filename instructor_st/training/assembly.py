"""From settings and rows to a model and a trainer that are ready to go."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from torch import nn

from instructor_st.data import TrainingData, build_train_dataset
from instructor_st.data.task_settings import TaskSettings
from instructor_st.model import INSTRUCTOR
from instructor_st.modules import DualEncoderConcat, InstructionPrepend
from instructor_st.training.arguments import TrainArguments
from instructor_st.training.best_metric import check_evaluations
from instructor_st.training.checkpoints import (
    CheckpointError,
    find_last_checkpoint,
    is_interrupted,
    list_checkpoints,
    remove_broken_checkpoints,
)
from instructor_st.training.sampler import TaskBatchSampler, make_task_batch_sampler
from instructor_st.training.task_losses import LossSettings, TaskLossSpec, build_losses
from instructor_st.training.task_schedule import TaskPlan
from instructor_st.training.trainable import add_lora, freeze_parameters
from instructor_st.training.trainer import InstructionTrainer, set_dropout

__all__ = ["build_trainer", "find_resume_point", "format_mixture_table", "load_trained_model", "plan_training"]

_SPLIT_NAME = re.compile(r" \(\d+ negatives\)$")


def load_trained_model(base: str, args: TrainArguments) -> INSTRUCTOR:
    """Load the model to train, with what is frozen, adapted and set in it.

    Args:
        base: An instruction model, which is trained further, or any other encoder, around which one is built.
        args: The settings.

    Returns:
        The model.

    Raises:
        ImportError: If LoRA is asked for and peft is not installed.
        ValueError: If the base cannot be loaded, or a setting does not fit the model.
    """
    try:
        loaded = SentenceTransformer(base)
    except (OSError, ValueError) as error:
        raise ValueError(f"base: {base!r} could not be loaded: {error}") from error
    if isinstance(loaded[0], (InstructionPrepend, DualEncoderConcat)):
        model = INSTRUCTOR(base)
    else:
        model = INSTRUCTOR.from_encoder(loaded, args.architecture)  # type: ignore[arg-type]
    if args.max_seq_length is not None:
        model.max_seq_length = args.max_seq_length
    if args.dropout is not None:
        set_dropout(model, args.dropout)
    if args.lora_rank is not None:
        add_lora(model, args.lora_rank, alpha=args.lora_alpha, dropout=args.lora_dropout)
    if args.freeze:
        freeze_parameters(model, args.freeze)
    return model


def build_trainer(
    model: INSTRUCTOR,
    data: TrainingData,
    *,
    args: TrainArguments,
    task_settings: Mapping[str, TaskSettings] | None = None,
    evaluator: BaseEvaluator | None = None,
    num_processes: int = 1,
) -> InstructionTrainer:
    """Put model, rows, losses and sampler together.

    Args:
        model: The model.
        data: The rows.
        args: The settings; their `task_weights` and `task_loss_settings` come before `task_settings`.
        task_settings: What the mixture says of its tasks.
        evaluator: Evaluates during training.
        num_processes: How many processes train; with several, all rows of a step are one batch.

    Returns:
        The trainer.

    Raises:
        BestMetricError: If evaluations are asked for and there is no evaluator.
        ValueError: If a setting names a task that is not there, or a loss does not know it.
    """
    check_evaluations(args, has_evaluator=evaluator is not None)
    known = {name_task(name) for name in data.train}
    for what, given in (("task_weights", args.task_weights), ("task_loss_settings", args.task_loss_settings)):
        if unknown := sorted(set(given or ()) - known):
            raise ValueError(f"{what}: there is no task {unknown[0]!r} in the data.")
    settings = {task: (task_settings or {}).get(task, TaskSettings()) for task in known}
    weights = {task: each.weight for task, each in settings.items()} | _read_weights(args)
    dataset = build_train_dataset(data.train)
    args.multi_dataset_batch_sampler = make_task_batch_sampler(
        tasks=list(dataset),
        weights=_weigh_parts(dataset, weights, alpha=args.task_alpha),
        alpha=args.task_alpha,
        max_repeats=args.max_repeats,
    )
    overrides = {task: dict(each.loss) for task, each in settings.items()}
    for task, given in dict(args.task_loss_settings or {}).items():  # type: ignore[arg-type]
        if not isinstance(given, Mapping):
            raise ValueError(f"task_loss_settings: a mapping of settings is expected for {task!r}, not {given!r}.")
        overrides[task] |= given
    kinds = data.kinds
    specs = {
        name: TaskLossSpec(
            kind=kinds[name], has_classes=name in data.labelled_tasks, overrides=overrides[name_task(name)]
        )
        for name in dataset
    }
    losses = build_losses(
        model,
        specs,
        defaults=build_loss_settings(args, gather_across_devices=num_processes > 1),
        guide=_load_guide(args, specs),
    )
    return InstructionTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        loss=_wrap_losses(model, losses, args.matryoshka_dims),
        evaluator=evaluator,
    )


def build_loss_settings(args: TrainArguments, *, gather_across_devices: bool) -> LossSettings:
    """Collect the settings of every task's loss.

    Args:
        args: The settings; `loss_settings` come before the flags of their own.
        gather_across_devices: Whether the rows of all processes are one batch.

    Returns:
        The loss settings.

    Raises:
        ValueError: If one is unknown or out of range.
    """
    values: dict[str, Any] = {
        "temperature": args.temperature,
        "mini_batch_size": args.mini_batch_size,
        "mini_batch_num_tokens": args.mini_batch_num_tokens,
        "gather_across_devices": gather_across_devices,
        **dict(args.loss_settings or {}),  # type: ignore[arg-type]
    }
    known = asdict(LossSettings())
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"loss_settings: there is no setting {unknown[0]!r}; there are {', '.join(known)}.")
    return replace(LossSettings(), **values)


def find_resume_point(args: TrainArguments) -> tuple[str | None, list[str]]:
    """Find the checkpoint to go on from, and put the output folder in order.

    Args:
        args: The settings.

    Returns:
        The checkpoint's folder, nothing to begin anew; and the names of the checkpoints that were taken away, since their
        writing was interrupted or `overwrite` says so.

    Raises:
        CheckpointError: If an earlier run's checkpoints are in the way, or the named one is not whole.
    """
    output = Path(str(args.output_dir))
    if args.resume_from_checkpoint:
        return _check_checkpoint(Path(str(args.resume_from_checkpoint)), output), []
    if args.resume:
        removed = remove_broken_checkpoints(output)
        last = find_last_checkpoint(output)
        return (None if last is None else str(last)), removed
    checkpoints = list_checkpoints(output)
    if checkpoints and not args.overwrite:
        raise CheckpointError(
            f"{output} has checkpoints of an earlier run, the last {checkpoints[-1].name}. --resume goes on from it, "
            "--overwrite deletes them and begins anew, another --output_dir leaves them alone."
        )
    for path in checkpoints:
        shutil.rmtree(path)
    return None, [path.name for path in checkpoints]


def plan_training(trainer: InstructionTrainer) -> tuple[TaskPlan, ...]:
    """Say what the first epoch draws from each task.

    Args:
        trainer: The trainer.

    Returns:
        One plan a task.
    """
    sampler: Any = trainer.get_train_dataloader().batch_sampler
    while not isinstance(sampler, TaskBatchSampler):
        sampler = sampler.batch_sampler
    return sampler.plan_epoch(0)


def format_mixture_table(plans: Sequence[TaskPlan], *, max_tasks: int = 20) -> str:
    """Format what an epoch draws, the tasks with most rows first.

    Args:
        plans: One a task.
        max_tasks: At most so many lines; the rest is summed up in one.

    Returns:
        The table as Markdown.
    """
    ordered = sorted(plans, key=lambda plan: -plan.rows_drawn)
    lines = ["| task | rows | drawn an epoch | batches | not drawn |", "|---|---:|---:|---:|---|"]
    for plan in ordered[:max_tasks]:
        lines.append(
            f"| {plan.task} | {plan.rows} | {plan.rows_drawn} | {plan.batches} | {_explain_rows_not_drawn(plan)} |"
        )
    groups = {"and %d more": ordered[max_tasks:], "all %d": ordered}
    for name, group in groups.items():
        if group:
            rows, drawn, batches = (
                sum(getattr(plan, what) for plan in group) for what in ("rows", "rows_drawn", "batches")
            )
            missed = sum(plan.rows - plan.distinct_rows_drawn for plan in group)
            lines.append(f"| {name % len(group)} | {rows} | {drawn} | {batches} | {missed or ''} |")
    return "\n".join(lines)


def name_task(dataset_name: str) -> str:
    """Name the task of a training data set: rows with different numbers of negatives have data sets of their own.

    Args:
        dataset_name: The data set's name.

    Returns:
        The task's name.
    """
    return _SPLIT_NAME.sub("", dataset_name)


def _check_checkpoint(folder: Path, output: Path) -> str:
    """Refuse a named checkpoint that nothing can go on from."""
    if folder.is_dir() and not is_interrupted(folder):
        return str(folder)
    fault = "was not written to its end, or has changed" if folder.is_dir() else "is no folder"
    last = find_last_checkpoint(output)
    raise CheckpointError(
        f"resume_from_checkpoint: {folder} {fault}. "
        + (f"The last whole checkpoint in {output} is {last.name}." if last else f"There is no whole one in {output}.")
    )


def _explain_rows_not_drawn(plan: TaskPlan) -> str:
    parts = [f"{plan.waiting} wait" if plan.waiting else "", f"{plan.later} later" if plan.later else ""]
    parts.append(f"{plan.left_out}: {plan.reason}" if plan.left_out else "")
    return "; ".join(part for part in parts if part)


def _read_weights(args: TrainArguments) -> dict[str, float]:
    weights = {}
    for task, weight in dict(args.task_weights or {}).items():  # type: ignore[arg-type]
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise ValueError(f"task_weights: a number is expected for {task!r}, not {weight!r}.")
        weights[task] = float(weight)
    return weights


def _weigh_parts(dataset: Mapping[str, Sized], weights: Mapping[str, float], *, alpha: float) -> dict[str, float]:
    """Weigh the data sets of a split task so that they are seen together as often as the whole task would be."""
    sizes = Counter[str]()
    for name, part in dataset.items():
        sizes[name_task(name)] += len(part)
    # A part of n of N rows is to have n/N of weight * N**alpha; the sampler multiplies what it is told by n**alpha.
    shares = {name: len(part) / sizes[name_task(name)] for name, part in dataset.items()}
    return {name: weights[name_task(name)] * share ** (1 - alpha) for name, share in shares.items()}


def _load_guide(args: TrainArguments, specs: Mapping[str, TaskLossSpec]) -> SentenceTransformer | None:
    if args.guide is None:
        return None
    margins = [dict(args.loss_settings or {}), *(spec.overrides for spec in specs.values())]  # type: ignore[arg-type]
    if all(settings.get("false_negative_margin") is None for settings in margins):
        raise ValueError("guide: no task has a false_negative_margin for it; set one in loss_settings.")
    return SentenceTransformer(args.guide)


def _wrap_losses(
    model: INSTRUCTOR, losses: Mapping[str, nn.Module], dims: Sequence[int] | None
) -> dict[str, nn.Module]:
    if not dims:
        return dict(losses)
    size = model.get_embedding_dimension() or 0
    if any(not 0 < dim <= size for dim in dims):
        raise ValueError(f"matryoshka_dims must be from 1 to {size}, the model's dimension, not {list(dims)}.")
    # The whole embedding is trained too; MatryoshkaLoss knows the dimensions only that it is told.
    every = sorted({size, *dims}, reverse=True)
    # Each module once, though tasks share it: wrapping changes a cached loss in place.
    distinct = {id(loss): loss for loss in losses.values()}
    wrapped = {key: MatryoshkaLoss(model, loss, matryoshka_dims=every) for key, loss in distinct.items()}
    return {task: wrapped[id(loss)] for task, loss in losses.items()}
