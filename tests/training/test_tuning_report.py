from __future__ import annotations

import json
import math

import pytest

from instructor_st.training.tuning_report import summarize_folds


def make_curves(*folds):
    return [[{"accuracy": value} for value in fold] for fold in folds]


def test_a_clear_gain_is_chosen_and_reported_by_the_other_folds():
    report = summarize_folds(make_curves([0.5, 0.7, 0.8], [0.5, 0.7, 0.8], [0.5, 0.9, 0.8]), [0, 2, 8], 30)
    # All folds: 0.767 after 2 passes, 0.8 after 8. Without the last fold 8 wins; without another one, 2 and 8 tie: 2.
    assert report.epochs == 8
    (change,) = report.changes
    assert change.before == pytest.approx(0.5)
    assert change.after == pytest.approx((0.7 + 0.7 + 0.8) / 3)
    assert change.standard_error == pytest.approx(math.sqrt(0.02 / 3 / 2) / math.sqrt(3))
    assert report.verdict == "helps"
    assert json.loads(json.dumps(report.to_dict()))["verdict"] == "helps"
    assert "| accuracy | 0.500 | 0.733 | +0.233 ± 0.033 |" in report.format()


def test_a_gain_within_its_standard_error_keeps_the_written_instruction():
    report = summarize_folds(make_curves([0.5, 0.9], [0.5, 0.2], [0.5, 0.5]), [0, 2], 30)
    assert (report.epochs, report.verdict) == (0, "does not help")
    assert "so the written one is kept" in report.format()


def test_one_fold_has_no_standard_error_and_says_so():
    report = summarize_folds(make_curves([0.5, 0.6, 0.6]), [0, 2, 8], 30)
    assert (report.epochs, report.chosen_elsewhere, report.changes[0].standard_error) == (2, False, None)
    assert "one fifth held out" in report.format()


def test_a_fold_that_stopped_early_shortens_the_comparison():
    report = summarize_folds(make_curves([0.5, 0.6], [0.5, 0.6, 0.9]), [0, 2, 8], 30)
    assert (report.tried, report.epochs) == ((0, 2), 2)
