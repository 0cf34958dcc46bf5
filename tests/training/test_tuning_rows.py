"""Rows for instruction finetuning: their columns and targets, their folds, and how classes are balanced."""

from __future__ import annotations

import math

import numpy as np
import pytest

from instructor_st.data import LabelledTexts
from instructor_st.training.tuning_rows import TuningRows, balance_rows, split_folds


def label(kind, labels, *, queries=None, documents=None, report=None):
    queries = tuple(queries or (f"text {number}" for number in range(len(labels))))
    documents = tuple(documents or ((),) * len(queries))
    return LabelledTexts(kind, queries, documents, tuple(labels), report or {})


def make_rows(kind, targets):
    """Rows with given targets; folds look at nothing else."""
    targets = np.asarray(targets)
    columns = np.arange(len(targets))[:, None]
    return TuningRows(kind, tuple(map(str, range(len(targets)))), columns, targets, (), {})


def test_classes_are_numbered_in_the_order_of_their_names():
    read = label("classes", ["pear", "apple", "pear", "fig"], queries=["b", "a", "b", "c"], report={"blank": 3})
    rows = TuningRows.from_labelled(read)
    assert (rows.kind, rows.texts, rows.labels) == ("classes", ("b", "a", "c"), ("apple", "fig", "pear"))
    assert rows.columns.tolist() == [[0], [1], [0], [2]]
    assert rows.targets.tolist() == [2, 0, 2, 1]
    assert np.issubdtype(rows.targets.dtype, np.integer)
    assert rows.report == {"blank": 3}
    assert len(rows) == 4


def test_label_sets_are_marks():
    rows = TuningRows.from_labelled(label("label_sets", [("z", "a"), (), ("m",), ("a",)]))
    assert rows.labels == ("a", "m", "z")
    assert rows.targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert rows.columns.tolist() == [[0], [1], [2], [3]]


def test_one_label_is_enough_for_label_sets():
    rows = TuningRows.from_labelled(label("label_sets", [("z",), (), (), ()]))
    assert (rows.labels, rows.targets.tolist()) == (("z",), [[1], [0], [0], [0]])


def test_values_are_their_own_targets():
    rows = TuningRows.from_labelled(label("values", [2.5, -1.0, 2.5, 0.0]))
    assert (rows.targets.tolist(), rows.labels) == ([2.5, -1.0, 2.5, 0.0], ())
    assert rows.columns.tolist() == [[0], [1], [2], [3]]


@pytest.mark.parametrize(("kind", "targets"), [("scores", [3.0, 0.5, 4.0, 0.5]), ("matches", [1.0, 0.0, 0.0, 1.0])])
def test_pairs_have_two_columns_over_the_texts_of_both_sides(kind, targets):
    read = label(kind, targets, queries=["x", "y", "x", "z"], documents=[("y",), ("v",), ("w",), ("z",)])
    rows = TuningRows.from_labelled(read)
    assert rows.texts == ("x", "y", "z", "v", "w")
    assert rows.columns.tolist() == [[0, 1], [1, 3], [0, 4], [2, 2]]
    assert (rows.targets.tolist(), rows.labels) == (targets, ())


def test_negatives_are_cut_to_the_narrowest_row_and_counted():
    documents = [("p", "n", "o"), ("q", "p"), ("p", "n", "r", "s"), ("t", "a")]
    read = label("answers", [], queries=["a", "b", "a", "c"], documents=documents, report={"left out: blank text": 1})
    rows = TuningRows.from_labelled(read)
    # The narrowest has a positive and one negative: 1 + 0 + 2 + 0 negatives go.
    named = [[rows.texts[place] for place in row] for row in rows.columns]
    assert named == [["a", "p", "n"], ["b", "q", "p"], ["a", "p", "n"], ["c", "t", "a"]]
    assert rows.columns.tolist() == [[0, 3, 4], [1, 5, 3], [0, 3, 4], [2, 6, 0]]
    # Those that stood in cut negatives only are not embedded for nothing.
    assert rows.texts == ("a", "b", "c", "p", "n", "q", "t")
    assert rows.report == {
        "left out: blank text": 1,
        "negatives left out: not every row has so many": 3,
    }
    assert (rows.targets.tolist(), rows.labels) == ([0, 0, 0, 0], ())
    assert read.report == {"left out: blank text": 1}


