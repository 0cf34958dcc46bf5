"""Stored text vectors under a tuned instruction, beside encoding the texts again; medians of interleaved runs.

The tuned task changes the instruction's vector and the Dense, the dearest case. Encoding again is measured on `--sample` of
the texts, since its cost is linear in them, and scaled; the two embeddings are compared on that sample.

python tests/benchmarks/reinstruct_speed.py [--texts 20000] [--sample 2000] [--runs 3] [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from instructor_st import INSTRUCTOR
from instructor_st.bundled_model import find_bundled_model
from instructor_st.data import LabelledTexts
from instructor_st.tasks import get_tasks
from instructor_st.training.finetune import finetune_instructions
from instructor_st.training.finetune_settings import FinetuneSettings


def collect_texts(count: int) -> list[str]:
    """The registry's worked examples, numbered until there are enough of them."""
    texts = list(dict.fromkeys(text for task in get_tasks() for example in task.examples for text in example.texts))
    chosen = np.random.default_rng(0).permutation(texts)
    return [f"{chosen[place % len(chosen)]} {place // len(chosen)}" for place in range(count)]


def tune(model: INSTRUCTOR, texts: list[str]) -> None:
    """Tune a task to tell long texts from short ones, without choosing by folds whether it is worth it."""
    middle = statistics.median(map(len, texts))
    labels = tuple("long" if len(text) > middle else "short" for text in texts)
    rows = LabelledTexts("classes", tuple(texts), tuple(() for _ in texts), labels, {})
    settings = FinetuneSettings(max_epochs=16)
    result = finetune_instructions(
        model, rows, name="length", instruction="Represent the text: ", settings=settings, show_progress_bar=False
    )
    print(
        f"Tuned in {result.report.seconds:.1f} s, {result.tasks[0].num_bytes:,} bytes, verdict: {result.report.verdict}\n"
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--sample", type=int, default=2_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = INSTRUCTOR.from_encoder(find_bundled_model(), "dual", device="cpu")
    texts = collect_texts(options.texts)
    tune(model, texts[:256])
    sample = texts[: options.sample]
    stored = model.encode_text(texts, batch_size=64, show_progress_bar=False)
    seconds: dict[str, list[float]] = {"encode": [], "reinstruct": []}
    for run in range(options.runs + 1):
        start = time.perf_counter()
        encoded = model.encode([["length", text] for text in sample], batch_size=64, show_progress_bar=False)
        middle = time.perf_counter()
        embedded = model.reinstruct(stored, "length")
        end = time.perf_counter()
        if run:
            seconds["encode"].append((middle - start) * len(texts) / len(sample))
            seconds["reinstruct"].append(end - middle)
    ratios = [a / b for a, b in zip(seconds["encode"], seconds["reinstruct"], strict=True)]
    print(f"{len(texts)} texts, {options.threads} thread(s), {options.runs} runs\n")
    print("| encode again, s | reinstruct, s | ratio (median; spread) | largest difference |\n|---:|---:|---:|---:|")
    again, once = (statistics.median(seconds[name]) for name in ("encode", "reinstruct"))
    difference = np.abs(encoded - embedded[: len(sample)]).max()
    print(
        f"| {again:.1f} | {once:.3f} | {statistics.median(ratios):.0f} ({min(ratios):.0f} to {max(ratios):.0f}) |"
        f" {difference:.1e} |"
    )


if __name__ == "__main__":
    main()
