"""Train an instruction embedder: `accelerate launch training_scripts/train.py [CONFIGURATION.yaml] [flags]`.

Without arguments it finetunes the bundled all-MiniLM-L6-v2 on the worked examples of the task registry. A YAML or JSON
file holds settings by the names of the flags, `--preset paper` (or starter, single-gpu) is a set of them, and flags come
first; `--help` lists all. `--data FOLDER` trains on your own rows, or on what build_data.py made. Stop it at any moment
and start it again with `--resume`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from accelerate import PartialState
from transformers import set_seed

from instructor_st import INSTRUCTOR
from instructor_st.bundled_model import find_bundled_model
from instructor_st.data import STARTER_ROWS_PER_TASK, TrainingData, load_starter_data, load_training_data
from instructor_st.data.task_settings import read_task_settings
from instructor_st.evaluation import HeldOutEvaluator, HeldOutReport, build_results, format_comparison, write_results
from instructor_st.evaluation.report_metrics import list_report_metrics
from instructor_st.tasks import get_tasks
from instructor_st.training import (
    InstructionTrainer,
    TrainArguments,
    build_trainer,
    count_parameters,
    estimate_duration,
    find_resume_point,
    format_configuration,
    format_mixture_table,
    load_trained_model,
    merge_lora,
    parse_train_arguments,
    plan_training,
    use_idle_cores,
    warn_of_lone_process,
)
from instructor_st.training.best_metric import BestMetricError, check_best_metric
from instructor_st.training.checkpoints import CheckpointError
from instructor_st.training.task_log import NonFiniteLossError


def load_data(args: TrainArguments, *, verbose: bool) -> TrainingData:
    """Read the rows and say what was read and what was not."""
    if args.data is None:
        rows = args.max_rows_per_task or STARTER_ROWS_PER_TASK
        data = load_starter_data(max_rows_per_task=rows, seed=args.seed)
    else:
        data = load_training_data(
            args.data,
            held_out_share=args.held_out_share,
            max_held_out_per_task=args.max_held_out_per_task,
            max_rows_per_task=args.max_rows_per_task,
            query_instruction=args.query_instruction,
            document_instruction=args.document_instruction,
            skip_broken_files=args.skip_broken_files,
            seed=args.seed,
        )
    if not verbose:
        return data
    counts = (sum(map(len, rows.values())) for rows in (data.train, data.held_out))
    print("{} training rows and {} held-out rows of {} tasks.".format(*counts, len(data.train)))
    for what, count in sorted(data.report.items()):
        print(f"  {what}: {count}")
    return data


def show_plan(trainer: InstructionTrainer, args: TrainArguments, *, verbose: bool) -> None:
    """Say what will be trained on what, and how long it will take."""
    plans, estimate = plan_training(trainer), estimate_duration(trainer)
    if not verbose:
        return
    parameters = count_parameters(trainer.model)
    print(f"Settings:\n{format_configuration(args)}\n\n{format_mixture_table(plans)}\n")
    print(
        f"{parameters.trained / 1e6:.1f} million of {parameters.total / 1e6:.1f} million parameters are trained in "
        f"{estimate}",
        flush=True,
    )


@dataclass(frozen=True)
class Run:
    """All that is ready before the first step."""

    model: INSTRUCTOR
    trainer: InstructionTrainer
    resume_point: str | None
    before: HeldOutReport | None


def prepare(args: TrainArguments, data: TrainingData, *, state: PartialState, base: str) -> Run:
    """Load the model, evaluate it, build the trainer, show what will be done."""
    resume_point, removed = find_resume_point(args) if state.is_main_process else (None, [])
    state.wait_for_everyone()
    if not state.is_main_process and (args.resume or args.resume_from_checkpoint):
        resume_point, _ = find_resume_point(args)
    model = load_trained_model(base, args)
    evaluator = None
    if data.held_out:
        evaluator = HeldOutEvaluator(data.held_out, batch_size=args.per_device_eval_batch_size, with_gap=True)
    before = evaluator.evaluate(model) if evaluator and state.is_main_process else None
    if evaluator and before:
        check_best_metric(args, list_report_metrics(evaluator, before, model=model), needs_value=True)
    state.wait_for_everyone()
    trainer = build_trainer(
        model,
        data,
        args=args,
        task_settings=read_task_settings(args.data) if args.data else None,
        evaluator=evaluator,
        num_processes=state.num_processes,
    )
    show_plan(trainer, args, verbose=state.is_main_process)
    if state.is_main_process and removed:
        print(f"Removed from {args.output_dir}: {', '.join(removed)}.")
    if state.is_main_process and args.resume:
        print(f"Going on from {resume_point}." if resume_point else "There is no whole checkpoint to go on from.")
    return Run(model, trainer, resume_point, before)


def show_outcome(
    args: TrainArguments, data: TrainingData, *, base: str, before: HeldOutReport | None, folder: Path
) -> None:
    """Evaluate what was saved, write results.json, say how to use the model."""
    # What was saved is evaluated, not the trainer's model, whose forward may still compute in bfloat16.
    if before is not None:
        evaluator = HeldOutEvaluator(data.held_out, batch_size=args.per_device_eval_batch_size)
        after = evaluator.evaluate(INSTRUCTOR(str(folder)))
        # The starter's many tasks are shown by their type.
        groups = {task.name: task.type for task in get_tasks()} if args.data is None else None
        table = format_comparison(before, after, groups=groups)
        print(f"\nAccuracy against hard negatives (*: reciprocal rank), by instruction:\n\n{table}\n")
        results = build_results(before, model=base, seed=args.seed)
        write_results(results + build_results(after, model=str(folder), seed=args.seed), folder / "results.json")
    instruction, text = next(iter(data.train.values()))[0].texts[0]
    print(f"The model is in {folder}. Use it:\n")
    print("from instructor_st import INSTRUCTOR")
    print(f'model = INSTRUCTOR("{folder}")')
    print(f"print(model.encode([[{instruction!r}, {text[:60]!r}]]).shape)")


def stop(error: Exception) -> NoReturn:
    """End the program with one line, of however many the message has."""
    sys.exit(f"train.py: {' '.join(str(error).split())}")


def main() -> None:
    """Read the settings, load, train, report."""
    try:
        args = parse_train_arguments()
        state = PartialState()
        warn_of_lone_process()
        use_idle_cores(state.num_processes)
        set_seed(args.seed)
        data = load_data(args, verbose=state.is_main_process)
        base = args.base or find_bundled_model()
        run = prepare(args, data, state=state, base=base)
    except (ImportError, OSError, ValueError, NonFiniteLossError) as error:
        stop(error)
    try:
        run.trainer.train(resume_from_checkpoint=run.resume_point)
        merge_lora(run.model)
        folder = run.trainer.save_final_model(Path(str(args.output_dir)) / "final")
    except (BestMetricError, CheckpointError, NonFiniteLossError) as error:
        stop(error)
    if state.is_main_process:
        show_outcome(args, data, base=base, before=run.before, folder=folder)


if __name__ == "__main__":
    main()
