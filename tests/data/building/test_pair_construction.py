from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from instructor_st.data.building.best_places import find_best_places
from instructor_st.data.building.examples import ClassText, InputOutput, ScoredPair, TextPair
from instructor_st.data.building.pair_construction import (
    outputs_are_classes,
    pair_classes,
    pair_inputs_outputs,
    pair_scored,
)
from instructor_st.data.embedding_cache import Scorer


def at(degrees):
    """A vector of the plane; the cosine of two falls with the angle between them."""
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def make_scorer(table):
    return Scorer(embed=lambda texts: np.array([table[text] for text in texts]), identity="by hand")


def pair(function, examples, table, **options):
    report = Counter()
    options = {"negatives": 1, "cache": None, **options}
    return function(examples, scorer=make_scorer(table), report=report, **options), report


def shorten(pairs):
    return {each.query: (each.positive, *each.negatives) for each in pairs}


CLASSES = [ClassText(text, text[0], f"f:{n}") for n, text in enumerate(["a0", "b0", "a1", "b1", "a2", "b2"])]
CLASS_TABLE = {"a0": at(0), "a1": at(10), "a2": at(50), "b0": at(4), "b1": at(60), "b2": at(90)}


def test_classes_get_the_nearest_of_their_class_and_the_nearest_of_others():
    pairs, report = pair(pair_classes, CLASSES, CLASS_TABLE, negatives=2)
    # Angles: a0-a1 10, a0-a2 50, a1-a2 40, b0-b1 56, b1-b2 30; a0-b0 4, a1-b0 6, a2-b1 10, a2-b2 40, a2-b0 46, ...
    assert shorten(pairs) == {
        "a0": ("a1", "b0", "b1"),
        "b0": ("b1", "a0", "a1"),
        "a1": ("a0", "b0", "b1"),
        "b1": ("b2", "a2", "a1"),
        "a2": ("a1", "b1", "b2"),
        "b2": ("b1", "a2", "a1"),
    }
    assert [each.label for each in pairs] == ["a", "b", "a", "b", "a", "b"]
    assert [each.where for each in pairs] == [f"f:{n}" for n in range(6)]
    assert report == {"pairs made": 6}


def test_ties_go_to_the_lower_index():
    table = {"q": [1, 0], "up": [0.6, 0.8], "down": [0.6, -0.8], "north": [0.3, 0.4], "south": [0.3, -0.4]}
    examples = [ClassText(text, "c" if text in ("q", "up", "down") else "d") for text in table]
    assert shorten(pair(pair_classes, examples, table)[0])["q"] == ("up", "north")
    assert shorten(pair(pair_classes, examples[::-1], table)[0])["q"] == ("down", "south")


def test_copies_and_single_texts_of_a_class():
    examples = [
        ClassText("x", "A"),
        ClassText("x", "A"),  # a copy: nearest of its class, but no positive
        ClassText("y", "A"),
        ClassText("x", "B"),  # the same text in another class: no negative of x
        ClassText("z", "B"),
        ClassText("alone", "C"),
        ClassText("twice", "D"),
        ClassText("twice", "D"),
    ]
    table = {"x": at(0), "y": at(50), "z": at(20), "alone": at(40), "twice": at(85)}
    pairs, report = pair(pair_classes, examples, table, negatives=2)
    assert [(each.query, each.positive, each.label, each.negatives) for each in pairs] == [
        ("x", "y", "A", ("alone", "twice")),  # x is of the classes A and B, so z is right for it too
        ("x", "y", "A", ("alone", "twice")),
        ("y", "x", "A", ("alone", "z")),  # 10 and 30 away, twice 35
        ("x", "z", "B", ("alone", "twice")),
        ("z", "x", "B", ("alone", "y")),  # x of A is no negative, since x is in B too
    ]
    assert report == {"pairs made": 5, "left out: no other text of its class": 3}


