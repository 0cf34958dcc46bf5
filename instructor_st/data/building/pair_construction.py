"""Query, positive and hard negatives from a task's examples, scored by the paper (INSTRUCTOR, arXiv 2212.09741).

The paper makes pairs of Super-NaturalInstructions with the cosines of a sentence encoder: in classification tasks the
most similar input of the same class is the positive and the most similar one of another class the hard negative; in the
others, with input x and output y, the positive has the highest cos(x_i, x_j) + cos(y_i, y_j) and the hard negative the
highest cos(x_i, x_j) - cos(y_i, y_j). All searches here are exact. Scores are made a block of rows at a time; those near
the best are computed again in float64, so that the result does not depend on the blocks and ties go to the lower index.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from instructor_st.data.building.best_places import (
    TOLERANCE,
    Floats,
    Places,
    Scores,
    find_best_places,
    score_exactly,
    score_rows,
)
from instructor_st.data.building.examples import ClassText, InputOutput, ScoredPair, TextPair
from instructor_st.data.embedding_cache import Scorer, embed_texts

__all__ = ["outputs_are_classes", "pair_classes", "pair_inputs_outputs", "pair_scored"]


def pair_classes(
    examples: Sequence[ClassText],
    *,
    scorer: Scorer,
    cache: Path | None,
    negatives: int,
    report: Counter[str],
    max_positive_uses: int = 3,
    block: int = 512,
) -> list[TextPair]:
    """Pair each text with the most similar text of its class, and with the most similar ones of other classes.

    Copies of the query are neither its positive nor its negatives. A text may stand in several classes: it is no
    negative of a query with which it shares any of them.

    Args:
        examples: The texts with their classes.
        scorer: Embeds the texts.
        cache: A folder for their vectors, or `None`.
        negatives: Hard negatives a row, as far as there are so many.
        report: Receives the counts: pairs made, texts left out by reason, rows with fewer negatives.
        max_positive_uses: No text is the positive of more queries than this; the next similar one is taken.
        block: Rows scored at a time; memory grows with block x number of texts.

    Returns:
        One pair a text, in the order of the examples, with the class as its label.

    Raises:
        ValueError: If an option is out of range.
    """
    _check_options(negatives=negatives, max_positive_uses=max_positive_uses, block=block)
    if not examples:
        return []
    vectors = embed_texts([example.text for example in examples], scorer=scorer, cache=cache)
    search = _ClassSearch(examples, vectors, max_positive_uses)
    pairs = []
    for place, (scores,) in enumerate(score_rows([vectors], block=block)):
        positive = search.find_positive(place, scores, report)
        if positive is not None:
            wrong = search.find_negatives(place, scores, negatives)
            example = examples[place]
            pairs.append(TextPair(example.text, examples[positive].text, wrong, example.label, example.where))
    return _count_pairs(pairs, negatives, report)


def pair_inputs_outputs(
    examples: Sequence[InputOutput],
    *,
    scorer: Scorer,
    cache: Path | None,
    negatives: int,
    report: Counter[str],
    answers: bool = False,
    max_positive_uses: int = 3,
    block: int = 512,
) -> list[TextPair]:
    """Pair inputs by their inputs and outputs, or inputs with their outputs.

    By default all texts of a pair are inputs, and the outputs decide which go together. If the outputs are class labels
    (`outputs_are_classes`), it is `pair_classes` with the output as label. Otherwise the paper's sum and difference of
    cosines decide. No negative is the positive, or has an output that is right for the query. By the paper's rule the output
    of the best hard negative is less similar to the query's than the output of the best positive is; here it is demanded
    of all negatives, and also where a used-up positive gave way to the next.

    With `answers` the documents are outputs, whatever they look like: the positive is the query's own output, the hard
    negatives are the outputs of the examples with the highest difference of cosines.

    Args:
        examples: The inputs with their outputs.
        scorer: Embeds the texts.
        cache: A folder for their vectors, or `None`.
        negatives: Hard negatives a row, as far as there are so many.
        report: Receives the counts: pairs made, examples left out by reason, rows with fewer negatives.
        answers: Whether the documents are outputs.
        max_positive_uses: No input is the positive of more queries than this (not with `answers`).
        block: Rows scored at a time; memory grows with block x number of examples.

    Returns:
        At most one pair an example, in the order of the examples.

    Raises:
        ValueError: If an option is out of range.
    """
    _check_options(negatives=negatives, max_positive_uses=max_positive_uses, block=block)
    if not examples:
        return []
    if not answers and outputs_are_classes([example.output for example in examples]):
        report["examples whose outputs are class labels"] += len(examples)
        return pair_classes(
            [ClassText(example.input, example.output, example.where) for example in examples],
            scorer=scorer,
            cache=cache,
            negatives=negatives,
            report=report,
            max_positive_uses=max_positive_uses,
            block=block,
        )
    sides = [[example.input for example in examples], [example.output for example in examples]]
    vectors = [embed_texts(side, scorer=scorer, cache=cache) for side in sides]
    search = _AnswerSearch(examples, vectors) if answers else _InputSearch(examples, vectors, max_positive_uses)
    pairs = []
    for place, (inputs, outputs) in enumerate(score_rows(vectors, block=block)):
        pair = search.make_pair(place, inputs, outputs, negatives, report)
        if pair is not None:
            pairs.append(pair)
    return _count_pairs(pairs, negatives, report)


def outputs_are_classes(outputs: Sequence[str]) -> bool:
    """Tell whether a text-to-text task is a classification task, from its outputs alone.

    It is one if every output has at most 40 characters and stands at least twice, there are at most 100 different
    outputs, and these are fewer than a tenth of the examples.

    Args:
        outputs: The outputs of all examples.

    Returns:
        Whether the outputs are class labels.
    """
    counts = Counter(outputs)
    return (
        0 < len(counts) <= 100
        and 10 * len(counts) < len(outputs)
        and min(counts.values()) >= 2
        and max(map(len, counts)) <= 40
    )


def pair_scored(
    examples: Sequence[ScoredPair],
    *,
    positive_score: float,
    negative_score: float | None,
    report: Counter[str],
    negatives: int = 1,
) -> list[TextPair]:
    """Make pairs of the texts that score high, with negatives from those that score low.

    The hard negatives of a query are its partners, on either side, in pairs at or below `negative_score`; the highest
    score first. A text that makes a positive pair with the query as well is none.

    Args:
        examples: Two texts and a score each.
        positive_score: From this score on the second text is a positive of the first.
        negative_score: Up to this score the texts are each other's negatives; `None` for no negatives.
        report: Receives the counts: pairs made, examples left out by reason, rows with fewer negatives.
        negatives: Hard negatives a row, as far as there are so many.

    Returns:
        One pair for each example at or above `positive_score`.

    Raises:
        ValueError: If `negative_score` is not below `positive_score`, or `negatives` is negative.
    """
    _check_options(negatives=negatives)
    if negative_score is not None and not negative_score < positive_score:
        raise ValueError(f"negative_score ({negative_score}) must be below positive_score ({positive_score}).")
    right: dict[str, set[str]] = defaultdict(set)
    wrong: dict[str, list[tuple[float, str]]] = defaultdict(list)
    positives = []
    for example in examples:
        a, b, score = example.a, example.b, example.score
        if a == b:
            report["left out: the two texts are the same"] += 1
        elif score >= positive_score:
            positives.append(example)
            right[a].add(b)
            right[b].add(a)
        elif negative_score is not None and score <= negative_score:
            report["pairs at or below negative_score, used as negatives only"] += 1
            wrong[a].append((score, b))
            wrong[b].append((score, a))
        else:
            report["left out: score not high enough for a positive, not low enough for a negative"] += 1
    pairs = []
    for example in positives:
        # Sorting is stable: partners of one score stay in the order of the examples.
        partners = sorted(wrong[example.a], key=lambda partner: -partner[0])
        texts = dict.fromkeys(text for _, text in partners if text not in right[example.a])
        pairs.append(TextPair(example.a, example.b, tuple(texts)[:negatives], where=example.where))
    return _count_pairs(pairs, negatives, report)


_USED_UP = "left out: every right text is the positive of max_positive_uses queries already"


class _Classes:
    """Which places hold a text, which hold a class, and which texts are right for a query because of their classes."""

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        numbers: dict[str, int] = {}
        self.text_numbers: Places = np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.int64)
        self._copies = _group_places(self.text_numbers.tolist())
        self.members = _group_places(labels)
        self._labels: dict[int, dict[str, None]] = defaultdict(dict)
        for number, label in zip(self.text_numbers.tolist(), labels, strict=True):
            self._labels[number][label] = None
        # A text of two classes is right for both, wherever it stands.
        self._right = {
            label: np.concatenate([self._copies[number] for number in np.unique(self.text_numbers[places]).tolist()])
            for label, places in self.members.items()
        }

    def copies(self, place: int) -> Places:
        return self._copies[int(self.text_numbers[place])]

    def labels(self, place: int) -> Iterable[str]:
        """All labels of the text at a place."""
        return self._labels[int(self.text_numbers[place])]

    def find_right_places(self, place: int) -> Places:
        """Places of the texts that share a label with the text at this place, and of its copies."""
        return np.concatenate([self._right[label] for label in self.labels(place)])


class _PositiveUses:
    """Counts how often a text is a positive; `penalty` is minus infinity at the places of texts that are used up."""

    def __init__(self, classes: _Classes, limit: int) -> None:
        self.penalty: Floats = np.zeros(len(classes.text_numbers), dtype=np.float32)
        self._classes, self._limit = classes, limit
        self._counts: Counter[int] = Counter()

    def count(self, place: int) -> None:
        number = int(self._classes.text_numbers[place])
        self._counts[number] += 1
        if self._counts[number] == self._limit:
            self.penalty[self._classes.copies(place)] = -np.inf


class _ClassSearch:
    """The paper's rule for classification tasks."""

    def __init__(self, examples: Sequence[ClassText], vectors: Floats, max_positive_uses: int) -> None:
        self.examples, self.vectors = examples, vectors
        self.classes = _Classes([example.text for example in examples], [example.label for example in examples])
        self.uses = _PositiveUses(self.classes, max_positive_uses)

    def find_positive(self, place: int, scores: Floats, report: Counter[str]) -> int | None:
        members = self.classes.members[self.examples[place].label]
        scores[self.classes.copies(place)] = -np.inf

        def score(near: Places) -> Scores:
            return score_exactly(self.vectors, place, members[near])

        best = find_best_places(scores[members] + self.uses.penalty[members], score=score)
        if not best:
            only_copies = len(np.unique(self.classes.text_numbers[members])) == 1
            report["left out: no other text of its class" if only_copies else _USED_UP] += 1
            return None
        positive = int(members[best[0]])
        self.uses.count(positive)
        return positive

    def find_negatives(self, place: int, scores: Floats, wanted: int) -> tuple[str, ...]:
        scores[self.classes.find_right_places(place)] = -np.inf
        best = find_best_places(
            scores,
            score=partial(score_exactly, self.vectors, place),
            wanted=wanted,
            text_numbers=self.classes.text_numbers,
        )
        return tuple(self.examples[negative].text for negative in best)


