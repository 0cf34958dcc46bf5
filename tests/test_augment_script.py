"""`training_scripts/augment.py`, with translation models of a toy language."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from instructor_st.data import read_rows
from tests.conftest import REPOSITORY
from tests.toy_translation import get_translators, make_sentences, translate

SCRIPT = REPOSITORY / "training_scripts" / "augment.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("augment_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def translators(tmp_path_factory) -> tuple[str, str]:
    forward, backward = get_translators(tmp_path_factory.getbasetemp())
    return str(forward), str(backward)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Three tasks of 6, 40 and 60 rows, all of different texts but one query that two tasks share."""
    folder = tmp_path_factory.mktemp("rows")
    sentences = iter(make_sentences(300))
    shared = next(sentences)
    for part, task, count in (("train", "a", 6), ("train", "b", 40), ("train", "c", 60), ("held_out", "a", 2)):
        (folder / part).mkdir(exist_ok=True)
        records = []
        for number in range(count):
            query = shared if number == 0 and task != "a" else next(sentences)
            records.append({"query": ["q: ", query], "positive": ["d: ", next(sentences)]})
        (folder / part / f"{task}.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return folder


def read_outcome(folder: Path) -> dict[str, bytes]:
    """All files but the cache, whose pages depend on the order of writing."""
    files = [path for path in folder.rglob("*") if path.is_file() and "candidates.sqlite" not in path.name]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


def count_cached(folder: Path) -> int:
    path = folder / ".augment" / "candidates.sqlite"
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            return database.execute("SELECT count(*) FROM candidates").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


@pytest.mark.slow
def test_rows_are_translated_there_and_back(script, translators, data, tmp_path, capsys):
    options = ["--data", str(data), "--back-translate", *translators, "--min-similarity", "0.6", "--dtype", "float32"]
    script.main([*options, "--output", str(tmp_path / "dry"), "--dry-run"])
    printed = capsys.readouterr().out
    # 106 queries and 106 positives, one query twice, which is generated for once but asked for by two tasks.
    assert "c: 60 rows, 120 different texts, 120 of them to generate for" in printed
    assert not (tmp_path / "dry").exists()

    script.main([*options, "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "Generated for 211 texts; the candidates of 1 were there already." in printed
    old = [row.texts for row in read_rows(data / "train")]
    rows = list(read_rows(tmp_path / "out" / "train"))
    new = [row for row in rows if row.texts not in old]
    assert len(rows) - len(new) == 106
    assert len(new) > 106
    # The numbers filter takes away what the translators got wrong most often.
    known = {(translate(query.text), translate(positive.text)) for query, positive in old}
    right = [(translate(row.query.text), translate(row.positive.text)) in known for row in new]
    assert sum(right) / len(right) > 0.8
    assert all(row.query.instruction == "q: " and row.positive.instruction == "d: " for row in rows)

    script.main([*options, "--output", str(tmp_path / "out"), "--dry-run"])
    assert "0 texts of 3 tasks to generate for" in capsys.readouterr().out
    script.main([*options, "--output", str(tmp_path / "out"), "--num-augments", "1"])
    printed = capsys.readouterr().out
    assert "Generated for 0 texts; the candidates of 212 were there already." in printed
    assert "2 of 3 tasks" not in printed
    script.main([*options, "--output", str(tmp_path / "out"), "--num-augments", "1"])
    assert "3 of 3 tasks were there already." in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_run_goes_on_and_leaves_what_an_undisturbed_one_leaves(script, translators, data, tmp_path, capsys):
    options = ["--data", str(data), "--paraphrase", translators[0], "--min-similarity", "-1", "--sample"]
    options += ["--temperature", "1.5", "--batch-size", "2", "--device", "cpu"]
    script.main([*options, "--output", str(tmp_path / "whole")])
    capsys.readouterr()
    total = count_cached(tmp_path / "whole")
    assert total == 211

    output = tmp_path / "killed"
    command = [sys.executable, str(SCRIPT), *options, "--output", str(output)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    before, deadline = None, time.monotonic() + 120
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        # Killed amid the second task.
        while time.monotonic() < deadline and process.poll() is None:
            if before is None and (output / ".augment" / "tasks" / "a.json").exists():
                before = count_cached(output)
            if before is not None and count_cached(output) > before + 4:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()[-3000:]
    seen = count_cached(output)
    assert 12 < seen < total
    assert not (output / "train" / "b.parquet").exists()

    script.main([*options, "--output", str(output)])
    printed = capsys.readouterr().out
    (generated,) = re.findall(r"Generated for (\d+) texts", printed)
    assert int(generated) == total - seen
    assert "1 of 3 tasks were there already." in printed
    whole, killed = read_outcome(tmp_path / "whole"), read_outcome(output)
    assert whole.keys() == killed.keys()
    assert {"train/c.parquet", "held_out/a.jsonl", "augmentation_report.json", "augmentation_report.md"} < whole.keys()
    assert whole == killed
    assert len(list(read_rows(output / "train"))) > 106


def test_models_get_their_own_options(script):
    start = ["--data", "d", "--output", "o"]
    options = ["--revision", "r1", "r2", "--template", ">>de<< {text}", "{text}", "--languages", "en", "de"]
    arguments = script.parse_arguments([*start, "--back-translate", "f", "b", *options])
    forward, backward = script.find_checkpoints(arguments)
    assert (forward.model, forward.revision, forward.template) == ("f", "r1", ">>de<< {text}")
    assert (forward.source_language, forward.target_language) == ("en", "de")
    assert (backward.model, backward.revision, backward.template) == ("b", "r2", "{text}")
    assert (backward.source_language, backward.target_language) == ("de", "en")
    (model,) = script.find_checkpoints(script.parse_arguments([*start, "--paraphrase", "p", "--languages", "en", "en"]))
    assert (model.source_language, model.target_language) == ("en", "en")
    (model,) = script.find_checkpoints(script.parse_arguments([*start, "--paraphrase", "p"]))
    assert (model.revision, model.template, model.source_language, model.target_language) == (None, None, None, None)
    arguments = script.parse_arguments([*start, "--back-translate", "f", "b", "--revision", "r1"])
    with pytest.raises(ValueError, match="--revision needs 2 value"):
        script.find_checkpoints(arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "missing"], "missing does not exist"),
        (["--paraphrase", "no/such/model"], "neither a folder nor the id of a Hub model"),
        (["--num-beams", "0"], "num_beams must be 1 or more, not 0"),
        (["--sample", "--temperature", "0"], "temperature must be above 0"),
        (["--output", "rows.jsonl/out"], "whose rows would then be read again"),
        (["--output", "full"], "full holds other files"),
    ],
)
def test_errors_are_one_line(script, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"query": "a", "positive": "b"}\n')
    Path("full").mkdir()
    Path("full", "file").touch()
    t5 = str(REPOSITORY / "tests" / "fixtures" / "t5-tiny-instructor")
    with pytest.raises(SystemExit) as stopped:
        script.main(["--data", "rows.jsonl", "--output", "out", "--paraphrase", t5, *options])
    assert str(stopped.value).startswith("augment.py: ")
    assert message in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert not Path("out").exists()
    assert os.listdir("full") == ["file"]
