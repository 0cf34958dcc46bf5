"""`training_scripts/mine_negatives.py`, and the mining of folders behind it."""

from __future__ import annotations

import importlib.util
import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from instructor_st.data import load_training_data, read_rows
from instructor_st.data.mining.folder import mine_folder, plan_mining, write_mining_report
from instructor_st.data.mining.mine_task import MiningOptions
from tests.conftest import MINILM, REPOSITORY

OPTIONS = MiningOptions(num_negatives=2, range_min=0, relative_margin=None)


class Compass:
    """Texts hold their directions in degrees; it can be stopped at an instruction."""

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.calls = 0

    def encode(self, inputs, **_):
        self.calls += 1
        if any(self.stop_at == instruction for instruction, _ in inputs):
            raise KeyboardInterrupt
        angles = [math.radians(float(text.split("@")[1])) for _, text in inputs]
        return np.array([[math.cos(angle), math.sin(angle)] for angle in angles])


def write_task(folder: Path, name: str, count: int = 8, task: str | None = None, **columns) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    task = task or name
    records = [
        {"query": [f"{task}: ", f"q@{7 * n}"], "positive": ["d: ", f"d@{7 * n + 1}"], "task": task, **columns}
        for n in range(count)
    ]
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for task in ("a", "b", "c"):
        write_task(folder / "train", task)
    write_task(folder / "held_out", "a", 2)
    (folder / "held_out" / "note.txt").write_text("as it is")
    return folder


def run(data, output, model=None, options=OPTIONS, identity="compass"):
    plan = plan_mining(data, output, identity=identity, options=options)
    counts = mine_folder(plan, model or Compass(), show_progress_bar=False)
    write_mining_report(plan, counts, model="some/model")
    return plan


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_mined_and_its_held_out_rows_kept(data, tmp_path):
    write_task(data, "beside")  # where there are train/ and held_out/, training reads nothing else
    run(data, tmp_path / "out")
    files = read_files(tmp_path / "out")
    assert {name for name in files if not name.startswith(".mining")} == {
        *(f"train/{task}.parquet" for task in "abc"),
        *("held_out/a.jsonl", "held_out/note.txt", "mining_report.json", "mining_report.md"),
    }
    assert files["held_out/a.jsonl"] == (data / "held_out" / "a.jsonl").read_bytes()
    mined = load_training_data(tmp_path / "out")
    assert {task: len(rows) for task, rows in mined.train.items()} == {"a": 8, "b": 8, "c": 8}
    assert [list(text) for text in mined.train["a"][0].texts] == [
        *(["a: ", "q@0"], ["d: ", "d@1"], ["d: ", "d@8"], ["d: ", "d@15"]),
    ]
    before = list(read_rows(data / "train"))
    assert [replace(row, negatives=()) for row in read_rows(tmp_path / "out" / "train")] == before


def test_the_report_has_counts_and_no_times_or_folders(data, tmp_path):
    write_task(data / "train", "x|y", 2)
    run(data, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "mining_report.json").read_text())
    assert report["model"] == "some/model"
    assert report["read"] == {"rows read": 26}
    assert report["total"]["negatives mined"] == 3 * 8 * 2 + 2
    assert report["tasks"]["x|y"]["rows with fewer negatives: too few candidates"] == 2
    assert report["options"]["range_max"] == 100
    text = (tmp_path / "out" / "mining_report.md").read_text()
    assert "| a | 8 | 8 | 0 | 16 |  |  |" in text
    assert "| x&#124;y | 2 | 2 | 0 | 2 | too few candidates 2 |  |" in text
    assert "more negatives with a lower `range_min`" in text
    assert str(tmp_path) not in text + json.dumps(report)


@pytest.mark.parametrize("stop_at", ["a", "b", "c"])
def test_a_stopped_run_goes_on_and_leaves_the_same_bytes(data, tmp_path, stop_at):
    random_options = replace(OPTIONS, sampling_strategy="random", seed=3)
    run(data, tmp_path / "whole", options=random_options)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "stopped", Compass(f"{stop_at}: "), random_options)
    assert not (tmp_path / "stopped" / "mining_report.json").exists()
    model = Compass()
    run(data, tmp_path / "stopped", model, random_options)
    assert model.calls == 1 + "cba".index(stop_at)
    assert read_files(tmp_path / "stopped") == read_files(tmp_path / "whole")


def test_finished_tasks_are_kept_unless_something_they_depend_on_changes(data, tmp_path):
    out = tmp_path / "out"
    run(data, out)
    files = read_files(out)

    def count_calls(**changes) -> int:
        model = Compass()
        run(data, out, model, **changes)
        return model.calls

    assert count_calls() == 0
    assert read_files(out) == files
    assert count_calls(options=replace(OPTIONS, num_negatives=3)) == 3
    assert count_calls(identity="another") == 3
    assert count_calls(identity="another") == 0
    assert count_calls() == 3
    write_task(data / "train", "b", label="x")
    assert count_calls() == 1
    (out / "train" / "a.parquet").write_bytes(b"damaged")
    assert count_calls() == 1
    (out / ".mining" / "tasks" / "a.json").write_text("{")
    assert count_calls() == 1
    write_task(data / "train", "b")
    assert count_calls() == 1
    assert read_files(out) == files


