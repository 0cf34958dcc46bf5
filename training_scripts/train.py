"""Train an instruction embedder: `accelerate launch training_scripts/train.py`.

Without arguments it finetunes the bundled all-MiniLM-L6-v2 on the worked examples of the task registry. `--help` lists
everything; `--data FOLDER` trains on your own rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

from accelerate import PartialState
from sentence_transformers import SentenceTransformer
from transformers import HfArgumentParser, set_seed

from instructor_st import INSTRUCTOR, DualEncoderConcat, InstructionPrepend
from instructor_st.bundled_model import find_bundled_model
from instructor_st.data import (
    STARTER_ROWS_PER_TASK,
    TrainingData,
    build_train_dataset,
    load_starter_data,
    load_training_data,
)
from instructor_st.evaluation import HeldOutEvaluator, HeldOutReport, build_results, format_comparison, write_results
from instructor_st.tasks import get_tasks
from instructor_st.training import (
    InstructionTrainer,
    TrainArguments,
    build_losses,
    set_dropout,
    use_idle_cores,
    warn_of_lone_process,
)


def load_model(base: str, architecture: str) -> INSTRUCTOR:
    """Load an instruction model to train it further, or build one around any other encoder."""
    loaded = SentenceTransformer(base)
    if isinstance(loaded[0], (InstructionPrepend, DualEncoderConcat)):
        return INSTRUCTOR(base)
    return INSTRUCTOR.from_encoder(loaded, architecture)


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
            seed=args.seed,
        )
    if not verbose:
        return data
    counts = (sum(map(len, rows.values())) for rows in (data.train, data.held_out))
    print("{} training rows and {} held-out rows of {} tasks.".format(*counts, len(data.train)))
    for what, count in sorted(data.report.items()):
        print(f"  {what}: {count}")
    return data


def main() -> None:
    """Load, evaluate, train, evaluate, save."""
    (args,) = HfArgumentParser(TrainArguments).parse_args_into_dataclasses()
    state = PartialState()
    warn_of_lone_process()
    use_idle_cores(state.num_processes)
    set_seed(args.seed)
    try:
        data = load_data(args, verbose=state.is_main_process)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"train.py: {error}")
    try:
        base = args.base or find_bundled_model()
    except ImportError as error:
        sys.exit(f"train.py: {error}")
    model = load_model(base, args.architecture)
    if args.dropout is not None:
        set_dropout(model, args.dropout)
    evaluator = HeldOutEvaluator(data.held_out, batch_size=args.per_device_eval_batch_size) if data.held_out else None

    def evaluate(model: INSTRUCTOR) -> HeldOutReport | None:
        return evaluator.evaluate(model) if evaluator and state.is_main_process else None

    before = evaluate(model)
    state.wait_for_everyone()
    trainer = InstructionTrainer(
        model=model,
        args=args,
        train_dataset=build_train_dataset(data.train),
        loss=build_losses(
            model,
            data.train,
            labelled_tasks=data.labelled_tasks,
            temperature=args.temperature,
            gather_across_devices=state.num_processes > 1,
        ),
        evaluator=evaluator,
    )
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    folder = trainer.save_final_model(Path(args.output_dir) / "final")
    if not state.is_main_process:
        return
    # What was saved is evaluated, not the trainer's model, whose forward may still compute in bfloat16.
    after = evaluate(INSTRUCTOR(str(folder)))
    if before and after:
        # The starter's many tasks are shown by their type.
        groups = {task.name: task.type for task in get_tasks()} if args.data is None else None
        table = format_comparison(before, after, groups=groups)
        print(f"\nAccuracy against hard negatives (*: reciprocal rank), by instruction:\n\n{table}\n")
        results = build_results(before, model=base, seed=args.seed) + build_results(
            after, model=str(folder), seed=args.seed
        )
        write_results(results, folder / "results.json")
    instruction, text = next(iter(data.train.values()))[0].query
    print(f"The model is in {folder}. Use it:\n")
    print("from instructor_st import INSTRUCTOR")
    print(f'model = INSTRUCTOR("{folder}")')
    print(f"print(model.encode([[{instruction!r}, {text[:60]!r}]]).shape)")


if __name__ == "__main__":
    main()
