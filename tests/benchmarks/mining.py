"""Rows a second of the mining of hard negatives, with and without FAISS; the embedding is not in it.

The vectors are random, each positive near its query, and a stub hands them out in place of a model.

python tests/benchmarks/mining.py [--rows 1000 5000 20000 50000] [--dimension 384] [--labels 0] [--runs 1] [--threads 1]
"""

from __future__ import annotations

import argparse
import resource
import statistics

import numpy as np
import torch

from instructor_st.data import Row
from instructor_st.data.mining.mine_task import MinedTask, MiningOptions, mine_task_negatives
from instructor_st.pairs import InstructedText


class GivenVectors:
    """A model whose vectors are there already; the texts are their numbers."""

    device = "cpu"

    def __init__(self, rows: int, dimension: int):
        generator = np.random.default_rng(0)
        queries = generator.normal(size=(rows, dimension)).astype(np.float32)
        noise = generator.normal(size=(rows, dimension)).astype(np.float32)
        self.vectors = {"q: ": queries, "d: ": queries + noise}

    def encode(self, inputs: list[list[str]], **_: object) -> np.ndarray:
        """Look the vectors up."""
        return np.stack([self.vectors[instruction][int(text[1:])] for instruction, text in inputs])


def make_rows(count: int, labels: int) -> list[Row]:
    """Rows of numbers."""
    return [
        Row(
            query=InstructedText("q: ", f"q{number}"),
            positive=InstructedText("d: ", f"d{number}"),
            negatives=(),
            task="benchmark",
            label=f"class {number % labels}" if labels else None,
        )
        for number in range(count)
    ]


def mine_repeatedly(rows: list[Row], model: GivenVectors, *, use_faiss: bool, runs: int) -> tuple[float, MinedTask]:
    """The median of the seconds, and the outcome."""
    options = MiningOptions(faiss=use_faiss)
    outcomes = [mine_task_negatives(rows, model, options=options) for _ in range(runs)]
    return statistics.median(outcome.seconds for outcome in outcomes), outcomes[0]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 5_000, 20_000, 50_000])
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--labels", type=int, default=0)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        import faiss
    except ImportError:
        faiss = None
    if faiss is not None:
        faiss.omp_set_num_threads(arguments.threads)
    for use_faiss in (False, faiss is not None):  # imports on first use are not to be measured
        mine_repeatedly(make_rows(50, 0), GivenVectors(50, 8), use_faiss=use_faiss, runs=1)
    print("| rows | torch, rows/s | FAISS, rows/s | FAISS / torch | same negatives | peak memory |")
    print("|---:|---:|---:|---:|---:|---:|")
    for count in arguments.rows:
        rows, model = make_rows(count, arguments.labels), GivenVectors(count, arguments.dimension)
        plain, expected = mine_repeatedly(rows, model, use_faiss=False, runs=arguments.runs)
        cells = [f"{count:,}", f"{count / plain:,.0f}", "-", "-", "-"]
        if faiss is not None:
            fast, found = mine_repeatedly(rows, model, use_faiss=True, runs=arguments.runs)
            same = sum(one == other for one, other in zip(expected.rows, found.rows, strict=True))
            cells[2:] = [f"{count / fast:,.0f}", f"{plain / fast:.2f}", f"{same / count:.2%}"]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"| {' | '.join(cells)} | {peak:.1f} GB |", flush=True)


if __name__ == "__main__":
    main()
