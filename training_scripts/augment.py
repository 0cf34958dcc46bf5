"""Augment a folder of training rows with texts that say the same in other words.

    python training_scripts/augment.py --data ROWS --output FOLDER \
        --back-translate Helsinki-NLP/opus-mt-en-de Helsinki-NLP/opus-mt-de-en
    python training_scripts/augment.py --data ROWS --output FOLDER --paraphrase MODEL

ROWS is a folder as build_data.py writes it (what is held out stays as it is), or any folder that train.py reads. FOLDER
gets `train/` (a Parquet file a task, the original rows included), `held_out/` and a report; what build_data.py says of
its rows in `manifest.json` is carried along. Stop it at any moment and start it again: it goes on where it was.
`training_scripts/train.py --data FOLDER` trains on the outcome.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from instructor_st.data.augmentation.folder import RowFolder, augment_folder, check_output, read_row_folder
from instructor_st.data.augmentation.generation_cache import CachedGenerator
from instructor_st.data.augmentation.text_generators import BackTranslator, Checkpoint, Paraphraser, Sampling
from instructor_st.data.embedding_cache import load_scorer


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the rows: a folder or a file")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    kinds = parser.add_mutually_exclusive_group(required=True)
    kinds.add_argument("--back-translate", nargs=2, metavar=("FORWARD", "BACKWARD"), help="two translation models")
    kinds.add_argument("--paraphrase", metavar="MODEL", help="a sequence-to-sequence or a causal model")
    parser.add_argument("--only-new", action="store_true", help="leave out the original rows and what is held out")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done; nothing is generated or written"
    )
    parser.add_argument("--query-instruction", default="", help="of queries that bring none")
    parser.add_argument("--document-instruction", default="", help="of documents that bring none")

    models = parser.add_argument_group("models")
    models.add_argument("--revision", nargs="+", help="a commit, tag or branch for each model")
    models.add_argument("--template", nargs="+", help="what each model is given, with {text} in the text's place")
    models.add_argument("--languages", nargs=2, metavar=("OWN", "OTHER"), help="codes for M2M100, NLLB and the like")
    models.add_argument("--num-candidates", type=int, default=4, help="a text (default: 4)")
    models.add_argument("--num-beams", type=int, default=4, help="of the beam search (default: 4)")
    models.add_argument("--sample", action="store_true", help="draw the candidates (of translations: the way there)")
    models.add_argument("--temperature", type=float, default=1.0, help="of the draws (default: 1)")
    models.add_argument("--top-p", type=float, default=0.95, help="of the draws (default: 0.95)")
    models.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    models.add_argument("--max-new-tokens", type=int, default=512, help="longer outputs are dropped (default: 512)")
    models.add_argument("--batch-size", type=int, default=32, help="texts at once (default: 32)")
    models.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    models.add_argument("--device", help="a torch device (default: the accelerator if there is one)")
    models.add_argument("--cache", type=Path, help="the file of candidates (default: in FOLDER/.augment)")

    rules = parser.add_argument_group("new rows")
    rules.add_argument("--num-augments", type=int, default=2, help="at most so many a row (default: 2)")
    rules.add_argument("--sides", nargs="+", default=["query", "positive"], choices=("query", "positive"))
    rules.add_argument("--scorer", help="the model whose cosines compare (default: the bundled all-MiniLM-L6-v2)")
    rules.add_argument("--min-similarity", type=float, default=0.85, help="to the original text (default: 0.85)")
    rules.add_argument("--max-similarity", type=float, default=1.0, help="to the original text (default: 1)")
    rules.add_argument("--min-length-ratio", type=float, default=0.5, help="to the original text (default: 0.5)")
    rules.add_argument("--max-length-ratio", type=float, default=2.0, help="to the original text (default: 2)")
    return parser.parse_args(arguments)


def find_checkpoints(arguments: argparse.Namespace) -> list[Checkpoint]:
    """Put together what was said of each model."""
    models = arguments.back_translate or [arguments.paraphrase]
    for name in ("revision", "template"):
        if (given := getattr(arguments, name)) and len(given) != len(models):
            raise ValueError(f"--{name} needs {len(models)} value(s), one a model, not {len(given)}.")
    languages = arguments.languages or [None, None]
    return [
        Checkpoint(
            model,
            revision=arguments.revision[place] if arguments.revision else None,
            template=arguments.template[place] if arguments.template else None,
            source_language=languages[place],
            target_language=languages[0 if arguments.paraphrase else 1 - place],
        )
        for place, model in enumerate(models)
    ]


def build_generator(arguments: argparse.Namespace) -> BackTranslator | Paraphraser:
    """Find the models; they are loaded when a text is not in the cache."""
    sampling = Sampling(arguments.temperature, arguments.top_p, arguments.seed) if arguments.sample else None
    names = ("num_candidates", "num_beams", "max_new_tokens", "batch_size", "dtype", "device")
    options = {name: getattr(arguments, name) for name in names}
    build = BackTranslator if arguments.back_translate else Paraphraser
    return build(*find_checkpoints(arguments), sampling=sampling, **options)


def show_plan(rows: RowFolder, arguments: argparse.Namespace, cache: CachedGenerator | None) -> None:
    """Say what there is to do, task by task."""
    total = 0
    for task, own in rows.tasks.items():
        texts = {getattr(row, side).text for row in own for side in arguments.sides}
        missing = len(texts) - (cache.count_known(texts) if cache else 0)
        total += missing
        print(f"{task}: {len(own)} rows, {len(texts)} different texts, {missing} of them to generate for")
    print(f"{total} texts of {len(rows.tasks)} tasks to generate for. Nothing was written (dry run).")


def augment(arguments: argparse.Namespace) -> None:
    """Read, generate, filter, write, report."""
    rows = read_row_folder(
        arguments.data,
        query_instruction=arguments.query_instruction,
        document_instruction=arguments.document_instruction,
    )
    check_output(arguments.output, rows.folder)
    generator = build_generator(arguments)
    path = arguments.cache or arguments.output / ".augment" / "candidates.sqlite"
    if arguments.dry_run and not path.exists():
        show_plan(rows, arguments, None)
        return
    with CachedGenerator(generator, path, identity=generator.identity, batch_size=arguments.batch_size) as cached:
        if arguments.dry_run:
            show_plan(rows, arguments, cached)
            return
        names = ("num_augments", "min_similarity", "max_similarity", "min_length_ratio", "max_length_ratio")
        report = augment_folder(
            rows,
            arguments.output,
            generator=cached,
            identity=generator.identity,
            scorer=load_scorer(arguments.scorer),
            only_new=arguments.only_new,
            sides=tuple(arguments.sides),
            **{name: getattr(arguments, name) for name in names},
        )
    for what, count in sorted(report.totals.items()):
        print(f"{count:>9}  {what}")
    for note in report.notes:
        print(f"Note: {note}")
    print(f"Generated for {cached.generated} texts; the candidates of {cached.found} were there already.")
    if report.kept:
        print(f"{len(report.kept)} of {len(report.tasks)} tasks were there already.")
    print(f"The rows and augmentation_report.md are in {arguments.output}.")


def main(arguments: list[str] | None = None) -> None:
    """Augment, or say in one line why not."""
    try:
        augment(parse_arguments(arguments))
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"augment.py: {error}")


if __name__ == "__main__":
    main()
