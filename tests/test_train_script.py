"""`training_scripts/train.py`, launched as users launch it."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from instructor_st import INSTRUCTOR, DualEncoderConcat
from instructor_st.data import Row, load_starter_data
from instructor_st.tasks import get_tasks
from instructor_st.training import TrainArguments, load_trained_model
from tests.conftest import MINILM, REPOSITORY, T5

pytestmark = pytest.mark.slow


def launch(*arguments: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """accelerate starts several CPU processes through MPI, or through torchrun, as here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    several = ["--multi_gpu", "--num_processes", str(processes), "--main_process_port", port]
    command = [sys.executable, "-m", "accelerate.commands.launch", *(several if processes > 1 else ["--cpu"])]
    command += [str(REPOSITORY / "training_scripts" / "train.py"), *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)


def keep_distinct_texts(rows: list[Row]) -> list[Row]:
    """Rows that share no text: the sampler would put those in different batches, of other sizes."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        texts = {text.text for text in row.texts}
        if seen.isdisjoint(texts):
            seen |= texts
            kept.append(row)
    return kept


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two tasks of 64 and 48 rows, so that batches of 16 divide on one and on two processes."""
    folder = tmp_path_factory.mktemp("data")
    starter = load_starter_data(max_rows_per_task=None)
    for family, count in (("language", 64), ("dialogue", 48)):
        names = [task.name for task in get_tasks(family=family)]
        for part, rows_by_task in (("train", starter.train), ("held_out", starter.held_out)):
            (folder / part).mkdir(exist_ok=True)
            rows = keep_distinct_texts([row for name in names for row in rows_by_task[name]])[:count]
            records = [
                {"query": row.query, "positive": row.positive, "negative_1": row.negatives[0], "label": row.label}
                for row in rows
            ]
            (folder / part / f"{family}.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    assert sum(len(path.read_text().splitlines()) for path in (folder / "train").iterdir()) == 64 + 48
    return folder


def test_two_processes_give_the_losses_of_one_with_the_doubled_batch(data, tmp_path):
    histories, vectors = [], []
    for processes, batch_size in ((1, 16), (2, 8)):
        folder = tmp_path / str(processes)
        done = launch(
            *["--base", T5, "--data", str(data), "--output_dir", str(folder), "--num_train_epochs", "2"],
            *["--per_device_train_batch_size", str(batch_size), "--dropout", "0", "--precision", "float32"],
            *["--logging_steps", "1", "--disable_tqdm", "true", "--learning_rate", "3e-4"],
            processes=processes,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("Accuracy against hard negatives") == 1
        state = json.loads((folder / "checkpoint-14" / "trainer_state.json").read_text())
        histories.append([entry["loss"] for entry in state["log_history"] if "loss" in entry])
        vectors.append(INSTRUCTOR(str(folder / "final"), device="cpu").encode([["Represent the text: ", "harbour"]]))
    assert len(histories[0]) == 14  # (64 + 48) / 16 batches an epoch: no row is lost, none comes twice
    np.testing.assert_allclose(histories[0], histories[1], atol=1e-4, rtol=0)
    assert histories[0][-1] < histories[0][0]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-3)


def test_own_rows_in_flat_form_with_reports(tmp_path):
    rows = [
        {"query": f"what is number {i}", "pos": f"it is {i} apples", "neg": f"it was {i + 1} pears", "kind": "text"}
        for i in range(30)
    ]
    rows.append({"query": " ", "pos": "blank"})
    folder = tmp_path / "rows"
    folder.mkdir()
    with gzip.open(folder / "counting.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, rows)))
    done = launch(
        *["--base", T5, "--data", str(folder), "--output_dir", str(tmp_path / "out"), "--num_train_epochs", "1"],
        *["--query_instruction", "Represent the question: ", "--architecture", "dual", "--disable_tqdm", "true"],
        *["--save_strategy", "no"],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "27 training rows and 3 held-out rows of 1 tasks." in done.stdout
    assert "left out: blank query or positive: 1" in done.stdout
    assert "column 'kind' of counting.jsonl.gz is not used: 30" in done.stdout
    three_lines = [
        line for line in done.stdout.splitlines() if line.startswith(("from instr", "model =", "print(model"))
    ]
    assert len(three_lines) == 3
    ran = subprocess.run([sys.executable, "-c", "\n".join(three_lines)], capture_output=True, text=True, timeout=120)
    assert ran.stdout.strip() == "(1, 96)", ran.stderr
    results = json.loads((tmp_path / "out" / "final" / "results.json").read_text())
    assert {entry["condition"] for entry in results} == {"right", "none"}


def test_an_error_in_the_rows_is_one_line_with_its_place(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "positive": "b"}\n{"query": "a"}\n')
    done = launch("--base", T5, "--data", str(tmp_path / "rows.jsonl"), "--output_dir", str(tmp_path / "out"))
    assert done.returncode != 0
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("train.py: "))
    assert "rows.jsonl:2: no 'positive' among the columns ['query']" in line
    assert not (tmp_path / "out" / "final").exists()


def test_a_lone_cpu_process_is_pointed_out(data, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command += [str(REPOSITORY / "training_scripts" / "train.py"), "--data", str(tmp_path / "missing")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "This is the only process" in done.stderr
    assert "missing does not exist" in done.stderr
    assert "only process" not in launch("--data", str(tmp_path / "missing")).stderr


def test_an_instruction_model_is_trained_further_and_an_encoder_is_built_upon(tmp_path):
    dual = TrainArguments(output_dir=str(tmp_path / "out"), architecture="dual")
    built = load_trained_model(MINILM, dual)
    assert isinstance(built[0], DualEncoderConcat)
    built.save_pretrained(str(tmp_path / "built"))
    again = load_trained_model(str(tmp_path / "built"), TrainArguments(output_dir=str(tmp_path / "out")))
    assert isinstance(again, INSTRUCTOR)
    assert isinstance(again[0], DualEncoderConcat)
