"""Labelled rows as instruction finetuning needs them: distinct texts, places, targets, and folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold, StratifiedShuffleSplit

from instructor_st.data import LabelKind, LabelledTexts

__all__ = ["Fold", "TuningRows", "balance_rows", "split_folds"]

Array = np.ndarray
_HELD_OUT = 0.2
_FEWEST_ROWS = 4


@dataclass(frozen=True)
class Fold:
    """Places of rows: those to learn from and those to judge by."""

    train: Array
    held_out: Array


@dataclass(frozen=True)
class TuningRows:
    """Labelled rows over distinct texts.

    Attributes:
        kind: Of the labels; see `LabelledTexts`.
        texts: The distinct texts.
        columns: Which text stands where, `(rows, columns)`: one column for texts, two for pairs, query, positive and
            negatives for answers.
        targets: `(rows,)` integers for classes, floats for values, scores and matches; `(rows, labels)` zeros and ones
            for label sets; `(rows,)` zeros for answers.
        labels: The names of classes or labels, sorted.
        report: What was left out, with counts.
    """

    kind: LabelKind
    texts: tuple[str, ...]
    columns: Array
    targets: Array
    labels: tuple[str, ...]
    report: Mapping[str, int]

    @classmethod
    def from_labelled(cls, rows: LabelledTexts) -> TuningRows:
        """Read labelled texts.

        Args:
            rows: The texts and their labels.

        Returns:
            The rows. Negatives that not every row has are left out and counted.

        Raises:
            ValueError: If there is no label, only one class, no spread among numbers, or fewer than four rows.
        """
        if len(rows.queries) < _FEWEST_ROWS:
            raise ValueError(
                f"{len(rows.queries)} rows are too few to learn from and to judge by; {_FEWEST_ROWS} at least."
            )
        report = Counter(rows.report)
        width = min(map(len, rows.documents), default=0)
        if dropped := sum(len(documents) - width for documents in rows.documents):
            report["negatives left out: not every row has so many"] += dropped
        kept = [(query, *documents[:width]) for query, documents in zip(rows.queries, rows.documents, strict=True)]
        used = {text for row in kept for text in row}
        texts = [text for text in rows.texts if text in used]
        place = {text: number for number, text in enumerate(texts)}
        columns = np.array([[place[text] for text in row] for row in kept])
        labels, targets = _read_targets(rows)
        return cls(rows.kind, tuple(texts), columns, targets, labels, dict(report))

    def __len__(self) -> int:
        return len(self.columns)


def _read_targets(rows: LabelledTexts) -> tuple[tuple[str, ...], Array]:
    """Read what is to be learned, and the labels' names."""
    if rows.kind == "answers":
        return (), np.zeros(len(rows.queries))
    if rows.kind == "classes":
        names = tuple(sorted({str(label) for label in rows.labels}))
        targets = np.array([names.index(str(label)) for label in rows.labels])
    elif rows.kind == "label_sets":
        sets = [set(label) if isinstance(label, tuple) else set() for label in rows.labels]
        names = tuple(sorted(set().union(*sets)))
        targets = np.array([[float(name in labels) for name in names] for labels in sets])
    elif rows.kind == "none":
        raise ValueError("The rows have no labels; instruction finetuning learns from labelled rows.")
    else:
        names, targets = (), np.array([float(str(label)) for label in rows.labels])
        if not np.isfinite(targets).all():
            raise ValueError(f"Row {int(np.flatnonzero(~np.isfinite(targets))[0])}: its number is not finite.")
    if rows.kind in ("classes", "label_sets") and len(names) < (2 if rows.kind == "classes" else 1):
        raise ValueError(f"Found {len(names)} label(s), {names}; there is nothing to tell apart.")
    if rows.kind in ("values", "scores", "matches") and targets.min() == targets.max():
        raise ValueError(f"All rows have the number {targets[0]}; there is nothing to learn.")
    counts = np.unique(targets, return_counts=True)[1] if rows.kind in ("classes", "matches") else np.array([2])
    if counts.max() < 2 or (rows.kind == "matches" and counts.min() < 2):
        what = "each of the two values" if rows.kind == "matches" else "at least one class"
        raise ValueError(f"{what} needs two rows, one to learn from and one to judge by; found {counts.tolist()[:10]}.")
    return names, targets


def split_folds(rows: TuningRows, folds: int, seed: int) -> list[Fold]:
    """Split rows for cross-validation; classes and matches are spread evenly.

    Args:
        rows: The rows.
        folds: How many parts, each held out once; 1 holds a fifth out once.
        seed: Of the split.

    Returns:
        The folds; fewer than asked for if a class has fewer rows. The only row of a class is always learned from.
    """
    targets = rows.targets if rows.kind in ("classes", "matches") else None
    places, alone = np.arange(len(rows)), np.array([], dtype=int)
    if targets is not None:
        _, inverse, counts = np.unique(targets, return_inverse=True, return_counts=True)
        places, alone = np.flatnonzero(counts[inverse] > 1), np.flatnonzero(counts[inverse] == 1)
        targets = targets[places]
    fewest = len(places) if targets is None else int(np.unique(targets, return_counts=True)[1].min())
    if folds == 1 and targets is not None:
        size = min(max(_HELD_OUT, len(np.unique(targets)) / len(places)), 0.5)
        chosen = StratifiedShuffleSplit(1, test_size=size, random_state=seed).split(places, targets)
    elif folds == 1:
        chosen = ShuffleSplit(1, test_size=_HELD_OUT, random_state=seed).split(places)
    elif targets is not None:
        chosen = StratifiedKFold(min(folds, fewest), shuffle=True, random_state=seed).split(places, targets)
    else:
        chosen = KFold(min(folds, len(places)), shuffle=True, random_state=seed).split(places)
    return [Fold(np.sort(np.concatenate([places[train], alone])), places[held_out]) for train, held_out in chosen]


def balance_rows(targets: Array, places: Array, max_repeats: int) -> Array:
    """Repeat rows of rare classes towards the most frequent one's number.

    Args:
        targets: The classes of all rows.
        places: The rows to learn from.
        max_repeats: How often a row comes at most.

    Returns:
        Places of rows, repeated.
    """
    classes, counts = np.unique(targets[places], return_counts=True)
    repeats = np.minimum(max_repeats, np.rint(counts.max() / counts)).astype(int)
    of_class: Mapping[int, int] = dict(zip(classes.tolist(), repeats.tolist(), strict=True))
    return np.repeat(places, [of_class[target] for target in targets[places].tolist()])
