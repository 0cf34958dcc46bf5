"""`training_scripts/train.py` where the best model cannot be told: one line, before the first step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import T5
from tests.test_train_faults import refuse
from tests.training.small_trainer import make_rows

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def keep_threads():
    """The script takes all cores, which this process keeps otherwise."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def write(tmp_path):
    def write_rows(*, negatives: bool = True, held_out: bool = True) -> Path:
        for part, rows in {
            "train": make_rows("one"),
            **({"held_out": make_rows("one", 3)} if held_out else {}),
        }.items():
            (tmp_path / "data" / part).mkdir(parents=True)
            records = [
                {
                    "query": row.query,
                    "positive": row.positive,
                    **({"negative_1": row.negatives[0]} if negatives else {}),
                }
                for row in rows
            ]
            (tmp_path / "data" / part / "one.jsonl").write_text("\n".join(map(json.dumps, records)))
        return tmp_path / "data"

    return write_rows


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        (
            {},
            ["--metric_for_best_model", "eval_loss"],
            "metric_for_best_model: 'eval_loss' is not evaluated; there are eval_held_out_accuracy, "
            "eval_held_out_mean_reciprocal_rank.",
        ),
        ({"negatives": False}, [], "'eval_held_out_accuracy' is NaN for these held-out rows"),
        ({"held_out": False}, [], "eval_strategy is epoch, and there are no held-out rows to evaluate with."),
        ({}, ["--eval_strategy", "no"], "load_best_model_at_end needs evaluations"),
    ],
    ids=["unknown", "nan", "nothing held out", "no evaluation"],
)  # fmt: skip
def test_a_best_model_that_cannot_be_told_is_one_line_before_training(
    write, tmp_path, monkeypatch, rows, flags, message
):
    line = refuse(
        monkeypatch,
        *["--base", T5, "--data", str(write(**rows)), "--output_dir", str(tmp_path / "out"), "--precision", "float32"],
        *["--load_best_model_at_end", "true", "--eval_strategy", "epoch", "--per_device_train_batch_size", "4"],
        *["--held_out_share", "0", *flags],
    )
    assert message in line
    assert not list((tmp_path / "out").glob("*"))