def test_a_text_is_the_positive_of_a_few_queries_only():
    examples = [ClassText(text, "c") for text in ("hub", "s1", "s2", "s3", "s4")]
    table = {"hub": [0, 0, 1], "s1": [0.6, 0, 0.8], "s2": [-0.6, 0, 0.8], "s3": [0, 0.6, 0.8], "s4": [0.1, -0.6, 0.79]}
    # Each s is nearest to the hub. s3: s4 has .632 - .36 = .272; s1 and s2 have .64. s4: s1 .06 + .632 = .692, s2 .572.
    assert shorten(pair(pair_classes, examples, table, max_positive_uses=4)[0])["s4"] == ("hub",)
    pairs, report = pair(pair_classes, examples, table, max_positive_uses=2)
    assert shorten(pairs) == {"hub": ("s1",), "s1": ("hub",), "s2": ("hub",), "s3": ("s1",), "s4": ("s2",)}
    assert report["pairs with fewer hard negatives than asked for"] == 5


def test_used_up_positives_leave_a_query_out():
    examples = [ClassText(text, "c") for text in ("a", "b", "b", "b")]
    pairs, report = pair(pair_classes, examples, {"a": at(0), "b": at(9)}, max_positive_uses=2, negatives=0)
    assert [(each.query, each.positive) for each in pairs] == [("a", "b"), ("b", "a"), ("b", "a")]
    assert report["left out: every right text is the positive of max_positive_uses queries already"] == 1
    assert "pairs with fewer hard negatives than asked for" not in report


def make_random(count, texts, labels, seed=0):
    random = np.random.default_rng(seed)
    table = {f"t{n}": random.standard_normal(16) for n in range(texts)}
    return [(f"t{random.integers(texts)}", f"l{random.integers(labels)}") for _ in range(count)], table


def normalize_table(table):
    """As `embed_texts` does, then in float64."""
    units = {text: np.asarray(vector) / np.linalg.norm(vector) for text, vector in table.items()}
    return {text: unit.astype(np.float32).astype(np.float64) for text, unit in units.items()}


def test_classes_equal_a_search_by_brute_force_in_blocks_of_any_size():
    drawn, table = make_random(240, 180, 7)
    examples = [ClassText(text, label) for text, label in drawn]
    units = normalize_table(table)
    classes = {text: {label for other, label in drawn if other == text} for text in table}
    expected, uses = [], Counter()
    for query, label in drawn:
        ranked = sorted(enumerate(drawn), key=lambda each: (-float((units[each[1][0]] * units[query]).sum()), each[0]))
        texts = [(text, other) for _, (text, other) in ranked if text != query]
        positive = next(text for text, other in texts if other == label and uses[text] < 3)
        uses[positive] += 1
        wrong = list(dict.fromkeys(text for text, _ in texts if not classes[text] & classes[query]))
        expected.append(TextPair(query, positive, tuple(wrong[:4]), label))
    for block in (1, 7, 100, 512):
        assert pair(pair_classes, examples, table, negatives=4, block=block)[0] == expected


IN_OUT = [InputOutput(f"x{n}", f"y{n}", f"f:{n}") for n in range(4)]
IN_OUT_TABLE = {
    **{f"x{n}": at(degrees) for n, degrees in enumerate((0, 10, 20, 90))},
    **{f"y{n}": at(degrees) for n, degrees in enumerate((0, 80, 10, 5))},
}


def test_inputs_and_outputs_by_sum_and_difference_of_cosines():
    pairs, report = pair(pair_inputs_outputs, IN_OUT, IN_OUT_TABLE)
    # cos(x) + cos(y), and cos(x) - cos(y):
    # 0: 1 .98+.17=1.16 .81   2 .94+.98=1.92 -.05   3 .00+1.0=1.00 -1.0
    # 1: 0 .98+.17=1.16 .81   2 .98+.34=1.33  .64   3 .17+.26=0.43 -.09
    # 2: 0 .94+.98=1.92 -.05  1 .98+.34=1.33  .64   3 .34+1.0=1.34 -.65
    # 3: 0 .00+1.0=1.00 -1.0  1 .17+.26=0.43 -.09   2 .34+1.0=1.34 -.65
    assert pairs == [
        TextPair("x0", "x2", ("x1",), None, "f:0"),
        TextPair("x1", "x2", ("x0",), None, "f:1"),
        TextPair("x2", "x0", ("x1",), None, "f:2"),
        TextPair("x3", "x2", ("x1",), None, "f:3"),
    ]
    assert report == {"pairs made": 4}


