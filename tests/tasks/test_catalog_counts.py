"""The counts in a catalog's README."""

from __future__ import annotations

import datetime

import pytest

from instructor_st.cli import main
from instructor_st.tasks import load_catalog
from instructor_st.tasks.catalog_counts import are_counts_current, find_sharing_groups, format_counts, write_counts
from instructor_st.tasks.catalog_files import write_catalog_file
from instructor_st.tasks.catalog_store import replace_tasks
from instructor_st.tasks.metadata import CatalogError, ReviewEvent
from instructor_st.tasks.registry import write_index

MARKERS = (
    "<!-- counts, written by `instructor-st tasks format`: begin -->\n<!-- counts: end -->\nMore of our own words.\n"
)


def judge(task, *verdicts):
    events = [
        ReviewEvent(
            date=datetime.date(2026, 1, 3),
            by=f"judge {number}",
            kind="program",
            action="judged",
            version=1,
            verdict=verdict,
            clarity=4,
            fitness=4,
        )
        for number, verdict in enumerate(verdicts)
    ]
    review = task.review.model_copy(update={"history": (*task.review.history, *events)})
    return task.model_copy(update={"review": review})


def test_counts_by_hand(task):
    tasks = [
        judge(task, "accept"),
        judge(task.model_copy(update={"name": "b", "license": "cc0-1.0", "unverified": ("license", "id")}), "revise"),
        judge(task.model_copy(update={"name": "c", "family": "jokes"}), "revise", "accept"),
    ]
    text = format_counts(tasks)
    assert text.startswith("3 tasks in 2 files, 12 worked examples; 0 groups of tasks share their texts (0 tasks).\n")
    assert "| licence | tasks |\n|---|---:|\n| mit | 2 |\n| cc0-1.0 | 1 |\n" in text
    assert "| nothing: all facts verified | 2 |\n| id | 1 |\n| license | 1 |\n" in text
    assert text.endswith("| accepted as written | 1 |\n| revised, 2 readings | 1 |\n| sent back, due again | 1 |")


def test_many_values_stand_side_by_side(task):
    domains = ["law", "food", "arts", "news", "music", "film", "games", "home"]
    tasks = [task.model_copy(update={"name": name, "domain": name}) for name in domains]
    lines = format_counts(tasks).splitlines()
    start = lines.index("| domain | tasks | domain | tasks | domain | tasks |")
    assert lines[start + 1 : start + 5] == [
        "|---|---:|---|---:|---|---:|",
        "| arts | 1 | games | 1 | music | 1 |",
        "| film | 1 | home | 1 | news | 1 |",
        "| food | 1 | law | 1 |  |  |",
    ]


def test_groups_follow_the_names_both_ways(task):
    shared = {"a": ("b",), "b": ("a", "c"), "c": ("b",), "d": (), "e": ("f",), "f": ("e",)}
    tasks = [task.model_copy(update={"name": name, "shares_texts_with": names}) for name, names in shared.items()]
    assert find_sharing_groups(tasks) == [("a", "b", "c"), ("e", "f")]


def test_a_catalog_without_a_readme_stays_without(catalog_folder):
    assert are_counts_current(catalog_folder)
    assert not write_counts(catalog_folder)
    assert not (catalog_folder / "README.md").exists()


def test_counts_are_renewed_between_the_markers(catalog_folder, capsys):
    write_index(catalog_folder)
    readme = catalog_folder / "README.md"
    readme.write_text(f"# Riddles\n\n{MARKERS}", encoding="utf-8")
    assert not are_counts_current(catalog_folder)
    catalog = ["--catalog", str(catalog_folder)]
    main(["tasks", "lint", *catalog])
    # The folder's riddles are copies of each other: findings, and no word of counts before those are mended.
    assert "README" not in capsys.readouterr().out
    assert main(["tasks", "format", "--check", *catalog]) == 1
    assert capsys.readouterr().out == f"would change: {readme}\n"
    assert main(["tasks", "format", *catalog]) == 0
    assert are_counts_current(catalog_folder)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# Riddles\n\n<!-- counts")
    assert text.endswith("counts: end -->\nMore of our own words.\n")
    assert "3 tasks in 2 files, 12 worked examples" in text
    task = load_catalog(catalog_folder)["other_riddles"]
    replace_tasks(catalog_folder, [task.model_copy(update={"license": "cc0-1.0"})])
    assert "| cc0-1.0 | 1 |" in readme.read_text(encoding="utf-8")
    assert are_counts_current(catalog_folder)


def test_stale_counts_are_a_finding(tmp_path, capsys, task):
    write_catalog_file(tmp_path / "riddles.yaml", "Riddles.", tasks=[task])
    write_index(tmp_path)
    (tmp_path / "README.md").write_text(MARKERS, encoding="utf-8")
    assert main(["tasks", "lint", "--catalog", str(tmp_path)]) == 1
    assert "the counts of README.md are not those of the files" in capsys.readouterr().out
    assert write_counts(tmp_path)
    assert main(["tasks", "lint", "--catalog", str(tmp_path)]) == 0


def test_a_readme_without_a_place_for_counts(catalog_folder):
    write_index(catalog_folder)
    before = (catalog_folder / "others.yaml").read_bytes()
    (catalog_folder / "README.md").write_text("Riddles\n", encoding="utf-8")
    with pytest.raises(CatalogError, match=r"README\.md: the counts stand between the lines"):
        write_counts(catalog_folder)
    task = load_catalog(catalog_folder)["other_riddles"]
    with pytest.raises(CatalogError, match=r"README\.md"):
        replace_tasks(catalog_folder, [task.model_copy(update={"license": "cc0-1.0"})])
    assert (catalog_folder / "others.yaml").read_bytes() == before
