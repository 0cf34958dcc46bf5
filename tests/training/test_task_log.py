from __future__ import annotations

import pytest
import torch
from torch import tensor

from instructor_st.training.task_log import TaskLog


def test_averages_by_hand():
    log = TaskLog()
    log.add("b", tensor(1.0), tensor(0.5))
    log.add("a", tensor(4.0), tensor(1.0))
    log.add("b", tensor(2.0), tensor(0.25))
    assert log.take() == {
        "loss/a": 4.0,
        "accuracy/a": 1.0,
        "loss/b": 1.5,
        "accuracy/b": 0.375,
        "accuracy": pytest.approx((0.5 + 1 + 0.25) / 3),
    }
    assert log.take() == {}
    log.add("b", tensor(7.0), tensor(0.0))
    assert log.take() == {"loss/b": 7.0, "accuracy/b": 0.0, "accuracy": 0.0}


def test_tasks_without_accuracy_have_none_and_count_for_none():
    log = TaskLog()
    log.add("graded", tensor(3.0), None)
    assert log.take() == {"loss/graded": 3.0}
    log.add("graded", tensor(3.0), None)
    log.add("pairs", tensor(1.0), tensor(0.5))
    log.add("graded", tensor(5.0), None)
    assert log.take() == {"loss/graded": 4.0, "loss/pairs": 1.0, "accuracy/pairs": 0.5, "accuracy": 0.5}
    log.add("both", tensor(1.0), None)
    log.add("both", tensor(1.0), tensor(0.25))
    assert log.take()["accuracy/both"] == 0.25


def test_processes_are_summed_up():
    logs = [TaskLog(), TaskLog()]
    # The processes see the same tasks, but the order in which they first come may differ.
    for log, tasks in zip(logs, (("a", "b"), ("b", "a")), strict=True):
        for task in tasks:
            log.add(task, tensor({"a": 1.0, "b": 10.0}[task]), tensor(0.5))
    logs[1].add("a", tensor(4.0), tensor(1.0))
    logs[0].add("c", tensor(2.0), None)
    logs[1].add("c", tensor(4.0), None)
    sent = []

    def collect(values):
        sent.append(values)
        return values

    logs[0].take(collect)
    assert logs[1].take(lambda values: values + sent[0]) == {
        "loss/a": 2.0,
        "accuracy/a": pytest.approx(2 / 3),
        "loss/b": 10.0,
        "accuracy/b": 0.5,
        "loss/c": 3.0,
        "accuracy": pytest.approx(3 / 5),
    }
    assert TaskLog().take(collect) == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_is_named(value):
    log = TaskLog()
    assert log.find_non_finite() is None
    log.add("good", tensor(1.0), tensor(1.0))
    assert log.find_non_finite() is None
    log.add("bad", tensor(value), None)
    log.add("bad", tensor(1.0), None)
    assert log.find_non_finite() == "bad"
    log.take()
    assert log.find_non_finite() is None


def test_no_graph_and_no_batch_are_kept():
    log = TaskLog()
    weight = torch.ones((), requires_grad=True)
    for _ in range(3):
        log.add("a", weight * 2, tensor(1.0, dtype=torch.float64))
    log.add("half", tensor(0.5, dtype=torch.bfloat16), None)
    assert not any(each.requires_grad for each in log._sums.values())
    assert {each.shape for each in log._sums.values()} == {(4,)}
    assert log.take() == {"loss/a": 2.0, "accuracy/a": 1.0, "loss/half": 0.5, "accuracy": 1.0}
