"""Evaluation of generated texts by embeddings: does the nearest reference tell what people think of a candidate?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from instructor_st.evaluation.embedder import InstructedEmbedder
from instructor_st.evaluation.measurement import Measurement
from instructor_st.evaluation.task_instructions import TaskInstruction

__all__ = ["JudgedText", "JudgedTexts", "measure_generation", "read_judged_texts"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class JudgedText:
    """A generated text, its references, and what people think of it."""

    candidate: str
    references: tuple[str, ...]
    score: float


@dataclass(frozen=True)
class JudgedTexts:
    """Generated texts.

    Attributes:
        rows: The texts.
        left_out: Rows that were left out, counted by reason.
    """

    rows: Sequence[JudgedText]
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_judged_texts(records: Iterable[tuple[str, Mapping[str, Any]]]) -> JudgedTexts:
    """Read rows of `candidate`, `reference` (one or a list) and `score`.

    Args:
        records: Where each row stands (`file:line`), and the row, as `instructor_st.data.row_files.read_records` gives
            them; the rows of a Hub data set do as well (`(f"row {n}", row) for n, row in enumerate(dataset)`).

    Returns:
        The texts; blank candidates, rows without a reference and scores that are no finite number are left out and
        counted, blank references too.

    Raises:
        ValueError: If a row lacks a column or holds something else than texts; the message names the row.
    """
    left_out: Counter[str] = Counter()
    rows = []
    for where, record in records:
        candidate, references = record.get("candidate"), record.get("reference")
        references = [references] if isinstance(references, str) else references
        if not isinstance(candidate, str) or not isinstance(references, list | tuple) or "score" not in record:
            raise ValueError(f"{where}: wanted candidate (a text), reference (a text or a list) and score.")
        if not all(isinstance(each, str) for each in references):
            raise ValueError(f"{where}, column 'reference': every reference must be a text.")
        kept = tuple(each for each in references if each.strip())
        left_out["blank reference"] += len(references) - len(kept)
        score = _read_score(record["score"])
        reason = "blank candidate" if not candidate.strip() else "no reference" if not kept else ""
        if reason or score is None:
            left_out[reason or "score is not a finite number"] += 1
            continue
        rows.append(JudgedText(candidate, kept, score))
    return JudgedTexts(rows, {reason: count for reason, count in left_out.items() if count})


def measure_generation(embedder: InstructedEmbedder, texts: JudgedTexts, instruction: TaskInstruction) -> Measurement:
    """Measure how well embeddings judge generated texts.

    A candidate's score is its largest cosine with a reference; the measure is Pearson's correlation with the human scores
    over all candidates (Billboard: Kasai et al. 2022, arXiv 2112.04139; as INSTRUCTOR, arXiv 2212.09741, uses it).

    Args:
        embedder: Of the model.
        texts: The generated texts.
        instruction: For candidates; its document instruction, if it has one, for references.

    Returns:
        `pearson`; the bootstrap draws candidates. `others`: `spearman` and `kendall`.

    Raises:
        ValueError: If there are fewer than two texts or all human scores are equal.
    """
    from scipy.stats import kendalltau, pearsonr, spearmanr

    rows = texts.rows
    human = np.array([row.score for row in rows])
    if len(rows) < 2 or human.min() == human.max():
        raise ValueError(f"Judging needs texts with several scores; got {len(rows)} texts.")
    candidates = _embed(embedder, [row.candidate for row in rows], instruction.query)
    references = _embed(embedder, [each for row in rows for each in row.references], instruction.choose("document"))
    ends = np.cumsum([len(row.references) for row in rows])
    nearest = np.array(
        [
            float((references[end - len(row.references) : end] @ vector).max())
            for row, vector, end in zip(rows, candidates, ends, strict=True)
        ]
    )

    def correlate(sample: Array) -> float:
        first, second = nearest[sample], human[sample]
        if first.min() == first.max() or second.min() == second.max():
            return float("nan")
        return float(pearsonr(first, second).statistic)

    others = {
        "spearman": float(spearmanr(nearest, human).statistic),
        "kendall": float(kendalltau(nearest, human).statistic),
    }
    return Measurement("pearson", len(rows), correlate, others, texts.left_out)


def _embed(embedder: InstructedEmbedder, texts: Sequence[str], instruction: str) -> Array:
    vectors = embedder.embed(texts, instruction)
    normalized: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return normalized


def _read_score(value: Any) -> float | None:
    try:
        score = float(value)
    except (TypeError, ValueError):
        return None
    return score if np.isfinite(score) else None