def test_a_next_best_positive_still_has_a_nearer_output_than_the_negatives():
    pairs, report = pair(pair_inputs_outputs, IN_OUT, IN_OUT_TABLE, max_positive_uses=1)
    # 1 gets x0, whose output is 80 degrees off: those of x2 (70) and x3 (75) are nearer. 3 gets x1 (75).
    assert shorten(pairs) == {"x0": ("x2", "x1"), "x1": ("x0",), "x2": ("x3", "x1"), "x3": ("x1",)}
    assert report == {"pairs made": 4, "pairs with fewer hard negatives than asked for": 2}


def test_one_input_is_not_both_positive_and_negative():
    examples = [InputOutput(f"x{n}", f"y{n}") for n in range(3)]
    table = {"x0": at(0), "y0": at(0), "x1": at(1), "y1": at(60), "x2": at(90), "y2": at(89)}
    # x1 has both the highest sum, 1.0 + .5, and the highest difference, 1.0 - .5.
    assert shorten(pair(pair_inputs_outputs, examples, table)[0])["x0"] == ("x1", "x2")


def test_an_output_as_near_as_the_positives_makes_no_negative():
    examples = [InputOutput("x0", "y0"), InputOutput("x1", "one"), InputOutput("x2", "one"), InputOutput("x3", "y3")]
    table = {"x0": at(0), "y0": at(0), "x1": at(2), "x2": at(5), "one": at(30), "x3": at(60), "y3": at(50)}
    # x2 differs by .996 - .866 = .13, x3 by .5 - .643 = -.14.
    assert shorten(pair(pair_inputs_outputs, examples, table)[0])["x0"] == ("x1", "x3")


def test_no_negative_has_an_output_that_is_right_for_the_query():
    examples = [
        InputOutput("q", "seven"),
        InputOutput("r", "seven"),  # the positive
        InputOutput("s", "seven"),  # right too
        InputOutput("t", "nine"),
        InputOutput("t", "seven"),  # so t is right as well, under either output
        InputOutput("q", "9"),  # a copy of the query with another right output
        InputOutput("u", "9"),
        InputOutput("v", "ten"),
    ]
    table = {"q": at(0), "r": at(10), "s": at(21), "t": at(5), "u": at(15), "v": at(60)}
    table |= {"seven": at(0), "nine": at(50), "9": at(60), "ten": at(90)}
    pairs, report = pair(pair_inputs_outputs, examples, table, negatives=3, max_positive_uses=9)
    assert [each.query for each in pairs] == ["q", "r", "s", "t", "t", "q", "u", "v"]
    assert pairs[0] == TextPair("q", "t", ("v",))
    # Also under its other output: cos(5) + cos(10) is more than u's cos(15) + 1.
    assert pairs[5] == TextPair("q", "t", ("v",))
    # cos(10) + cos(10) is more than q's cos(15) + 1. Negatives: cos(5), cos(6) - cos(60); not q, which has 9 too.
    assert pairs[6] == TextPair("u", "t", ("r", "s", "v"))
    assert not outputs_are_classes([each.output for each in examples])
    only = [InputOutput("q", "one"), InputOutput("q", "two")]
    pairs, report = pair(pair_inputs_outputs, only, table | {"one": at(1), "two": at(2)})
    assert (pairs, report) == ([], {"left out: no other input": 2, "pairs made": 0})


