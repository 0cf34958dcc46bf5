"""The held-out rows' scores as results and as a table for the terminal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from instructor_st.evaluation.held_out import Condition, HeldOutReport, HeldOutScore, Metric
from instructor_st.evaluation.results import Result

__all__ = ["build_results", "format_comparison"]

_INSTRUCTION = {"right": "the row's own", "wrong": "another task's", "none": ""}


def build_results(report: HeldOutReport, *, model: str, seed: int, revision: str | None = None) -> list[Result]:
    """List a report's values, one a task, condition and metric.

    Args:
        report: The report.
        model: The model's name or folder.
        seed: The run's seed.
        revision: The model's revision, if it has one.

    Returns:
        The results.
    """
    metrics: tuple[Metric, ...] = ("accuracy", "mean_reciprocal_rank")
    return [
        Result(
            model=model,
            suite="held_out",
            task=score.task,
            category="Held-out rows",
            condition=score.condition,
            instruction=_INSTRUCTION[score.condition],
            metric=metric,
            value=getattr(score, metric),
            rows=score.rows,
            texts_per_second=round(report.texts_per_second, 1),
            revision=revision,
            seed=seed,
        )
        for score in report.scores
        for metric in metrics
        if getattr(score, metric) is not None
    ]


def format_comparison(before: HeldOutReport, after: HeldOutReport, *, groups: Mapping[str, str] | None = None) -> str:
    """Lay two reports side by side as a Markdown table.

    Args:
        before: The report of the untrained model.
        after: The report of the trained one, over the same rows.
        groups: A group for each task, such as its type: a line is then the mean over a group's tasks.

    Returns:
        A row a task or group: accuracies against hard negatives, or, marked with `*`, the mean reciprocal rank where
        the rows have none; then the averages of both metrics over all tasks.
    """
    columns: tuple[tuple[HeldOutReport, Condition], ...] = (
        (before, "right"),
        (after, "right"),
        (after, "wrong"),
        (after, "none"),
    )
    lines = [
        f"| held-out {'tasks' if groups else 'task'} | rows | before: right | after: right | after: wrong | after: none |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    tasks = sorted({score.task for score in after.scores})
    grouped: dict[str, list[str]] = {}
    for task in tasks:
        grouped.setdefault((groups or {}).get(task, task), []).append(task)
    for name, members in sorted(grouped.items()):
        rows = sum(score.rows for score in after.scores if score.condition == "right" and score.task in members)
        values = (_format_scores(_find_scores(report, members, condition)) for report, condition in columns)
        lines.append(f"| {name} | {rows} | {' | '.join(values)} |")
    averages: tuple[Metric, ...] = ("accuracy", "mean_reciprocal_rank")
    for metric in averages:
        values = (_format(report.average(condition, metric)) for report, condition in columns)
        lines.append(f"| **mean {metric.removeprefix('mean_').replace('_', ' ')}** |  | **{'** | **'.join(values)}** |")
    return "\n".join(lines)


def _find_scores(report: HeldOutReport, tasks: Sequence[str], condition: Condition) -> list[HeldOutScore]:
    return [score for score in report.scores if score.condition == condition and score.task in tasks]


def _format_scores(scores: Sequence[HeldOutScore]) -> str:
    if not scores:
        return "-"
    accuracies = [score.accuracy for score in scores if score.accuracy is not None]
    if accuracies:
        return _format(statistics.fmean(accuracies))
    return _format(statistics.fmean(score.mean_reciprocal_rank for score in scores)) + "*"


def _format(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
