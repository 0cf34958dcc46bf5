from __future__ import annotations

import pytest

from instructor_st.data import parse_row
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
