"""Is instruction finetuning worth it? Accuracy on test texts with the written and the tuned instruction, and full finetuning.

Reads files of `text`, `label`, `split` (train and test; without splits half of the rows, drawn at random, are the test).
For each file, number of rows a class and seed: nearest centroid and logistic regression, fitted on the few rows, on the
embeddings (a) under the written instruction, (b) under the tuned one, and (c), where `--full-at` says so, of a copy of the
model that was trained in full on the same rows with the same loss. `--model` is a folder or a Hub id; without it an
untrained model around the bundled encoder.

python tests/benchmarks/instruction_finetuning.py emotions.jsonl questions.jsonl [--sizes 8 32 128] [--seeds 0 1 2 3 4]
    [--architecture dual|prepend] [--model FOLDER] [--full-at 32] [--full-seeds 0 1] [--set tune_dense=false]
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

INSTRUCTION = "Represent the text for classification: "
METRICS = ("centroid_accuracy", "logistic_accuracy")


@dataclass(frozen=True)
class Split:
    """Labelled texts to learn from and to test with."""

    train: list[tuple[str, str]]
    test: list[tuple[str, str]]


def read_split(path: Path, max_test: int) -> Split:
    """Read a file, and draw the test texts."""
    from instructor_st.data.row_files import read_records

    rows = [record for _, record in read_records(path)]
    random.Random(0).shuffle(rows)
    if not all(row.get("split") for row in rows):
        rows = [{**row, "split": "test" if number % 2 else "train"} for number, row in enumerate(rows)]
    named = {name: [(r["text"], str(r["label"])) for r in rows if r["split"] == name] for name in ("train", "test")}
    return Split(named["train"], named["test"][:max_test])


def draw_rows(split: Split, size: int, seed: int) -> list[tuple[str, str]]:
    """Draw some rows a class."""
    by_label = defaultdict(list)
    for row in split.train:
        by_label[row[1]].append(row)
    return [
        row
        for label in sorted(by_label)
        for row in random.Random(f"{seed}/{label}").sample(by_label[label], min(size, len(by_label[label])))
    ]


def judge(train: Any, train_labels: list[str], test: Any, test_labels: list[str]) -> dict[str, float]:
    """Fit both classifiers on the few rows, and test them."""
    import torch

    from instructor_st.training.tuning_rows import Fold, TuningRows
    from instructor_st.training.tuning_scores import score_vectors

    labels = [*train_labels, *test_labels]
    names = tuple(sorted(set(labels)))
    targets = np.array([names.index(label) for label in labels])
    rows = TuningRows("classes", (), np.zeros((len(labels), 1), dtype=int), targets, names, {})
    places = np.arange(len(labels))
    fold = Fold(places[: len(train_labels)], places[len(train_labels) :])
    return score_vectors(rows, [torch.as_tensor(np.concatenate([train, test]))], fold)


class Embedder:
    """Embeds under any instruction; a dual model's text vectors are made once."""

    def __init__(self, model: Any) -> None:
        from instructor_st.modules import DualEncoderConcat

        self.model = model
        self.is_dual = isinstance(model[0], DualEncoderConcat)
        self.vectors: dict[str, Any] = {}

    def embed(self, texts: list[str], instruction: str) -> Any:
        from instructor_st.reinstruct import encode_text, reinstruct

        if not self.is_dual:
            return self.model.encode([[instruction, text] for text in texts], batch_size=64)
        if new := [text for text in dict.fromkeys(texts) if text not in self.vectors]:
            self.vectors.update(zip(new, encode_text(self.model, new, batch_size=64), strict=True))
        return reinstruct(self.model, np.stack([self.vectors[text] for text in texts]), instruction)


def train_in_full(model: Any, rows: list[tuple[str, str]], seed: int, folder: str) -> Any:
    """Train a copy of the model on the rows, all weights, with the loss that instruction finetuning uses."""
    from datasets import Dataset

    from instructor_st.training import InstructionTrainer, SupervisedContrastiveLoss, TrainArguments

    model = copy.deepcopy(model)
    names = sorted({label for _, label in rows})
    data = Dataset.from_dict(
        {"input": [[INSTRUCTION, text] for text, _ in rows], "label": [names.index(label) for _, label in rows]}
    )
    args = TrainArguments(
        output_dir=folder,
        num_train_epochs=8,
        per_device_train_batch_size=64,
        learning_rate=2e-5,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        precision="float32",
        seed=seed,
    )
    loss = SupervisedContrastiveLoss(model)
    from sentence_transformers.training_args import BatchSamplers

    args.batch_sampler = BatchSamplers.BATCH_SAMPLER
    InstructionTrainer(model=model, args=args, train_dataset=data, loss=loss).train()
    return model.eval()


