"""Results as one file and as tables for the terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from instructor_st.evaluation.held_out import Condition, HeldOutReport, HeldOutScore

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
        A table of accuracies against hard negatives, a row a task, and the averages of both metrics.
    """
    conditions: tuple[Condition, ...] = ("right", "wrong", "none")
    lines = [
        "| held-out task | rows | before: right | after: right | after: wrong | after: none |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    old, new = _index_scores(before), _index_scores(after)
    for task in sorted({score.task for score in after.scores}):
        cells = [old.get((task, "right")), *(new.get((task, condition)) for condition in conditions)]
        rows = new[task, "right"].rows
        lines.append(
            f"| {task} | {rows} | " + " | ".join(_format(cell.accuracy if cell else None) for cell in cells) + " |"
        )
    for metric, name in (("accuracy", "mean accuracy"), ("mean_reciprocal_rank", "mean reciprocal rank")):
        values = [before.average("right", metric), *(after.average(condition, metric) for condition in conditions)]  # type: ignore[arg-type]
        lines.append(f"| **{name}** |  | " + " | ".join(f"**{_format(value)}**" for value in values) + " |")
    return "\n".join(lines)


def _index_scores(report: HeldOutReport) -> dict[tuple[str, str], HeldOutScore]:
    return {(score.task, score.condition): score for score in report.scores}


def _format(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"
