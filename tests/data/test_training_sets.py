from __future__ import annotations

import json

import pytest

from instructor_st.data import build_train_dataset, load_training_data, parse_row, split_held_out
from instructor_st.data.schema import parse_training_row
from instructor_st.data.training_sets import find_row_kind


def make_row(query, positive, negatives=(), **options):
    record = {"query": query, "positive": positive, "neg": list(negatives), **options}
    return parse_row(record, "here", task="t")


def test_dataset_has_texts_in_loss_order_and_an_integer_label():
    rows = [make_row("a", "b", ["c", "d", "e"]), make_row("f", "g", ["h", "i", "j"])]
    dataset = build_train_dataset({"task": rows})["task"]
    assert dataset.column_names == ["query", "positive", "negative_1", "negative_2", "negative_3", "label"]
    assert dataset[0] == {
        "query": ["", "a"],
        "positive": ["", "b"],
        "negative_1": ["", "c"],
        "negative_2": ["", "d"],
        "negative_3": ["", "e"],
        "label": 0,
    }
    with pytest.raises(ValueError, match=r"Task 'task' has rows with \[0, 3\] negatives"):
        build_train_dataset({"task": [*rows, make_row("k", "l")]})


def test_rows_that_must_not_be_each_others_negatives_share_a_label():
    rows = [
        make_row("a", "b"),
        make_row("c", "d"),
        make_row("a", "e"),  # the first one's query
        make_row("f", "e"),  # the third one's positive
        make_row("g", "h", label="x"),
        make_row("i", "j", label="y"),
        make_row("k", "l", label="x"),
        make_row("b", "m"),  # a text on the other side does not count
    ]
    assert build_train_dataset({"t": rows})["t"]["label"][:] == [0, 1, 0, 0, 2, 3, 2, 4]


def test_split_keeps_rows_of_one_query_together():
    rows = {"t": [make_row(f"q{i // 2}", f"p{i}") for i in range(40)], "single": [make_row("only", "p")]}
    train, held_out = split_held_out(rows, share=0.25, seed=1)
    assert (len(train["t"]), len(held_out["t"])) == (30, 10)
    assert not {row.query.text for row in train["t"]} & {row.query.text for row in held_out["t"]}
    assert train["single"] == rows["single"]
    assert "single" not in held_out
    assert split_held_out(rows, share=0.25, seed=1) == (train, held_out)
    assert split_held_out(rows, share=0.25, seed=2) != (train, held_out)
    assert len(split_held_out(rows, share=0.25, max_per_task=3)[1]["t"]) == 6


def write_rows(path, count, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"query": f"q{i}", "positive": f"p{i}", **options} for i in range(count)]
    path.write_text("\n".join(map(json.dumps, rows)))


def test_folder_is_split_by_share_or_by_its_sub_folders(tmp_path):
    write_rows(tmp_path / "whole" / "v1.0.jsonl", 20)
    data = load_training_data(tmp_path / "whole", held_out_share=0.1)
    assert {task: len(rows) for task, rows in data.train.items()} == {"v1_0": 18}
    assert len(data.held_out["v1_0"]) == 2
    write_rows(tmp_path / "split" / "train" / "a.jsonl", 5)
    write_rows(tmp_path / "split" / "held_out" / "a.jsonl", 3)
    data = load_training_data(tmp_path / "split", held_out_share=0.5)
    assert (len(data.train["a"]), len(data.held_out["a"])) == (5, 3)
    assert data.report["held-out rows whose query is trained on too"] == 3


def test_cap_is_reported_and_drawn_by_seed(tmp_path):
    write_rows(tmp_path / "a.jsonl", 50)
    data = load_training_data(tmp_path, held_out_share=0, max_rows_per_task=10, seed=1)
    assert len(data.train["a"]) == 10
    assert data.report["left out: more rows than max_rows_per_task"] == 40
    assert data.held_out == {}
    assert load_training_data(tmp_path, held_out_share=0, max_rows_per_task=10, seed=1).train == data.train


def test_different_numbers_of_negatives_and_labels(tmp_path):
    write_rows(tmp_path / "a.jsonl", 4, label="x")
    rows = [{"query": f"r{i}", "positive": "p", "negative_1": "n"} for i in range(3)]
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("\n" + "\n".join(map(json.dumps, rows)))
    data = load_training_data(tmp_path, held_out_share=0)
    assert {task: len(rows) for task, rows in data.train.items()} == {"a (0 negatives)": 4, "a (1 negatives)": 3}
    assert data.labelled_tasks == {"a (0 negatives)"}
    assert set(build_train_dataset(data.train)) == set(data.train)


def test_bad_options_and_empty_folders(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="held_out_share must be from 0 to below 1, not 1"):
        load_training_data(tmp_path, held_out_share=1)
    with pytest.raises(ValueError, match="max_rows_per_task must be 1 or more, not 0"):
        load_training_data(tmp_path, max_rows_per_task=0)
    with pytest.raises(ValueError, match="has no training row"):
        load_training_data(tmp_path)


RECORDS = {
    "pairs": [{"query": f"q{i}", "positive": f"p{i}"} for i in range(10)],
    "graded": [{"a": f"a{i}", "b": f"b{i}", "score": i / 10} for i in range(6)],
    "classes": [{"input": f"t{i}", "label": "odd" if i % 2 else "even"} for i in range(5)],
    "scores": [{"query": f"q{i}", "positive": f"p{i}", "negative_1": "n", "scores": [1, 0.5]} for i in range(4)],
}


