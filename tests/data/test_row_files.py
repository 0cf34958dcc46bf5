from __future__ import annotations

import gzip
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from instructor_st.data import list_data_files, read_records, read_rows
from instructor_st.data.row_files import read_training_rows
from instructor_st.data.schema import ClassRow, GradedRow, Row
from instructor_st.data.sources.packed_files import UnreadableFileError

ROW = {"query": ["q: ", "ä a"], "positive": ["d: ", "b, c"], "negative_1": ["d: ", "line\nbreak"]}


def write_all_kinds(folder):
    folder.mkdir(exist_ok=True)
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


def test_files_packed_with_zstd_give_the_same_rows(tmp_path):
    write_all_kinds(tmp_path / "plain")
    (tmp_path / "packed").mkdir()
    for name in ("one.jsonl", "three.csv", "deep/five.parquet"):
        target = tmp_path / "packed" / f"{name.rsplit('/', 1)[-1].upper()}.ZST"
        target.write_bytes(zstandard.compress((tmp_path / "plain" / name).read_bytes()))
    rows = list(read_rows(tmp_path / "packed"))
    assert {row.texts for row in rows} == {(("q: ", "ä a"), ("d: ", "b, c"), ("d: ", "line\nbreak"))}
    assert Counter(row.task for row in rows) == {"one": 2, "three": 1, "five": 1}


def test_rows_may_be_short_long_and_in_a_file_of_another_name(tmp_path):
    (tmp_path / "a.csv").write_text(f"query,positive,negative_1\n{'q' * 1_500_000},p\n\nr,s,t\n")
    assert [len(row.negatives) for row in read_rows(tmp_path)] == [0, 1]
    records = list(read_records(tmp_path / "a.csv"))
    assert [where.rsplit(":", 1)[1] for where, _ in records] == ["2", "4"]
    assert records[0][1]["negative_1"] is None
    (tmp_path / "lines.json").write_text(f'{{"query": "{"q" * 1_500_000}"}}\n{{"query": "r"}}')
    assert [len(record["query"]) for _, record in read_records(tmp_path / "lines.json")] == [1_500_000, 1]


def test_a_file_that_breaks_off_is_no_short_one(tmp_path):
    lines = "".join(f"{json.dumps({**ROW, 'number': number})}\n" for number in range(5000))
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines.encode())[:-20])
    with pytest.raises(UnreadableFileError, match=r"a\.jsonl\.gz: .* last good record is \S*a\.jsonl\.gz:\d+\."):
        list(read_rows(tmp_path))


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
        ("a.csv", 'query,positive\n"a"b,c\n', r"a\.csv:2: not CSV"),
        ("a.csv", 'query,positive\n"a,c\n', r"a\.csv: the record from line 2 on has a quote that is not closed"),
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


def test_training_rows_of_all_kinds_from_all_kinds_of_files(tmp_path):
    (tmp_path / "graded.csv").write_text("a,b,score,instruction\nx,y,0.5,i: \n")
    graded = {"a": ["i: ", "x"], "b": ["i: ", "y"], "score": 0.5}
    pq.write_table(pa.Table.from_pylist([graded]), tmp_path / "graded.parquet")
    (tmp_path / "classes.jsonl").write_text(json.dumps({"input": ["i: ", "x"], "label": "c"}))
    (tmp_path / "classes.csv").write_text("text,label\nx,c\n")
    (tmp_path / "scores.jsonl").write_text(json.dumps({**ROW, "scores": [2, 1]}))
    (tmp_path / "scores.csv").write_text('query,positive,negative_1,scores\nq,p,n,"[2, 1]"\n')
    pq.write_table(pa.Table.from_pylist([{**ROW, "scores": [2.0, 1.0]}]), tmp_path / "scores.parquet")
    report = Counter()
    rows = list(read_training_rows(tmp_path, query_instruction="i: ", report=report))
    assert report == {"rows read": 7}
    by_task = {task: [row for row in rows if row.task == task] for task in ("graded", "classes", "scores")}
    assert [type(row) for row in by_task["graded"]] == [GradedRow] * 2
    assert len(set(by_task["graded"])) == 1
    assert [type(row) for row in by_task["classes"]] == [ClassRow] * 2
    assert len(set(by_task["classes"])) == 1
    assert [type(row) for row in by_task["scores"]] == [Row] * 3
    assert {row.scores for row in by_task["scores"]} == {(2.0, 1.0)}


def test_blank_texts_of_all_kinds_are_counted(tmp_path):
    records = [
        {"a": "x", "b": " ", "score": 1},
        {"a": "", "b": "y", "score": 1},
        {"input": "\n", "label": "c"},
        {"query": "q", "positive": ""},
        {"input": "x", "label": "c", "note": "n"},
        {"query": "q", "positive": "p", "negative_1": " "},  # a blank negative is a text like another
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    report = Counter()
    rows = list(read_training_rows(tmp_path, report=report))
    assert [type(row) for row in rows] == [ClassRow, Row]
    assert report == {
        "rows read": 2,
        "left out: blank text": 3,
        "left out: blank query or positive": 1,
        "column 'note' of a.jsonl is not used": 1,
    }
    with pytest.raises(ValueError, match=r"a\.jsonl:1: no 'query' among the columns"):
        list(read_rows(tmp_path))
