from __future__ import annotations

import pytest

from instructor_st.training.task_schedule import match_weights, share_rows


def test_alpha_one_and_equal_weights_draw_each_row_once():
    assert share_rows([70, 33, 8], [1, 1, 1]) == [70, 33, 8]
    assert share_rows([70, 33, 8], [0.3] * 3) == pytest.approx([70, 33, 8])


@pytest.mark.parametrize(
    ("rows", "weights", "alpha", "max_repeats", "expected"),
    [
        ([400, 100], [1, 1], 0.5, 4, [500 * 2 / 3, 500 / 3]),  # 20 to 10
        ([400, 100], [1, 1], 0, 4, [250, 250]),
        ([400, 100], [1, 4], 1, 4, [250, 250]),
        ([400, 100], [1, 0], 1, 4, [400, 0]),
        ([900, 90, 10], [1, 1, 1], 0, 4, [600, 360, 40]),  # 333 each; 40 and 360 are the caps, the rest is the first's
        ([900, 90, 10], [1, 1, 1], 0, 1, [900, 90, 10]),
        ([0, 50], [1, 1], 0, 4, [0, 50]),
        ([], [], 1, 4, []),
    ],
)
def test_shares_follow_weights_sizes_and_caps(rows, weights, alpha, max_repeats, expected):
    assert share_rows(rows, weights, alpha=alpha, max_repeats=max_repeats) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ([1, -1], {}, "data set 1 is -1"),
        ([float("nan"), 1], {}, "data set 0 is nan"),
        ([0, 0], {}, "Every weight is 0"),
        ([1, 1], {"alpha": -0.5}, r"alpha must be 0 or more .* not -0\.5"),
        ([1, 1], {"max_repeats": 0}, "max_repeats must be a whole number from 1, not 0"),
        ([1, 1], {"max_repeats": 1.5}, r"not 1\.5"),
    ],
)
def test_numbers_out_of_range(weights, options, message):
    with pytest.raises(ValueError, match=message):
        share_rows([5, 5], weights, **options)


def test_weights_by_name():
    assert match_weights({"b": 2.0, "a": 0.5}, ["a", "c", "b"]) == (0.5, 1.0, 2.0)
    with pytest.raises(ValueError, match=r"\['d'\], which are no data sets"):
        match_weights({"d": 1.0, "a": 1.0}, ["a"])
