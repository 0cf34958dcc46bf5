from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from instructor_st.data import parse_row
from instructor_st.evaluation import HeldOutEvaluator, build_results, format_comparison, read_results, write_results

VECTORS = {
    "q1": [1.0, 0.0],
    "q2": [0.0, 1.0],
    "near": [0.9, 0.1],
    "far": [0.1, 0.9],
    "middle": [0.6, 0.6],
    "wide": [0.7, 0.0],
}


class LookupModel:
    """Looks vectors up; an instruction "flip" swaps the two dimensions, so its effect can be worked out by hand."""

    def encode(self, inputs, **options):
        self.inputs = [tuple(pair) for pair in inputs]
        vectors = [VECTORS[text][::-1] if instruction == "flip: " else VECTORS[text] for instruction, text in inputs]
        return torch.nn.functional.normalize(torch.tensor(vectors), dim=-1)


def make_row(task, query, positive, negative=None, instruction="", label=None):
    record = {"query": [instruction, query], "positive": ["", positive], "label": label}
    if negative:
        record["negative_1"] = ["", negative]
    return parse_row(record, "here", task=task)


@pytest.fixture
def rows():
    return {
        "plain": [make_row("plain", "q1", "near", "far"), make_row("plain", "q2", "middle", "far")],
        "flipped": [make_row("flipped", "q2", "near", "far", instruction="flip: ")],
    }


def test_scores_by_hand(rows):
    report = HeldOutEvaluator(rows).evaluate(LookupModel())
    scores = {(score.task, score.condition): score for score in report.scores}
    # q1: near before middle before far. q2: far before middle before near, so its positive is second.
    plain = scores["plain", "right"]
    assert (plain.accuracy, plain.mean_reciprocal_rank, plain.rows) == (0.5, (1 + 1 / 2) / 2, 2)
    # "flip: q2" is q1: near wins. Without the instruction far wins.
    assert (scores["flipped", "right"].accuracy, scores["flipped", "right"].mean_reciprocal_rank) == (1.0, 1.0)
    assert (scores["flipped", "none"].accuracy, scores["flipped", "none"].mean_reciprocal_rank) == (0.0, 0.5)
    # The tasks share the text q2, so each one's wrong instruction is the other's.
    assert scores["flipped", "wrong"].accuracy == 0.0
    # flip(q1) = q2: near is last of three; flip(q2) = q1: middle is second of three, before far.
    assert scores["plain", "wrong"].accuracy == 0.5
    assert scores["plain", "wrong"].mean_reciprocal_rank == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert report.average("right", "accuracy") == 0.75
    assert report.texts_per_second > 0


def test_ties_and_missing_negatives_count_against():
    rows = {"t": [make_row("t", "q1", "wide", "q1")]}
    score = HeldOutEvaluator(rows).evaluate(LookupModel()).scores[0]
    assert score.accuracy == 0.0  # both at cosine 1
    rows = {"t": [make_row("t", "q1", "near"), make_row("t", "q2", "far")]}
    report = HeldOutEvaluator(rows).evaluate(LookupModel())
    assert [score.accuracy for score in report.scores] == [None, None]
    assert report.average("right", "accuracy") != report.average("right", "accuracy")
    assert report.average("right", "mean_reciprocal_rank") == 1.0


def test_documents_of_the_rows_class_are_no_rivals():
    rows = {
        "t": [make_row("t", "q1", "middle", "far", label="x"), make_row("t", "near", "wide", "far", label="x")],
    }
    scores = HeldOutEvaluator(rows).evaluate(LookupModel(), conditions=("right",)).scores
    # q1: "wide" is nearer than "middle" but of the same class; only "far" competes.
    assert scores[0].mean_reciprocal_rank == 1.0


def test_one_task_has_no_wrong_instruction(rows):
    report = HeldOutEvaluator({"plain": rows["plain"]}).evaluate(LookupModel())
    assert {score.condition for score in report.scores} == {"right", "none"}


def test_each_distinct_input_is_embedded_once(rows):
    model = LookupModel()
    HeldOutEvaluator(rows).evaluate(model)
    assert len(model.inputs) == len(set(model.inputs))


def test_as_an_evaluator_of_the_trainer(t5_model):
    row = parse_row({"query": ["a: ", "cell"], "positive": ["", "cell"], "negative_1": ["", "gate"]}, "here", task="t")
    evaluator = HeldOutEvaluator({"t": [row]})
    assert evaluator(t5_model) == {"held_out_accuracy": 1.0, "held_out_mean_reciprocal_rank": 1.0}
    assert evaluator.primary_metric == "held_out_mean_reciprocal_rank"
    with pytest.raises(ValueError, match="no held-out row"):
        HeldOutEvaluator({"t": []})


def test_gap_between_the_right_and_a_wrong_instruction_by_hand(rows):
    model = LookupModel()
    model.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *_, **__: None)
    # See test_scores_by_hand: right 0.5 and 1, wrong 0.5 and 0.
    assert HeldOutEvaluator(rows, with_gap=True)(model) == {
        "held_out_accuracy": 0.75,
        "held_out_mean_reciprocal_rank": (0.75 + 1) / 2,
        "held_out_accuracy_wrong": 0.25,
        "held_out_instruction_gap": 0.5,
    }
    assert set(HeldOutEvaluator(rows)(model)) == {"held_out_accuracy", "held_out_mean_reciprocal_rank"}
    # One task alone has no wrong instruction, so there is no gap.
    alone = HeldOutEvaluator({"plain": rows["plain"]}, with_gap=True, name="dev")
    assert alone(model) == {"dev_accuracy": 0.5, "dev_mean_reciprocal_rank": 0.75}


def test_table_and_results_file(rows, tmp_path):
    report = HeldOutEvaluator(rows).evaluate(LookupModel())
    table = format_comparison(report, report).splitlines()
    assert table[2] == "| flipped | 1 | 1.000 | 1.000 | 0.000 | 0.000 |"
    assert table[-2] == "| **mean accuracy** |  | **0.750** | **0.750** | **0.250** | **0.250** |"
    without = HeldOutEvaluator({"t": [make_row("t", "q1", "near")]}).evaluate(LookupModel())
    assert format_comparison(without, without).splitlines()[2:] == [
        "| t | 1 | 1.000* | 1.000* | - | 1.000* |",
        "| **mean accuracy** |  | **-** | **-** | **-** | **-** |",
        "| **mean reciprocal rank** |  | **1.000** | **1.000** | **-** | **1.000** |",
    ]
    results = build_results(report, model="folder", seed=3)
    write_results(results, tmp_path / "deep" / "results.json")
    loaded = json.loads((tmp_path / "deep" / "results.json").read_text())
    assert read_results(tmp_path / "deep") == results
    assert len(loaded) == 2 * 3 * 2
    assert {name: value for name, value in loaded[0].items() if name not in ("versions", "texts_per_second")} == {
        "model": "folder",
        "suite": "held_out",
        "task": "flipped",
        "category": "Held-out rows",
        "condition": "right",
        "instruction": "the row's own",
        "metric": "accuracy",
        "value": 1.0,
        "document_instruction": None,
        "low": None,
        "high": None,
        "rows": 1,
        "seconds": None,
        "revision": None,
        "seed": 3,
        "notes": {},
    }
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["results.json"]
