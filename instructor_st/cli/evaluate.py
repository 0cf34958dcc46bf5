"""`instructor-st evaluate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instructor_st.evaluation.folder_run import InstructionSet, ModelSource
    from instructor_st.evaluation.own_data import DataSet
    from instructor_st.evaluation.results import Result

__all__ = ["add_evaluate_command"]

_NONE = "none"


def add_evaluate_command(commands: Any) -> None:
    """Add `evaluate`.

    Args:
        commands: The sub-parsers of `instructor-st`.
    """
    evaluate = commands.add_parser(
        "evaluate",
        help="evaluate models on a folder of your own data, several instructions side by side",
        description="Evaluate models on every data set of a folder. Results lie in OUTPUT, a file a model and data set; what "
        "is there already is not done again. OUTPUT/results.json has all of them, OUTPUT/report.md tables and plots.",
    )
    evaluate.set_defaults(run=_evaluate)
    evaluate.add_argument("models", nargs="+", help="folders or Hub ids; stock models get instructions as prompt=")
    evaluate.add_argument("--data", type=Path, required=True, help="folder of data sets (.jsonl, .csv, .parquet)")
    evaluate.add_argument(
        "--instructions",
        nargs="+",
        default=[_NONE],
        metavar="SET",
        help="'none', or a YAML file: an instruction, or query: and document:, for each data set, kind, or 'default'; "
        "the first set is what the others are compared with",
    )
    evaluate.add_argument("--output", type=Path, default=Path("outputs/evaluation"))
    evaluate.add_argument("--tasks", nargs="+", metavar="NAME", help="these data sets only")
    evaluate.add_argument("--limit", type=int, help="at most so many rows (retrieval: queries) of each data set")
    evaluate.add_argument("--batch-size", type=int, default=32)
    evaluate.add_argument("--device", help="cuda, cpu, ...; by default what is there")
    evaluate.add_argument("--revision", help="of models from the Hub")
    evaluate.add_argument("--as-instructor", action="store_true", help="read stock models as INSTRUCTOR reads them")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument("--overwrite", action="store_true", help="do again what is there already")
    evaluate.add_argument("--no-plots", action="store_true", help="tables only")
    evaluate.add_argument("--dry-run", action="store_true", help="list data sets and instructions; embed nothing")


def _evaluate(arguments: argparse.Namespace) -> int:
    from instructor_st.evaluation.folder_run import check_instruction_sets, evaluate_data_sets
    from instructor_st.evaluation.own_data import find_data_sets
    from instructor_st.evaluation.report_tables import format_results_table
    from instructor_st.evaluation.results import write_results

    data_sets = _choose(find_data_sets(arguments.data), arguments.tasks)
    sets = {Path(each).stem: _read_set(each) for each in arguments.instructions}
    if len(sets) < len(arguments.instructions):
        raise ValueError(f"two sets of instructions have one name: {', '.join(arguments.instructions)}.")
    check_instruction_sets(sets, data_sets)
    if arguments.dry_run:
        print(_describe(data_sets, sets))
        return 0
    found = evaluate_data_sets(
        [_make_source(name, arguments) for name in arguments.models],
        data_sets,
        instruction_sets=sets,
        folder=arguments.output,
        limit=arguments.limit,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        overwrite=arguments.overwrite,
    )
    for failure in found.failures:
        print(f"{failure.model}, {failure.task}: {failure.reason}", file=sys.stderr)
    if not found.results:
        raise ValueError(f"nothing could be evaluated; {len(found.failures)} failure(s) above.")
    write_results(found.results, arguments.output / "results.json")
    _write_report(found.results, arguments)
    print(format_results_table(found.results))
    print(
        f"\n{len(found.results)} results ({found.reused} data sets were there already), {len(found.failures)} failure(s); "
        f"see {arguments.output}."
    )
    return 1 if found.failures else 0


def _choose(data_sets: list[DataSet], names: list[str] | None) -> list[DataSet]:
    if names is None:
        return data_sets
    known = {each.name: each for each in data_sets}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no data set {unknown[0]!r}; there are: {', '.join(known)}.")
    return [known[name] for name in names]


def _read_set(name: str) -> InstructionSet:
    from instructor_st.evaluation.task_instructions import read_instructions

    return {} if name == _NONE else read_instructions(name)


def _describe(data_sets: list[DataSet], sets: Mapping[str, InstructionSet]) -> str:
    from instructor_st.evaluation.task_instructions import NO_INSTRUCTION, find_instruction

    lines = []
    for each in data_sets:
        lines.append(f"{each.name}: {each.kind or each.fault}")
        for name, given in sets.items():
            instruction = find_instruction(given, each.name, each.kind) or NO_INSTRUCTION
            document = "" if instruction.document is None else f" / {instruction.document!r}"
            lines.append(f"  {name}: {instruction.query!r}{document}")
    return "\n".join(lines)


def _make_source(name: str, arguments: argparse.Namespace) -> ModelSource:
    from instructor_st.evaluation.folder_run import ModelSource

    folder = Path(name)
    label, identity = name, name
    if folder.is_dir():
        # "final" alone, as trainers call their last folder, would tell nothing.
        label = "/".join(folder.resolve().parts[-2:]) if folder.name in ("final", "best") else folder.name
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        identity = repr(
            [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        )

    def load() -> Any:
        from sentence_transformers import SentenceTransformer

        from instructor_st import INSTRUCTOR

        kind = INSTRUCTOR if arguments.as_instructor or name.startswith("hkunlp/instructor") else SentenceTransformer
        return kind(name, device=arguments.device, revision=arguments.revision)

    return ModelSource(label, load, f"{identity} {arguments.as_instructor}", arguments.revision)


def _write_report(results: tuple[Result, ...], arguments: argparse.Namespace) -> None:
    from importlib.util import find_spec

    from instructor_st.evaluation.report import write_report

    plots = not arguments.no_plots
    if plots and find_spec("matplotlib") is None:
        print('No plots: pip install "instructor-st[plot]".', file=sys.stderr)
        plots = False
    write_report(results, arguments.output, title="Evaluation", plots=plots)
