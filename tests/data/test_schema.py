from __future__ import annotations

import pytest

from instructor_st.data import parse_row
from instructor_st.data.schema import ClassRow, GradedRow, Row, parse_training_row
from instructor_st.pairs import InstructedText


def test_row_form():
    record = {
        "query": ["q: ", "a"],
        "positive": ["d: ", "b"],
        "negative_10": ["d: ", "ten"],
        "negative_2": ["d: ", "two"],
        "task": "named",
        "label": 3,
        "note": "kept out",
    }
    row = parse_row(record, "f:1", task="file")
    assert row.texts == (("q: ", "a"), ("d: ", "b"), ("d: ", "two"), ("d: ", "ten"))
    assert (row.task, row.label, row.ignored) == ("named", "3", ("note",))


def test_flat_form_and_its_other_names():
    record = {"anchor": "a", "pos": "b", "neg": ["c", "d", "e"], "instruction": "q: ", "document_instruction": "d: "}
    row = parse_row(record, "f:1", task="file")
    assert row.query == InstructedText("q: ", "a")
    assert row.positive == InstructedText("d: ", "b")
    assert row.negatives == (("d: ", "c"), ("d: ", "d"), ("d: ", "e"))
    assert (row.task, row.label, row.ignored) == ("file", None, ())


def test_instructions_of_the_call_serve_rows_without_their_own():
    row = parse_row(
        {"query": "a", "positive": ["own: ", "b"]}, "f:1", task="t", query_instruction="q: ", document_instruction="d: "
    )
    assert (row.query.instruction, row.positive.instruction) == ("q: ", "own: ")


def test_csv_cells():
    row = parse_row({"query": '["q: ", "a"]', "positive": "b", "negative": "", "label": ""}, "f:2", task="t")
    assert row.texts == (("q: ", "a"), ("", "b"))
    assert row.label is None


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"positive": "b"}, r"f:7: no 'query' among the columns \['positive'\]"),
        ({"query": "a"}, "f:7: no 'positive'"),
        ({"query": 5, "positive": "b"}, "f:7, column 'query': Cannot embed 5"),
        ({"query": "a", "positive": ["i", "t", "u"]}, "f:7, column 'positive': Cannot embed"),
        ({"query": "a", "positive": "b", "negative_1": [1, 2]}, "f:7, column 'negative_1': Cannot embed 1"),
        ({"text": "a", "label": "x"}, "f:7: this is a text with its class"),
    ],
)
def test_errors_name_the_place(record, message):
    with pytest.raises(ValueError, match=message):
        parse_row(record, "f:7", task="t")


def test_graded_rows():
    record = {"a": ["a: ", "x"], "b": ["b: ", "y"], "score": 3, "task": "sts", "genre": "news"}
    row = parse_training_row(record, "f:1", task="file")
    assert row == GradedRow(InstructedText("a: ", "x"), InstructedText("b: ", "y"), 3.0, "sts", ("genre",))
    assert row.texts == (("a: ", "x"), ("b: ", "y"))
    row = parse_training_row({"a": "x", "b": "y", "score": "-0.5"}, "f:1", task="file")  # CSV
    assert row == GradedRow(InstructedText("", "x"), InstructedText("", "y"), -0.5, "file")


def test_class_rows():
    row = parse_training_row({"input": ["i: ", "x"], "label": 0, "split": "train"}, "f:1", task="file")
    assert row == ClassRow(InstructedText("i: ", "x"), "0", "file", ("split",))
    assert row.texts == (("i: ", "x"),)
    row = parse_training_row({"text": '["i: ", "x"]', "label": "red", "task": "colours"}, "f:1", task="file")
    assert row == ClassRow(InstructedText("i: ", "x"), "red", "colours")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({}, ("q: ", "d: ", "q: ")),
        ({"instruction": "own: "}, ("own: ", "d: ", "own: ")),
        ({"instruction": "own: ", "document_instruction": "other: "}, ("own: ", "other: ", "own: ")),
        ({"instruction": "own: ", "query_instruction": "query: "}, ("query: ", "d: ", "query: ")),
        ({"query_instruction": "", "document_instruction": "", "task": ""}, ("q: ", "d: ", "q: ")),  # empty cells
    ],
)
def test_instructions_of_graded_and_class_rows(record, expected):
    options = {"task": "t", "query_instruction": "q: ", "document_instruction": "d: "}
    graded = parse_training_row({"a": "x", "b": "y", "score": 1, **record}, "f:1", **options)
    classed = parse_training_row({"input": "x", "label": "c", **record}, "f:1", **options)
    assert (graded.a.instruction, graded.b.instruction, classed.text.instruction) == expected
    assert (graded.task, classed.task) == ("t", "t")
    assert graded.ignored == classed.ignored == ()


