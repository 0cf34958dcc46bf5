from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instructor_st.data import read_labelled_texts


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_plain_texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("one\n\n  \ntwo two\n", encoding="utf-8")
    read = read_labelled_texts(path)
    assert (read.kind, read.queries, read.labels) == ("none", ("one", "two two"), ())
    assert read.report == {"left out: blank text": 2}
    assert read.texts == ("one", "two two")


def test_classes(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write('{"text": "a", "label": 1, "split": "x"}\n{"text": "b", "label": "yes"}\n')
    read = read_labelled_texts(path)
    assert (read.kind, read.queries, read.labels, read.documents) == ("classes", ("a", "b"), ("1", "yes"), ((), ()))


def test_texts_without_labels_may_be_rows(tmp_path):
    read = read_labelled_texts(
        write(tmp_path / "r.jsonl", [{"text": "a", "label": None}, {"text": "b", "score": None}])
    )
    assert (read.kind, read.queries, read.documents, read.labels) == ("none", ("a", "b"), ((), ()), ())


def test_label_sets(tmp_path):
    rows = [
        {"text": "x", "labels": ["b", "a", "b"]},
        {"text": "", "labels": ["c"]},
        {"text": "y", "labels": []},
        {"text": "x", "labels": ["a"], "label": "not read", "score": 2},
    ]
    read = read_labelled_texts(write(tmp_path / "r.jsonl", rows))
    assert (read.kind, read.queries, read.documents) == ("label_sets", ("x", "y", "x"), ((), (), ()))
    assert read.labels == (("b", "a"), (), ("a",))
    assert (read.texts, read.report) == (("x", "y"), {"left out: blank text": 1})


def test_label_sets_of_parquet(tmp_path):
    table = pa.table({"text": ["x", "y", "z"], "labels": [["b", "a"], [], ["a"]]})
    pq.write_table(table, tmp_path / "r.parquet")
    read = read_labelled_texts(tmp_path / "r.parquet")
    assert (read.kind, read.queries, read.labels) == ("label_sets", ("x", "y", "z"), (("b", "a"), (), ("a",)))


def test_label_sets_of_csv(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('text,labels\nx,"[""b"", ""a""]"\n', encoding="utf-8")
    assert read_labelled_texts(path).labels == (("b", "a"),)


def test_values(tmp_path):
    rows = [
        {"text": "x", "score": 3},
        {"text": "y", "score": "-2.5"},
        {"text": "x", "score": 1e-3, "label": "not read"},
    ]
    read = read_labelled_texts(write(tmp_path / "r.jsonl", rows))
    assert (read.kind, read.queries, read.documents) == ("values", ("x", "y", "x"), ((), (), ()))
    assert read.labels == (3.0, -2.5, 0.001)
    assert all(type(label) is float for label in read.labels)


def test_values_of_csv(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('text,score\n"x, and x",7\n ,1\ny,0.5\n', encoding="utf-8")
    read = read_labelled_texts(path)
    assert (read.kind, read.queries, read.labels) == ("values", ("x, and x", "y"), (7.0, 0.5))
    assert read.report == {"left out: blank text": 1}


def test_scores_and_matches(tmp_path):
    read = read_labelled_texts(write(tmp_path / "s.jsonl", [{"a": "x", "b": "y", "score": 3}]))
    assert (read.kind, read.queries, read.documents, read.labels) == ("scores", ("x",), (("y",),), (3.0,))
    rows = [{"a": "x", "b": "y", "label": 1}, {"a": "x", "b": "z", "label": 0}]
    read = read_labelled_texts(write(tmp_path / "m.jsonl", rows))
    assert (read.kind, read.labels, read.texts) == ("matches", (1.0, 0.0), ("x", "y", "z"))


def test_answers(tmp_path):
    rows = [{"query": ["i: ", "q"], "positive": "p", "negative": ["n1", "n2", "n3"]}]
    read = read_labelled_texts(write(tmp_path / "r.jsonl", rows))
    assert (read.kind, read.queries, read.documents, read.labels) == ("answers", ("q",), (("p", "n1", "n2", "n3"),), ())


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["No", "Yes", "No"], (0.0, 1.0, 0.0)),
        (["match", "other", "match"], (1.0, 0.0, 1.0)),
        (["original", "original", "duplicate"], (0.0, 0.0, 1.0)),
        (["entailment", "neutral", "neutral"], (1.0, 0.0, 0.0)),
        ([True, False, False], (1.0, 0.0, 0.0)),
        ([0.0, 1.0, 1.0], (0.0, 1.0, 1.0)),
    ],
)
def test_matches_may_be_words(tmp_path, words, labels):
    rows = [{"a": "x", "b": "y", "label": word} for word in words]
    assert read_labelled_texts(write(tmp_path / "r.jsonl", rows)).labels == labels


def test_scores_come_before_the_labels_of_pairs(tmp_path):
    read = read_labelled_texts(write(tmp_path / "r.jsonl", [{"a": "x", "b": "y", "score": "0.5", "label": 1}]))
    assert (read.kind, read.labels) == ("scores", (0.5,))