def test_answers_are_outputs():
    examples = [*IN_OUT, InputOutput("x0", "y1b"), InputOutput("same", "same"), InputOutput("z", "x1")]
    table = {**IN_OUT_TABLE, "y1b": at(85), "same": at(0), "z": at(11)}
    pairs, report = pair(pair_inputs_outputs, examples, table, answers=True, negatives=3)
    # 0: y1b is right for x0 too; y1 .98-.17=.81, x1 (as an output) .98-.98=0 (z is 11 off, x1 10), y2 -.05, same 0.
    assert [(each.query, each.positive) for each in pairs] == [
        ("x0", "y0"),
        ("x1", "y1"),
        ("x2", "y2"),
        ("x3", "y3"),
        ("x0", "y1b"),
        ("z", "x1"),
    ]
    assert pairs[0].negatives[0] == "y1"
    # 1: y1b 1-ish: cos(10) - cos(5) = -.01, y0 .98-.17=.81, same .98-.17=.81 (the same vectors, but later);
    # x1 itself is the output of z, 1 degree off, cos(1) - cos(70) = .66, and no negative since it is the query; y2 .98-.34=.64.
    assert pairs[1].negatives == ("y0", "same", "y2")
    assert report == {"left out: the output is the input": 1, "pairs made": 6}


def test_outputs_that_are_labels_make_it_a_classification_task():
    outputs = ["yes", "no"] * 11
    examples = [InputOutput(f"t{n}", output, f"f:{n}") for n, output in enumerate(outputs)]
    table = {f"t{n}": at(n) for n in range(22)}
    pairs, report = pair(pair_inputs_outputs, examples, table, max_positive_uses=1)
    texts = [ClassText(each.input, each.output, each.where) for each in examples]
    assert pairs == pair(pair_classes, texts, table, max_positive_uses=1)[0]
    assert pairs[0] == TextPair("t0", "t2", ("t1",), "yes", "f:0")
    assert report == {"examples whose outputs are class labels": 22, "pairs made": 22}
    # With answers the documents are outputs all the same.
    pairs, _ = pair(pair_inputs_outputs, examples, {**table, "yes": at(0), "no": at(90)}, answers=True, negatives=2)
    assert pairs[0] == TextPair("t0", "yes", ("no",), None, "f:0")


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (["a", "b"] * 10 + ["a"], True),  # 2 of 21
        (["a", "b"] * 10, False),  # 2 of 20 is a tenth
        (["a"] * 30 + ["b"], False),  # b stands once
        (["a" * 40] * 11, True),
        (["a" * 41] * 11, False),
        ([str(n % 100) for n in range(1001)], True),
        ([str(n % 101) for n in range(1011)], False),
        ([], False),
    ],
)
def test_what_decides_whether_outputs_are_labels(outputs, expected):
    assert outputs_are_classes(outputs) is expected


@pytest.mark.parametrize("answers", [False, True])
def test_inputs_and_outputs_equal_a_search_by_brute_force_in_blocks_of_any_size(answers):
    drawn, table = make_random(150, 120, 90, seed=1)
    random = np.random.default_rng(2)
    table |= {f"l{n}": random.standard_normal(16) for n in range(90)}
    examples = [InputOutput(*each) for each in drawn]
    units = normalize_table(table)
    right = {text: {output for other, output in drawn if other == text} for text in table}
    expected, uses = [], Counter()

    def cosine(one, other):
        return float((units[one] * units[other]).sum())

    for x, y in drawn:
        scored = [(cosine(x, a), cosine(y, b), n, a, b) for n, (a, b) in enumerate(drawn)]
        by_difference = sorted(scored, key=lambda each: (-(each[0] - each[1]), each[2]))
        if answers:
            wrong = dict.fromkeys(b for *_, b in by_difference if b not in right[x])
            expected.append(TextPair(x, y, tuple(wrong)[:3]))
            continue
        by_sum = sorted(scored, key=lambda each: (-(each[0] + each[1]), each[2]))
        best = next(each for each in by_sum if each[3] != x and uses[each[3]] < 3)
        uses[best[3]] += 1
        wrong = dict.fromkeys(
            each[3]
            for each in by_difference
            if not right[each[3]] & right[x] and each[1] < best[1] and each[3] != best[3]
        )
        expected.append(TextPair(x, best[3], tuple(wrong)[:3]))
    for block in (1, 7, 512):
        pairs, _ = pair(pair_inputs_outputs, examples, table, negatives=3, block=block, answers=answers)
        assert pairs == expected


