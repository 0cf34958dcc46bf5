"""What a measure returns: a metric over numbered rows, so that intervals and paired differences can be drawn from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from instructor_st.evaluation.bootstrap import Interval, Metric, bootstrap_difference, bootstrap_metric

__all__ = ["Measurement"]


@dataclass(frozen=True, eq=False)
class Measurement:
    """A task's metric under one instruction.

    Attributes:
        name: The metric's name, as mteb writes it where it has it (`cosine_spearman`, `ndcg_at_10`, ...).
        rows: How many rows a bootstrap draws from: texts, pairs or queries.
        metric: Takes row numbers `(n,)`, repeats allowed, and gives the value on them; NaN where it is not defined.
        others: Further metrics on all rows.
        left_out: Rows that were left out, counted by reason.
    """

    name: str
    rows: int
    metric: Metric
    others: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The metric on all rows."""
        return self.metric(np.arange(self.rows))

    def find_interval(self, *, resamples: int = 1000, seed: int = 0) -> Interval:
        """Bound the value by a percentile bootstrap over rows."""
        return bootstrap_metric(self.metric, self.rows, resamples=resamples, seed=seed)

    def find_gain(self, other: Measurement, *, resamples: int = 1000, seed: int = 0) -> Interval:
        """Bound the difference to another measurement of the same rows (paired bootstrap).

        Args:
            other: What is subtracted.
            resamples: Number of bootstrap samples.
            seed: Of the samples.

        Returns:
            This value less the other.

        Raises:
            ValueError: If the two are not of as many rows.
        """
        if other.rows != self.rows:
            raise ValueError(f"Measurements of {self.rows} and of {other.rows} rows cannot be paired.")
        return bootstrap_difference(self.metric, other.metric, self.rows, resamples=resamples, seed=seed)