def test_answers_under_other_names(tmp_path):
    rows = [
        {"anchor": "q", "pos": "p", "negative_2": "n2", "negative_10": "n10"},
        {"query": "r", "positive": "p", "negative": " "},
        {"query": "s", "positive": "t"},
    ]
    read = read_labelled_texts(write(tmp_path / "r.jsonl", rows))
    assert (read.kind, read.queries, read.documents) == ("answers", ("q", "s"), (("p", "n2", "n10"), ("t",)))
    assert (read.texts, read.report) == (("q", "s", "p", "n2", "n10", "t"), {"left out: blank text": 1})


def test_a_sample_is_drawn_by_seed_and_reported(tmp_path):
    path = write(tmp_path / "r.jsonl", [{"text": f"t{number}", "label": number % 2} for number in range(50)])
    read = read_labelled_texts(path, max_rows=10, seed=3)
    assert len(read.queries) == len(set(read.queries)) == 10
    assert read == read_labelled_texts(path, max_rows=10, seed=3)
    assert read.queries != read_labelled_texts(path, max_rows=10, seed=4).queries
    assert read.report == {"left out: more rows than max_rows": 40}
    for text, label in zip(read.queries, read.labels, strict=True):
        assert label == str(int(text[1:]) % 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"text": "a", "label": 1}, {"a": "x", "b": "y", "score": 1}],
            r"r.jsonl:2: the first row has classes, .* scores",
        ),
        ([{"question": "a"}], r"r.jsonl:1: the columns \['question'\] have none of the known forms"),
        ([{"text": ["a"], "label": 1}], r"r.jsonl:1, column 'text': a text is expected, not list"),
        ([{"a": "x", "b": "y", "score": "high"}], r"r.jsonl:1, column 'score': a number is expected"),
        ([{"a": "x", "b": "y", "label": word} for word in "pqr"], "pair labels must be two values"),
        ([{"text": " ", "label": 1}], "no row with a text"),
        ([{"text": "a", "score": [1]}], r"r.jsonl:1, column 'score': a number is expected, not \[1\]"),
        ([{"text": "a", "score": 1}, {"text": "b", "score": ""}], r"r.jsonl:2, column 'score': .* not ''"),
        ([{"text": "a", "score": 1}, {"text": "b", "score": None}], r"r.jsonl:2: the first row has values, .* none"),
        ([{"text": "a", "labels": "b"}], r"r.jsonl:1, column 'labels': a list of names is expected, not 'b'"),
        ([{"text": "a", "labels": ["b", 1]}], r"column 'labels': a list of names is expected, not \['b', 1\]"),
        ([{"text": "a", "labels": ["b", ""]}], r"column 'labels': a list of names is expected, not \['b', ''\]"),
        ([{"text": "a", "labels": ["b"]}, {"text": "a", "label": "b"}], "the first row has label_sets, .* classes"),
        ([{"a": "x", "b": 3, "score": 1}], r"r.jsonl:1, column 'b': a text is expected, not int"),
        ([{"a": "x", "b": "y", "label": word} for word in (1, "yes")], r"two values, .* found \['1', 'yes'\]"),
        ([{"a": "x", "b": "y", "label": word} for word in "pq"], "pair labels must be two values"),
    ],
)
def test_rows_of_another_form(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_labelled_texts(write(tmp_path / "r.jsonl", rows))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_labelled_texts(tmp_path / "x.jsonl")


@pytest.mark.parametrize("count", [0, -1])
def test_a_sample_has_a_row_at_least(tmp_path, count):
    path = write(tmp_path / "r.jsonl", [{"text": "a"}])
    with pytest.raises(ValueError, match=f"max_rows must be 1 or more, not {count}"):
        read_labelled_texts(path, max_rows=count)
    assert read_labelled_texts(path, max_rows=1).report == {}


def test_a_blank_label_is_left_out_and_counted(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("text,label\nx,a\ny,\nz, \nw,b\n", encoding="utf-8")
    read = read_labelled_texts(path)
    assert (read.queries, read.labels) == (("x", "w"), ("a", "b"))
    assert read.report == {"left out: blank label": 2}


@pytest.mark.parametrize("score", ["nan", "inf", "much"])
def test_a_number_that_is_none_names_its_line(tmp_path, score):
    path = tmp_path / "r.csv"
    path.write_text(f"text,score\nx,1\ny,{score}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"r\.csv:3, column 'score': a number is expected, not '{score}'"):
        read_labelled_texts(path)


def test_match_words_are_those_of_the_whole_file(tmp_path):
    rows = [{"a": "x", "b": str(number), "label": "yes" if number else "no"} for number in range(9)]
    path = write(tmp_path / "r.jsonl", rows)
    assert {read_labelled_texts(path, max_rows=1, seed=seed).labels for seed in range(9)} >= {(1.0,)}
