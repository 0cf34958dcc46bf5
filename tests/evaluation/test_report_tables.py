from __future__ import annotations

from dataclasses import replace

import pytest

from instructor_st.evaluation.bootstrap import Interval
from instructor_st.evaluation.condition_table import format_condition_table
from instructor_st.evaluation.report_tables import format_category_table, format_failures, format_results_table
from instructor_st.evaluation.result_grid import Column
from instructor_st.evaluation.robustness_tables import format_ladder_table, format_spread_table
from instructor_st.evaluation.table_cells import PairedDifference
from tests.evaluation.made_results import make_result, read_table


@pytest.fixture
def results():
    other = {"model": "org/other"}
    return [
        make_result("a", 0.50, 0.47, 0.54, rows=10, seconds=30, texts_per_second=100),
        make_result("b", 0.70, 0.66, 0.73, rows=20, seconds=45, texts_per_second=300),
        make_result("c", 0.30, category="Clustering", metric="v_measure", rows=5, seconds=1, texts_per_second=110),
        make_result("a", 0.60, 0.55, 0.65, **other, rows=12),
        make_result("b", 0.71, 0.70, 0.72, **other, rows=20),
        make_result("c", 0.405, category="Clustering", metric="v_measure", **other),
    ]


def test_results_by_hand(results):
    rows = read_table(format_results_table(results))
    assert rows["a / Spearman correlation"] == {
        "rows": "10 to 12",
        "base, right": "0.500 [0.470, 0.540]",
        "other, right": "**0.600** [0.550, 0.650]",
    }
    # 0.70 lies below 0.73.
    assert rows["b / Spearman correlation"]["other, right"] == "0.710 [0.700, 0.720]"
    assert rows["b / Spearman correlation"]["rows"] == "20"
    # No interval, no bold.
    assert rows["c / V-measure"] == {"rows": "5", "base, right": "0.300", "other, right": "0.405"}
    # Below 0.655: sqrt(0.05^2 + 0.01^2) / 2 = 0.0255, which is 0.6295 and above base's 0.625.
    assert rows["*STS, mean of 2*"] == {
        "rows": "",
        "base, right": "0.600 [0.575, 0.625]",
        "other, right": "**0.655** [0.630, 0.680]",
    }
    assert "*Clustering, mean of 1*" not in rows
    assert rows["*all, mean of 3*"] == {"rows": "", "base, right": "0.500", "other, right": "0.572"}
    assert rows["texts a second (median)"] == {"rows": "", "base, right": "110", "other, right": "-"}
    assert rows["time"] == {"rows": "", "base, right": "1 min 16 s", "other, right": "-"}
    assert next(iter(rows)) == "c / V-measure"


def test_values_alone_if_wanted(results):
    text = format_results_table(results, intervals=False, names={"org/other": "ours"})
    assert "[" not in text
    assert read_table(text)["a / Spearman correlation"]["ours, right"] == "**0.600**"


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([(0.5, 0.4, 0.6), (0.7, 0.61, 0.8)], 1),
        ([(0.5, 0.4, 0.6), (0.7, 0.60, 0.8)], None),
        ([(0.7, 0.65, 0.8), (0.5, 0.4, 0.6), (0.6, 0.5, 0.64)], 0),
        ([(0.7, 0.65, 0.8), (0.5, 0.4, 0.6), (0.6, 0.5, 0.66)], None),
        ([(0.7, 0.7, 0.7), (0.7, 0.7, 0.7)], None),
        ([(0.7, 0.65, 0.8), (0.1, None, None)], None),
        ([(0.7, None, None), (0.1, 0.0, 0.2)], None),
        ([(0.7, float("nan"), float("nan")), (0.1, 0.0, 0.2)], None),
        ([(0.7, 0.65, 0.8)], None),
    ],
)
def test_bold_needs_intervals_apart_from_all(values, best):
    results = [make_result("a", *each, model=f"m{number}") for number, each in enumerate(values)]
    row = read_table(format_results_table(results))["a / Spearman correlation"]
    assert [name for name, cell in row.items() if "**" in cell] == ([] if best is None else [f"m{best}, right"])