def parse(records, task="t"):
    return [parse_training_row(record, "here", task=task) for record in records]


def write_kinds(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in RECORDS.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))


@pytest.mark.parametrize("kind", RECORDS)
def test_kinds(kind):
    assert find_row_kind("t", parse(RECORDS[kind])) == kind


def test_a_task_is_of_one_kind(tmp_path):
    rows = parse([*RECORDS["scores"], *RECORDS["pairs"]])
    message = r"Task 'mixed' has rows of several kinds \(pairs, scores\); name them differently"
    with pytest.raises(ValueError, match=message):
        find_row_kind("mixed", rows)
    with pytest.raises(ValueError, match=message):
        build_train_dataset({"mixed": rows})
    (tmp_path / "mixed.jsonl").write_text("\n".join(map(json.dumps, [*RECORDS["scores"], *RECORDS["pairs"]])))
    with pytest.raises(ValueError, match=message):
        load_training_data(tmp_path)


def test_datasets_of_graded_pairs_classes_and_scores():
    dataset = build_train_dataset({kind: parse(RECORDS[kind]) for kind in RECORDS})
    graded = dataset["graded"]
    assert graded.column_names == ["a", "b", "score"]
    assert graded[3] == {"a": ["", "a3"], "b": ["", "b3"], "score": 0.3}
    classes = dataset["classes"]
    assert classes.column_names == ["text", "label"]
    assert classes["label"][:] == [0, 1, 0, 1, 0]
    assert classes[1]["text"] == ["", "t1"]
    scores = dataset["scores"]
    assert scores.column_names == ["query", "positive", "negative_1", "scores"]
    assert scores[2] == {"query": ["", "q2"], "positive": ["", "p2"], "negative_1": ["", "n"], "scores": [1.0, 0.5]}
    assert list(dataset) == list(RECORDS)


def test_only_pairs_are_held_out_and_nothing_is_lost(tmp_path):
    write_kinds(tmp_path)
    data = load_training_data(tmp_path, held_out_share=0.2)
    assert data.kinds == {kind: kind for kind in ("pairs", "graded", "classes", "scores")}
    assert {task: len(rows) for task, rows in data.train.items()} == {
        "pairs": 8, "graded": 6, "classes": 5, "scores": 4
    }  # fmt: skip
    assert {task: len(rows) for task, rows in data.held_out.items()} == {"pairs": 2}
    assert data.report == {"rows read": 25, "rows that are no pairs, none of them held out": 6 + 5 + 4}
    assert data.labelled_tasks == set()


def test_held_out_rows_that_are_no_pairs_are_counted(tmp_path):
    write_kinds(tmp_path / "train")
    write_kinds(tmp_path / "held_out")
    data = load_training_data(tmp_path)
    assert {task: len(rows) for task, rows in data.train.items()} == {
        "pairs": 10, "graded": 6, "classes": 5, "scores": 4
    }  # fmt: skip
    assert {task: len(rows) for task, rows in data.held_out.items()} == {"pairs": 10}
    assert data.report == {
        "rows read": 50,
        "rows that are no pairs, none of them held out": 15,
        "left out: held-out rows that are no pairs": 15,
        "held-out rows whose query is trained on too": 10,
    }


def test_the_cap_counts_for_all_kinds(tmp_path):
    write_kinds(tmp_path)
    data = load_training_data(tmp_path, held_out_share=0, max_rows_per_task=5, seed=3)
    assert {task: len(rows) for task, rows in data.train.items()} == {
        "pairs": 5, "graded": 5, "classes": 5, "scores": 4
    }  # fmt: skip
    assert data.report["left out: more rows than max_rows_per_task"] == 5 + 1
    assert len(set(data.train["graded"])) == 5


def test_scored_rows_with_different_numbers_of_negatives(tmp_path):
    records = [*RECORDS["scores"], {"query": "q", "positive": "p", "scores": [1]}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, records)))
    data = load_training_data(tmp_path)
    assert data.kinds == {"t (0 negatives)": "scores", "t (1 negatives)": "scores"}
    assert {name: len(part) for name, part in build_train_dataset(data.train).items()} == {
        "t (0 negatives)": 1, "t (1 negatives)": 4
    }  # fmt: skip


def test_broken_files_stop_or_are_left_out_with_the_reason(tmp_path):
    write_kinds(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"query": "a", "positive": "b"}\n{"query": "a"}\n')
    (tmp_path / "worse.jsonl").write_text("no JSON\n")
    with pytest.raises(ValueError, match=r"bad\.jsonl:2: no 'positive'"):
        load_training_data(tmp_path)
    data = load_training_data(tmp_path, held_out_share=0, skip_broken_files=True)
    assert {task: len(rows) for task, rows in data.train.items()} == {
        "pairs": 10, "graded": 6, "classes": 5, "scores": 4
    }  # fmt: skip
    assert data.report.pop("rows read") == 25  # the good row of the broken file is not among them
    broken = sorted(reason for reason in data.report if reason.startswith("left out: broken file"))
    assert len(broken) == 2
    assert "bad.jsonl:2: no 'positive'" in broken[0]
    assert "worse.jsonl:1: not JSON" in broken[1]
    for path in tmp_path.iterdir():
        if path.name not in {"bad.jsonl", "worse.jsonl"}:
            path.unlink()
    with pytest.raises(ValueError, match=r"has no training row.*broken file"):
        load_training_data(tmp_path, skip_broken_files=True)
