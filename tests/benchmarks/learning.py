"""Is learning real? Held-out accuracy with the right, a wrong and no instruction, before and after, over several seeds.

Runs train.py for every architecture and seed, one after the other, and prints means and spreads; runs that are done are not
repeated. What follows `--` goes to train.py.

python tests/benchmarks/learning.py --data outputs/mixture --output outputs/learning [--seeds 0 1 2] [--architectures prepend dual] -- --max_seq_length 128
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "training_scripts" / "train.py"
CONDITIONS = ("right", "wrong", "none")


def train(folder: Path, flags: list[str]) -> None:
    """Run the training script, unless its results are there."""
    if (folder / "final" / "results.json").exists():
        return
    command = [sys.executable, str(SCRIPT), "--output_dir", str(folder), "--overwrite", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.txt").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")


def read_accuracies(folder: Path) -> dict[str, dict[str, float]]:
    """Mean accuracy over tasks by state (before, after) and condition."""
    values: dict[str, dict[str, list[float]]] = {"before": defaultdict(list), "after": defaultdict(list)}
    for entry in json.loads((folder / "final" / "results.json").read_text()):
        if entry["metric"] == "accuracy":
            state = "after" if entry["model"] == str(folder / "final") else "before"
            values[state][entry["condition"]].append(entry["value"])
    return {state: {name: statistics.fmean(each) for name, each in found.items()} for state, found in values.items()}


def format_spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def main() -> None:
    """Train, read, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--architectures", nargs="+", default=["prepend", "dual"])
    parser.add_argument("flags", nargs="*", help="flags of train.py, behind --")
    options = parser.parse_args()
    print("| architecture | | right | wrong | none | right - wrong |")
    print("|---|---|---:|---:|---:|---:|")
    for architecture in options.architectures:
        runs = []
        for seed in options.seeds:
            folder = options.output / f"{architecture}-{seed}"
            own = ["--data", str(options.data), "--architecture", architecture, "--seed", str(seed)]
            train(folder, [*own, "--save_strategy", "no", *options.flags])
            runs.append(read_accuracies(folder))
        for state in ("before", "after"):
            columns = [[run[state][condition] for run in runs] for condition in CONDITIONS]
            columns.append([run[state]["right"] - run[state]["wrong"] for run in runs])
            # The untrained model is the same for every seed.
            cells = [format_spread(column[:1] if state == "before" else column) for column in columns]
            print(f"| {architecture} | {state} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
