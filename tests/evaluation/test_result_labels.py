from __future__ import annotations

import pytest

from instructor_st.evaluation.result_labels import (
    escape_markdown,
    format_duration,
    format_metric,
    format_number,
    shorten_names,
    wrap_label,
)


def test_names_are_the_shortest_ends_that_differ():
    models = ["org/one", "other/one", "runs/a/final", "two", "/tmp/x/checkpoint-12", "C:\\models\\three"]
    assert shorten_names(models) == {
        "org/one": "org/one",
        "other/one": "other/one",
        "runs/a/final": "a/final",
        "two": "two",
        "/tmp/x/checkpoint-12": "x/checkpoint-12",
        "C:\\models\\three": "three",
    }
    assert shorten_names(["final"]) == {"final": "final"}
    assert shorten_names(["a/b"], names={"a/b": "ours", "c": "d"}) == {"a/b": "ours"}
    with pytest.raises(ValueError, match="'a' and 'b' are both to be shown as 'x'"):
        shorten_names(["a", "b"], names={"a": "x", "b": "x"})


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.8125, False, "0.812"),
        (-0.0001, False, "0.000"),
        (-0.0001, True, "+0.000"),
        (0.0204, True, "+0.020"),
        (-0.5, True, "-0.500"),
        (27.34, False, "27.3"),
    ],
)
def test_numbers(value, signed, text):
    assert format_number(value, signed=signed) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (4330, "1 h 12 min")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_metrics():
    found = [format_metric(name) for name in ("ndcg_at_10", "recall_at_5", "own_measure", "cosine_spearman")]
    assert found == ["nDCG@10", "recall@5", "own measure", "Spearman correlation"]


def test_markdown_is_escaped_but_names_stay_readable():
    assert escape_markdown("cl_tweet89") == "cl_tweet89"
    assert escape_markdown("a|b *c* `d` _e_ <f>\n[g]") == r"a\|b \*c\* \`d\` \_e\_ &lt;f> \[g\]"


@pytest.mark.parametrize("width", [5, 12, 20])
@pytest.mark.parametrize(
    "label", ["AmazonCounterfactualClassification", "cqadupstack_programmers (German, test split)", "x" * 50, "short"]
)
def test_wrapped_labels_keep_every_character_and_the_width(label, width):
    lines = wrap_label(label, width).split("\n")
    assert "".join(lines).replace(" ", "") == label.replace(" ", "")
    assert all(0 < len(line) <= width for line in lines)


def test_labels_break_where_words_do():
    assert wrap_label("AmazonCounterfactualClassification", 20) == "AmazonCounterfactual\nClassification"
    assert wrap_label("one two three", 8) == "one two\nthree"
    assert wrap_label("a-b", 8) == "a-b"
