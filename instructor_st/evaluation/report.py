"""Results as one file and as tables for the terminal."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from instructor_st.evaluation.held_out import Condition, HeldOutReport, HeldOutScore, Metric

__all__ = ["build_results", "format_comparison", "write_results"]

_PACKAGES = ("instructor-st", "sentence-transformers", "transformers", "torch")
_INSTRUCTION = {"right": "the row's own", "wrong": "another task's", "none": ""}


def build_results(report: HeldOutReport, *, model: str, seed: int, revision: str | None = None) -> list[dict[str, Any]]:
    """List a report's values, one a task, condition and metric.

    Args:
        report: The report.
        model: The model's name or folder.
        seed: The run's seed.
        revision: The model's revision, if it has one.

    Returns:
        Dicts with model, revision, versions, seed, suite, task, metric, value, instruction and texts_per_second.
    """
    common = {
        "model": model,
        "revision": revision,
        "versions": {package: version(package) for package in _PACKAGES},
        "seed": seed,
        "suite": "held_out",
        "texts_per_second": round(report.texts_per_second, 1),
    }
    return [
        {
            **common,
            "task": score.task,
            "rows": score.rows,
            "condition": score.condition,
            "instruction": _INSTRUCTION[score.condition],
            "metric": metric,
            "value": getattr(score, metric),
        }
        for score in report.scores
        for metric in ("accuracy", "mean_reciprocal_rank")
        if getattr(score, metric) is not None
    ]


def write_results(results: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Write results.json, in full or not at all.

    Args:
        results: What `build_results` gives, of as many runs as wanted.
        path: The file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(list(results), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def format_comparison(before: HeldOutReport, after: HeldOutReport) -> str:
    """Lay two reports side by side as a Markdown table.

    Args:
        before: The report of the untrained model.
        after: The report of the trained one, over the same rows.

    Returns:
        A row a task: accuracies against hard negatives, or, marked with `*`, the mean reciprocal rank where the rows
        have none; then the averages of both metrics.
    """
    columns: tuple[tuple[HeldOutReport, Condition], ...] = (
        (before, "right"),
        (after, "right"),
        (after, "wrong"),
        (after, "none"),
    )
    lines = [
        "| held-out task | rows | before: right | after: right | after: wrong | after: none |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for task in sorted({score.task for score in after.scores}):
        scores = [_find_score(report, task, condition) for report, condition in columns]
        rows = next(score.rows for score in scores if score)
        lines.append(f"| {task} | {rows} | {' | '.join(map(_format_score, scores))} |")
    averages: tuple[Metric, ...] = ("accuracy", "mean_reciprocal_rank")
    for metric in averages:
        values = (_format(report.average(condition, metric)) for report, condition in columns)
        lines.append(f"| **mean {metric.removeprefix('mean_').replace('_', ' ')}** |  | **{'** | **'.join(values)}** |")
    return "\n".join(lines)


def _find_score(report: HeldOutReport, task: str, condition: Condition) -> HeldOutScore | None:
    return next((score for score in report.scores if (score.task, score.condition) == (task, condition)), None)


def _format_score(score: HeldOutScore | None) -> str:
    if score is None:
        return "-"
    return _format(score.mean_reciprocal_rank) + "*" if score.accuracy is None else _format(score.accuracy)


def _format(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
