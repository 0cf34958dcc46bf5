from __future__ import annotations

import math
import warnings

import pytest

from instructor_st import INSTRUCTOR
from instructor_st.data import TrainingData
from instructor_st.training import TrainArguments, build_trainer
from instructor_st.training.best_metric import (
    BestMetricError,
    check_best_metric,
    check_evaluations,
)
from tests.conftest import T5
from tests.training.small_trainer import make_rows, make_trainer

METRICS = {"held_out_accuracy": math.nan, "held_out_mean_reciprocal_rank": 0.5}


def make_arguments(folder, **options) -> TrainArguments:
    return TrainArguments(output_dir=str(folder), **{"precision": "float32", "use_cpu": True, **options})


@pytest.mark.parametrize(
    ("wanted", "needs_value", "message"),
    [
        ("eval_held_out_mean_reciprocal_rank", True, ""),
        ("held_out_mean_reciprocal_rank", True, ""),
        ("eval_held_out_accuracy", False, ""),
        (
            "eval_loss",
            False,
            r"^metric_for_best_model: 'eval_loss' is not evaluated; there are eval_held_out_accuracy, "
            r"eval_held_out_mean_reciprocal_rank\.$",
        ),
        ("loss", True, r"'eval_loss' is not evaluated; there are eval_held_out_mean_reciprocal_rank\.$"),
        ("held_out_accuracy", True, r"'eval_held_out_accuracy' is NaN .*; there are eval_held_out_mean_reciprocal_rank\."),
    ],
)  # fmt: skip
def test_the_metric_is_one_of_those_that_are_evaluated(tmp_path, wanted, needs_value, message):
    args = make_arguments(tmp_path, eval_strategy="epoch", metric_for_best_model=wanted)
    if not message:
        check_best_metric(args, METRICS, needs_value=needs_value)
        return
    with pytest.raises(BestMetricError, match=message):
        check_best_metric(args, METRICS, needs_value=needs_value)


def test_a_metric_is_not_looked_for_where_none_is_wanted_or_nothing_evaluated(tmp_path):
    check_best_metric(make_arguments(tmp_path, eval_strategy="epoch"), METRICS)
    check_best_metric(make_arguments(tmp_path, metric_for_best_model="eval_loss"), METRICS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load_best_model_at_end": True}, "^load_best_model_at_end needs evaluations .* eval_strategy is no; set it to"),
        ({"load_best_model_at_end": True, "save_strategy": "no"}, "^load_best_model_at_end needs evaluations"),
        ({"save_strategy": "best", "metric_for_best_model": "x"}, "^save_strategy best needs evaluations"),
    ],
)  # fmt: skip
def test_a_best_model_needs_evaluations(tmp_path, options, message):
    with pytest.raises(BestMetricError, match=message):
        make_arguments(tmp_path, **options)
    matching = {"save_strategy": "epoch"} if options.get("save_strategy") == "no" else {}
    check_evaluations(make_arguments(tmp_path, **{**options, **matching, "eval_strategy": "epoch"}))


def test_evaluations_need_held_out_rows(tmp_path):
    model = INSTRUCTOR(T5, device="cpu")
    data = TrainingData({"one": make_rows("one")}, held_out={})
    for options, message in [
        ({}, r"^eval_strategy is epoch, and there are no held-out rows .* set eval_strategy to no\.$"),
        ({"load_best_model_at_end": True}, "set eval_strategy to no and leave load_best_model_at_end out"),
    ]:
        args = make_arguments(tmp_path, eval_strategy="epoch", per_device_train_batch_size=4, **options)
        with pytest.raises(BestMetricError, match=message):
            build_trainer(model, data, args=args)


def test_a_metric_that_the_first_evaluation_does_not_give_is_named(tmp_path):
    trainer = make_trainer(
        INSTRUCTOR(T5, device="cpu"), tmp_path, num_train_epochs=1, eval_strategy="epoch", save_strategy="epoch",
        metric_for_best_model="accuracy", load_best_model_at_end=True,
    )  # fmt: skip
    with pytest.raises(BestMetricError, match=r"'eval_accuracy' is not evaluated; there are .*eval_held_out_accuracy"):
        trainer.train()


@pytest.mark.parametrize("eval_delay", [4, 5])
def test_training_without_a_best_model_says_so_at_its_end(tmp_path, eval_delay):
    trainer = make_trainer(
        INSTRUCTOR(T5, device="cpu"), tmp_path, num_train_epochs=1, eval_strategy="steps", save_strategy="steps",
        eval_steps=2, save_steps=2, eval_delay=eval_delay, load_best_model_at_end=True,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    assert trainer.state.global_step == 4
    said = [str(each.message) for each in caught if "load_best_model_at_end: no evaluation" in str(each.message)]
    assert len(said) == (eval_delay > 4)
    assert (trainer.state.best_model_checkpoint is None) == bool(said)