def test_answers_that_all_have_the_same_number_of_negatives_keep_them():
    rows = TuningRows.from_labelled(label("answers", [], queries="abcd", documents=[("p", "n", "o")] * 4))
    assert rows.columns.tolist() == [[place, 4, 5, 6] for place in range(4)]
    assert rows.report == {}


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        ("none", [None] * 4, "The rows have no labels"),
        ("classes", ["a"] * 4, r"Found 1 label\(s\), \('a',\); there is nothing to tell apart"),
        ("label_sets", [()] * 4, r"Found 0 label\(s\), \(\); there is nothing to tell apart"),
        ("values", [0.25] * 4, "All rows have the number 0.25; there is nothing to learn"),
        ("scores", [3.0] * 4, "All rows have the number 3.0"),
        ("matches", [1.0] * 4, "All rows have the number 1.0"),
        ("values", [1.0, 2.0, math.nan, math.nan], "Row 2: its number is not finite"),
        ("scores", [1.0, -math.inf, 2.0, 3.0], "Row 1: its number is not finite"),
        ("classes", ["a", "b", "a"], "3 rows are too few to learn from and to judge by; 4 at least"),
    ],
)
def test_rows_that_nothing_can_be_learned_from(kind, labels, message):
    with pytest.raises(ValueError, match=message):
        TuningRows.from_labelled(label(kind, labels, documents=[("d",)] * 4 if kind in ("scores", "matches") else None))


UNEVEN = [0] * 12 + [1] * 6 + [2] * 3
MARKS = [[1, 0]] * 10 + [[0, 1]] * 11


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("classes", UNEVEN),
        ("matches", [1.0] * 6 + [0.0] * 15),
        ("values", np.linspace(0, 1, 21)),
        ("scores", np.linspace(0, 1, 21)),
        ("label_sets", MARKS),
        ("answers", np.zeros(21)),
    ],
)
@pytest.mark.parametrize("folds", [1, 2, 3])
def test_the_parts_of_a_fold_are_disjoint_and_cover_all_rows(kind, targets, folds):
    split = split_folds(make_rows(kind, targets), folds, 7)
    assert len(split) == folds
    for fold in split:
        assert sorted([*fold.train, *fold.held_out]) == list(range(21))
        assert len(fold.train) >= len(fold.held_out) - 1
    if folds > 1:
        assert sorted(np.concatenate([fold.held_out for fold in split])) == list(range(21))
        assert {len(fold.held_out) for fold in split} <= {21 // folds, 21 // folds + 1}


def test_each_fold_has_its_share_of_each_class():
    for fold in split_folds(make_rows("classes", UNEVEN), 3, 0):
        assert np.bincount(np.array(UNEVEN)[fold.held_out]).tolist() == [4, 2, 1]
    targets = np.array([1.0] * 4 + [0.0] * 16)
    for fold in split_folds(make_rows("matches", targets), 4, 0):
        assert (len(fold.held_out), targets[fold.held_out].sum()) == (5, 1)


def test_one_fold_holds_a_fifth_out():
    classes = np.array([0] * 10 + [1] * 5 + [2] * 5)
    (fold,) = split_folds(make_rows("classes", classes), 1, 0)
    assert np.bincount(classes[fold.held_out]).tolist() == [2, 1, 1]
    assert np.bincount(classes[fold.train]).tolist() == [8, 4, 4]
    (fold,) = split_folds(make_rows("values", np.arange(20.0)), 1, 0)
    assert (len(fold.train), len(fold.held_out)) == (16, 4)


@pytest.mark.parametrize(("names", "each", "wanted"), [(10, 2, 10), (6, 3, 6)])
def test_one_fold_of_many_classes_holds_out_one_row_a_class(names, each, wanted):
    classes = np.repeat(np.arange(names), each)
    (fold,) = split_folds(make_rows("classes", classes), 1, 0)
    assert sorted(classes[fold.held_out]) == list(range(wanted))


def test_the_only_row_of_a_class_is_always_learned_from():
    rows = make_rows("classes", [2] + [0] * 6 + [1] * 6)
    split = split_folds(rows, 3, 0)
    assert [len(fold.held_out) for fold in split] == [4, 4, 4]
    assert sorted(np.concatenate([fold.held_out for fold in split])) == list(range(1, 13))
    assert all(sorted({*fold.train, *fold.held_out}) == list(range(13)) for fold in split)
    (fold,) = split_folds(rows, 1, 0)
    # A fifth of the 12 others, rounded up.
    assert (len(fold.train), len(fold.held_out), 0 in fold.train) == (10, 3, True)


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        ("classes", list("abcd"), r"at least one class needs two rows.*found \[1, 1, 1, 1\]"),
        ("matches", [1.0, 0.0, 0.0, 0.0], r"each of the two values needs two rows.*found \[3, 1\]"),
    ],
)
def test_labels_that_leave_nothing_to_judge_by(kind, labels, message):
    with pytest.raises(ValueError, match=message):
        TuningRows.from_labelled(label(kind, labels, documents=[("d",)] * 4 if kind == "matches" else None))


