from __future__ import annotations

import gzip
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instructor_st.data import list_data_files, read_records, read_rows

ROW = {"query": ["q: ", "ä a"], "positive": ["d: ", "b, c"], "negative_1": ["d: ", "line\nbreak"]}


def write_all_kinds(folder):
    line = json.dumps(ROW, ensure_ascii=False)
    (folder / "one.jsonl").write_text(f"{line}\n\n{line}\n", encoding="utf-8")
    with gzip.open(folder / "two.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(line + "\n")
    text = 'query,positive,negative_1,query_instruction,document_instruction\nä a,"b, c","line\nbreak",q: ,d: \n'
    (folder / "three.csv").write_text(text, encoding="utf-8-sig")
    with gzip.open(folder / "four.csv.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    (folder / "deep").mkdir()
    pq.write_table(pa.Table.from_pylist([ROW]), folder / "deep" / "five.parquet")
    (folder / "notes.md").write_text("not data")


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
    write_all_kinds(tmp_path)
    assert [path.name for path in list_data_files(tmp_path)] == [
        "five.parquet",
        "four.csv.gz",
        "one.jsonl",
        "three.csv",
        "two.jsonl.gz",
    ]
    report = Counter()
    rows = list(read_rows(tmp_path, report=report))
    assert len(rows) == 6
    assert {row.texts for row in rows} == {(("q: ", "ä a"), ("d: ", "b, c"), ("d: ", "line\nbreak"))}
    assert {row.task for row in rows} == {"one", "two", "three", "four", "five"}
    assert report == {"rows read": 6}


def test_places_are_file_and_line(tmp_path):
    write_all_kinds(tmp_path)
    assert [where.rsplit("/", 1)[1] for where, _ in read_records(tmp_path / "one.jsonl")] == [
        "one.jsonl:1",
        "one.jsonl:3",
    ]
    assert [where.rsplit("/", 1)[1] for where, _ in read_records(tmp_path / "three.csv")] == ["three.csv:3"]
    assert [where.rsplit("/", 1)[1] for where, _ in read_records(tmp_path / "deep" / "five.parquet")] == [
        "five.parquet:1"
    ]


def test_blank_rows_are_counted_and_unknown_columns_named(tmp_path):
    lines = [ROW, {**ROW, "query": ["q: ", " \n"]}, {**ROW, "kind": "text"}, {"query": "a", "positive": ""}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = Counter()
    assert len(list(read_rows(tmp_path, report=report))) == 2
    assert report == {
        "rows read": 2,
        "left out: blank query or positive": 2,
        "column 'kind' of a.jsonl is not used": 1,
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"query": "a"\n', r"a\.jsonl:1: not JSON"),
        ("a.jsonl", "[1]\n", r"a\.jsonl:1: a JSON object is expected, not list"),
        ("a.csv", "query,positive\na,b,c\n", r"a\.csv:2: more cells"),
    ],
)
def test_broken_files(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        list(read_rows(tmp_path))


def test_nothing_to_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        list_data_files(tmp_path / "no")
    with pytest.raises(FileNotFoundError, match="holds no row file"):
        list_data_files(tmp_path)
