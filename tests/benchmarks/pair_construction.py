"""Rows a second of pair construction, an exact search over random vectors; embedding is left out.

python tests/benchmarks/pair_construction.py [--rows 1000 2000 5000 10000 20000 50000] [--negatives 1] [--classes 20]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np

from instructor_st.data.building.examples import ClassText, InputOutput, TextPair
from instructor_st.data.building.pair_construction import pair_classes, pair_inputs_outputs
from instructor_st.data.embedding_cache import Scorer


def make_scorer(rows: int, dimension: int) -> Scorer:
    """Random vectors of the texts `x0`, `y0`, `x1`, ...; the look-up is all that embedding costs here."""
    table = np.random.default_rng(0).standard_normal((2 * rows, dimension), dtype=np.float32)
    return Scorer(lambda texts: table[[2 * int(text[1:]) + (text[0] == "y") for text in texts]], "random")


def time_rows(call: Callable[[], list[TextPair]], rows: int) -> float:
    """Rows a second of one call, which must make one pair a row."""
    start = time.perf_counter()
    pairs = call()
    seconds = time.perf_counter() - start
    if len(pairs) != rows:
        raise SystemExit(f"{len(pairs)} pairs were made of {rows} rows.")
    return rows / seconds


def time_all(rows: int, classes: int, *, scorer: Scorer, negatives: int) -> list[float]:
    """Rows a second of classes, of inputs and outputs, and of answers."""
    texts = [ClassText(f"x{n}", str(n % classes)) for n in range(rows)]
    examples = [InputOutput(f"x{n}", f"y{n}") for n in range(rows)]
    calls = (
        partial(pair_classes, texts),
        partial(pair_inputs_outputs, examples),
        partial(pair_inputs_outputs, examples, answers=True),
    )
    settings = {"scorer": scorer, "cache": None, "negatives": negatives}
    return [time_rows(partial(call, report=Counter(), **settings), rows) for call in calls]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 2000, 5000, 10_000, 20_000, 50_000])
    parser.add_argument("--negatives", type=int, default=1)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--dimension", type=int, default=384)
    options = parser.parse_args()
    print(
        f"dimension {options.dimension}, {options.negatives} negative(s), {options.classes} classes\n\n"
        "| rows | classes, rows/s | inputs and outputs, rows/s | answers, rows/s | peak memory so far, MB |\n"
        "|---:|---:|---:|---:|---:|"
    )
    for rows in sorted(options.rows):
        speeds = time_all(
            rows, options.classes, scorer=make_scorer(rows, options.dimension), negatives=options.negatives
        )
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("| {:,} | {:,.0f} | {:,.0f} | {:,.0f} | {:,.0f} |".format(rows, *speeds, memory), flush=True)


if __name__ == "__main__":
    main()
