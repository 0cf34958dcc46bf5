from __future__ import annotations

import math

import numpy as np
import pytest

from instructor_st.evaluation.bootstrap import (
    Interval,
    bootstrap_difference,
    bootstrap_metric,
    draw_samples,
    find_interval,
)
from instructor_st.evaluation.measurement import Measurement

VALUES = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0])


def mean(values):
    return lambda sample: float(values[sample].mean())


def test_samples_are_of_all_rows_and_of_the_seed():
    first, again, other = (
        draw_samples(5, resamples=40),
        draw_samples(5, resamples=40),
        draw_samples(5, resamples=40, seed=1),
    )
    assert first.shape == (40, 5)
    assert set(first.ravel()) == set(range(5))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(("rows", "resamples"), [(0, 10), (3, 0)])
def test_nothing_to_draw(rows, resamples):
    with pytest.raises(ValueError, match=f"not {rows} and {resamples}"):
        draw_samples(rows, resamples=resamples)


def test_an_interval_is_the_percentiles_of_finite_values():
    interval = find_interval(0.5, [*np.arange(101.0), math.nan])
    assert (interval.value, interval.low, interval.high) == (0.5, 2.5, 97.5)
    assert str(Interval(0.8123, 0.79, 0.8331)) == "0.812 [0.790, 0.833]"
    nothing = find_interval(0.5, [math.nan])
    assert nothing.value == 0.5
    assert math.isnan(nothing.low)
    assert math.isnan(nothing.high)


def test_a_metric_is_bounded_by_its_own_samples():
    interval = bootstrap_metric(mean(VALUES), 8, resamples=200, seed=3)
    drawn = [VALUES[sample].mean() for sample in np.random.default_rng(3).integers(0, 8, (200, 8))]
    assert interval == Interval(0.625, *np.percentile(drawn, [2.5, 97.5]))


def test_differences_are_paired():
    # The second is the first less a constant: paired samples differ by just that, unpaired ones would not.
    interval = bootstrap_difference(mean(VALUES), mean(VALUES - 0.25), 8, resamples=50)
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.25, 0.25, 0.25))


def test_measurements_are_bounded_and_compared():
    first, second = Measurement("accuracy", 8, mean(VALUES)), Measurement("accuracy", 8, mean(1 - VALUES))
    assert first.value == 0.625
    assert first.find_interval(resamples=20, seed=1) == bootstrap_metric(mean(VALUES), 8, resamples=20, seed=1)
    assert first.find_gain(second).value == pytest.approx(0.25)
    with pytest.raises(ValueError, match="8 and of 7 rows cannot be paired"):
        first.find_gain(Measurement("accuracy", 7, mean(VALUES)))
