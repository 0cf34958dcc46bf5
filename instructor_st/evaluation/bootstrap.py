"""Percentile bootstrap intervals over the rows of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Interval", "Metric", "bootstrap_difference", "bootstrap_metric", "draw_samples", "find_interval"]

Array = npt.NDArray[Any]
Metric = Callable[[Array], float]


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % confidence interval.

    Attributes:
        value: On all rows.
        low: The 2.5th percentile over bootstrap samples of the rows.
        high: The 97.5th percentile.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """`0.812 [0.790, 0.833]`."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def draw_samples(rows: int, *, resamples: int = 1000, seed: int = 0) -> Array:
    """Draw bootstrap samples; the same arguments give the same samples, so that differences are paired.

    Args:
        rows: Number of rows.
        resamples: Number of samples.
        seed: Of the draw.

    Returns:
        Row numbers, `(resamples, rows)`.

    Raises:
        ValueError: If there is no row or no sample.
    """
    if rows < 1 or resamples < 1:
        raise ValueError(f"A bootstrap needs rows and samples, not {rows} and {resamples}.")
    return np.random.default_rng(seed).integers(0, rows, (resamples, rows))


def find_interval(value: float, drawn: Sequence[float] | Array) -> Interval:
    """Bound a value by the percentiles of its bootstrap samples (Efron and Tibshirani 1993, chapter 13).

    Args:
        value: On all rows.
        drawn: The value on each sample; NaN (a sample with one class only, say) is left out.

    Returns:
        The interval; NaN bounds if every sample gives NaN.
    """
    finite = np.asarray(drawn, dtype=float)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.percentile(finite, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))


def bootstrap_metric(metric: Metric, rows: int, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Bound a metric.

    Args:
        metric: Takes row numbers, gives a value.
        rows: Number of rows.
        resamples: Number of bootstrap samples.
        seed: Of the samples.

    Returns:
        The metric on all rows, with its interval.
    """
    samples = draw_samples(rows, resamples=resamples, seed=seed)
    return find_interval(metric(np.arange(rows)), [metric(sample) for sample in samples])


def bootstrap_difference(first: Metric, second: Metric, rows: int, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Bound the difference of two metrics over the same rows (paired bootstrap).

    Args:
        first: Takes row numbers, gives a value.
        second: The one to subtract.
        rows: Number of rows.
        resamples: Number of bootstrap samples, the same for both.
        seed: Of the samples.

    Returns:
        `first - second` on all rows, with its interval.
    """
    return bootstrap_metric(lambda sample: first(sample) - second(sample), rows, resamples=resamples, seed=seed)
