"""Give training rows hard negatives: `python training_scripts/mine_negatives.py --data FOLDER --output FOLDER`.

Each task is searched with the model for texts that look right for a query and are not. The output folder gets a Parquet
file a task, the held-out rows as they are, `mining_report.json` and `mining_report.md`; what build_data.py says of its
rows in `manifest.json` is carried along. Stop it at any moment and start it again: it goes on with the task it was at.
`training_scripts/train.py --data FOLDER` trains on the outcome.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace

from sentence_transformers import SentenceTransformer
from transformers import HfArgumentParser

from instructor_st import INSTRUCTOR, DualEncoderConcat, InstructionPrepend
from instructor_st.bundled_model import find_bundled_model
from instructor_st.data.mining.folder import MiningPlan, mine_folder, plan_mining, write_mining_report
from instructor_st.data.mining.mine_task import MiningOptions
from instructor_st.data.mining.search import load_cross_encoder
from instructor_st.data.mining.vectors import fingerprint_model


@dataclass
class MineArguments:
    """What to mine with what; `MiningOptions` has how."""

    data: str = field(metadata={"help": "A folder (or file) of rows; its sub-folder held_out is kept as it is."})
    output: str = field(metadata={"help": "The folder to write."})
    model: str | None = field(
        default=None,
        metadata={"help": "A folder or Hub id; any sentence-transformers model. The bundled one if not given."},
    )
    cross_encoder: str | None = field(
        default=None, metadata={"help": "A cross-encoder; margins and score limits then apply to its scores."}
    )
    cache_folder: str | None = field(
        default=None, metadata={"help": "Keep the vectors here, for other options with the same rows and model."}
    )
    no_relative_margin: bool = field(default=False, metadata={"help": "Switch relative_margin off."})
    dry_run: bool = field(default=False, metadata={"help": "Say what would be done; write nothing."})


def load_model(name: str) -> SentenceTransformer:
    """Load an instruction model, or any other, to which instructions are prompts."""
    loaded = SentenceTransformer(name)
    return INSTRUCTOR(name) if isinstance(loaded[0], (InstructionPrepend, DualEncoderConcat)) else loaded


def show_plan(plan: MiningPlan) -> None:
    """Say what would be done."""
    for what, count in plan.read.items():
        print(f"{count:>9}  {what}")
    for task in plan.tasks:
        documents = {text.text for row in task.rows for text in row.texts[1:]}
        wordings = {row.positive.instruction for row in task.rows}
        todo = "to be mined" if task.counts is None else "there already"
        print(f"{task.task}: {len(task.rows)} rows, {len(documents)} documents, {len(wordings)} wording(s); {todo}")
    print(
        f"{len(plan.output.copies)} held-out file(s) to copy, {len(plan.outdated)} file(s) of earlier runs to remove."
    )
    print(f"{len(plan.tasks)} tasks. Nothing was written (dry run).")


def show_counts(counts: Counter[str], plan: MiningPlan, seconds: float) -> None:
    """Say what was found and refused."""
    for what, count in sorted((Counter(plan.read) + counts).items()):
        print(f"{count:>9}  {what}")
    done = sum(task.counts is not None for task in plan.tasks)
    print(f"{len(plan.tasks)} tasks are in {plan.output.folder} ({done} were there already); {seconds:.1f} s.")


def main() -> None:
    """Load the model, see what there is to do, do it, report."""
    started = time.perf_counter()
    try:
        arguments, options = HfArgumentParser([MineArguments, MiningOptions]).parse_args_into_dataclasses()
        if arguments.no_relative_margin:
            options = replace(options, relative_margin=None)
        name = arguments.model or find_bundled_model()
        model = load_model(name)
        cross_encoder = load_cross_encoder(arguments.cross_encoder, options)
        identity = fingerprint_model(model)
        judge = fingerprint_model(cross_encoder) if cross_encoder else ""
        plan = plan_mining(arguments.data, arguments.output, identity=f"{identity}/{judge}", options=options)
        if arguments.dry_run:
            show_plan(plan)
            return
        counts = mine_folder(
            plan, model, cross_encoder=cross_encoder, cache_folder=arguments.cache_folder, identity=identity
        )
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"mine_negatives.py: {error}")
    write_mining_report(
        plan, counts, model=name if arguments.model else "bundled", cross_encoder=arguments.cross_encoder
    )
    show_counts(sum(map(Counter, counts.values()), Counter()), plan, time.perf_counter() - started)


if __name__ == "__main__":
    main()