def test_shards_of_tasks_that_are_no_more_are_removed_and_strange_files_are_not(data, tmp_path):
    out = tmp_path / "out"
    run(data, out)
    (data / "train" / "c.jsonl").unlink()
    (out / "train" / "own.csv").write_text("query,positive\na,b\n")
    with pytest.raises(ValueError, match=r"holds train/own.csv, which this run does not write"):
        run(data, out)
    assert (out / "train" / "c.parquet").exists()
    (out / "train" / "own.csv").unlink()
    assert len(run(data, out).outdated) == 2
    assert not (out / "train" / "c.parquet").exists()
    assert json.loads((out / "mining_report.json").read_text())["tasks"].keys() == {"a", "b"}


def test_layouts_without_a_split_and_strange_task_names(data, tmp_path):
    for name in ("one", "One", "../up", "v1.0"):
        write_task(tmp_path / "flat", name.replace("/", "_"), task=name)
    write_task(tmp_path / "flat", "one2", 2, task="one")  # a task's rows may lie in several files
    run(tmp_path / "flat", tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").glob("*.parquet"))
    assert len(names) == 4
    assert "v1.0.parquet" in names
    assert len({name.lower() for name in names}) == 4
    rows = list(read_rows(tmp_path / "out"))
    assert sorted({row.task for row in rows}) == ["../up", "One", "one", "v1.0"]
    assert sum(row.task == "one" for row in rows) == 10
    # held_out/ without train/: all else is mined.
    (data / "train").rename(data / "rows")
    run(data, tmp_path / "half")
    assert sorted(path.name for path in (tmp_path / "half" / "train").iterdir()) == [f"{x}.parquet" for x in "abc"]
    assert len(list(read_rows(tmp_path / "half" / "train"))) == 3 * 8
    run(data / "rows" / "a.jsonl", tmp_path / "file")
    assert (tmp_path / "file" / "a.parquet").exists()
    for inside in (data, data / "out"):
        with pytest.raises(ValueError, match="lies in the data"):
            run(data, inside)


SCRIPT = REPOSITORY / "training_scripts" / "mine_negatives.py"


@pytest.fixture
def launch(monkeypatch, capsys):
    """Run the script in this process; what it prints."""
    spec = importlib.util.spec_from_file_location("mine_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mine_script", script)  # dataclasses look their module up
    spec.loader.exec_module(script)

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [SCRIPT.name, *arguments])
        script.main()
        return capsys.readouterr().out

    return call


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks that take the bundled model a moment each."""
    folder = tmp_path_factory.mktemp("questions")
    for task in ("capitals", "rivers", "kings"):
        records = [
            {
                "query": [f"Represent the question about {task}: ", f"What of {task} number {n}?"],
                "positive": [f"Represent the answer about {task}: ", f"Of {task}, {n} is " + "a long story. " * 12],
                "task": task,
            }
            for n in range(30)
        ]
        (folder / f"{task}.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_killed_run_goes_on(questions, tmp_path, launch):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    arguments = ["--data", str(questions), "--model", MINILM, "--num_negatives", "3", "--sampling_strategy", "random"]
    arguments += ["--no_relative_margin"]
    out = launch(*arguments, "--output", str(whole))
    assert "90  rows read" in out
    assert "270  negatives mined" in out
    assert "(0 were there already)" in out
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments, "--output", str(killed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    started = time.monotonic()
    while process.poll() is None and not list(killed.glob(".mining/tasks/*.json")) and time.monotonic() - started < 120:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.communicate(timeout=60)[1] is not None
    assert process.returncode == -signal.SIGKILL
    assert 0 < len(list(killed.glob(".mining/tasks/*.json"))) < 3
    before = read_files(killed)
    out = launch(*arguments, "--output", str(killed), "--dry-run")
    assert "capitals: 30 rows, 30 documents, 1 wording(s); there already" in out
    assert "rivers: 30 rows, 30 documents, 1 wording(s); to be mined" in out
    assert "Nothing was written" in out
    assert read_files(killed) == before
    launch(*arguments, "--output", str(killed))
    assert read_files(killed) == read_files(whole)


@pytest.mark.slow
def test_the_bundled_model_and_an_instruction_model(questions, prepend_model, tmp_path, launch):
    prepend_model.save_pretrained(str(tmp_path / "model"))
    arguments = ["--data", str(questions / "kings.jsonl"), "--no_relative_margin", "--output"]
    launch(*arguments, str(tmp_path / "bundled"))
    launch(
        *arguments, str(tmp_path / "own"), "--model", str(tmp_path / "model"), "--cache_folder", str(tmp_path / "cache")
    )
    reports = [json.loads((tmp_path / name / "mining_report.json").read_text()) for name in ("bundled", "own")]
    assert reports[0]["model"] != reports[1]["model"] == "model"
    assert reports[0]["options"]["relative_margin"] is None
    assert list((tmp_path / "cache").glob("*.npy"))
    # A prompt is pooled along, an instruction is not.
    assert list(read_rows(tmp_path / "bundled")) != list(read_rows(tmp_path / "own"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "mine_negatives.py: nowhere does not exist"),
        (["--num_negatives", "100"], "mine_negatives.py: range_min=10 and range_max=100 leave 90 candidates"),
        (["--cross_encoder", "x", "--no_relative_margin"], "mine_negatives.py: A cross-encoder refuses candidates by"),
    ],
)
def test_errors_are_one_line(questions, tmp_path, launch, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        launch("--data", str(questions), "--output", str(tmp_path / "out"), *arguments)
    assert str(stopped.value).startswith(message)
    assert not (tmp_path / "out").exists()