def run(options: argparse.Namespace) -> None:
    """Measure, print a row a file and size, then the means."""
    import tempfile

    import torch

    from instructor_st import INSTRUCTOR
    from instructor_st.bundled_model import find_bundled_model
    from instructor_st.data import LabelledTexts
    from instructor_st.training.finetune import finetune_instructions
    from instructor_st.training.finetune_settings import FinetuneSettings

    torch.set_num_threads(options.threads)
    if options.model:
        model = INSTRUCTOR(options.model, device=options.device)
    else:
        model = INSTRUCTOR.from_encoder(find_bundled_model(), options.architecture, device=options.device)
    embedder = Embedder(model)
    given = yaml.safe_load("{" + ", ".join(each.replace("=", ": ") for each in options.set) + "}")
    print(
        "| data | rows a class | (a) centroid | logistic | (b) centroid | logistic | b - a | (c) centroid | logistic |"
        " s (b) | of these texts | s (c) | bytes (b) |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    gains: list[float] = []
    for path in options.files:
        split = read_split(path, options.max_test)
        tests, test_labels = (list(each) for each in zip(*split.test, strict=True))
        for size in options.sizes:
            found: dict[str, list[float]] = defaultdict(list)
            for seed in options.seeds:
                rows = draw_rows(split, size, seed)
                texts, labels = (list(each) for each in zip(*rows, strict=True))
                before = judge(
                    embedder.embed(texts, INSTRUCTION), labels, embedder.embed(tests, INSTRUCTION), test_labels
                )
                labelled = LabelledTexts("classes", tuple(texts), tuple(() for _ in texts), tuple(labels), {})
                settings = FinetuneSettings(**{"seed": seed, **given})
                result = finetune_instructions(
                    model, labelled, name="tuned", instruction=INSTRUCTION, settings=settings, show_progress_bar=False
                )
                after = judge(embedder.embed(texts, "tuned"), labels, embedder.embed(tests, "tuned"), test_labels)
                for metric in METRICS:
                    found[f"a {metric}"].append(before[metric])
                    found[f"b {metric}"].append(after[metric])
                found["gain"].append(statistics.fmean(after[m] - before[m] for m in METRICS))
                found["seconds"].append(result.report.seconds)
                found["text seconds"].append(result.report.text_seconds)
                found["bytes"].append(sum(task.num_bytes for task in result.tasks))
                if size in options.full_at and seed in options.full_seeds:
                    start = time.perf_counter()
                    with tempfile.TemporaryDirectory() as folder:
                        full = train_in_full(model, rows, seed, folder)
                    found["full seconds"].append(time.perf_counter() - start)
                    other = Embedder(full)
                    scores = judge(
                        other.embed(texts, INSTRUCTION), labels, other.embed(tests, INSTRUCTION), test_labels
                    )
                    for metric in METRICS:
                        found[f"c {metric}"].append(scores[metric])
            gains += found["gain"]
            names = [*(f"{case} {metric}" for case in "ab" for metric in METRICS), "gain"]
            cells = [show(found[name]) for name in [*names, *(f"c {metric}" for metric in METRICS)]]
            cells += [
                f"{statistics.fmean(found[name]):.1f}" if found[name] else "" for name in ("seconds", "text seconds")
            ]
            cells += [f"{statistics.fmean(found['full seconds']):.1f}" if found["full seconds"] else ""]
            cells += [f"{statistics.fmean(found['bytes']):.0f}"]
            print(f"| {path.name.split('.')[0]} | {size} | {' | '.join(cells)} |", flush=True)
    won = sum(gain > 0 for gain in gains)
    print(f"\nMean of b - a: {statistics.fmean(gains):+.4f} over {len(gains)} runs, of which {won} gain.")


def show(values: list[float]) -> str:
    """Mean and standard deviation."""
    if not values:
        return ""
    return f"{statistics.fmean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--architecture", choices=["dual", "prepend"], default="dual")
    parser.add_argument("--model")
    parser.add_argument("--device")
    parser.add_argument("--full-at", type=int, nargs="*", default=[])
    parser.add_argument("--full-seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--max-test", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], help="settings of FinetuneSettings, name=value")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
