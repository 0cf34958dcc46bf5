"""Retrieval of demonstrations without a language model: how good would it be to copy the nearest one's output?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from instructor_st.evaluation.bootstrap import Metric
from instructor_st.evaluation.embedder import InstructedEmbedder
from instructor_st.evaluation.generation_metrics import compute_exact_match, compute_rouge_l
from instructor_st.evaluation.measurement import Measurement
from instructor_st.evaluation.task_instructions import TaskInstruction

__all__ = ["Demonstration", "Demonstrations", "find_nearest_demonstrations", "measure_copied_output"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Demonstration:
    """An input and its output."""

    input: str
    output: str


@dataclass(frozen=True)
class Demonstrations:
    """Inputs to be answered, and demonstrations to choose from.

    Attributes:
        queries: What is evaluated.
        pool: What is chosen from.
        left_out: Rows that were left out, counted by reason.
    """

    queries: Sequence[Demonstration]
    pool: Sequence[Demonstration]
    left_out: Mapping[str, int] = field(default_factory=dict)


def find_nearest_demonstrations(
    embedder: InstructedEmbedder, data: Demonstrations, instruction: TaskInstruction, *, count: int = 1
) -> Array:
    """Find the demonstrations whose inputs are nearest to each query's, by cosine.

    Args:
        embedder: Of the model.
        data: Queries and pool.
        instruction: For the queries; its document instruction, if it has one, for the pool.
        count: How many.

    Returns:
        Places in the pool, `(queries, count)`, nearest first.

    Raises:
        ValueError: If there is no query, or the pool has fewer than `count` demonstrations.
    """
    if not data.queries or len(data.pool) < count or count < 1:
        raise ValueError(f"{len(data.queries)} queries and a pool of {len(data.pool)} do not give {count} each.")
    queries = _embed(embedder, [each.input for each in data.queries], instruction.query)
    pool = _embed(embedder, [each.input for each in data.pool], instruction.choose("document"))
    blocks = [np.argsort(-(block @ pool.T), axis=1, kind="stable")[:, :count] for block in _split(queries)]
    return np.concatenate(blocks)


def measure_copied_output(
    embedder: InstructedEmbedder, data: Demonstrations, instruction: TaskInstruction
) -> Measurement:
    """Measure retrieval of demonstrations by copying: the nearest one's output is taken for the answer.

    No language model is asked, so this is less than prompt retrieval (INSTRUCTOR, section on prompt retrieval): a model
    would adapt what it is shown. It tells how much of the answer the embedding finds.

    Args:
        embedder: Of the model.
        data: Queries and pool.
        instruction: For the queries; its document instruction, if it has one, for the pool.

    Returns:
        `rouge_l`, the mean over queries; the bootstrap draws queries. `others`: `exact_match`.

    Raises:
        ValueError: If there is no query or no pool.
    """
    nearest = find_nearest_demonstrations(embedder, data, instruction)[:, 0]
    pairs = [(data.pool[place].output, query.output) for place, query in zip(nearest, data.queries, strict=True)]
    scores = np.array([compute_rouge_l(*pair) for pair in pairs])
    others = {"exact_match": float(np.mean([compute_exact_match(*pair) for pair in pairs]))}
    return Measurement("rouge_l", len(scores), _average(scores), others, data.left_out)


def _average(values: Array) -> Metric:
    return lambda sample: float(values[sample].mean())


def _embed(embedder: InstructedEmbedder, texts: Sequence[str], instruction: str) -> Array:
    vectors = embedder.embed(texts, instruction)
    normalized: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return normalized


def _split(vectors: Array) -> list[Array]:
    return np.array_split(vectors, max(1, len(vectors) // 1024))
