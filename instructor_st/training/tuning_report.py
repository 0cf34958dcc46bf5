"""Whether tuning helps: cross-validated figures before and after."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["MetricChange", "TuningReport", "summarize_folds"]

Verdict = Literal["helps", "makes no clear difference", "does not help"]


@dataclass(frozen=True)
class MetricChange:
    """A metric before and after tuning, on rows that were not learned from.

    Attributes:
        metric: Its name.
        before: With the written instruction, averaged over the folds.
        after: With the tuned one.
        standard_error: Of the mean difference over the folds; `None` with one fold.
    """

    metric: str
    before: float
    after: float
    standard_error: float | None

    @property
    def gain(self) -> float:
        """How much higher the metric is after tuning."""
        return self.after - self.before


@dataclass(frozen=True)
class TuningReport:
    """What the cross-validation found.

    Attributes:
        changes: The metrics.
        epochs: The passes that the final tuning makes; 0 keeps the written instruction.
        tried: The numbers of passes that were compared.
        folds: How many folds there were.
        chosen_elsewhere: Whether each fold's figures are of a number of passes that the other folds chose. With one fold
            they are not, and flatter.
        rows: How many rows there were.
        seconds: How long all of it took; `text_seconds` of it went into encoding the texts (dual).
        text_seconds: See there.
        trained_parameters: How many parameters were trained.
    """

    changes: tuple[MetricChange, ...]
    epochs: int
    tried: tuple[int, ...]
    folds: int
    chosen_elsewhere: bool
    rows: int
    seconds: float = 0.0
    text_seconds: float = 0.0
    trained_parameters: int = 0

    @property
    def verdict(self) -> Verdict:
        """Whether tuning helps: the mean gain over the metrics against twice its standard error, if there is one."""
        gain = statistics.fmean(change.gain for change in self.changes)
        errors = [change.standard_error for change in self.changes if change.standard_error is not None]
        if self.epochs == 0 or gain < 0:
            return "does not help"
        return "helps" if gain > (2 * statistics.fmean(errors) if errors else 0.0) else "makes no clear difference"

    def to_dict(self) -> dict[str, Any]:
        """Return the report, JSON-able, with the verdict."""
        return {**asdict(self), "verdict": self.verdict}

    def format(self) -> str:
        """Return a table and the verdict, as Markdown."""
        lines = ["| metric | before | after | gain |", "|---|---:|---:|---:|"]
        for change in self.changes:
            error = "" if change.standard_error is None else f" ± {change.standard_error:.3f}"
            lines.append(f"| {change.metric} | {change.before:.3f} | {change.after:.3f} | {change.gain:+.3f}{error} |")
        how = f"{self.folds}-fold cross-validation" if self.folds > 1 else "one fifth held out, and chosen by"
        lines += [
            "",
            f"Tuning {self.verdict} ({self.rows} rows, {how}); {self.epochs} passes over the rows were chosen.",
        ]
        if self.epochs == 0:
            lines.append("No tuned instruction was better by more than chance, so the written one is kept as it is.")
        return "\n".join(lines)


def summarize_folds(curves: Sequence[Sequence[Mapping[str, float]]], tried: Sequence[int], rows: int) -> TuningReport:
    """Choose the number of passes, and say what it gains on rows that did not choose it.

    Args:
        curves: For each fold the metrics at each number of passes that was tried, in order; a fold that stopped early
            has fewer. The first is that of no training.
        tried: The numbers of passes.
        rows: How many rows there are.

    Returns:
        The report. The final number of passes is the best by the mean of all metrics over all folds, the fewest if
        several are alike, and 0 unless the gain exceeds its standard error over the folds: few rows judge badly, and a
        written instruction is a good guess. It is 0 too if what the other folds choose loses on average. Each fold's own figures are those at the number that the other folds choose.
    """
    length = min(map(len, curves))
    metrics = list(curves[0][0])
    means = [[statistics.fmean(point.values()) for point in curve[:length]] for curve in curves]
    best = _choose(means)
    several = len(curves) > 1
    chosen = [_choose(means[:number] + means[number + 1 :]) if several else best for number in range(len(curves))]
    changes = []
    for metric in metrics:
        before = [curve[0][metric] for curve in curves]
        after = [curve[place][metric] for curve, place in zip(curves, chosen, strict=True)]
        gains = [new - old for old, new in zip(before, after, strict=True)]
        error = statistics.stdev(gains) / math.sqrt(len(gains)) if several else None
        changes.append(MetricChange(metric, statistics.fmean(before), statistics.fmean(after), error))
    # What lost on the rows that did not choose it is not kept, however well it did on those that did.
    lost = statistics.fmean(change.gain for change in changes) < 0
    return TuningReport(
        changes=tuple(changes),
        epochs=0 if lost else tried[best],
        tried=tuple(tried[:length]),
        folds=len(curves),
        chosen_elsewhere=several,
        rows=rows,
    )


def _choose(means: Sequence[Sequence[float]]) -> int:
    """Choose a place of the curves: the best mean, but the first unless the gain exceeds its standard error."""
    totals = [statistics.fmean(column) for column in zip(*means, strict=True)]
    best = max(range(len(totals)), key=lambda place: (round(totals[place], 12), -place))
    gains = [curve[best] - curve[0] for curve in means]
    error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return best if statistics.fmean(gains) > error else 0
