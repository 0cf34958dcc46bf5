"""Folders that are written task by task: names, states, copies, and what is refused or removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instructor_st.data import Row, read_rows
from instructor_st.data.row_folder import OutputFolder, OutputFolderError, check_output_place, copy_file, name_files
from instructor_st.pairs import InstructedText


def make_rows(task: str, count: int = 2) -> list[Row]:
    return [Row(InstructedText("q: ", f"{task} {n}"), InstructedText("d: ", f"{n}"), (), task) for n in range(count)]


def plan(output: Path, *tasks: str, part: str = "train", copies=None) -> OutputFolder:
    return OutputFolder(output, ".tool", part, tasks, copies or {})


def list_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_names_of_files():
    names = name_files(["plain-1_x", "v1.0", "a/b", "a_b", "Ab", "aB", "../up", "x" * 120, "x" * 121, "é", ""])
    # Nothing to change, and alone with it whatever the case.
    assert [task for task, name in names.items() if name == task] == ["plain-1_x", "v1.0", "a_b"]
    assert len({name.lower() for name in names.values()}) == len(names)
    # 100 characters, a hyphen and eight digits of the hash.
    assert max(map(len, names.values())) == 109
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") for name in names.values())  # fmt: skip
    assert not any(name.startswith(".") for name in names.values())
    assert name_files(["a/b"])["a/b"] == names["a/b"]


def test_a_written_task_is_known_again_until_something_changes(tmp_path):
    folder = plan(tmp_path, "a", "b")
    assert folder.write_task("a", make_rows("a"), fingerprint="f", counts={"rows": 2, "new": 0}) == {
        "new": 0,
        "rows": 2,
    }
    assert folder.read_counts("a", fingerprint="f") == {"new": 0, "rows": 2}
    assert folder.read_counts("a", fingerprint="g") is None
    assert folder.read_counts("b", fingerprint="f") is None
    # Written elsewhere: the rows are not where they belong now, so the task is not done.
    assert plan(tmp_path, "a", part="").read_counts("a", fingerprint="f") is None
    for damage in ("[]", "{", '{"fingerprint": "f"}', '{"fingerprint": "f", "sha256": "0", "counts": {}}'):
        folder.find_state("a").write_text(damage)
        assert folder.read_counts("a", fingerprint="f") is None
    folder.write_task("a", make_rows("a"), fingerprint="f", counts={})
    folder.find_shard("a").write_bytes(b"damaged")
    assert folder.read_counts("a", fingerprint="f") is None


def test_what_is_outdated_goes_and_the_rest_stays(tmp_path):
    data, output = tmp_path / "data", tmp_path / "out"
    for name in ("one", "deep/two"):
        (data / "held_out" / name).parent.mkdir(parents=True, exist_ok=True)
        (data / "held_out" / name).write_text(name)

    def copies(*names):
        return {data / "held_out" / name: output / "held_out" / name for name in names}

    first = plan(output, "a", "b", copies=copies("one", "deep/two"))
    first.prepare(first.find_outdated())
    for task in ("a", "b"):
        first.write_task(task, make_rows(task), fingerprint="f", counts={})
    (output / "notes.txt").write_text("mine")
    for half in ("train/b.parquet.partial", ".tool/tasks/b.json.partial"):
        (output / half).write_text("half")

    second = plan(output, "a", copies=copies("one"))
    outdated = [path.relative_to(output).as_posix() for path in second.find_outdated()]
    halves = ["train/b.parquet.partial", ".tool/tasks/b.json.partial"]
    assert outdated == ["train/b.parquet", ".tool/tasks/b.json", "held_out/deep/two", *halves]
    second.prepare(second.find_outdated())
    kept = [".tool/copies.json", ".tool/tasks/a.json", "held_out/one", "notes.txt", "train/a.parquet"]
    assert list_files(output) == kept
    assert not (output / "held_out" / "deep").exists()
    assert second.find_outdated() == ()
    # Another layout: the file of an earlier one is in the way.
    assert plan(output, "a", part="", copies=copies("one")).find_outdated() == (output / "train" / "a.parquet",)
    assert list(read_rows(output / "train")) == make_rows("a")
    none = plan(output, "a")
    none.prepare(none.find_outdated())
    assert not (output / "held_out").exists()
    assert json.loads((output / ".tool" / "copies.json").read_text()) == {"copies": []}


def test_row_files_of_others_are_refused(tmp_path):
    folder = plan(tmp_path / "out", "a")
    folder.check_row_files(())
    folder.write_task("a", make_rows("a"), fingerprint="f", counts={})
    (tmp_path / "out" / "notes.txt").touch()
    folder.check_row_files(())
    strange = tmp_path / "out" / "held_out" / "own.csv"
    strange.parent.mkdir()
    strange.touch()
    with pytest.raises(OutputFolderError, match=r"out holds held_out/own\.csv, which this run does not write"):
        folder.check_row_files(())
    folder.check_row_files([strange])
    plan(tmp_path / "out", "a", copies={tmp_path / "x": strange}).check_row_files(())


def test_places_that_are_refused(tmp_path):
    data, output = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for inside in (data, data / "out"):
        with pytest.raises(OutputFolderError, match="lies in the data"):
            check_output_place(inside, data, state=".tool")
    check_output_place(output, data, state=".tool")
    output.mkdir()
    check_output_place(output, data, state=".tool")
    (output / "thesis.txt").touch()
    for state in (".tool", ".other"):
        with pytest.raises(OutputFolderError, match=r"out holds other files\. Name a new folder"):
            check_output_place(output, data, state=state)
    # A run that was stopped before its first task finds the folder to be its own.
    plan(output, "a").prepare(())
    check_output_place(output, data, state=".tool")
    with pytest.raises(OutputFolderError, match="other files"):
        check_output_place(output, data, state=".other")
    # Scripts catch either.
    assert issubclass(OutputFolderError, OSError)
    assert issubclass(OutputFolderError, ValueError)


def test_a_copy_is_whole_or_not_there(tmp_path):
    (tmp_path / "a").write_bytes(b"\x00\xff")
    copy_file(tmp_path / "a", tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b").read_bytes() == b"\x00\xff"
    with pytest.raises(FileNotFoundError):
        copy_file(tmp_path / "none", tmp_path / "deep" / "b")
    assert list_files(tmp_path) == ["a", "deep/b"]
    assert (tmp_path / "deep" / "b").read_bytes() == b"\x00\xff"