@pytest.mark.parametrize(("low", "is_bold"), [(0.01, True), (0.0, False), (-0.01, False)])
@pytest.mark.parametrize("is_turned", [False, True])
def test_paired_differences_decide_before_intervals(low, is_bold, is_turned):
    results = [make_result("a", 0.70, 0.6, 0.8, model="m"), make_result("a", 0.65, 0.55, 0.75, model="n")]
    one, two = Column("m", "right"), Column("n", "right")
    interval = Interval(0.05, low, 0.09)
    if is_turned:
        one, two, interval = two, one, Interval(-0.05, -0.09, -low)
    difference = PairedDifference("a", "cosine_spearman", one, two, interval)
    row = read_table(format_results_table(results, differences=[difference]))["a / Spearman correlation"]
    assert row["m, right"].startswith("**") is is_bold
    # Of another task it says nothing.
    elsewhere = replace(difference, task="b")
    assert "**" not in format_results_table(results, differences=[elsewhere])


@pytest.mark.parametrize(("low", "is_bold"), [(0.01, True), (-0.01, False), (None, False)])
def test_gains_in_the_notes_are_paired_differences(low, is_bold):
    gain = {"over": "none", "value": 0.05, "low": low, "high": None if low is None else 0.09}
    for suite, table in (("own", format_results_table), ("robustness", format_ladder_table)):
        results = [
            make_result("a", 0.70, 0.6, 0.8, suite=suite, condition="full", notes={"gain": gain}),
            make_result("a", 0.65, 0.55, 0.75, suite=suite, condition="none"),
        ]
        assert ("**0.700**" in table(results)) is is_bold
        worse = {"over": "full", "value": -0.05, "low": -0.09, "high": -0.01}
        turned = [replace(results[0], notes={}), replace(results[1], notes={"gain": worse})]
        assert "**0.700**" in table(turned)


def test_what_is_missing_is_a_dash_left_out_of_means_and_named(results):
    failed = make_result("d|e", float("nan"), model="org/other", notes={"error": "one class\nonly"})
    text = format_results_table([*results[:5], failed])
    rows = read_table(text.replace(r"d\|e", "d/e"))
    assert rows["c / V-measure"]["other, right"] == "-"
    assert rows["d/e / Spearman correlation"] == {"rows": "", "base, right": "-", "other, right": "-"}
    assert rows["*STS, mean of 3*"]["other, right"] == "0.655† [0.630, 0.680]"
    # (0.5 + 0.7 + 0.3) / 3
    assert rows["*all, mean of 4*"]["base, right"] == "0.500†"
    assert "†: mean over the tasks that have one" in text
    assert "\n- base, right: d\\|e\n" in text
    assert "\n- other, right: c, d\\|e\n" in text
    assert text.endswith("Failed (1):\n\n- d\\|e (other, right): one class only")
    assert format_failures([*results, failed]) == "Failed (1):\n\n- d\\|e (other, right): one class only"
    assert format_failures(results) == ""


def test_a_failure_without_a_reason_says_its_value():
    text = format_failures([make_result("a", float("inf"))])
    assert text.endswith("- a (base, right): the value is inf")


def test_nothing_is_said_to_be_missing_where_nothing_is(results):
    text = format_results_table(results)
    assert "†" not in text
    assert "Failed" not in text
    assert text.split("\n")[-1].startswith("| time |")


def test_further_metrics_have_rows_and_no_part_in_means(results):
    text = format_results_table([*results, make_result("a", 0.1, metric="ap")], every_metric=True)
    rows = read_table(text)
    assert rows["a / average precision"] == {"rows": "", "base, right": "0.100", "other, right": "-"}
    assert rows["*STS, mean of 2*"]["base, right"] == "0.600 [0.575, 0.625]"
    assert "Missing" not in text
    assert "a / average precision" not in read_table(
        format_results_table([*results, make_result("a", 0.1, metric="ap")])
    )


def test_categories_against_a_baseline(results):
    rows = read_table(format_category_table(results, baseline=Column("base", "right")))
    assert rows["Clustering"] == {"tasks": "1", "base, right": "0.300", "other, right": "0.405 (+0.105)"}
    assert rows["STS"]["other, right"] == "**0.655** [0.630, 0.680] (+0.055)"
    assert rows["mean over tasks"] == {"tasks": "3", "base, right": "0.500", "other, right": "0.572 (+0.072)"}
    # (0.3 + 0.6) / 2 and (0.405 + 0.655) / 2
    assert rows["mean over categories"] == {"tasks": "", "base, right": "0.450", "other, right": "0.530"}