def test_there_are_no_more_folds_than_the_smallest_class_has_rows():
    classes = np.array([0] * 9 + [1] * 2)
    split = split_folds(make_rows("classes", classes), 5, 0)
    assert [classes[fold.held_out].sum() for fold in split] == [1, 1]
    assert len(split_folds(make_rows("values", np.arange(4.0)), 5, 0)) == 4
    # Nothing is spread here, so equal numbers do not matter.
    assert len(split_folds(make_rows("scores", [1.0, 1.0, 0.0, 0.5, 0.5]), 5, 0)) == 5


@pytest.mark.parametrize(
    ("kind", "targets"), [("classes", UNEVEN), ("classes", [*UNEVEN, 3]), ("values", np.arange(21.0))]
)
@pytest.mark.parametrize("folds", [1, 3])
def test_folds_follow_from_the_seed(kind, targets, folds):
    rows = make_rows(kind, targets)

    def held_out(seed):
        return [fold.held_out.tolist() for fold in split_folds(rows, folds, seed)]

    assert held_out(3) == held_out(3)
    assert held_out(3) != held_out(4)


def test_rare_classes_are_repeated_towards_the_most_frequent():
    targets = np.array([0, 1, 0, 2, 0, 1, 0, 1, 0, 0])
    everything = np.arange(10)
    # Six rows, three and one: once, twice and six times.
    balanced = balance_rows(targets, everything, 6)
    assert balanced.tolist() == [0, 1, 1, 2, *[3] * 6, 4, 5, 5, 6, 7, 7, 8, 9]
    assert balance_rows(targets, everything, 4).tolist() == [0, 1, 1, 2, 3, 3, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9]
    assert balance_rows(targets, everything, 1).tolist() == everything.tolist()


def test_repeats_are_rounded():
    targets = np.array([0] * 5 + [1] * 3 + [2] * 4)
    # 5 / 3 is nearest to 2, 5 / 4 to 1.
    assert np.bincount(targets[balance_rows(targets, np.arange(12), 9)]).tolist() == [5, 6, 4]


def test_only_the_given_rows_are_balanced():
    targets = np.array([0, 0, 0, 0, 0, 0, 1, 2, 2, 2])
    # Among these class 2 is the most frequent, and class 0 has a single row.
    assert balance_rows(targets, np.array([9, 5, 8, 7]), 9).tolist() == [9, 5, 5, 5, 8, 7]
    assert balance_rows(targets, np.array([6]), 9).tolist() == [6]
