from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from instructor_st.evaluation import report as report_module
from instructor_st.evaluation.report import TwoInstructions, write_report
from instructor_st.evaluation.result_grid import LADDER
from tests.evaluation.made_results import make_result


@pytest.fixture
def results():
    own = [
        make_result(task, 0.5 + 0.1 * number, 0.48, 0.82, category=category, condition=condition, model=model)
        for model in ("org/one", "runs/two/final")
        for number, (task, category) in enumerate([("a", "STS"), ("b", "STS"), ("c", "Clustering")])
        for condition in ("none", "right")
    ]
    robust = [
        make_result("a", 0.5 + 0.01 * number, suite="robustness", condition=condition, instruction=f"{condition}: ")
        for number, condition in enumerate([*LADDER, "paraphrase 1", "paraphrase 2", "both sides"])
    ]
    following = make_result("f", 0.4, suite="following", condition="by topic", notes={"left_out": {"no pair": 3}})
    held_out = make_result("h", 0.9, suite="held_out", metric="accuracy", revision="abc", seed=7)
    failed = make_result("d", float("nan"), model="org/one", notes={"error": "no rows"})
    return [*own, *robust, following, held_out, failed]


@pytest.fixture
def vectors():
    points = np.random.default_rng(0).normal(size=(12, 4))
    labels = {"labels_a": ["x", "y"] * 6, "labels_b": ["p", "q", "r"] * 4}
    texts = {"instruction_a": "By x: ", "instruction_b": "By p: ", "aspect_a": "letter|a", "aspect_b": "letter b"}
    return TwoInstructions(vectors_a=points, vectors_b=points * 2, projection="pca", **labels, **texts)


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_report_has_every_part_and_only_pictures_that_are_there(results, vectors, tmp_path):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "new" / "folder"
    report = write_report(results, folder, title="Our *model*", vectors=vectors, names={"runs/two/final": "ours"})
    text = report.path.read_text(encoding="utf-8")
    names = ["categories", "ladder", "paraphrases", "two_instructions"]
    assert re.findall(r"!\[[^\n]+\]\(([^)]+)\)", text) == [f"{name}.png" for name in names]
    files = {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert {path.name for path in report.pictures} == files
    assert set(read_folder(folder)) == files | {"report.md"}
    assert all(path.read_bytes().startswith((b"\x89PNG", b"<?xml")) for path in report.pictures)
    assert re.findall("^#+ .*", text, re.MULTILINE) == [
        r"# Our \*model\*",
        "## Results",
        "## By category",
        "## Held-out rows",
        "## Levels of instruction",
        "## Paraphrases",
        "## Robustness under other conditions",
        "## Following the instruction",
        "## How it was measured",
    ]
    for piece in (
        "- d (one, right): no rows",
        "| a | both sides | Spearman correlation | 0.580 |",
        "- Left out of f (base, by topic): 3 (no pair).",
        "- base: revision abc; seed 0, 7.",
        "- ours: seed 0.",
        "- Versions: torch 2.13.",
        "| a | paraphrase 1 | paraphrase 1: |  |",
        r"coloured by letter\|a (upper row)",
    ):
        assert piece in text, piece


def test_report_of_one_value_needs_no_more(tmp_path):
    pytest.importorskip("matplotlib")
    report = write_report([make_result("a", 0.5)], tmp_path, title="One")
    text = report.path.read_text(encoding="utf-8")
    assert [path.name for path in report.pictures] == ["categories.png", "categories.svg"]
    assert re.findall("^## .*", text, re.MULTILINE) == ["## Results", "## How it was measured"]
    assert "| a | Spearman correlation |  | 0.500 |" in text


def test_wide_results_have_their_intervals_folded_away(tmp_path):
    results = [make_result("a", 0.5, 0.45, 0.55, model=f"m{number}") for number in range(5)]
    wide = write_report(results, tmp_path, title="Wide", plots=False).path.read_text(encoding="utf-8")
    before, after = wide.split("<details><summary>The same with 95 % intervals</summary>")
    assert "[0.450, 0.550]" not in before
    assert after.count("[0.450, 0.550]") == 5
    narrow = write_report(results[:4], tmp_path, title="Wide", plots=False).path.read_text(encoding="utf-8")
    assert narrow.count("[0.450, 0.550]") == 4


def test_failures_alone_still_make_a_report(tmp_path):
    failed = make_result("a", float("nan"), notes={"error": "one class only"})
    robust = make_result("a", float("nan"), suite="robustness", condition="tag", notes={"error": "one class only"})
    text = write_report([failed, robust], tmp_path, title="Failed").path.read_text(encoding="utf-8")
    assert text.count("- a (base, right): one class only") == 1
    assert text.count("- a (base, tag): one class only") == 1
    assert "![" not in text


def test_report_is_the_same_bytes_again(results, vectors, tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("one", "two"):
        write_report(results, tmp_path / name, title="T", vectors=vectors)
    assert read_folder(tmp_path / "one") == read_folder(tmp_path / "two")
    write_report(results, tmp_path / "one", title="Other", vectors=vectors)
    changed = {
        name
        for name, content in read_folder(tmp_path / "one").items()
        if content != read_folder(tmp_path / "two")[name]
    }
    assert changed == {"report.md"}


@pytest.mark.parametrize("is_there", [False, True])
def test_without_matplotlib_nothing_is_written_but_tables_can_be(results, tmp_path, monkeypatch, is_there):
    if is_there:
        (tmp_path / "report.md").write_text("mine")
    for name in {"matplotlib", "matplotlib.style", *(name for name in sys.modules if name.startswith("matplotlib"))}:
        monkeypatch.setitem(sys.modules, name, None)
    before = read_folder(tmp_path)
    with pytest.raises(ImportError, match=r'pip install "instructor-st\[plot\]"'):
        write_report(results, tmp_path, title="T")
    assert read_folder(tmp_path) == before
    report = write_report(results, tmp_path, title="T", plots=False)
    assert report.pictures == ()
    assert "![" not in report.path.read_text(encoding="utf-8")


def test_a_fault_while_writing_leaves_the_folder_as_it_was(results, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    write_report(results, tmp_path, title="Before")
    before = read_folder(tmp_path)
    write = Path.write_bytes

    def fail_at_the_report(path, content):
        if path.name.startswith("report.md"):
            write(path, content[:10])
            raise OSError("disk full")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fail_at_the_report)
    with pytest.raises(OSError, match="disk full"):
        write_report(results[:4], tmp_path, title="After")
    assert read_folder(tmp_path) == before


def test_the_report_takes_its_place_after_its_pictures(results, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    placed = []
    replace = os.replace

    def note(source, target):
        placed.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(report_module.os, "replace", note)
    write_report(results, tmp_path, title="T")
    assert placed[-1] == "report.md"
    assert len(placed) == 7


def test_bad_results_write_nothing(tmp_path):
    with pytest.raises(ValueError, match="no result"):
        write_report([], tmp_path / "x", title="T")
    with pytest.raises(ValueError, match="two values"):
        write_report([make_result("a", 0.1), make_result("a", 0.2)], tmp_path / "x", title="T")
    assert not (tmp_path / "x").exists()
