from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instructor_st.evaluation.own_data import DataSet, find_data_sets
from instructor_st.evaluation.own_data_queries import read_judged_queries
from instructor_st.evaluation.own_data_rows import (
    read_class_texts,
    read_data_rows,
    read_judged_pairs,
    read_scored_pairs,
)

PAIRS = [{"a": f"a{i}", "b": f"b{i}", "score": i} for i in range(4)]
CLASSES = [{"text": f"t{i}", "label": "xy"[i % 2]} for i in range(8)]


def write(folder: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def find(folder: Path, name: str, rows: Iterable[Mapping[str, Any]], settings: str = "") -> DataSet:
    write(folder, name, rows)
    if settings:
        (folder / "data_sets.yaml").write_text(f"{name}: {{{settings}}}\n", encoding="utf-8")
    return find_data_sets(folder)[0]


def test_kinds_are_told_by_columns_and_names(tmp_path: Path) -> None:
    rows: dict[str, dict[str, Any]] = {
        "sim": {"a": "x", "b": "y", "score": 1, "subset": "z"},
        "cond": {"a": "x", "b": "y", "condition": "c", "score": 1},
        "nli": {"a": "x", "b": "y", "label": "yes"},
        "topics": {"text": "x", "label": "y"},
        "cl_topics": {"text": "x", "label": "y"},
        "clustering_topics": {"text": "x", "label": "y"},
        "clinic": {"text": "x", "label": "y"},
        "captions": {"reference": ["r"], "candidate": "c", "score": 1},
        "prompts": {"input": "x", "output": "y"},
        "web.corpus": {"_id": "1", "title": "", "text": "x"},
        "web.queries": {"_id": "1", "text": "x"},
        "web.qrels": {"query-id": "1", "corpus-id": "1", "score": 1},
    }
    for name, row in rows.items():
        write(tmp_path, name, [row])
    (tmp_path / "notes.txt").write_text("no data")
    found = find_data_sets(tmp_path)
    assert {each.name: each.kind for each in found} == {
        "captions": "generation",
        "cl_topics": "clustering",
        "clinic": "classification",
        "clustering_topics": "clustering",
        "cond": "conditional",
        "nli": "pair_classification",
        "prompts": "prompt_retrieval",
        "sim": "sts",
        "topics": "classification",
        "web": "retrieval",
    }
    assert [each.name for each in found] == sorted(each.name for each in found)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "csv", "parquet"])