def test_both_sides_take_the_one_instruction_there_is():
    record = {"a": "x", "b": "y", "score": 1}
    row = parse_training_row(record, "f:1", task="t", query_instruction="q: ")
    assert (row.a.instruction, row.b.instruction) == ("q: ", "q: ")
    row = parse_training_row({**record, "instruction": "own: "}, "f:1", task="t", query_instruction="q: ")
    assert (row.a.instruction, row.b.instruction) == ("own: ", "own: ")


@pytest.mark.parametrize(
    "record",
    [
        {"query": "q", "positive": "p", "a": "x", "b": "y", "score": 1},
        {"anchor": "q", "pos": "p", "text": "x", "label": "c"},
        {"query": "q", "positive": "p", "input": "x", "label": "c"},
    ],
)
def test_a_row_with_query_and_positive_is_a_pair_whatever_else_it_has(record):
    row = parse_training_row(record, "f:1", task="t")
    assert isinstance(row, Row)
    assert row.texts == (("", "q"), ("", "p"))
    assert row == parse_row(record, "f:1", task="t")
    assert row.ignored == tuple(name for name in record if name in {"a", "b", "score", "text", "input"})


def test_scores_of_a_teacher():
    record = {"query": "q", "positive": "p", "negative_1": "n", "negative_2": "m", "scores": [3, 0.5, "-1e-1"]}
    assert parse_training_row(record, "f:1", task="t").scores == (3.0, 0.5, -0.1)
    assert parse_row({**record, "scores": "[3, 0.5, -0.1]"}, "f:1", task="t").scores == (3.0, 0.5, -0.1)
    assert parse_row({**record, "scores": ""}, "f:1", task="t").scores is None
    assert parse_row({**record, "scores": None}, "f:1", task="t").scores is None
    assert parse_row({"query": "q", "positive": "p", "scores": [1]}, "f:1", task="t").scores == (1.0,)
    assert parse_row(record, "f:1", task="t").ignored == ()


PAIR = {"query": "q", "positive": "p", "negative_1": "n"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"a": "x", "b": "y", "score": "high"}, r"f:7, column 'score': 'high' is no number"),
        ({"a": "x", "b": "y", "score": True}, r"f:7, column 'score': True is no number"),
        ({"a": "x", "b": "y", "score": float("nan")}, r"f:7, column 'score': nan is no number"),
        ({"a": "x", "b": "y", "score": "1e999"}, r"column 'score': '1e999' is no number"),
        ({"a": 3, "b": "y", "score": 1}, r"f:7, column 'a': Cannot embed 3"),
        ({"a": "x", "b": ["y"], "score": 1}, r"f:7, column 'b': Cannot embed \['y'\]"),
        ({"a": "x", "b": "y", "score": None}, r"f:7: no 'query' among the columns \['a', 'b'\]"),
        ({"input": 3, "label": "c"}, r"f:7, column 'input': Cannot embed 3"),
        ({"text": "x", "label": ""}, r"f:7: no 'query' among the columns \['text'\]"),
        ({**PAIR, "scores": [1]}, r"f:7, column 'scores': .* is expected \(2\), not \[1\]"),
        ({**PAIR, "scores": 1.5}, r"f:7, column 'scores': .* is expected \(2\), not 1\.5"),
        ({**PAIR, "scores": [1, "x"]}, r"f:7, column 'scores': 'x' is no number"),
        ({**PAIR, "scores": "[1, NaN]"}, r"f:7, column 'scores': nan is no number"),
        ({**PAIR, "scores": "1, 2"}, r"f:7, column 'scores': '1, 2' is no list of numbers"),
    ],
)
def test_errors_of_all_kinds_name_the_place(record, message):
    with pytest.raises(ValueError, match=message):
        parse_training_row(record, "f:7", task="t")


@pytest.mark.parametrize(
    "record",
    [{"query": "a", "positive": "b"}, {"a": "a", "b": "b", "score": 1}, {"input": "a", "label": "x"}],
    ids=["pair", "graded", "classed"],
)
def test_instructions_and_task_are_read_alike_in_rows_of_all_kinds(record):
    def read(**columns):
        row = parse_training_row({**record, **columns}, "f:1", task="file", query_instruction="call: ")
        return row.texts[0].instruction, row.task

    assert read(query_instruction="", instruction="own: ", task="") == ("own: ", "file")
    assert read(query_instruction="first: ", instruction="second: ", task="named") == ("first: ", "named")
    assert read(instruction=None) == ("call: ", "file")
    # A table's columns of numbers.
    assert read(instruction=5, task=7) == ("5", "7")
    for column in ("instruction", "task", "document_instruction"):
        with pytest.raises(ValueError, match=rf"f:1, column '{column}': a text is expected, not \['x', 'y'\]"):
            read(**{column: '["x", "y"]'})
