from __future__ import annotations

import pytest

from instructor_st.evaluation.result_grid import Column, TaskKey, build_grid, select_robustness
from tests.evaluation.made_results import make_result

NONE, RIGHT = Column("base", "none"), Column("base", "right")


def test_rows_and_columns_have_one_order_whatever_that_of_the_results():
    results = [
        make_result("b", model="second", condition="wrong"),
        make_result("a", model="second", condition="none"),
        make_result("c", model="first", category="Clustering"),
        make_result("z", model="first", suite="mteb"),
        *(make_result("a", model="first", condition=f"paraphrase {number}") for number in (10, 2)),
    ]
    grid = build_grid(results)
    assert [(task.suite, task.category, task.task) for task in grid.tasks] == [
        ("mteb", "STS", "z"),
        ("own", "Clustering", "c"),
        ("own", "STS", "a"),
        ("own", "STS", "b"),
    ]
    assert grid.models == ("second", "first")
    assert [column.condition for column in grid.columns] == ["none", "wrong", "right", "paraphrase 2", "paraphrase 10"]
    assert grid.conditions == ("none", "right", "wrong", "paraphrase 2", "paraphrase 10")
    assert list(grid.categories) == [("mteb", "STS"), ("own", "Clustering"), ("own", "STS")]


def test_means_count_tasks_alike_and_leave_out_what_is_missing():
    results = [make_result("a", 0.5, 0.47, 0.54, rows=1000), make_result("b", 0.7, 0.66, 0.73, rows=10)]
    results += [make_result("a", 0.2, condition="none"), make_result("c", 0.9, category="Clustering")]
    grid = build_grid(results)
    similarity = grid.categories["own", "STS"]
    mean = grid.average(similarity, RIGHT)
    # (0.5 + 0.7) / 2; below: sqrt(0.03^2 + 0.04^2) / 2 = 0.025; above: sqrt(0.04^2 + 0.03^2) / 2 = 0.025.
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.6, 0.575, 0.625))
    assert (mean.tasks, mean.wanted, mean.is_partial) == (2, 2, False)
    partial = grid.average(similarity, NONE)
    assert (partial.value, partial.low, partial.high, partial.tasks, partial.wanted) == (0.2, None, None, 1, 2)
    assert partial.is_partial
    assert grid.list_missing(similarity, NONE) == ["b"]
    assert grid.average(grid.categories["own", "Clustering"], NONE) is None
    # Over categories: (0.6 + 0.9) / 2; over tasks: (0.5 + 0.7 + 0.9) / 3.
    assert grid.average_categories(RIGHT).value == pytest.approx(0.75)
    assert grid.average(grid.tasks, RIGHT).value == pytest.approx(0.7)
    assert grid.average_categories(NONE).is_partial


def test_an_interval_to_one_side_of_its_value_stays_so():
    results = [make_result("a", 0.5, 0.51, 0.53), make_result("b", 0.7, 0.66, 0.74, category="Clustering")]
    grid = build_grid(results)
    alone = grid.average(grid.categories["own", "STS"], RIGHT)
    assert (alone.low, alone.high) == (0.51, 0.53)
    # Below, only b adds: 0.04 / 2; above: sqrt(0.03^2 + 0.04^2) / 2.
    both = grid.average(grid.tasks, RIGHT)
    assert (both.low, both.high) == pytest.approx((0.58, 0.625))


def test_bounds_that_are_not_finite_are_none():
    grid = build_grid([make_result("a", 0.5, float("nan"), float("nan")), make_result("b", 0.5, 0.4, 0.6)])
    assert grid.average(grid.tasks, RIGHT).low is None


def test_failures_are_kept_apart_and_their_tasks_stay_rows():
    failed = make_result("a", float("nan"), metric="", category="", condition="none", notes={"error": "no rows"})
    marked = make_result("b", 0.0, notes={"error": "one class"})
    grid = build_grid([failed, marked, make_result("a", 0.5)])
    assert grid.failures == (failed, marked)
    assert [(task.task, task.metric, task.category) for task in grid.tasks] == [
        ("a", "cosine_spearman", "STS"),
        ("b", "cosine_spearman", "STS"),
    ]
    assert set(grid.columns) == {NONE, RIGHT}
    assert len(grid.cells) == 1


def test_the_first_metric_is_the_main_one():
    results = [
        make_result("a", 0.5),
        make_result("a", 0.6, metric="ap"),
        make_result("a", 0.1, metric="ap", condition="none"),
    ]
    assert [task.metric for task in build_grid(results).tasks] == ["cosine_spearman"]
    every = build_grid(results, every_metric=True)
    assert [task.metric for task in every.tasks] == ["ap", "cosine_spearman"]
    assert every.find(TaskKey("own", "STS", "a", "ap"), NONE).value == 0.1


def test_two_values_for_one_place_are_an_error_and_a_repeat_is_none():
    build_grid([make_result("a", 0.5), make_result("a", 0.5)])
    with pytest.raises(
        ValueError, match=r"own/a: two values of cosine_spearman for 'base' under 'right', 0.5 .* 0.6 \(seed 1"
    ):
        build_grid([make_result("a", 0.5), make_result("a", 0.6, seed=1)])
    with pytest.raises(ValueError, match="no result"):
        build_grid([])


def test_robustness_is_picked_by_condition():
    conditions = ["none", "full", "right", "wrong", "query only", "paraphrase 1", "paraphrase 12", "other"]
    results = [make_result(condition=each, suite="robustness") for each in conditions] + [make_result()]
    assert [each.condition for each in select_robustness(results)] == ["none", "full", "wrong", "query only"]
    found = select_robustness(results, paraphrases=True)
    assert [each.condition for each in found] == ["none", "full", "right", "paraphrase 1", "paraphrase 12"]
    with pytest.raises(ValueError, match="paraphrase 1, paraphrase 2"):
        select_robustness(results[:4], paraphrases=True)
    with pytest.raises(ValueError, match="none, tag, short"):
        select_robustness([make_result()])
