"""Build a mixture of tasks into training rows: `python training_scripts/build_data.py MIXTURE.yaml --output FOLDER`.

The folder gets `train/` and `held_out/` (a Parquet file a task), `manifest.json`, `report.md`, a card for the Hub and the bad
records. Stop it at any moment and start it again: it goes on where it was. `training_scripts/train.py --data FOLDER`
trains on the outcome.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from instructor_st.data.building import BuildReport, build_mixture
from instructor_st.data.building.contamination import list_evaluation_sources
from instructor_st.data.building.manifest import write_manifest
from instructor_st.data.building.mixture import Mixture, MixtureError, read_mixture
from instructor_st.data.building.mteb_texts import is_mteb_name
from instructor_st.data.sources.source_files import list_source_files


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "mixture", type=Path, help="a YAML file; instructor_st/data/building/mixture.py documents every field"
    )
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    parser.add_argument("--task", action="append", help="build this task only; may be repeated")
    parser.add_argument(
        "--evaluation-texts",
        action="append",
        help="a file or folder whose texts must not be trained on, or mteb:TASK, an mteb task by its name; may be repeated",
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first record that cannot be used")
    parser.add_argument("--dry-run", action="store_true", help="read the mixture, look for its sources, write nothing")
    return parser.parse_args()


def pick_tasks(mixture: Mixture, names: list[str] | None) -> Mixture:
    """Keep the named tasks."""
    if not names:
        return mixture
    known = {task.name for task in mixture.tasks}
    if unknown := [name for name in names if name not in known]:
        raise MixtureError(f"no task {unknown[0]!r} in the mixture; it has {', '.join(sorted(known))}.")
    return mixture.model_copy(update={"tasks": tuple(task for task in mixture.tasks if task.name in names)})


def show_plan(mixture: Mixture) -> None:
    """Say what would be built of what."""
    for task in mixture.tasks:
        files = list_source_files(task.source)
        size = f"{sum(file.bytes for file in files) / 1e6:.1f} MB in {len(files)} file(s)" if files else "no local file"
        print(f"{task.name}: {task.kind}, at most {task.max_rows} rows, {size}")
        print(f"  {task.sides.query.instruction!r} / {task.sides.document.instruction!r}")
    for source in list_evaluation_sources(mixture.evaluation_texts):
        print(f"evaluation set {source.evaluation_set}: {source.name} at {source.version}")
    print(f"{len(mixture.tasks)} tasks. Nothing was written (dry run).")


def show_report(report: BuildReport, output: Path) -> None:
    """Say what was read, left out and written."""
    for what, count in sorted(report.totals.items()):
        print(f"{count:>9}  {what}")
    rows = sum(result.train_rows for result in report.results)
    held_out = sum(result.held_out_rows for result in report.results)
    print(f"{rows} training rows and {held_out} held-out rows of {len(report.results)} tasks are in {output}.")
    if report.kept:
        print(f"{len(report.kept)} tasks were there already.")


def main() -> None:
    """Read the mixture, build it, write what it is made of."""
    arguments = parse_arguments()
    try:
        mixture = pick_tasks(read_mixture(arguments.mixture), arguments.task)
        more = (text if is_mteb_name(text) else Path(text).resolve() for text in arguments.evaluation_texts or ())
        texts = (*mixture.evaluation_texts, *more)
        mixture = mixture.model_copy(update={"evaluation_texts": texts})
        if arguments.dry_run:
            show_plan(mixture)
            return
        report = build_mixture(mixture, arguments.output, strict=arguments.strict)
    except (FileNotFoundError, ImportError, ValueError) as error:
        sys.exit(f"build_data.py: {error}")
    write_manifest(mixture, report, arguments.output)
    show_report(report, arguments.output)


if __name__ == "__main__":
    main()
