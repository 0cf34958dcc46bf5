from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from instructor_st.data import load_training_data, read_rows
from instructor_st.data.augmentation.folder import augment_folder, check_output, read_row_folder
from instructor_st.data.embedding_cache import Scorer

IDENTITY = json.dumps({"kind": "recorded"})
SCORER = Scorer(embed=lambda texts: np.ones((len(texts), 2)), identity="all alike")


class Shuffler:
    """Two candidates a text: its words backwards, and its words after an interjection; notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: list[str]) -> list[list[str]]:
        self.asked += texts
        return [[" ".join(reversed(text.split())), f"so {text}"] for text in texts]


def write_rows_of(path: Path, name: str, count: int, **columns) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [{"query": ["q: ", f"{name} query {i}"], "positive": ["d: ", f"{name} answer {i}"]} for i in range(count)]
    path.write_text("\n".join(json.dumps({**record, **columns}) for record in records), encoding="utf-8")


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    write_rows_of(folder / "train" / "letters.jsonl", "letters", 3, negative_1=["d: ", "no"], label="x")
    write_rows_of(folder / "train" / "numbers.jsonl", "numbers", 2)
    write_rows_of(folder / "held_out" / "letters.jsonl", "held", 1)
    return folder


def run(data: Path, output: Path, generator=None, **options):
    options = {"scorer": None, "identity": IDENTITY, "show_progress_bar": False, **options}
    return augment_folder(read_row_folder(data), output, generator=generator or Shuffler(), **options)


def read_all(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_split_folder_is_augmented_and_its_held_out_rows_stay(data, tmp_path):
    output = tmp_path / "out"
    report = run(data, output)
    assert report.totals["rows"] == 5
    assert report.totals["new rows"] == 10
    assert report.made == ("letters", "numbers")
    rows = list(read_rows(output / "train" / "letters.parquet"))
    assert [(row.query.text, row.positive.text) for row in rows[:4]] == [
        ("letters query 0", "letters answer 0"),
        ("0 query letters", "letters answer 0"),
        ("letters query 0", "0 answer letters"),
        ("letters query 1", "letters answer 1"),
    ]
    assert {(row.query.instruction, row.positive.instruction, row.label, row.task) for row in rows} == {
        ("q: ", "d: ", "x", "letters")
    }
    assert all(row.negatives == (("d: ", "no"),) for row in rows)
    assert (output / "held_out" / "letters.jsonl").read_bytes() == (data / "held_out" / "letters.jsonl").read_bytes()
    loaded = load_training_data(output)
    assert {task: len(rows) for task, rows in loaded.train.items()} == {"letters": 9, "numbers": 6}
    assert len(loaded.held_out["letters"]) == 1


def test_a_second_run_does_nothing_and_leaves_the_same(data, tmp_path):
    output = tmp_path / "out"
    first = run(data, output)
    before = read_all(output)
    generator = Shuffler()
    second = run(data, output, generator)
    assert generator.asked == []
    assert (second.made, second.kept) == ((), ("letters", "numbers"))
    assert second == first
    assert read_all(output) == before


@pytest.mark.parametrize("damage", ["shard", "state", "both", "half", "foreign"])
def test_what_is_damaged_is_made_anew(data, tmp_path, damage):
    output = tmp_path / "out"
    run(data, output)
    before = read_all(output)
    shard, state = output / "train" / "letters.parquet", output / ".augment" / "tasks" / "letters.json"
    if damage in ("shard", "both"):
        shard.write_bytes(b"cut")
    if damage in ("state", "both"):
        state.unlink()
    if damage == "half":
        shard.unlink()
        (output / "train" / "letters.parquet.partial").write_bytes(b"half")
    if damage == "foreign":
        state.write_text("[1]")
    report = run(data, output)
    assert report.made == ("letters",)
    assert read_all(output) == before


def test_a_changed_task_or_rule_is_made_anew_and_an_old_one_goes(data, tmp_path):
    output = tmp_path / "out"
    run(data, output)
    write_rows_of(data / "train" / "numbers.jsonl", "numbers", 4)
    assert run(data, output).made == ("numbers",)
    both = ("letters", "numbers")
    assert run(data, output, num_augments=1).made == both
    assert run(data, output, num_augments=1, scorer=SCORER).made == both
    assert run(data, output, num_augments=1, scorer=replace(SCORER, identity="other")).made == both
    assert run(data, output, num_augments=1, identity="{}").made == both
    assert run(data, output, num_augments=1, identity="{}", only_new=True).made == both
    write_rows_of(data / "held_out" / "letters.jsonl", "held", 2)
    assert run(data, output, num_augments=1, identity="{}", only_new=True).made == both
    assert run(data, output, num_augments=1, identity="{}", only_new=True).made == ()
    (data / "train" / "letters.jsonl").unlink()
    assert run(data, output, num_augments=1, identity="{}", only_new=True).kept == ("numbers",)
    assert [path.name for path in (output / "train").iterdir()] == ["numbers.parquet"]


def test_held_out_texts_are_not_made(data, tmp_path):
    write_rows_of(data / "held_out" / "letters.jsonl", "SO letters", 1)
    report = run(data, tmp_path / "out", num_augments=9)
    assert report.tasks["letters"]["rejected: forbidden"] == 2
    assert report.tasks["letters"]["new rows"] == 10
    assert "rejected: forbidden" not in report.tasks["numbers"]


def test_held_out_files_that_went_are_no_longer_there(data, tmp_path):
    write_rows_of(data / "held_out" / "deep" / "numbers.jsonl", "more", 1)
    run(data, tmp_path / "out")
    assert (tmp_path / "out" / "held_out" / "deep" / "numbers.jsonl").exists()
    (data / "held_out" / "deep" / "numbers.jsonl").unlink()
    run(data, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "held_out").rglob("*.*")] == ["letters.jsonl"]


def test_only_new_rows(data, tmp_path):
    run(data, tmp_path / "out")
    run(data, tmp_path / "out", only_new=True)
    rows = list(read_rows(tmp_path / "out" / "train" / "numbers.parquet"))
    assert len(rows) == 4
    assert ("numbers query 0", "numbers answer 0") not in [(row.query.text, row.positive.text) for row in rows]
    assert not (tmp_path / "out" / "held_out").exists()


def test_a_folder_that_is_not_split_is_noted(tmp_path):
    folder = tmp_path / "rows"
    write_rows_of(folder / "a.jsonl", "a", 2, task="task/one.two")
    write_rows_of(folder / "b.jsonl", "b", 1, task="task_one_two")
    write_rows_of(folder / "c.jsonl", "c", 1, task="task/one.two")
    report = run(folder, tmp_path / "out")
    assert report.tasks["task/one.two"]["rows"] == 3
    assert "not split" in report.notes[0]
    assert "Note: the rows were not split" in (tmp_path / "out" / "augmentation_report.md").read_text()
    names = sorted(path.name for path in (tmp_path / "out" / "train").iterdir())
    assert len(names) == 2
    assert names[1] == "task_one_two.parquet"
    assert Counter(row.task for row in read_rows(tmp_path / "out")) == {"task/one.two": 9, "task_one_two": 3}


def test_the_report_adds_up_and_can_be_read(data, tmp_path):
    (data / "train" / "letters.jsonl").open("a").write('\n{"query": " ", "positive": "x"}')
    report = run(data, tmp_path / "out", scorer=SCORER, sides=("query",), max_length_ratio=1.1)
    content = json.loads((tmp_path / "out" / "augmentation_report.json").read_text(encoding="utf-8"))
    assert content["totals"] == dict(report.totals)
    assert content["tasks"]["numbers"]["new rows"] == 2
    assert content["read"] == {"left out: blank query or positive": 1, "rows read": 5}
    assert content["settings"] == {
        "generator": {"kind": "recorded"},
        "scorer": "all alike",
        "only_new": False,
        "rules": {"sides": ["query"], "max_length_ratio": 1.1},
    }
    totals = content["totals"]
    fates = [totals[name] for name in totals if name.startswith(("new rows: ", "rejected: ", "not needed"))]
    assert sum(fates) == totals["candidates"] == 10
    text = (tmp_path / "out" / "augmentation_report.md").read_text(encoding="utf-8")
    assert "5 rows of 2 tasks gave 2 new rows; 3 rows gave none." in text
    # All vectors are alike, so those of the letters are as near to their negative; "so ..." is too long.
    assert "| rejected: too long | 5 | 50.0% |" in text
    assert "| rejected: nearer to a negative than to the original | 3 | 30.0% |" in text
    assert "| taken: query replaced | 2 | 20.0% |" in text
    assert "| letters | 3 | 0 | 3 | 6 | 6 |" in text
    assert "| numbers | 2 | 2 | 0 | 4 | 2 |" in text
    assert "- left out: blank query or positive: 1" in text
    assert "query 0" not in text


def test_folders_where_writing_would_do_harm_are_refused(data, tmp_path):
    for output in (data, data / "augmented"):
        with pytest.raises(FileExistsError, match="whose rows would then be read again"):
            check_output(output, data)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match=r"full holds other files\. Name a new folder"):
        run(data, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty", data)
    check_output(tmp_path / "new", data)


def test_a_folder_without_rows_is_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"query": "", "positive": "x"}')
    with pytest.raises(ValueError, match=r"no row to augment\. Read: .*blank"):
        read_row_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="missing does not exist"):
        read_row_folder(tmp_path / "missing")


def test_instructions_for_flat_rows(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"query": "x", "positive": "y"}')
    rows = read_row_folder(tmp_path, query_instruction="Q: ", document_instruction="D: ")
    assert rows.tasks["a"][0].query == ("Q: ", "x")
    assert rows.tasks["a"][0].positive == ("D: ", "y")
