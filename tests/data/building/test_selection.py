"""From records to examples, and draws that depend on nothing but the texts."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from instructor_st.data.building.examples import ClassText, InputOutput, ScoredPair, TextPair
from instructor_st.data.building.mixture import TaskSpec
from instructor_st.data.building.selection import draw_by_hash, hash_texts, select_examples
from instructor_st.data.sources.records import Record


def spec(kind, **changes):
    values = {"name": "t", "source": {"files": "x.jsonl"}, "kind": kind, "instructions": {"query": "a: "}, **changes}
    return TaskSpec.model_validate(values)


def select(task, *values):
    bad, report = [], Counter()
    records = [Record(f"x.jsonl:{number}", each) for number, each in enumerate(values, 1)]
    return list(select_examples(task, records, on_bad=bad.append, report=report)), bad, report


@pytest.mark.parametrize(
    ("kind", "record", "example"),
    [
        ("pairs", {"query": "q", "positive": "p"}, TextPair("q", "p", where="x.jsonl:1")),
        ("pairs", {"query": "q", "positive": "p", "negative": "n"}, TextPair("q", "p", ("n",), where="x.jsonl:1")),
        ("pairs", {"query": "q", "positive": "p", "negative": ""}, TextPair("q", "p", where="x.jsonl:1")),
        ("triplets", {"query": "q", "positive": "p", "negative": ["n", "m"]}, TextPair("q", "p", ("n", "m"), where="x.jsonl:1")),
        ("question_answer", {"question": "q", "answer": "p"}, TextPair("q", "p", where="x.jsonl:1")),
        ("title_body", {"title": "q", "body": "p"}, TextPair("q", "p", where="x.jsonl:1")),
        ("duplicates", {"a": "q", "b": "p", "label": True}, TextPair("q", "p", where="x.jsonl:1")),
        ("duplicates", {"a": "q", "b": "p"}, TextPair("q", "p", where="x.jsonl:1")),
        ("classes", {"text": "q", "label": 3}, ClassText("q", "3", "x.jsonl:1")),
        ("text_to_text", {"input": "q", "output": "p"}, InputOutput("q", "p", "x.jsonl:1")),
    ],
)  # fmt: skip
def test_kinds(kind, record, example):
    assert select(spec(kind), record) == ([example], [], Counter({"records read": 1}))


def test_columns_together_stand_on_lines_of_their_own_and_say_nothing_twice():
    task = spec("pairs", columns={"query": ["order", "material"]})
    examples, bad, _ = select(
        task,
        {"order": "Sort.", "material": "b a", "positive": "a b"},
        {"order": "Sing.", "material": "Sing.", "positive": "la"},
        {"order": "Wait.", "material": None, "positive": "..."},
        {"order": " ", "material": "", "positive": "nothing"},
        {"order": "Sort.", "material": ["b", "a"], "positive": "a b"},
    )
    assert [example.query for example in examples] == ["Sort.\nb a", "Sing.", "Wait."]
    assert [str(each) for each in bad] == [
        "x.jsonl:4: no columns 'order', 'material' (the record has material, order, positive)",
        "x.jsonl:5: column 'material' is no text (it holds list)",
    ]


def test_what_a_pattern_matches_is_taken_out_of_its_role_alone():
    remove = {"query": r"^Summarise: |\nTL;DR:\Z", "negative": "^Wrong: "}
    record = {"query": "Summarise: Summarise: it.\nTL;DR:", "positive": "Summarise: no."}
    examples, bad, _ = select(
        spec("pairs", remove=remove),
        {**record, "negative": "Wrong: never."},
        {**record, "negative": ["Wrong: 1", "2"]},
        {**record, "query": 3},
    )
    assert [example.texts for example in examples] == [
        ("Summarise: it.", "Summarise: no.", "never."),
        ("Summarise: it.", "Summarise: no.", "1", "2"),
    ]
    assert [each.reason for each in bad] == ["column 'query' is no text"]


def test_scores():
    examples, bad, _ = select(
        spec("scored", positive_score=4),
        {"a": "q", "b": "p", "score": "3.5"},
        {"a": "q", "b": "p", "score": None},
        {"a": "q", "b": "p", "score": "nan"},
    )
    assert examples == [ScoredPair("q", "p", 3.5, "x.jsonl:1")]
    assert [str(each) for each in bad] == [
        "x.jsonl:2: column 'score' is no number (it holds None)",
        "x.jsonl:3: column 'score' is no number (it holds 'nan')",
    ]


def test_what_is_not_selected_is_counted():
    task = spec("duplicates", where={"lang": ["en", "de"], "year": 1999}, positive_labels=["same"])
    texts = {"a": "q", "b": "p"}
    examples, bad, report = select(
        task,
        {**texts, "lang": "en", "year": "1999", "label": "Same"},
        {**texts, "lang": "de", "year": 1999, "label": "different"},
        {**texts, "lang": "fr", "year": 1999, "label": "same"},
        {**texts, "year": 1999, "label": "same"},
    )
    assert [example.where for example in examples] == ["x.jsonl:1"]
    assert not bad
    assert report == {"not selected by 'where'": 2, "records read": 2, "left out: labelled as no duplicate": 1}


def test_columns_that_are_missing_or_no_texts():
    task = spec("triplets", columns={"query": "anchor"})
    good = {"anchor": "q", "positive": "p", "negative": "n"}
    examples, bad, report = select(
        task,
        good,
        {**good, "anchor": None},
        {**good, "positive": 7},
        {**good, "negative": [1]},
        {**good, "negative": []},
    )
    assert len(examples) == 1
    assert [each.reason for each in bad] == [
        "no column 'anchor'",
        "column 'positive' is no text",
        "column 'negative' is no list of texts",
        "column 'negative' is no list of texts",
    ]
    assert "the record has anchor, negative, positive" in bad[0].detail
    assert report["records read"] == 5
    _, bad, _ = select(spec("classes"), {"text": "q"}, {"text": "q", "label": ["a"]})
    assert [each.reason for each in bad] == ["no label in column 'label'"] * 2


def test_a_draw_depends_on_the_texts_alone():
    examples = [ClassText(f"text {number}", "a") for number in range(500)]
    drawn = draw_by_hash(examples, 40, seed=1, report=Counter())
    smallest = sorted(examples, key=lambda each: hash_texts(1, each.text))[:40]
    assert drawn == [each for each in examples if each in smallest]
    shuffled = random.Random(0).sample(examples, len(examples))
    assert set(draw_by_hash(shuffled, 40, seed=1, report=Counter())) == set(drawn)
    assert set(draw_by_hash(examples, 40, seed=2, report=Counter())) != set(drawn)
    # A task over the same texts, whatever its answers, draws the same ones.
    pairs = [TextPair(each.text, f"answer to {each.text}") for each in shuffled]
    assert {each.query for each in draw_by_hash(pairs, 40, seed=1, report=Counter())} == {each.text for each in drawn}


def test_copies_do_not_crowd_a_draw():
    examples = [ClassText(f"text {number % 10}", "a", str(number)) for number in range(100)]
    report: Counter[str] = Counter()
    drawn = draw_by_hash(examples, 20, seed=0, report=report)
    assert [each.where for each in drawn] == [str(number) for number in range(10)]
    assert report == {"left out: exact duplicate": 90}
    report.clear()
    assert len({each.text for each in draw_by_hash(examples, 4, seed=0, report=report)}) == 4
    assert sum(report.values()) == 96


def test_where_a_text_ends_matters_to_its_hash():
    assert hash_texts(0, "ab", "c") != hash_texts(0, "a", "bc")
    assert hash_texts(0, "a") == hash_texts(0, "a") != hash_texts(1, "a")
    assert 0 <= hash_texts(0, "\ud800") < 2**64
