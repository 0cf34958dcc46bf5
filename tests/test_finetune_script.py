"""`training_scripts/finetune_instructions.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from instructor_st import INSTRUCTOR
from instructor_st.modules import TunedTask
from instructor_st.training import predict
from tests.conftest import MINILM, REPOSITORY

SCRIPT = str(REPOSITORY / "training_scripts" / "finetune_instructions.py")
SENTENCES = {
    "weather": [
        "it rains",
        "the storm is near",
        "snow fell overnight",
        "a dry and sunny day",
        "fog on the hills",
        "hail",
    ],
    "food": ["soup and bread", "she bakes a cake", "fresh pasta", "too much salt", "a ripe pear", "we fried the fish"],
}


def run(*arguments, launcher=()):
    command = [sys.executable, *launcher, SCRIPT, *map(str, arguments)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"text": text, "label": label}) for label, texts in SENTENCES.items() for text in texts]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.slow
def test_a_task_is_tuned_written_and_used(rows, tmp_path):
    output, saved = tmp_path / "tuned", tmp_path / "model"
    options = ["--data", rows, "--name", "topics", "--instruction", "Represent the topic: ", "--output", output]
    done = run(*options, "--save_model", saved, "--max_epochs", 4)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "12 rows with classes, 12 texts; the model begins with DualEncoderConcat." in done.stdout
    assert "weather: 6, food: 6" in done.stdout
    task = TunedTask.load(output / "topics")
    report = json.loads((output / "topics" / "report.json").read_text())
    assert report["verdict"] in done.stdout
    assert report["verdict"] in (output / "topics" / "report.md").read_text()
    assert {change["metric"] for change in report["changes"]} == {"centroid_accuracy", "logistic_accuracy"}
    model = INSTRUCTOR(str(saved), device="cpu")
    assert list(model.tuned_tasks) == ["topics"]
    assert predict(model, ["thunder", "an apple pie"], task="topics").labels == ["weather", "food"]
    # The folder alone does the same for another copy of the model.
    other = INSTRUCTOR.from_encoder(MINILM, "dual", device="cpu")
    other.add_tuned_task(output / "topics")
    pairs = [["topics", "thunder"], ["topics", "an apple pie"]]
    np.testing.assert_allclose(other.encode(pairs), model.encode(pairs), atol=1e-6)
    assert task.num_bytes < 3_000_000

    again = run(*options)
    assert again.returncode != 0
    assert again.stderr.strip().endswith("exists; name another folder, or say --overwrite.")


@pytest.mark.slow
def test_a_dry_run_writes_nothing_and_two_processes_tune_as_one(rows, tmp_path):
    options = ["--data", rows, "--name", "topics", "--instruction", "Represent the topic: ", "--max_epochs", 4]
    dry = run(*options, "--output", tmp_path / "dry", "--dry_run")
    assert dry.returncode == 0, dry.stderr[-2000:]
    assert "Nothing was written (dry run)." in dry.stdout
    assert not (tmp_path / "dry").exists()
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    reports = []
    for name, how in (("one", ()), ("two", launcher)):
        done = run(*options, "--output", tmp_path / name, launcher=how)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("12 rows with classes") == 1
        reports.append(json.loads((tmp_path / name / "topics" / "report.json").read_text()))
    for timed in ("seconds", "text_seconds"):
        assert reports[0].pop(timed) > 0 < reports[1].pop(timed)
    assert reports[0] == reports[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "absent.jsonl", "--name", "topics"], "absent.jsonl: no such file."),
        (["--data", "ROWS", "--name", "My Task"], "'My Task' cannot name a tuned task"),
        (["--data", "ROWS", "--name", "topics", "--temperature", "0"], "temperature and learning_rate must be above 0"),
        (
            ["--data", "ROWS", "--name", "t", "--document_instruction", "x: "],
            "document_instruction is for rows with answers",
        ),
    ],
)
def test_faults_end_with_one_line(rows, tmp_path, arguments, message):
    arguments = [str(rows) if each == "ROWS" else each for each in arguments]
    done = run(*arguments, "--output", tmp_path / "out")
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
