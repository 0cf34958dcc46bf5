"""Step time and peak memory of our trainer and loss, and of sentence-transformers' own on the same model, texts and batch.

Texts are the task registry's worked examples: query, positive and hard negative, each behind its instruction (for
sentence-transformers' part as one string, so that both see the same tokens). Step times are medians of pairs of runs in
turn; peak memory is that of a process that trains one step, on the same `--texts` rows at every batch size: a larger batch
of other rows also holds longer texts, whose mini-batch alone then sets the peak.

python tests/benchmarks/training_speed.py time [--batch 32] [--steps 8] [--pairs 5] [--threads 2] [--cached]
python tests/benchmarks/training_speed.py memory [--batches 64 1024] [--mini-batch 32] [--texts 64]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

WHO = ("ours", "stock")


def build_rows(count: int, *, joined: bool, distinct: int | None = None) -> Any:
    """A data set of `count` rows (the first `distinct` ones over and over), as `[instruction, text]` or as one string."""
    from datasets import Dataset, DatasetDict

    from instructor_st.data import load_starter_data

    rows = [row for rows in load_starter_data(max_rows_per_task=None).train.values() for row in rows][:distinct]
    chosen = [rows[number % len(rows)] for number in range(count)]
    names = ("query", "positive", "negative_1")
    columns = {name: [list(row.texts[place]) for row in chosen] for place, name in enumerate(names)}
    if joined:
        columns = {name: ["".join(text) for text in texts] for name, texts in columns.items()}
    return DatasetDict({"task": Dataset.from_dict(columns)})


def build_trainer(
    who: str, *, batch: int, steps: int, mini_batch: int | None, folder: str, distinct: int | None
) -> Any:
    """A trainer for some steps, ours or sentence-transformers' own."""
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, losses
    from sentence_transformers import SentenceTransformerTrainingArguments as StockArguments

    from instructor_st import INSTRUCTOR
    from instructor_st.bundled_model import find_bundled_model
    from instructor_st.training import InstructionTrainer, TrainArguments, build_losses, make_task_batch_sampler
    from instructor_st.training.task_losses import LossSettings

    base, rows = find_bundled_model(), build_rows(batch * steps, joined=who == "stock", distinct=distinct)
    common: dict[str, Any] = {
        "output_dir": folder,
        "per_device_train_batch_size": batch,
        "max_steps": steps,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "learning_rate": 1e-5,
    }
    if who == "stock":
        model = SentenceTransformer(base)
        options: dict[str, Any] = {
            "directions": ("query_to_doc", "doc_to_query"),
            "partition_mode": "per_direction",
        }
        loss = (
            losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=mini_batch, **options)
            if mini_batch
            else losses.MultipleNegativesRankingLoss(model, **options)
        )
        return SentenceTransformerTrainer(
            model=model,
            args=StockArguments(**common, multi_dataset_batch_sampler=make_task_batch_sampler(allow_duplicates=True)),
            train_dataset=rows,
            loss={"task": loss},
        )
    instructor = INSTRUCTOR.from_encoder(base)
    args = TrainArguments(**common, precision="float32")
    # The same batches for both, in the same order: other rows together would be padded to other lengths.
    args.multi_dataset_batch_sampler = make_task_batch_sampler(allow_duplicates=True)
    return InstructionTrainer(
        model=instructor,
        args=args,
        train_dataset=rows,
        loss=build_losses(instructor, ["task"], defaults=LossSettings(mini_batch_size=mini_batch)),
    )


def time_steps(who: str, *, batch: int, steps: int, mini_batch: int | None, distinct: int | None = None) -> float:
    """Seconds a step."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = build_trainer(who, batch=batch, steps=steps, mini_batch=mini_batch, folder=folder, distinct=distinct)
        start = time.perf_counter()
        trainer.train()
        return (time.perf_counter() - start) / steps


def measure_time(options: argparse.Namespace) -> None:
    """Print step times and their ratio."""
    import torch

    torch.set_num_threads(options.threads)
    mini_batch = options.mini_batch if options.cached else None
    run = {"batch": options.batch, "steps": options.steps, "mini_batch": mini_batch}
    for who in WHO:  # imports and caches are not to be measured
        time_steps(who, **{**run, "steps": 1})
    seconds: dict[str, list[float]] = {who: [] for who in WHO}
    for number in range(options.pairs):
        for who in WHO if number % 2 else WHO[::-1]:
            seconds[who].append(time_steps(who, **run))
    ratios = [ours / stock for ours, stock in zip(*seconds.values(), strict=True)]
    print(
        f"batch {options.batch}, 3 texts a row{', cached gradients' if mini_batch else ''}, {options.threads} threads"
    )
    print("| ours, s a step | stock, s a step | ratio, median of pairs | lowest | highest |")
    print("|---:|---:|---:|---:|---:|")
    ours, stock = (statistics.median(values) for values in seconds.values())
    print(f"| {ours:.3f} | {stock:.3f} | {statistics.median(ratios):.3f} | {min(ratios):.3f} | {max(ratios):.3f} |")


def measure_memory(options: argparse.Namespace) -> None:
    """Print the peak memory of a process by batch size."""
    print("| batch | ours, MB | stock, MB |")
    print("|---:|---:|---:|")
    peaks: dict[str, list[float]] = {who: [] for who in WHO}
    for batch in options.batches:
        for who in WHO:
            command = [sys.executable, __file__, "peak", "--who", who, "--batch", str(batch), "--steps", "1"]
            command += ["--mini-batch", str(options.mini_batch), "--threads", str(options.threads)]
            command += ["--texts", str(options.texts)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks[who].append(float(done.stdout.split()[-1]))
        print(f"| {batch} | {peaks['ours'][-1]:.0f} | {peaks['stock'][-1]:.0f} |", flush=True)
    print("last / first: " + ", ".join(f"{who} {values[-1] / values[0]:.3f}" for who, values in peaks.items()))


def print_peak(options: argparse.Namespace) -> None:
    """Print this process's peak memory after training, in MB."""
    import torch

    torch.set_num_threads(options.threads)
    run = {"batch": options.batch, "steps": options.steps, "mini_batch": options.mini_batch}
    time_steps(options.who, **run, distinct=options.texts)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["time", "memory", "peak"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--mini-batch", type=int, default=32)
    parser.add_argument("--texts", type=int, default=64, help="distinct rows where memory is measured")
    parser.add_argument("--cached", action="store_true", help="cached gradients on both sides")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--who", choices=WHO, default="ours")
    options = parser.parse_args()
    {"time": measure_time, "memory": measure_memory, "peak": print_peak}[options.what](options)


if __name__ == "__main__":
    main()