class _InputSearch:
    """The paper's rule for the other tasks: sums and differences of cosines; all texts are inputs."""

    def __init__(self, examples: Sequence[InputOutput], vectors: Sequence[Floats], max_positive_uses: int) -> None:
        self.examples, self.vectors = examples, vectors
        self.classes = _Classes([example.input for example in examples], [example.output for example in examples])
        self.uses = _PositiveUses(self.classes, max_positive_uses)

    def make_pair(
        self, place: int, inputs: Floats, outputs: Floats, negatives: int, report: Counter[str]
    ) -> TextPair | None:
        input_vectors, output_vectors = self.vectors

        def add(near: Places) -> Scores:
            return score_exactly(input_vectors, place, near) + score_exactly(output_vectors, place, near)

        total = inputs + outputs + self.uses.penalty
        total[self.classes.copies(place)] = -np.inf
        best = find_best_places(total, score=add)
        if not best:
            only_copies = len(self.classes.copies(place)) == len(self.examples)
            report["left out: no other input" if only_copies else _USED_UP] += 1
            return None
        positive = best[0]
        self.uses.count(positive)
        limit = float(score_exactly(output_vectors, place, np.array([positive]))[0])

        def subtract(near: Places) -> Scores:
            near_outputs = score_exactly(output_vectors, place, near)
            difference = score_exactly(input_vectors, place, near) - near_outputs
            return np.where(near_outputs < limit, difference, -np.inf)

        difference = inputs - outputs
        difference[outputs >= limit + TOLERANCE] = -np.inf
        difference[self.classes.find_right_places(place)] = -np.inf
        difference[self.classes.copies(positive)] = -np.inf
        wrong = find_best_places(difference, score=subtract, wanted=negatives, text_numbers=self.classes.text_numbers)
        texts = tuple(self.examples[negative].input for negative in wrong)
        return TextPair(
            self.examples[place].input, self.examples[positive].input, texts, where=self.examples[place].where
        )


