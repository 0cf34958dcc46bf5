"""The measure of a data set, by its kind."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from instructor_st.evaluation.billboard import measure_generation, read_judged_texts
from instructor_st.evaluation.conditional_similarity import ConditionalPair, measure_conditional_similarity
from instructor_st.evaluation.copied_output import Demonstration, Demonstrations, measure_copied_output
from instructor_st.evaluation.embedder import InstructedEmbedder
from instructor_st.evaluation.measurement import Measurement
from instructor_st.evaluation.own_data import DataSet
from instructor_st.evaluation.own_data_rows import DataRow, read_data_rows, read_scored_pairs, read_text
from instructor_st.evaluation.task_instructions import TaskInstruction

__all__ = ["measure_data"]


def measure_data(
    embedder: InstructedEmbedder,
    data_set: DataSet,
    instruction: TaskInstruction,
    *,
    limit: int | None = None,
    seed: int = 0,
) -> Measurement:
    """Measure a data set of any kind.

    Args:
        embedder: Of the model.
        data_set: The data set.
        instruction: Its instructions.
        limit: Use at most so many rows (retrieval: queries), drawn by the seed.
        seed: Of all draws.

    Returns:
        The measurement: mteb's main score for the kinds that mteb has, Pearson's correlation for generation, Spearman's for
        conditional similarity, ROUGE-L of the copied output for prompt retrieval.

    Raises:
        ValueError: If the files are at fault, or the model gives NaN.
    """
    if data_set.kind == "generation":
        found = read_data_rows(data_set, limit=limit, seed=seed)
        texts = read_judged_texts((row.where, row.values) for row in found.rows)
        measured = measure_generation(embedder, texts, instruction)
        return _add_left_out(measured, found.left_out)
    if data_set.kind == "conditional":
        found = read_data_rows(data_set, limit=limit, seed=seed)
        scores = read_scored_pairs(data_set, limit=limit, seed=seed).scores
        pairs = [
            ConditionalPair(
                read_text(row.values, "a", row.where),
                read_text(row.values, "b", row.where),
                read_text(row.values, "condition", row.where),
                score,
            )
            for row, score in zip(found.rows, scores, strict=True)
        ]
        return _add_left_out(measure_conditional_similarity(embedder, pairs, instruction), found.left_out)
    if data_set.kind == "prompt_retrieval":
        return measure_copied_output(embedder, _read_demonstrations(data_set, limit, seed), instruction)
    # mteb is an extra, and takes seconds to import.
    from instructor_st.evaluation.mteb_measures import measure_data_set

    return measure_data_set(embedder, data_set, instruction, limit=limit, seed=seed)


def _read_demonstrations(data_set: DataSet, limit: int | None, seed: int) -> Demonstrations:
    """Read queries, and the training rows as the pool; without any, a half of the rows, drawn by the seed."""
    found = read_data_rows(data_set, limit=limit, seed=seed)
    if found.train:
        return Demonstrations(_parse(found.rows), _parse(found.train), found.left_out)
    whole = read_data_rows(data_set)
    order = list(range(len(whole.rows)))
    random.Random(f"{seed}/{data_set.name}/pool").shuffle(order)
    half = len(order) // 2
    pool, asked = sorted(order[:half]), sorted(order[half:][:limit])
    left_out = {**whole.left_out, "no train split: row of the pool": half}
    if beyond := len(order) - half - len(asked):
        left_out["beyond the limit"] = beyond
    return Demonstrations(
        _parse([whole.rows[place] for place in asked]), _parse([whole.rows[place] for place in pool]), left_out
    )


def _parse(rows: Sequence[DataRow]) -> list[Demonstration]:
    return [
        Demonstration(read_text(row.values, "input", row.where), read_text(row.values, "output", row.where))
        for row in rows
    ]


def _add_left_out(measured: Measurement, left_out: Mapping[str, int]) -> Measurement:
    counts = Counter(left_out)
    counts.update(measured.left_out)
    return replace(measured, left_out=dict(counts))