def test_every_format_gives_the_same_pairs(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"sim.{ending}"
    lines = "".join(json.dumps(row) + "\n" for row in PAIRS)
    if ending == "jsonl":
        path.write_text(lines)
    elif ending == "jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif ending == "csv":
        path.write_text("a,b,score\n" + "".join(f"a{i},b{i},{i}\n" for i in range(4)))
    else:
        pq.write_table(pa.Table.from_pylist(PAIRS), path)
    found = read_scored_pairs(find_data_sets(tmp_path)[0])
    assert list(found.first) == ["a0", "a1", "a2", "a3"]
    assert list(found.second) == ["b0", "b1", "b2", "b3"]
    assert list(found.scores) == [0, 1, 2, 3]
    assert not found.left_out


def test_faults_wait_until_the_data_set_is_read(tmp_path: Path) -> None:
    write(tmp_path, "good", PAIRS)
    write(tmp_path, "empty", [])
    write(tmp_path, "odd", [{"x": 1}])
    (tmp_path / "broken.jsonl").write_text("{no json}\n")
    write(tmp_path, "web.corpus", [{"_id": "1", "text": "x"}])
    found = {each.name: each for each in find_data_sets(tmp_path)}
    assert found["good"].fault == ""
    assert "empty.jsonl: no rows" in found["empty"].fault
    assert "odd.jsonl:1: the columns x are no known kind" in found["odd"].fault
    assert "broken.jsonl:1" in found["broken"].fault
    assert "web.queries is missing" in found["web"].fault
    with pytest.raises(ValueError, match=r"odd\.jsonl:1"):
        read_data_rows(found["odd"])
    with pytest.raises(ValueError, match=r"web\.queries is missing"):
        read_judged_queries(found["web"])


def test_settings_change_the_kind_and_are_checked(tmp_path: Path) -> None:
    assert find(tmp_path, "topics", CLASSES, "kind: clustering").kind == "clustering"
    for settings, message in [
        ("kind: nonsense", "no such kind 'nonsense'"),
        ("spilt: test", "unknown 'spilt'"),
    ]:
        with pytest.raises(ValueError, match=message):
            find(tmp_path, "topics", CLASSES, settings)
    assert "needs a column 'a'" in find(tmp_path, "topics", CLASSES, "kind: sts").fault
    (tmp_path / "data_sets.yaml").write_text("other: {kind: sts}\n")
    with pytest.raises(ValueError, match="'other' is no data set here; there are topics"):
        find_data_sets(tmp_path)


def test_no_folder_no_data_and_twin_names(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_data_sets(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no data file"):
        find_data_sets(tmp_path)
    write(tmp_path, "sim", PAIRS)
    (tmp_path / "sim.csv").write_text("a,b,score\nx,y,1\n")
    with pytest.raises(ValueError, match=r"sim\.csv and .*sim\.jsonl make one data set's name"):
        find_data_sets(tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*PAIRS, {"a": "x", "b": "y", "score": float("nan")}], r"sim\.jsonl:5: 'score' is nan"),
        ([*PAIRS, {"a": "x", "b": "y", "score": "many"}], r"sim\.jsonl:5: 'score' must be a number, not 'many'"),
        ([*PAIRS, {"a": "x", "b": "y"}], r"sim\.jsonl:5: no 'score'"),
        ([*PAIRS, {"a": "x", "b": 7, "score": 1}], r"sim\.jsonl:5: 'b' must be a text, not 7"),
        ([{"a": "x", "b": "y", "score": 1}] * 3, r"sim\.jsonl: all 3 scores are 1"),
        ([{"a": " ", "b": "y", "score": 1}], r"sim\.jsonl: no rows with a text"),
    ],
)
def test_bad_pairs_are_named_by_line(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_scored_pairs(find(tmp_path, "sim", rows))


def test_blank_texts_are_counted(tmp_path: Path) -> None:
    found = read_scored_pairs(find(tmp_path, "sim", [*PAIRS, {"a": "x", "b": " ", "score": 1}]))
    assert len(found.first) == 4
    assert found.left_out == {"blank b": 1}


def test_limit_draws_by_the_seed_and_keeps_the_order(tmp_path: Path) -> None:
    data_set = find(tmp_path, "sim", [{"a": f"{i:03}", "b": "b", "score": i} for i in range(100)])
    first = read_scored_pairs(data_set, limit=10)
    assert len(first.first) == 10
    assert list(first.first) == sorted(first.first)
    assert first.left_out == {"beyond the limit": 90}
    assert read_scored_pairs(data_set, limit=10).first == first.first
    assert read_scored_pairs(data_set, limit=10, seed=1).first != first.first
    assert len(read_scored_pairs(data_set, limit=1000).first) == 100
    with pytest.raises(ValueError, match="at least 1, not 0"):
        read_scored_pairs(data_set, limit=0)


def label_pairs(*labels: Any) -> list[dict[str, Any]]:
    return [{"a": f"a{i}", "b": f"b{i}", "label": label} for i, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("labels", "settings", "expected"),
    [
        ((1, 0, 1), "", [1, 0, 1]),
        ((True, False), "", [1, 0]),
        ((1.0, 0.0), "", [1, 0]),
        (("SUPPORTS", "REFUTES", "NOT_ENOUGH_INFO", "SUPPORTS"), "", [1, 0, 0, 1]),
        (("SUPPORTS", "REFUTES", "NOT_ENOUGH_INFO"), "positive: REFUTES", [0, 1, 0]),
        (("apples", "pears"), "positive: pears", [0, 1]),
    ],
)
def test_positive_label(tmp_path: Path, labels: tuple[Any, ...], settings: str, expected: list[int]) -> None:
    assert read_judged_pairs(find(tmp_path, "nli", label_pairs(*labels), settings)).labels == expected


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (("apples", "pears"), "", r"which of the labels \['apples', 'pears'\] is positive\?"),
        (("yes", "true", "x"), "", "which of the labels"),
        ((1, 1), "", "only one class, '1', in 2 rows"),
        ((1, 0), "positive: 2", "no pair has the positive label '2'"),
        ((1, [0]), "", r"nli\.jsonl:2: 'label' must be"),
    ],
)
def test_bad_labels(tmp_path: Path, labels: tuple[Any, ...], settings: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_judged_pairs(find(tmp_path, "nli", label_pairs(*labels), settings))


def with_splits(*splits: str | None) -> list[dict[str, Any]]:
    return [
        {"text": f"{split}{i}", "label": "xy"[i % 2]} | ({"split": split} if split else {})
        for split in splits
        for i in range(4)
    ]


@pytest.mark.parametrize(
    ("splits", "settings", "split", "train", "left_out"),
    [
        (("train", "dev", "test"), "", "test", "train", {"split 'dev'": 4}),
        (("train", "dev"), "", "dev", "train", {}),
        (("train", "dev", "validation"), "split: dev", "dev", "train", {"split 'validation'": 4}),
        (("learn", "test"), "train_split: learn", "test", "learn", {}),
        (("train", "holdout"), "", "holdout", "train", {}),
    ],
)
def test_splits_of_classification(
    tmp_path: Path,
    splits: tuple[str, ...],
    settings: str,
    split: str,
    train: str,
    left_out: dict[str, int],
) -> None:
    found = read_class_texts(find(tmp_path, "topics", with_splits(*splits), settings))
    assert list(found.texts) == [f"{split}{i}" for i in range(4)]
    assert list(found.train_texts) == [f"{train}{i}" for i in range(4)]
    assert found.labels == found.train_labels == ["x", "y", "x", "y"]
    assert found.left_out == left_out


@pytest.mark.parametrize("splits", [(None,), ("test",), ("train",)])
def test_without_a_training_split_half_of_each_class_is_learned_from(
    tmp_path: Path, splits: tuple[str | None, ...]
) -> None:
    data_set = find(tmp_path, "topics", with_splits(*splits))
    found = read_class_texts(data_set)
    assert len(found.texts) == len(found.train_texts) == 2
    assert sorted(found.labels) == sorted(found.train_labels) == ["x", "y"]
    assert len({*found.texts, *found.train_texts}) == 4
    assert found.left_out == {"half of each class, to learn from (no training split)": 2}
    assert read_class_texts(data_set).texts == found.texts


def test_unknown_split_and_one_class(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no row has split 'gold'; there are test, train"):
        read_class_texts(find(tmp_path, "topics", with_splits("train", "test"), "split: gold"))
    (tmp_path / "data_sets.yaml").unlink()
    with pytest.raises(ValueError, match=r"topics\.jsonl: only one class, 'x', in 3 rows"):
        read_class_texts(find(tmp_path, "topics", [{"text": "t", "label": "x", "split": "test"}] * 3))


def test_clustering_takes_all_rows_and_no_training(tmp_path: Path) -> None:
    found = read_class_texts(find(tmp_path, "cl_topics", CLASSES))
    assert list(found.texts) == [f"t{i}" for i in range(8)]
    assert found.train_texts == []
    assert not found.left_out


def test_limit_cuts_training_rows_by_class(tmp_path: Path) -> None:
    rows = [{"text": f"{s}{i}", "label": i % 3, "split": s} for s in ("train", "test") for i in range(150)]
    found = read_class_texts(find(tmp_path, "topics", rows), limit=60)
    assert len(found.texts) == 60
    assert {label: found.train_labels.count(label) for label in "012"} == {"0": 20, "1": 20, "2": 20}
    assert read_class_texts(find(tmp_path, "topics", rows), limit=6).train_labels.count("1") == 16


CORPUS = [{"_id": f"d{i}", "title": "T" if i == 1 else "", "text": f"document {i}"} for i in range(40)]
QUERIES = [{"_id": i, "text": f"query {i}"} for i in range(4)]
QRELS = [{"query-id": i, "corpus-id": f"d{i}", "score": 1} for i in range(3)]


def find_search(
    folder: Path,
    corpus: list[dict[str, Any]] = CORPUS,
    queries: list[dict[str, Any]] = QUERIES,
    qrels: list[dict[str, Any]] = QRELS,
) -> DataSet:
    write(folder, "web.corpus", corpus)
    write(folder, "web.queries", queries)
    write(folder, "web.qrels", qrels)
    return find_data_sets(folder)[0]


def test_retrieval_keeps_judged_queries_and_counts_the_rest(tmp_path: Path) -> None:
    qrels = [*QRELS, {"query-id": 9, "corpus-id": "d1", "score": 1}, {"query-id": 0, "corpus-id": "x", "score": 1}]
    qrels += [{"query-id": 3, "corpus-id": "d5", "score": 0}]
    found = read_judged_queries(find_search(tmp_path, qrels=qrels))
    assert dict(found.queries) == {"0": "query 0", "1": "query 1", "2": "query 2"}
    assert found.judgements == {"0": {"d0": 1}, "1": {"d1": 1}, "2": {"d2": 1}}
    assert len(found.corpus) == 40
    assert found.corpus["d1"].title == "T"
    assert found.left_out == {
        "judgement of no known query": 1,
        "judgement of no known document": 1,
        "query without a relevant document": 1,
    }


def test_retrieval_evaluates_the_test_queries(tmp_path: Path) -> None:
    queries = [{**query, "split": "test" if query["_id"] else "train"} for query in QUERIES]
    found = read_judged_queries(find_search(tmp_path, queries=queries))
    assert list(found.queries) == ["1", "2"]
    assert found.left_out["query of another split than 'test'"] == 1
    assert "judgement of no known query" not in found.left_out


def test_retrieval_limit_cuts_queries_and_corpus(tmp_path: Path) -> None:
    data_set = find_search(tmp_path)
    found = read_judged_queries(data_set, limit=2)
    assert len(found.queries) == len(found.judgements) == 2
    assert len(found.corpus) == 20
    assert all(document in found.corpus for judged in found.judgements.values() for document in judged)
    assert found.left_out["query beyond the limit"] == 1
    assert found.left_out["document beyond the limit"] == 20
    assert read_judged_queries(data_set, limit=2).corpus == found.corpus


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"corpus": [*CORPUS, CORPUS[3]]}, r"web\.corpus\.jsonl:41: the id 'd3' is there twice, first at .*:4\."),
        ({"queries": [*QUERIES, QUERIES[0]]}, r"web\.queries\.jsonl:5: the id '0' is there twice"),
        ({"qrels": [{"query-id": 7, "corpus-id": "x", "score": 1}] * 2}, r"qrels\.jsonl:1: '7', 'x': .* all 2"),
        ({"qrels": [{**row, "score": 0} for row in QRELS]}, "no judgement makes a document relevant"),
        ({"qrels": [{**QRELS[0], "score": float("nan")}]}, r"qrels\.jsonl:1: 'score' must be a whole number"),
        ({"qrels": [QRELS[0], {**QRELS[0], "score": 2}]}, r"qrels\.jsonl:2: '0' and 'd0' are judged 1 and 2"),
        ({"qrels": []}, r"web\.qrels\.jsonl: no rows"),
        ({"corpus": [{"_id": "d0", "text": None}]}, r"web\.corpus\.jsonl:1: 'text' must be a text"),
        ({"queries": [{"text": "q"}]}, r"web\.queries\.jsonl:1: '_id' must be"),
    ],
)
def test_bad_retrieval_data(tmp_path: Path, changed: dict[str, list[dict[str, Any]]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_judged_queries(find_search(tmp_path, **changed))


def test_other_kinds_are_read_as_rows(tmp_path: Path) -> None:
    rows = [{"input": f"i{i}", "output": f"o{i}", "split": "train" if i < 3 else "eval"} for i in range(5)]
    found = read_data_rows(find(tmp_path, "prompts", rows), limit=1)
    assert [row.values["input"] for row in found.train] == ["i0", "i1", "i2"]
    assert found.rows[0].values["input"] in ("i3", "i4")
    assert found.rows[0].where.endswith((":4", ":5"))
    assert found.left_out == {"split 'train'": 3, "beyond the limit": 1}