def test_scored_pairs():
    examples = [
        ScoredPair("a", "b", 4.0, "f:1"),
        ScoredPair("a", "c", 1.0),
        ScoredPair("d", "a", 0.5),  # a partner on the other side
        ScoredPair("a", "e", 1.5),  # the hardest of a's partners
        ScoredPair("a", "f", 3.0),
        ScoredPair("g", "b", 5.0),  # b has no low partner that is g's
        ScoredPair("a", "g", 1.6),
        ScoredPair("h", "h", 5.0),
        ScoredPair("b", "a", 1.0),  # contradicts the first
        ScoredPair("b", "k", 5.0),  # a is no negative of b: the first pair is right either way
        ScoredPair("i", "j", math.nan),
    ]
    report = Counter()
    pairs = pair_scored(examples, positive_score=4, negative_score=1.5, report=report, negatives=3)
    assert pairs == [TextPair("a", "b", ("e", "c", "d"), None, "f:1"), TextPair("g", "b"), TextPair("b", "k")]
    assert report == {
        "pairs made": 3,
        "pairs at or below negative_score, used as negatives only": 4,
        "left out: score not high enough for a positive, not low enough for a negative": 3,
        "left out: the two texts are the same": 1,
        "pairs with fewer hard negatives than asked for": 2,
    }
    pairs = pair_scored(examples, positive_score=4, negative_score=None, report=Counter())
    assert [each.negatives for each in pairs] == [(), (), ()]
    with pytest.raises(ValueError, match=r"negative_score \(4\) must be below positive_score \(4\)"):
        pair_scored(examples, positive_score=4, negative_score=4, report=Counter())


def test_best_places_are_decided_by_the_exact_scores():
    exact = np.array([0.5, 0.9 + 1e-9, 0.9, 0.9 + 2e-9, 0.4, 0.9 + 2e-9])
    scores = (exact + np.array([0, 2e-7, 4e-7, -4e-7, 0, 1e-7])).astype(np.float32)
    seen = []

    def score(places):
        seen.append(len(places))
        return exact[places]

    assert find_best_places(scores, score=score) == [3]
    assert find_best_places(scores, score=score, wanted=3) == [3, 5, 1]
    assert seen == [4, 4]  # the far ones are never scored again
    assert find_best_places(scores, score=score, wanted=9) == [3, 5, 1, 2, 0, 4]
    assert find_best_places(scores, score=score, wanted=0) == []
    assert find_best_places(np.full(5, -np.inf, np.float32), score=score) == []
    assert find_best_places(np.zeros(0, np.float32), score=score) == []


def test_best_places_are_looked_for_further_down_if_the_first_are_rejected_or_copies():
    exact = np.linspace(1, 0, 101)
    scores = exact.astype(np.float32)
    rejecting = lambda places: np.where(places < 40, -np.inf, exact[places])  # noqa: E731
    assert find_best_places(scores, score=rejecting, wanted=2) == [40, 41]
    assert find_best_places(scores[:42], score=rejecting, wanted=3) == [40, 41]
    texts = np.array([0] * 50 + [1] * 50 + [2])
    assert find_best_places(scores, score=lambda places: exact[places], wanted=3, text_numbers=texts) == [0, 50, 100]
    assert find_best_places(scores, score=lambda places: exact[places], wanted=4, text_numbers=texts) == [0, 50, 100]


def test_a_place_is_taken_only_if_no_better_one_may_be_left_below():
    # 0 and 1 are copies; the first look ends below 2, whose float32 score is too high beside 3's.
    exact = np.array([0.500001, 0.5, 0.5 - 9e-6, 0.5 - 8e-6])
    scores = np.array([0.500001, 0.5, 0.5 - 9e-6, 0.5 - 11e-6], dtype=np.float32)
    texts = np.array([0, 0, 1, 2])
    assert find_best_places(scores, score=lambda places: exact[places], wanted=2, text_numbers=texts) == [0, 3]


@pytest.mark.parametrize("function", [pair_classes, pair_inputs_outputs])
def test_options_out_of_range_and_no_examples(function):
    assert pair(function, [], {}) == ([], {})
    for option, value in (("negatives", -1), ("max_positive_uses", 0), ("block", 0)):
        with pytest.raises(ValueError, match=f"{option} must be {value + 1} or more, not {value}"):
            pair(function, [], {}, **{option: value})
