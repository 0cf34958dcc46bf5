"""Are the registry's examples sound? How a model ranks each positive against its hard negative, before any training.

A family in which the positive is always nearer teaches little; one in which it never is may hold errors. The table is
that of the catalog's README; the rows at both ends are printed to be read by eye.

python tests/benchmarks/example_soundness.py [--model MODEL] [--instructions] [--catalog FOLDER] [--ends 20]
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict

import numpy as np
import numpy.typing as npt

from instructor_st import INSTRUCTOR
from instructor_st.bundled_model import find_bundled_model
from instructor_st.tasks import load_catalog
from instructor_st.tasks.registry import CATALOG_FOLDER


def count_shared_words(query: str, other: str) -> float:
    """The share of a text's different words that the query has as well."""
    words = set(re.findall(r"\w+", other.lower()))
    return len(words & set(re.findall(r"\w+", query.lower()))) / max(1, len(words))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="by default the bundled all-MiniLM-L6-v2")
    parser.add_argument("--instructions", action="store_true", help="put the task's instructions before the texts")
    parser.add_argument("--catalog", default=CATALOG_FOLDER)
    parser.add_argument("--ends", type=int, default=20, help="rows to print at each end")
    arguments = parser.parse_args()
    model = INSTRUCTOR.from_encoder(arguments.model or find_bundled_model(), "prepend")
    rows = [(task, example) for task in load_catalog(arguments.catalog).values() for example in task.examples]

    def embed(side: str, field: str) -> npt.NDArray[np.float32]:
        texts = [
            [getattr(task, side).instruction if arguments.instructions else "", getattr(example, field)]
            for task, example in rows
        ]
        vectors: npt.NDArray[np.float32] = model.encode(texts, normalize_embeddings=True, show_progress_bar=True)
        return vectors

    queries, positives, negatives = (
        embed("query", "query"),
        embed("document", "positive"),
        embed("document", "negative"),
    )
    margins = np.sum(queries * (positives - negatives), axis=1)
    words = [
        count_shared_words(example.query, example.negative) - count_shared_words(example.query, example.positive)
        for _, example in rows
    ]
    families: dict[str, list[int]] = defaultdict(list)
    for place, (task, _) in enumerate(rows):
        families[task.family].append(place)
    print("| family | tasks | examples | positive nearer | negative shares more words |\n|---|---:|---:|---:|---:|")
    for family, places in [*sorted(families.items()), ("**all**", list(range(len(rows))))]:
        tasks = len({rows[place][0].name for place in places})
        nearer = np.mean([margins[place] > 0 for place in places])
        shares = np.mean([words[place] > 0 for place in places])
        print(f"| {family} | {tasks} | {len(places)} | {nearer:.3f} | {shares:.3f} |")
    order = np.argsort(margins)
    for name, places in (
        ("negative nearest", order[: arguments.ends]),
        ("positive nearest", order[::-1][: arguments.ends]),
    ):
        print(f"\n{name}:")
        for place in places:
            task, example = rows[place]
            print(f"\n{margins[place]:+.3f} {task.name}: {task.query.instruction}")
            for field in ("query", "positive", "negative", "why"):
                print(f"  {field:8}  {getattr(example, field)[:300]}")


if __name__ == "__main__":
    main()
