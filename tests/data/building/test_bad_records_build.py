"""Records that cannot be used, from the file to the report: counted by reason, listed by place, never in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instructor_st.data import read_rows
from instructor_st.data.building.build import TaskResult, build_mixture
from instructor_st.data.building.manifest import write_manifest
from instructor_st.data.building.mixture import Mixture
from instructor_st.data.sources.records import BadRecordError

# Each line with the reason for which it is bad, or what else becomes of it.
LINES: list[tuple[bytes, str]] = [
    (b'{"query": "one", "positive": "uno"}', ""),
    (b'{"query": "broken", "positive": ', "not JSON"),
    (b'["no", "object"]', "a JSON object is expected, not list"),
    (b'{"query": "no answer"}', "no column 'positive'"),
    (b'{"query": "null", "positive": null}', "no column 'positive'"),
    (b'{"query": 7, "positive": "seven"}', "column 'query' is no text"),
    (b'{"query": "list", "positive": ["a", "b"]}', "column 'positive' is no text"),
    (b'{"query": "half \\ud83d", "positive": "x"}', "a lone surrogate"),
    (b'{"query": "x", "positive": "a NUL \\u0000"}', "a NUL character"),
    (b'{"query": "latin \xe9 one", "positive": "x"}', "not UTF-8"),
    (b'{"query": "1 MB", "positive": "' + b"a" * 1_000_000 + b'"}', "longer than 1,000,000 bytes"),
    (b"", ""),  # no record: as in every reader of JSON Lines
    (b'{"query": " ", "positive": "blank"}', "left out: blank text"),
    (b'{"query": "20 kB", "positive": "' + b"b" * 20_001 + b'"}', "left out: text over 20000 characters"),
    (b'{"query": "two", "positive": "due"}', ""),
]
BAD = {number: reason for number, (_, reason) in enumerate(LINES, 1) if reason and not reason.startswith("left out")}


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "raw.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line, _ in LINES))
    return path


def make_mixture(source: Path) -> Mixture:
    instructions = {"query": "Represent the number: ", "document": "Represent the word: "}
    task = {"name": "numbers", "source": {"files": source}, "kind": "pairs", "instructions": instructions}
    settings = {"name": "faults", "held_out_share": 0, "near_duplicates": None}
    return Mixture.model_validate({**settings, "tasks": [task]})


def build(source: Path, **options) -> TaskResult:
    mixture, output = make_mixture(source), source.parent / "out"
    report = build_mixture(mixture, output, show_progress_bar=False, **options)
    write_manifest(mixture, report, output)
    return report.results[0]


def test_each_bad_record_is_counted_and_listed_by_its_line(source, tmp_path):
    result = build(source)
    rows = [(row.query.text, row.positive.text) for row in read_rows(tmp_path / "out" / "train")]
    assert rows == [("one", "uno"), ("two", "due")]
    assert result.counts == {
        "bad record: a JSON object is expected, not list": 1,
        "bad record: a NUL character": 1,
        "bad record: a lone surrogate": 1,
        "bad record: column 'positive' is no text": 1,
        "bad record: column 'query' is no text": 1,
        "bad record: longer than 1,000,000 bytes": 1,
        "bad record: no column 'positive'": 2,
        "bad record: not JSON": 1,
        "bad record: not UTF-8": 1,
        "left out: blank text": 1,
        "left out: text over 20000 characters": 1,
        # The two good ones, the two left out, and the four whose columns are bad.
        "records read": 8,
    }
    # No line is unaccounted for, but the blank one.
    gone = sum(n for what, n in result.counts.items() if what.startswith(("bad record", "left out")))
    assert gone + len(rows) == len(LINES) - 1
    assert sorted(BAD) == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert len(result.bad_records) == len(BAD)
    for line, (number, reason) in zip(result.bad_records, BAD.items(), strict=True):
        assert line.startswith(f"{source}:{number}: {reason}")
    assert f"{source}:6: column 'query' is no text (it holds int)" in result.bad_records
    # What stands in the list is short, however long the record is.
    assert max(map(len, result.bad_records)) < len(str(source)) + 120


def test_the_written_list_and_report_say_the_same(source, tmp_path):
    result = build(source)
    listed = (tmp_path / "out" / "bad_records.txt").read_text(encoding="utf-8")
    assert listed == "".join(f"numbers\t{line}\n" for line in result.bad_records)
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| bad record: no column 'positive' | 2 |" in report
    assert "bad record: not JSON 1; " in report
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["counts"] == dict(result.counts)
    # A run that finds all done says it again.
    assert build(source) == result
    assert (tmp_path / "out" / "bad_records.txt").read_text(encoding="utf-8") == listed


@pytest.mark.parametrize("number", sorted(BAD))
def test_strict_stops_at_the_first(tmp_path, number):
    path = tmp_path / "raw.jsonl"
    # Good lines, blank ones and those left out for what they say do not stop it.
    lines = [line for line, reason in LINES if not reason or reason.startswith("left out")]
    path.write_bytes(b"".join(line + b"\n" for line in [*lines, LINES[number - 1][0], LINES[1][0]]))
    with pytest.raises(BadRecordError) as stopped:
        build(path, strict=True)
    assert str(stopped.value).startswith(f"{path}:{len(lines) + 1}: {BAD[number]}")
    assert stopped.value.record.reason == BAD[number]
    assert not (tmp_path / "out" / "train").exists()
    # Without the bad ones it goes through.
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    assert build(path, strict=True).train_rows == 2


def test_a_long_list_is_cut_and_its_count_is_not(tmp_path):
    path = tmp_path / "raw.jsonl"
    path.write_bytes(LINES[0][0] + b"\n" + b"{}\n" * 250)
    result = build(path)
    assert result.counts["bad record: no column 'query'"] == 250
    assert len(result.bad_records) == 200
    assert result.bad_records[-1].startswith(f"{path}:201: ")
    assert len((tmp_path / "out" / "bad_records.txt").read_text(encoding="utf-8").splitlines()) == 200
