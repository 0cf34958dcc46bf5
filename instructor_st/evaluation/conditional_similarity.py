"""Conditional similarity: do the same two texts come nearer or farther with the condition that the instruction names?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from instructor_st.evaluation.bootstrap import Metric
from instructor_st.evaluation.embedder import InstructedEmbedder
from instructor_st.evaluation.measurement import Measurement
from instructor_st.evaluation.task_instructions import TaskInstruction

__all__ = ["ConditionalPair", "fill_condition", "measure_conditional_similarity", "score_conditions"]

Array = npt.NDArray[Any]
_PLACE = "{condition}"


@dataclass(frozen=True)
class ConditionalPair:
    """Two texts and how similar they are under a condition."""

    first: str
    second: str
    condition: str
    score: float


def fill_condition(instruction: str, condition: str) -> str:
    """Put a condition into an instruction.

    Args:
        instruction: With `{condition}` where it goes; without it the instruction is the same under all conditions.
        condition: The condition.

    Returns:
        The instruction.
    """
    return instruction.replace(_PLACE, condition)


def score_conditions(similarities: Array, scores: Array, conditions: Sequence[str]) -> dict[str, float]:
    """Compute the measures of conditional similarity.

    Args:
        similarities: Of each pair under its condition, `(pairs,)`.
        scores: What they should be, `(pairs,)`.
        conditions: The conditions' names, one a pair.

    Returns:
        `spearman` over all pairs (Deshpande et al. 2023, arXiv 2305.15093, section 4), `spearman: NAME` for each
        condition, and, where scores are 0 and 1, `average_precision` and `average_precision: NAME`. NaN where one side
        does not vary.
    """
    from sklearn.metrics import average_precision_score

    groups = {"": np.arange(len(scores))}
    names = np.array(conditions)
    groups |= {f": {name}": np.flatnonzero(names == name) for name in dict.fromkeys(conditions)}
    binary = set(np.unique(scores)) <= {0.0, 1.0}
    found = {}
    for name, places in groups.items():
        found[f"spearman{name}"] = _correlate(similarities[places], scores[places])
        if binary and len(set(scores[places])) == 2:
            found[f"average_precision{name}"] = float(average_precision_score(scores[places], similarities[places]))
    return found


def measure_conditional_similarity(
    embedder: InstructedEmbedder, pairs: Sequence[ConditionalPair], instruction: TaskInstruction
) -> Measurement:
    """Measure whether embeddings follow the condition.

    Both texts are embedded under the query instruction with the pair's condition in it. Where each pair stands under
    several conditions with opposite scores, a model that takes no notice of the condition gets a Spearman of 0.

    Args:
        embedder: Of the model.
        pairs: The pairs.
        instruction: Its query instruction has `{condition}` where the condition goes.

    Returns:
        Spearman's correlation of cosine and score over all pairs; the bootstrap draws pairs. `others` has the measures of
        `score_conditions`.

    Raises:
        ValueError: If there are fewer than two pairs, all scores are equal or one is not finite.
    """
    scores = np.array([pair.score for pair in pairs], dtype=float)
    if len(scores) < 2 or not np.isfinite(scores).all() or scores.min() == scores.max():
        raise ValueError(f"Conditional similarity needs pairs with several finite scores; got {len(scores)} pairs.")
    instructions = [fill_condition(instruction.query, pair.condition) for pair in pairs]
    texts = [*(pair.first for pair in pairs), *(pair.second for pair in pairs)]
    vectors = embedder.embed(texts, [*instructions, *instructions])
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    # Equal cosines differ in their last digits by the order of their sums, which ranks would take for an order.
    similarities = np.round((vectors[: len(pairs)] * vectors[len(pairs) :]).sum(axis=1).astype(float), 6)
    others = score_conditions(similarities, scores, [pair.condition for pair in pairs])
    others.pop("spearman")
    return Measurement("spearman", len(pairs), _build_metric(similarities, scores), others)


def _build_metric(similarities: Array, scores: Array) -> Metric:
    return lambda sample: _correlate(similarities[sample], scores[sample])


def _correlate(first: Array, second: Array) -> float:
    if len(first) < 2 or first.min() == first.max() or second.min() == second.max():
        return float("nan")
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)