def test_differences_to_a_baseline_are_over_shared_tasks(results):
    rows = read_table(format_category_table(results[:4], baseline=Column("base", "right"), intervals=False))
    # Other has a alone: 0.6 against 0.5, not against the mean of a and b.
    assert rows["STS"] == {"tasks": "2", "base, right": "0.600", "other, right": "0.600† (+0.100)"}
    assert rows["Clustering"]["other, right"] == "-"
    with pytest.raises(ValueError, match=r"baseline 'base' under 'none'; there are 'base' under 'right'"):
        format_category_table(results, baseline=Column("base", "none"))


def test_categories_of_two_suites_are_not_mixed(results):
    text = format_category_table([*results, make_result("a", 0.9, suite="mteb")])
    assert {"STS (mteb)", "STS (own)", "Clustering"} <= set(read_table(text))
    robust = make_result("r", suite="robustness")
    assert format_category_table([*results, robust]) == format_category_table(results)
    assert format_results_table([*results, robust]) == format_results_table(results)


def make_robust(task, values, **given):
    return [make_result(task, value, suite="robustness", condition=name, **given) for name, value in values.items()]


def test_ladder_by_hand():
    results = make_robust("a", {"wrong": 0.2, "none": 0.4, "full": 0.5}) + make_robust("b", {"none": 0.5, "full": 0.9})
    results += make_robust("b", {"query only": 0.6}) + make_robust("a", {"paraphrase 1": 0.1})
    text = format_ladder_table(results)
    rows = read_table(text)
    assert rows["base / a / Spearman correlation"] == {
        "none": "0.400",
        "full": "0.500",
        "wrong": "0.200",
        "query only": "-",
    }
    assert rows["base / *mean of 2*"] == {"none": "0.450", "full": "0.700", "wrong": "0.200†", "query only": "-"}
    assert "\n- base, wrong: b" in text
    # Tasks with one side lack it by their nature.
    assert "base, query only:" not in text


def test_ladder_marks_the_best_level_and_lists_failures():
    results = [
        make_result("a", 0.5, 0.4, 0.59, suite="robustness", condition="none"),
        make_result("a", 0.7, 0.6, 0.8, suite="robustness", condition="full"),
        make_result("a", float("nan"), suite="robustness", condition="query only", notes={"error": "no queries"}),
    ]
    text = format_ladder_table(results)
    assert "**0.700** [0.600, 0.800]" in text
    assert "- a (base, query only): no queries" in text


def test_spread_by_hand():
    values = {"none": 0.55, "full": 0.61, "paraphrase 1": 0.5, "paraphrase 2": 0.6, "paraphrase 10": 0.7, "tag": 0.99}
    rows = read_table(format_spread_table(make_robust("a", values) + make_robust("b", {"paraphrase 1": 0.3})))
    assert rows["base / a / Spearman correlation"] == {
        "none": "0.550",
        "full": "0.610",
        "paraphrases": "3",
        "mean": "0.600",
        "deviation": "0.100",
        "worst": "0.500",
        "best": "0.700",
        "gap": "0.200",
        "better than none": "2 of 3",
    }
    lone = rows["base / b / Spearman correlation"]
    assert list(lone.values()) == ["-", "-", "1", "0.300", "-", "0.300", "0.300", "0.000", "-"]


def test_spread_without_paraphrases_of_one_model():
    results = make_robust("a", {"paraphrase 1": 0.5, "right": 0.6}) + make_robust("a", {"none": 0.4}, model="other")
    rows = read_table(format_spread_table(results))
    assert list(rows["other / a / Spearman correlation"].values()) == ["0.400", "-", "0", *["-"] * 6]
    assert rows["base / a / Spearman correlation"]["right"] == "0.600"


def test_conditions_in_rows_with_published_figures():
    results = [
        make_result("a", 0.5, 0.4, 0.6, condition="by topic", suite="following", notes={"published": {"paper": 0.48}}),
        make_result("a", 0.7, 0.65, 0.8, condition="by topic", suite="following", model="other"),
        make_result("a", 0.1, metric="gap", condition="by topic", suite="following"),
        make_result("a", 0.3, condition="by mood", suite="following"),
    ]
    rows = read_table(format_condition_table(results))
    assert rows["a / by topic / Spearman correlation"] == {
        "base": "0.500 [0.400, 0.600]",
        "other": "0.700 [0.650, 0.800]",
        "published": "paper 0.480",
    }
    assert rows["a / by topic / gap"] == {"base": "0.100", "other": "-", "published": "-"}
    assert set(rows) == {
        "a / by topic / Spearman correlation",
        "a / by topic / gap",
        "a / by mood / Spearman correlation",
    }
    assert "published" not in format_condition_table(results[1:])
