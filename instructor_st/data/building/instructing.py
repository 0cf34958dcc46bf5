"""Instructions put to plain pairs, a share of them as paraphrases, and rows held out: all drawn by hash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from instructor_st.data.building.examples import TextPair
from instructor_st.data.building.mixture import Mixture, SideInstructions, TaskSpec
from instructor_st.data.building.selection import hash_texts
from instructor_st.data.schema import Row
from instructor_st.pairs import InstructedText

__all__ = ["SplitRows", "instruct_pairs", "split_pairs"]


@dataclass(frozen=True)
class SplitRows:
    """The rows of a task.

    Attributes:
        train: To train on.
        held_out: To evaluate with; no query of them stands in a training row.
    """

    train: tuple[Row, ...]
    held_out: tuple[Row, ...]


def instruct_pairs(pairs: Iterable[TextPair], spec: TaskSpec, *, share: float, seed: int) -> list[Row]:
    """Give each pair the task's instructions, and a share of the pairs paraphrases of them.

    The two sides' paraphrases are drawn independently; where both sides have the same instructions, a row has one.

    Args:
        pairs: The pairs.
        spec: Their task.
        share: The share of rows that get paraphrases, from 0 to 1.
        seed: Of the draws.

    Returns:
        The rows.
    """
    sides = spec.sides
    rows = []
    for pair in pairs:
        number = hash_texts(seed, "wording", spec.name, pair.query, pair.positive)
        # The halves of one hash draw for the two sides, so that a query's wording does not tell its documents'.
        paraphrased = (number % 2**16) / 2**16 < share
        query = _choose(sides.query, paraphrased, number >> 16)
        # A symmetric task is used with one instruction for both sides.
        document = query if sides.document == sides.query else _choose(sides.document, paraphrased, number >> 40)
        rows.append(
            Row(
                query=InstructedText(query, pair.query),
                positive=InstructedText(document, pair.positive),
                negatives=tuple(InstructedText(document, negative) for negative in pair.negatives),
                task=spec.name,
                label=pair.label,
            )
        )
    return rows


def split_pairs(
    pairs: Sequence[TextPair], mixture: Mixture, *, report: Counter[str]
) -> tuple[list[TextPair], list[TextPair]]:
    """Hold out the pairs of a share of the query texts, by a hash that is the same in every task.

    Args:
        pairs: The pairs of a task.
        mixture: Its `seed`, `held_out_share` and `max_held_out` count.
        report: Receives the counts of what was left out.

    Returns:
        Pairs to train on and pairs to evaluate with. A training pair that has a held-out query among its texts is left
        out; so are held-out pairs beyond the cap, whose queries must not be trained on either.
    """

    def draw(pair: TextPair) -> int:
        return hash_texts(mixture.seed, "held out", pair.query)

    limit = mixture.held_out_share * 2**64
    held_out = sorted((pair for pair in pairs if draw(pair) < limit), key=draw)
    queries = {pair.query for pair in held_out}
    train = []
    for pair in pairs:
        if pair.query in queries:
            continue
        if queries.intersection(pair.texts):
            report["left out: holds a held-out query"] += 1
            continue
        train.append(pair)
    if len(held_out) > mixture.max_held_out:
        report["left out: more than max_held_out"] += len(held_out) - mixture.max_held_out
    return train, held_out[: mixture.max_held_out]


def _choose(side: SideInstructions, paraphrased: bool, number: int) -> str:
    if not paraphrased or not side.paraphrases:
        return side.instruction
    return side.paraphrases[number % len(side.paraphrases)]