class _AnswerSearch:
    """Retrieval of the right output: wrong are the outputs with the highest difference of cosines."""

    def __init__(self, examples: Sequence[InputOutput], vectors: Sequence[Floats]) -> None:
        self.examples, self.vectors = examples, vectors
        outputs = [example.output for example in examples]
        self.by_input = _Classes([example.input for example in examples], outputs)
        self.by_output = _Classes(outputs, outputs)

    def make_pair(
        self, place: int, inputs: Floats, outputs: Floats, negatives: int, report: Counter[str]
    ) -> TextPair | None:
        example = self.examples[place]
        if example.input == example.output:
            report["left out: the output is the input"] += 1
            return None
        input_vectors, output_vectors = self.vectors

        def subtract(near: Places) -> Scores:
            return score_exactly(input_vectors, place, near) - score_exactly(output_vectors, place, near)

        difference = inputs - outputs
        for text in (example.input, *self.by_input.labels(place)):
            if text in self.by_output.members:
                difference[self.by_output.members[text]] = -np.inf
        wrong = find_best_places(difference, score=subtract, wanted=negatives, text_numbers=self.by_output.text_numbers)
        texts = tuple(self.examples[negative].output for negative in wrong)
        return TextPair(example.input, example.output, texts, where=example.where)


def _count_pairs(pairs: list[TextPair], negatives: int, report: Counter[str]) -> list[TextPair]:
    report["pairs made"] += len(pairs)
    if few := sum(len(pair.negatives) < negatives for pair in pairs):
        report["pairs with fewer hard negatives than asked for"] += few
    return pairs


def _group_places(keys: Sequence[Hashable]) -> dict[Any, Places]:
    grouped: dict[Hashable, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        grouped[key].append(place)
    return {key: np.array(places, dtype=np.int64) for key, places in grouped.items()}


def _check_options(*, negatives: int, max_positive_uses: int = 1, block: int = 1) -> None:
    lowest = {"negatives": (negatives, 0), "max_positive_uses": (max_positive_uses, 1), "block": (block, 1)}
    for name, (value, least) in lowest.items():
        if value < least:
            raise ValueError(f"{name} must be {least} or more, not {value}.")
