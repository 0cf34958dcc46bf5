"""`training_scripts/build_data.py`, run as users run it, and stopped as machines stop it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY

SCRIPT = str(REPOSITORY / "training_scripts" / "build_data.py")
MIXTURE_FILE = REPOSITORY / "training_scripts" / "configs" / "open_text_mixture.yaml"
WORDS = ["river", "engine", "garden", "letter", "winter", "bridge", "market", "doctor", "candle", "forest"]


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, SCRIPT, *arguments], stdout=pipe, stderr=pipe, text=True, env=environment)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    process = start(*arguments)
    output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@pytest.fixture
def mixture(tmp_path) -> Path:
    """Eight tasks that the real scoring model has to look at, and one that it has not."""
    draw = random.Random(0)
    tasks = []
    for number in range(8):
        path = tmp_path / f"classes_{number}.jsonl"
        texts = [f"{' '.join(draw.sample(WORDS, 5))} {place}" for place in range(120)]
        path.write_text("".join(json.dumps({"text": text, "label": len(text) % 3}) + "\n" for text in texts))
        instructions = {"query": {"instruction": f"Represent list {number}: ", "paraphrases": ["words: "]}}
        task = {"name": f"classes_{number}", "source": {"files": path.name}, "kind": "classes"}
        tasks.append({**task, "instructions": instructions, "shares_texts": "ab" if number < 2 else None})
    (tmp_path / "pairs.csv").write_text("query,positive\n" + "".join(f"query {n},answer {n}\n" for n in range(50)))
    pairs = {"query": "Represent the query: ", "document": "Represent the answer: "}
    tasks.append({"name": "pairs", "source": {"files": "pairs.csv"}, "kind": "pairs", "instructions": pairs})
    file = tmp_path / "mixture.yaml"
    file.write_text(yaml.safe_dump({"name": "words", "near_duplicates": 0.95, "tasks": tasks}))
    return file


def read(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".build" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.slow
def test_killed_ten_times_it_leaves_the_same_bytes(mixture, tmp_path):
    done = run(str(mixture), "--output", str(tmp_path / "calm"))
    assert done.returncode == 0, done.stderr
    assert "training rows" in done.stdout
    seconds = time.perf_counter()
    assert run(str(mixture), "--output", str(tmp_path / "calm")).returncode == 0
    seconds = time.perf_counter() - seconds
    draw = random.Random(1)
    finished = 0
    for _ in range(10):
        process = start(str(mixture), "--output", str(tmp_path / "killed"))
        # From the start of the imports to well into the work: a run of its own takes longer than one that finds all done.
        time.sleep(draw.uniform(0.4, 1.3) * seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        finished += process.returncode == 0
    assert finished < 10
    done = run(str(mixture), "--output", str(tmp_path / "killed"))
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "killed") == read(tmp_path / "calm")
    assert not list((tmp_path / "killed").rglob("*.partial*"))


@pytest.mark.slow
def test_a_dry_run_writes_nothing(mixture, tmp_path):
    done = run(str(mixture), "--output", str(tmp_path / "out"), "--dry-run", "--task", "pairs")
    assert done.returncode == 0, done.stderr
    assert "pairs: pairs, at most 2000 rows" in done.stdout
    assert "1 tasks. Nothing was written" in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "pears"], "no task 'pears' in the mixture"),
        (["--task", "classes_3"], r"classes_3.jsonl does not exist"),
    ],
)
def test_errors_are_one_line(mixture, tmp_path, arguments, message):
    (tmp_path / "classes_3.jsonl").unlink()
    done = run(str(mixture), "--output", str(tmp_path / "out"), *arguments)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("build_data.py: ")]
    assert message in line
    assert "Traceback" not in done.stderr


def test_the_mixture_in_the_repository_is_sound(monkeypatch, tmp_path):
    from instructor_st.data.building.mixture import read_mixture

    monkeypatch.setenv("INSTRUCTOR_DATA", str(tmp_path))
    mixture = read_mixture(MIXTURE_FILE)
    assert len(mixture.tasks) >= 100
    instructions = [(task.sides.query.instruction, task.sides.document.instruction) for task in mixture.tasks]
    assert len(set(instructions)) == len(instructions)
    for task in mixture.tasks:
        assert task.source.files.parent == tmp_path
        assert len(set(task.sides.query.wordings)) >= 4
        assert all(wording.endswith(": ") for wording in (*task.sides.query.wordings, *task.sides.document.wordings))
