from __future__ import annotations

import math

import pytest

from instructor_st import INSTRUCTOR
from instructor_st.data import parse_row
from instructor_st.evaluation import HeldOutEvaluator
from instructor_st.evaluation.report_metrics import list_report_metrics
from tests.conftest import T5


def make_rows(task: str, *, negatives: bool = True) -> list:
    negative = {"negative_1": "a pear"} if negatives else {}
    return [
        parse_row({"query": [f"{task}: ", query], "positive": positive, **negative}, "here", task=task)
        for query, positive in (("one", "an apple"), ("two", "a plum"))
    ]


@pytest.mark.parametrize("with_gap", [False, True])
@pytest.mark.parametrize("negatives", [True, False])
def test_metrics_are_those_of_the_evaluator_without_another_evaluation(with_gap, negatives):
    model = INSTRUCTOR(T5, device="cpu")
    rows = {task: make_rows(task, negatives=negatives) for task in ("first", "second")}
    evaluator = HeldOutEvaluator(rows, name="kept", with_gap=with_gap)
    report = evaluator.evaluate(model, show_progress_bar=False)
    encode, model.encode = model.encode, None
    metrics = list_report_metrics(evaluator, report, model=model)
    assert model.model_card_data.eval_results_dict == {}
    model.encode = encode
    assert metrics == pytest.approx(evaluator(model), nan_ok=True)
    assert len(metrics) == (4 if with_gap else 2)
    assert math.isnan(metrics["kept_accuracy"]) is not negatives
    assert 0 < metrics["kept_mean_reciprocal_rank"] <= 1
