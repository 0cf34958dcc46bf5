"""`instructor-st`, run in this process and once as the installed command."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from instructor_st.cli import main
from instructor_st.tasks import get_tasks
from instructor_st.tasks.catalog_files import read_catalog_file, write_catalog_file
from instructor_st.tasks.registry import CATALOG_FOLDER

COMMAND = str(Path(sys.executable).with_name("instructor-st"))


@pytest.fixture
def catalog(tmp_path) -> Path:
    """A copy of the packaged catalog, to be written to."""
    return Path(shutil.copytree(CATALOG_FOLDER, tmp_path / "catalog"))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_installed_command():
    done = subprocess.run([COMMAND, "tasks", "list", "--type", "sts"], capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == [task.name for task in get_tasks(type="sts")]


def test_a_reader_that_stops_early_is_no_error():
    process = subprocess.Popen([COMMAND, "tasks", "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(20).startswith(b'{"name":')
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 0


def test_list(capsys):
    assert main(["tasks", "list"]) == 0
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == len(get_tasks())
    assert output.err == f"{len(get_tasks())} tasks\n"
    assert main(["tasks", "list", "--json", "--domain", "law", "--no-symmetric"]) == 0
    names = [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]
    assert names == [task.name for task in get_tasks(domain="law", symmetric=False)]
    with pytest.raises(SystemExit):
        main(["tasks", "list", "--type", "serch"])
    assert main(["tasks", "list", "--family", "serch"]) == 1
    assert "No task has family='serch'" in capsys.readouterr().err


def test_show(capsys):
    assert main(["tasks", "show", "massive_intent"]) == 0
    shown = capsys.readouterr().out
    assert "review: " in shown
    assert "wrong on purpose: 'Represent the " in shown
    assert main(["tasks", "show", "massive_intent", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "massive_intent"
    assert main(["tasks", "show", "masive_intent"]) == 1
    assert capsys.readouterr().err.startswith("instructor-st: No task 'masive_intent' in the registry.")


def test_lint_and_format(capsys, catalog):
    assert main(["tasks", "lint", "--catalog", str(catalog)]) == 0
    path = catalog / "intents.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("Represent the ", "Embed the ", 1), encoding="utf-8")
    assert main(["tasks", "lint", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"{path}:massive_intent: rule 3: query.instruction must read") for line in lines)
    assert main(["tasks", "lint", "--catalog", str(catalog)]) == 1
    assert "the index is not that of the files" in capsys.readouterr().out
    before = snapshot(catalog)
    assert main(["tasks", "format", "--catalog", str(catalog), "--check"]) == 1
    assert snapshot(catalog) == before
    assert main(["tasks", "format", "--catalog", str(catalog)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"changed: {catalog / 'index.jsonl'}"
    assert main(["tasks", "format", "--catalog", str(catalog), "--check"]) == 0


def test_a_broken_file_of_the_catalog_is_a_finding(capsys, catalog):
    path = catalog / "intents.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("    type: ", "    typ: ", 1), encoding="utf-8")
    assert main(["tasks", "lint", str(path), "--catalog", str(catalog)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(
        f"{path}:-: rule 1: {path}:4: task 'massive_intent', typ: unknown field. Did you mean 'type'?"
    )
    assert main(["tasks", "list", "--catalog", str(catalog)]) == 1
    assert capsys.readouterr().err.startswith(f"instructor-st: {path}:4: ")


def test_formatting_a_file_of_ones_own_makes_no_index(capsys, tmp_path):
    path = tmp_path / "similarity.yaml"
    text = (CATALOG_FOLDER / "similarity.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("about: ", "about:   ", 1), encoding="utf-8")
    (tmp_path / "unrelated.yaml").write_text("a: 1\n")
    assert main(["tasks", "format", str(path)]) == 0
    assert capsys.readouterr().out == f"changed: {path}\n"
    assert path.read_text(encoding="utf-8") == text
    assert not (tmp_path / "index.jsonl").exists()


def test_a_given_file_is_held_against_the_catalog(capsys, tmp_path):
    file = read_catalog_file(CATALOG_FOLDER / "similarity.yaml")
    copies = [task.model_copy(update={"name": f"my_{task.name}"}) for task in file.tasks]
    # The name of the file is no matter, and may be that of a family of the catalog.
    for path in (tmp_path / "mine.yaml", tmp_path / "similarity.yaml"):
        write_catalog_file(path, "Mine.", tasks=copies)
        assert main(["tasks", "lint", str(path)]) == 1
        assert f"{path}:my_stsb: rule 14: stsb has the same instructions" in capsys.readouterr().out


def fill(path: Path, target: Path, judge: str, **changes: str) -> Path:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(target, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        filled = {"judge": judge, "verdict": "accept", "clarity": "5", "fitness": "4", **changes}
        writer.writerows({**row, **filled} for row in rows)
    return target


def test_review_from_export_to_accepted(capsys, catalog, tmp_path):
    options = ["--catalog", str(catalog)]
    names = ["massive_intent", "stsb"]
    arguments = [part for name in names for part in ("--task", name)]
    assert main(["tasks", "review", "export", *arguments, "--output", str(tmp_path / "review"), *options]) == 0
    sheet = tmp_path / "review" / "judgements.csv"
    sheets = [str(fill(sheet, tmp_path / f"{judge}.csv", judge)) for judge in ("anna", "ben", "chidi")]
    before = snapshot(catalog)
    assert main(["tasks", "review", "import", *sheets, *options, "--dry-run"]) == 0
    assert "Nothing was changed (dry run)" in capsys.readouterr().out
    assert snapshot(catalog) == before
    assert main(["tasks", "review", "import", *sheets, *options]) == 0
    output = capsys.readouterr().out
    assert "stsb: " in output
    assert "-> accepted" in output
    assert "Krippendorff's alpha over 2 tasks and 3 judges: verdict undefined (all alike)" in output
    changed = {name for name, content in snapshot(catalog).items() if before[name] != content}
    assert changed == {"intents.yaml", "similarity.yaml", "index.jsonl", "README.md"}
    assert main(["tasks", "list", "--state", "accepted", *options]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == names
    assert main(["tasks", "lint", *options]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "nobody"}, "no task 'nobody' in the catalog"),
        ({"judge": "anna"}, "anna has judged wording"),
        ({"clarity": "9"}, "clarity must be a whole number"),
    ],
)
def test_faulty_judgements_change_no_file(capsys, catalog, tmp_path, changes, message):
    options = ["--catalog", str(catalog)]
    main(["tasks", "review", "export", "--task", "stsb", "--output", str(tmp_path / "review"), *options])
    sheet = tmp_path / "review" / "judgements.csv"
    first, second = (
        fill(sheet, tmp_path / "a.csv", "anna"),
        fill(sheet, tmp_path / "b.csv", **{"judge": "ben", **changes}),
    )
    before = snapshot(catalog)
    assert main(["tasks", "review", "import", str(first), str(second), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"instructor-st: {second}:")
    assert message in line
    assert snapshot(catalog) == before


def test_a_comment_is_not_lost_by_a_review(capsys, catalog, tmp_path):
    options = ["--catalog", str(catalog)]
    main(["tasks", "review", "export", "--task", "stsb", "--output", str(tmp_path / "review"), *options])
    sheet = fill(tmp_path / "review" / "judgements.csv", tmp_path / "a.csv", "anna")
    path = catalog / "similarity.yaml"
    path.write_text(f"# mine\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
    before = snapshot(catalog)
    assert main(["tasks", "review", "import", str(sheet), *options]) == 1
    assert "similarity.yaml:1: a comment would be lost" in capsys.readouterr().err
    assert snapshot(catalog) == before


def test_nothing_is_due(capsys, catalog, tmp_path):
    arguments = [
        "tasks",
        "review",
        "export",
        "--judges",
        "0",
        "--output",
        str(tmp_path / "r"),
        "--catalog",
        str(catalog),
    ]
    assert main(arguments) == 0
    assert "No task is due" in capsys.readouterr().out
    assert not (tmp_path / "r").exists()


def test_a_handle_of_another_form(capsys, tmp_path):
    assert main(["tasks", "review", "import", str(tmp_path / "x.csv"), "--judge", "anna"]) == 1
    assert "--judge 'anna': write NUMBER=HANDLE" in capsys.readouterr().err


def test_suggest(capsys, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f"{word} number {n}", "label": word} for word in ("apple", "brick", "cloud") for n in range(5)]
    path.write_text("\n".join(map(json.dumps, rows)))
    arguments = ["tasks", "suggest", str(path), "--type", "classification", "--nearest", "2", "--candidate", "thing: "]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert "Best over no instruction" in output.out
    assert "'thing: ' (given)" in output.out
    assert "not trained with instructions" in output.err
    for option, message in (("--max-rows", "max_rows must be 1 or more, not 0"), ("--nearest", "1 or more, not 0")):
        assert main(["tasks", "suggest", str(path), "--type", "sts", option, "0"]) == 1
        assert message in capsys.readouterr().err
    assert main(["tasks", "suggest", str(path)]) == 1
    assert "give --objective" in capsys.readouterr().err
    assert main(["tasks", "suggest", str(tmp_path / "missing.txt"), "--type", "sts"]) == 1
    assert "missing.txt: no such file" in capsys.readouterr().err
