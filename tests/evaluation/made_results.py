"""Results made up for tests of tables and plots."""

from __future__ import annotations

from typing import Any

from instructor_st.evaluation.results import Result


def make_result(
    task: str = "sts16", value: float = 0.5, low: float | None = None, high: float | None = None, **given: Any
):
    defaults: dict[str, Any] = {
        "model": "base",
        "suite": "own",
        "category": "STS",
        "condition": "right",
        "instruction": "Represent the sentence: ",
        "metric": "cosine_spearman",
        "versions": {"torch": "2.13"},
    }
    return Result(task=task, value=value, low=low, high=high, **{**defaults, **given})


def read_table(markdown: str) -> dict[str, dict[str, str]]:
    """A Markdown table's cells by the texts before the first column of numbers, then by column."""
    lines = [line.strip("|").split("|") for line in markdown.split("\n") if line.startswith("|")]
    heads = [cell.strip() for cell in lines[0]]
    left = sum(not cell.endswith(":") for cell in lines[1])
    assert all(len(line) == len(heads) for line in lines)
    rows = {}
    for line in lines[2:]:
        cells = [cell.strip() for cell in line]
        name = " / ".join(cell for cell in cells[:left] if cell)
        assert name not in rows
        rows[name] = dict(zip(heads[left:], cells[left:], strict=True))
    return rows
