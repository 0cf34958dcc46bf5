"""Tune an instruction to a task: `python training_scripts/finetune_instructions.py --data ROWS.jsonl --name my-task`.

No weight of the model changes: a dual model gets an instruction vector and a change of its Dense for the task, a prepend
model a soft prompt. A cross-validation chooses how long to train and says whether it helps at all. The output folder gets
the tuned task (`add_tuned_task(model, folder)` gives it to the model), `report.md` and `report.json`; `--save_model` also
writes the model with the task in it. With `accelerate launch` the processes share texts and folds.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transformers import HfArgumentParser

from instructor_st import INSTRUCTOR
from instructor_st.atomic_files import write_texts
from instructor_st.bundled_model import find_bundled_model
from instructor_st.data import LabelledTexts, read_labelled_texts
from instructor_st.modules.tuned_tasks import check_task_name
from instructor_st.training import FinetuneResult, FinetuneSettings, finetune_instructions
from instructor_st.training.finetune import find_processes
from instructor_st.training.tuning_rows import TuningRows


@dataclass
class FinetuneArguments:
    """What to tune on what; `FinetuneSettings` has how."""

    data: str = field(
        metadata={
            "help": "Labelled rows (.jsonl, .csv, .parquet): text, label; text, labels; text, score; a, b, score; "
            "a, b, label; or query, positive, negatives."
        }
    )
    name: str = field(metadata={"help": "What stands in the instruction's place later, such as support-tickets."})
    instruction: str = field(
        default="Represent the text: ", metadata={"help": "The written instruction to begin with."}
    )
    document_instruction: str | None = field(
        default=None, metadata={"help": "Rows with answers: that of the documents, tuned as NAME-document."}
    )
    model: str | None = field(
        default=None, metadata={"help": "A folder or Hub id. An untrained model around the bundled one if not given."}
    )
    architecture: Literal["dual", "prepend"] = field(
        default="dual", metadata={"help": "Of the untrained model; a given model has its own."}
    )
    output: str = field(default="outputs/tuned_tasks", metadata={"help": "The task goes to OUTPUT/NAME."})
    save_model: str | None = field(default=None, metadata={"help": "Also write the model, with the task, here."})
    max_rows: int | None = field(default=None, metadata={"help": "Use at most so many rows, drawn at random."})
    overwrite: bool = field(default=False, metadata={"help": "Replace what lies at OUTPUT/NAME and at SAVE_MODEL."})
    dry_run: bool = field(default=False, metadata={"help": "Say what would be done; write nothing."})


def check_places(arguments: FinetuneArguments) -> None:
    """Refuse folders that are taken, before anything is computed."""
    check_task_name(arguments.name)
    for place in (Path(arguments.output, arguments.name), arguments.save_model):
        if place is not None and Path(place).exists() and not arguments.overwrite:
            raise ValueError(f"{place} exists; name another folder, or say --overwrite.")


def show_rows(rows: LabelledTexts, model: INSTRUCTOR) -> None:
    """Say what there is to learn from."""
    data = TuningRows.from_labelled(rows)
    print(
        f"{len(data)} rows with {data.kind}, {len(data.texts)} texts; the model begins with {type(model[0]).__name__}."
    )
    if data.kind == "classes":
        counts = Counter(data.labels[target] for target in data.targets)
        print(", ".join(f"{label}: {count}" for label, count in counts.most_common(20)))
    for reason, count in data.report.items():
        print(f"{count:>9}  {reason}")


def write_result(result: FinetuneResult, model: INSTRUCTOR, arguments: FinetuneArguments) -> None:
    """Write the tuned tasks, the report and, if asked for, the model."""
    for task in result.tasks:
        folder = task.save(Path(arguments.output, task.name))
        print(f"{folder}: {task.num_bytes:,} bytes of tensors; encode([[{task.name!r}, text]]) uses it.")
    folder = Path(arguments.output, arguments.name)
    report = json.dumps(result.report.to_dict(), indent=2) + "\n"
    write_texts({folder / "report.md": result.report.format() + "\n", folder / "report.json": report})
    if arguments.save_model:
        model.save_pretrained(arguments.save_model)
        print(f"{arguments.save_model}: the model, with its tuned tasks: {', '.join(model[0].tuned_tasks)}.")


def main() -> None:
    """Read, tune, report, write."""
    try:
        arguments, settings = HfArgumentParser([FinetuneArguments, FinetuneSettings]).parse_args_into_dataclasses()
        check_places(arguments)
        rows = read_labelled_texts(arguments.data, max_rows=arguments.max_rows, seed=settings.seed)
        if arguments.model:
            model = INSTRUCTOR(arguments.model)
        else:
            model = INSTRUCTOR.from_encoder(find_bundled_model(), arguments.architecture)
        state = find_processes()
        if state.is_main_process:
            show_rows(rows, model)
        if arguments.dry_run:
            print("Nothing was written (dry run).")
            return
        result = finetune_instructions(
            model,
            rows,
            name=arguments.name,
            instruction=arguments.instruction,
            document_instruction=arguments.document_instruction,
            settings=settings,
        )
        if state.is_main_process:
            report = result.report
            print(report.format())
            print(
                f"{report.seconds:.1f} s, of which {report.text_seconds:.1f} s for the texts; "
                f"{report.trained_parameters:,} parameters trained."
            )
            write_result(result, model, arguments)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"finetune_instructions.py: {error}")


if __name__ == "__main__":
    main()
