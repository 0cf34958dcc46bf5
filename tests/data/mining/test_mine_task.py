from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from instructor_st.data import Row
from instructor_st.data.mining.mine_task import MiningOptions, mine_task_negatives
from instructor_st.pairs import InstructedText
from tests.conftest import MINILM

FIRST = MiningOptions(num_negatives=1, range_min=0, relative_margin=None)
"""The most similar candidate that is not ruled out."""


class Compass:
    """A model whose vectors are directions: texts hold degrees, `@90` or `north @90`, and an instruction turns them."""

    def __init__(self, turns=None):
        self.turns = turns or {}
        self.seen: list[list[str]] = []

    def encode(self, inputs, **_):
        self.seen += inputs
        angles = [math.radians(float(text.split("@")[1]) + self.turns.get(word, 0)) for word, text in inputs]
        return np.array([[math.cos(angle), math.sin(angle)] for angle in angles])


class Judge:
    """A cross-encoder that knows the scores of pairs; all others get 0."""

    num_labels = 1

    def __init__(self, scores):
        self.scores = scores
        self.asked: list[tuple[str, str]] = []

    def predict(self, pairs, **_):
        self.asked += pairs
        return np.array([self.scores.get(pair, 0.0) for pair in pairs])


def make_row(query, positive, *negatives, label=None, words=("q: ", "d: "), task="t"):
    return Row(
        query=InstructedText(words[0], query),
        positive=InstructedText(words[1], positive),
        negatives=tuple(InstructedText(words[1], text) for text in negatives),
        task=task,
        label=label,
    )


def mine(rows, options=FIRST, model=None, **more):
    return mine_task_negatives(rows, model or Compass(), options=options, **more)


def list_negatives(mined):
    return [[negative.text for negative in row.negatives] for row in mined.rows]


# Cosines to 0 degrees: 10 -> 0.985, 20 -> 0.940, 30 -> 0.866, 40 -> 0.766, 60 -> 0.5, 90 -> 0, 120 -> -0.5.
LADDER = [make_row("q@0", "p@20"), *(make_row(f"q@{180 + n}", f"d@{n}") for n in (10, 30, 40, 60, 90, 120))]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_negatives": 3}, ["d@10", "d@30", "d@40"]),
        ({"num_negatives": 2, "range_min": 1}, ["d@30", "d@40"]),
        ({"num_negatives": 2, "range_min": 1, "range_max": 3}, ["d@30", "d@40"]),
        ({"num_negatives": 2, "relative_margin": 0.0}, ["d@30", "d@40"]),  # no more similar than the positive
        ({"num_negatives": 2, "relative_margin": 0.1}, ["d@40", "d@60"]),  # up to 0.940 * 0.9 = 0.846
        ({"num_negatives": 2, "relative_margin": 0.07}, ["d@30", "d@40"]),  # up to 0.874
        ({"num_negatives": 2, "absolute_margin": 0.1}, ["d@40", "d@60"]),  # up to 0.840
        ({"num_negatives": 2, "absolute_margin": 0.05}, ["d@30", "d@40"]),  # up to 0.890
        ({"num_negatives": 2, "max_score": 0.8}, ["d@40", "d@60"]),
        ({"num_negatives": 6, "min_score": 0.4}, ["d@10", "d@30", "d@40", "d@60"]),
        ({"num_negatives": 2, "relative_margin": 0.1, "range_min": 2}, ["d@90", "d@120"]),  # the margin comes first
    ],
)
def test_margins_scores_and_ranks(options, expected):
    mined = mine(LADDER, MiningOptions(**{"range_min": 0, "relative_margin": None, **options}))
    assert list_negatives(mined)[0] == expected
    assert mined.rows[0].texts[:2] == LADDER[0].texts


def test_default_options_are_those_of_the_paper_behind_the_margin():
    assert MiningOptions() == MiningOptions(
        num_negatives=5, range_min=10, range_max=100, relative_margin=0.05, sampling_strategy="top", keep_existing=True
    )


@pytest.mark.parametrize("kind", ["prepend_model", "stock"])
def test_the_same_subject_is_harder_than_another_one(kind, request):
    model = SentenceTransformer(MINILM, device="cpu") if kind == "stock" else request.getfixturevalue(kind)
    words = ("Represent the question: ", "Represent the answer: ")
    rows = [
        make_row("How long do I boil an egg?", "Boil the egg for eight minutes.", words=words),
        make_row("How do I fry an egg?", "Fry the egg in a hot pan with butter.", words=words),
        make_row("How far away is the moon?", "The moon is 384,000 kilometres away.", words=words),
        make_row("How many moons has Mars?", "Mars has the two moons Phobos and Deimos.", words=words),
        make_row("Who wrote the opera Carmen?", "The opera Carmen was composed by Bizet.", words=words),
        make_row("Who wrote the opera Tosca?", "The opera Tosca was composed by Puccini.", words=words),
    ]
    mined = mine(rows, model=model)
    answers = [row.positive for row in rows]
    assert [row.negatives for row in mined.rows] == [(answers[place],) for place in (1, 0, 3, 2, 5, 4)]
    assert mined.counts == {
        "candidates": 6,
        "candidates refused: cross-encoder": 0,
        "candidates refused: right text of the query": 0,
        "candidates refused: same label": 0,
        "negatives kept": 0,
        "negatives mined": 6,
        "rows": 6,
    }


def test_texts_of_a_class_of_the_query_are_never_negatives():
    rows = [
        make_row("a@0", "a@50", label="x"),
        make_row("b@1", "b@60", label="x"),  # "b@60" is of class x
        make_row("c@180", "c@70", label="y"),
        make_row("b@60", "e@80", label="z"),  # and of class z, as a query
        make_row("f@0", "f@90"),  # no class: nothing is ruled out
    ]
    mined = mine(rows)
    assert list_negatives(mined) == [["c@70"], ["c@70"], ["f@90"], ["c@70"], ["a@50"]]
    # a: b@60. b: a@50. c: none. b@60, of x and z: a@50, since b@60 is itself and e@80 its own. f: none.
    assert mined.counts["candidates refused: same label"] == 3
    assert list_negatives(mine([row for row in rows if row.label in ("x",)])) == [[], []]


def test_right_texts_of_the_query_are_never_negatives():
    rows = [
        make_row("q@0", "p@40"),
        make_row("q@0", "other p@10", words=("another wording: ", "d: ")),  # right for the same text
        make_row("Q@0 ", "third p@12"),  # the same text but for case and spaces
        make_row("fourth@5", "q@0"),  # the other way round: its positive is the query
        make_row("z@180", "fourth@5"),
        make_row("z@181", "Q@0"),  # the query itself, as a candidate
        make_row("z@182", "d@50"),
    ]
    mined = mine(rows)
    assert list_negatives(mined)[:3] == [["d@50"]] * 3
    # For the text "q@0": p, other p, third p, q, fourth, Q; and one of them is the row's own. Three queries have it.
    # For "fourth@5": q and Q (its own and its twin) and itself, of which one is its own. For "z@181": Q and q.
    assert mined.counts["candidates refused: right text of the query"] == 3 * 5 + 2 + 1


def test_right_texts_in_the_ranks_do_not_use_them_up():
    """A query with many right texts still finds what lies behind them."""
    rows = [make_row("q@0", f"p@{n}") for n in range(1, 40)] + [make_row("z@180", "d@50")]
    options = MiningOptions(num_negatives=1, range_min=0, range_max=1, relative_margin=None)
    assert list_negatives(mine(rows, options))[:39] == [["d@50"]] * 39
    labelled = [make_row(f"q@{n}", f"p@{n}", label="x") for n in range(40)] + [make_row("z@180", "d@50", label="y")]
    assert list_negatives(mine(labelled, options))[:40] == [["d@50"]] * 40


def test_the_margin_is_that_of_the_least_similar_right_text():
    rows = [make_row("q@0", "p@10"), make_row("q@0", "p@60"), make_row("z@180", "d@30"), make_row("z@181", "d@90")]
    assert list_negatives(mine(rows, MiningOptions(num_negatives=1, range_min=0)))[:2] == [["d@90"], ["d@90"]]
    judge = Judge({("q@0", "p@10"): 1.0, ("q@0", "p@60"): 0.5, ("q@0", "d@30"): 0.7, ("q@0", "d@90"): 0.2})
    mined = mine(rows, MiningOptions(num_negatives=1, range_min=0, absolute_margin=0.1), cross_encoder=judge)
    assert list_negatives(mined)[:2] == [["d@90"], ["d@90"]]
    # d@30 of the first query; all three others of the other two, whose scores are all 0.
    assert mined.counts["candidates refused: cross-encoder"] == 1 + 2 * 3


def test_a_class_does_not_change_the_margin():
    rows = [
        make_row("q@0", "p@30", label="x"),
        make_row("z@180", "d@20", label="y"),
        make_row("z@181", "d@60", label="y"),
    ]
    mined = mine(rows, MiningOptions(num_negatives=1, range_min=0, relative_margin=0))
    assert list_negatives(mined)[0] == ["d@60"]


def test_instructions_turn_both_sides_and_negatives_carry_the_rows_own():
    texts = [("q@0", "p@0"), ("x@180", "left@90"), ("y@180", "right@-80")]
    rows = [make_row(*pair, words=("ask: ", "say: ")) for pair in texts]
    assert list_negatives(mine(rows))[0] == ["right@-80"]
    assert list_negatives(mine(rows, model=Compass({"ask: ": 20})))[0] == ["left@90"]
    assert list_negatives(mine(rows, model=Compass({"say: ": -20})))[0] == ["left@90"]
    # Two wordings of the documents: each row's candidates are embedded with its own.
    rows.append(make_row("q2@0", "p@0", words=("ask: ", "tell: ")))
    model = Compass({"tell: ": -20})
    mined = mine(rows, model=model)
    assert mined.rows[0].negatives == (InstructedText("say: ", "right@-80"),)
    assert mined.rows[3].negatives == (InstructedText("tell: ", "left@90"),)
    assert len(model.seen) == 4 + 2 * 3  # four queries, three documents in two wordings, nothing twice
    assert ["tell: ", "left@90"] in model.seen
    assert ["say: ", "left@90"] in model.seen


def test_present_negatives_stay_first_and_are_candidates():
    rows = [
        make_row("q@0", "p@5", "n@80"),
        make_row("z@180", "d@10", " "),
        make_row("z@181", "D@10"),
        make_row("z@182", "e@9"),
    ]
    options = MiningOptions(num_negatives=3, range_min=0, relative_margin=None)
    mined = mine(rows, options)
    assert list_negatives(mined)[0] == ["n@80", "e@9", "d@10"]
    assert list_negatives(mined)[2] == ["n@80", "e@9", "p@5"]  # the first row's negative
    assert mined.counts["negatives kept"] == 2
    assert mined.counts["candidates"] == 5  # a blank is none
    replaced = mine(rows, MiningOptions(num_negatives=2, range_min=0, relative_margin=None, keep_existing=False))
    assert list_negatives(replaced)[0] == ["e@9", "d@10"]
    assert replaced.counts["present negatives left out: replaced"] == 2
    full = mine([make_row("q@0", "p@5", "a@1", "b@2", "c@3", "d@4"), *rows[1:]], options)
    assert list_negatives(full)[0] == ["a@1", "b@2", "c@3", "d@4"]


def test_a_kept_negative_is_not_found_again():
    rows = [
        make_row("q@0", "p@5", "n@10"),
        make_row("z@180", "N@10 "),
        make_row("z@181", "d@20"),
        make_row("z@182", "e@30"),
    ]
    mined = mine(rows, MiningOptions(num_negatives=2, range_min=0, relative_margin=None))
    assert list_negatives(mined)[0] == ["n@10"]  # the two found are n and its twin
    mined = mine(rows, MiningOptions(num_negatives=3, range_min=0, relative_margin=None))
    assert list_negatives(mined)[0] == ["n@10", "d@20"]


def test_present_negatives_that_are_right_are_left_out_but_not_those_of_another_instruction():
    rows = [
        make_row("q@0", "p@5", "r@6", "n@80", label="x"),
        make_row("q@0", "r@6", label="x"),
        make_row("s@1", "s@2", "p@5", label="x"),
        Row(
            query=InstructedText("q: ", "q@0"),
            positive=InstructedText("d: ", "p@5"),
            negatives=(InstructedText("another task: ", "p@5"),),
            task="t",
            label="x",
        ),
    ]
    mined = mine(rows, MiningOptions(num_negatives=1, range_min=0, relative_margin=None))
    assert list_negatives(mined) == [["n@80"], ["n@80"], ["n@80"], ["p@5"]]
    assert mined.counts["present negatives left out: right text of the query"] == 1
    assert mined.counts["present negatives left out: same label"] == 1


def test_rows_that_come_short_are_counted_by_reason_and_may_be_left_out():
    rows = [make_row("q@0", "p@20"), make_row("z@10", "d@10"), make_row("z@12", "e@12")]
    mined = mine(rows, MiningOptions(num_negatives=2, range_min=1, relative_margin=None))
    assert [len(row.negatives) for row in mined.rows] == [1, 1, 1]
    assert mined.counts["rows with fewer negatives: too few candidates"] == 3
    options = MiningOptions(num_negatives=1, range_min=0, relative_margin=None, absolute_margin=0, drop_incomplete=True)
    mined = mine(rows, options)
    assert [row.query.text for row in mined.rows] == [
        "z@10",
        "z@12",
    ]  # for the first both others are nearer than its own
    assert mined.counts["rows with fewer negatives: margins and score limits"] == 1
    assert mined.counts["left out: fewer negatives than wanted"] == 1
    assert mined.counts["negatives mined"] == 2


def test_faiss_is_asked_for_taken_for_large_tasks_or_missing(monkeypatch):
    assert [MiningOptions().uses_faiss(size) for size in (20_000, 20_001)] == [False, True]
    assert [MiningOptions(faiss=wanted).uses_faiss(30_000) for wanted in (False, True)] == [False, True]
    assert list_negatives(mine(LADDER, MiningOptions(num_negatives=2, range_min=0, faiss=True)))[0] == ["d@30", "d@40"]
    monkeypatch.setattr("instructor_st.data.mining.options.find_spec", lambda name: None)
    assert not MiningOptions().uses_faiss(30_000)
    model = Compass()
    with pytest.raises(ImportError, match=r"instructor-st\[mining\]"):
        mine(LADDER, MiningOptions(faiss=True), model=model)
    assert model.seen == []  # before anything is embedded


def test_random_draws_depend_on_the_seed_alone():
    rows = [make_row(f"q@{n}", f"d@{n + 0.5}") for n in range(0, 60, 2)]
    options = {
        "num_negatives": 3,
        "range_min": 2,
        "range_max": 20,
        "relative_margin": None,
        "sampling_strategy": "random",
    }
    random.seed(5)
    before = random.getstate()
    first = mine(rows, MiningOptions(**options, seed=1))
    assert random.getstate() == before
    random.seed(6)
    assert mine(rows, MiningOptions(**options, seed=1)).rows == first.rows
    assert mine(rows, MiningOptions(**options, seed=2)).rows != first.rows
    top = mine(rows, MiningOptions(**{**options, "num_negatives": 18, "sampling_strategy": "top"}))
    for drawn, window in zip(list_negatives(first), list_negatives(top), strict=True):
        assert len(set(drawn)) == 3
        assert [text for text in window if text in drawn] == drawn  # of the window, the most similar first
    # A row that needs one more draws it of the three, not the most similar one each time.
    filled = [make_row(row.query.text, row.positive.text, "x@200", "y@201") for row in rows]
    one = list_negatives(mine(filled, MiningOptions(**options, seed=1)))
    assert all(negatives[:2] == ["x@200", "y@201"] and len(negatives) == 3 for negatives in one)
    assert any(negatives[2] != drawn[0] for negatives, drawn in zip(one, list_negatives(first), strict=True))


def test_a_cross_encoder_refuses_by_its_own_scores_of_bare_texts():
    judge = Judge({("q@0", "p@20"): 2.0, ("q@0", "d@10"): 1.95, ("q@0", "d@30"): 1.8, ("q@0", "d@40"): 5.0})
    mined = mine(LADDER, MiningOptions(num_negatives=2, range_min=0), cross_encoder=judge)
    # At most 2 - 5 %: d@10 and d@40 are out; the others have 0, the first of them comes first.
    assert list_negatives(mined)[0] == ["d@30", "d@60"]
    # For the other queries all scores are 0, and 0 is no less than the positive's 0 less 5 %.
    assert mined.counts["candidates refused: cross-encoder"] == 2
    assert len(judge.asked) == len(set(judge.asked)) == 7 * 7
    # Another wording is no other pair to it.
    twice = [*LADDER, *(replace(row, query=row.query._replace(instruction="other: ")) for row in LADDER)]
    twice += [replace(row, positive=row.positive._replace(instruction="third: ")) for row in LADDER]
    again = Judge(judge.scores)
    mine(twice, MiningOptions(num_negatives=2, range_min=0), cross_encoder=again)
    assert again.asked == judge.asked
    with pytest.raises(ValueError, match="by a margin or a score limit, and none is set"):
        mine(LADDER, FIRST, cross_encoder=judge)
    judge.num_labels = 3
    with pytest.raises(ValueError, match="gives 3 scores a pair"):
        mine(LADDER, MiningOptions(), cross_encoder=judge)


@pytest.mark.parametrize("use_faiss", [False, True])
def test_a_cross_encoder_does_not_lift_the_guards(use_faiss):
    rows = [make_row(f"q@{n}", f"p@{n}", label="xy"[n % 2]) for n in range(6)]
    judge = Judge({(f"q@{n}", f"p@{n}"): 9.0 for n in range(6)})
    options = MiningOptions(num_negatives=5, range_min=0, faiss=use_faiss)
    mined = mine(rows, options, cross_encoder=judge)
    assert [sorted(row) for row in list_negatives(mined)] == [["p@1", "p@3", "p@5"], ["p@0", "p@2", "p@4"]] * 3
    assert len(judge.asked) == 6 * 4  # its positive and the other class
    assert mined.counts["candidates refused: same label"] == 6 * 2


def test_a_cross_encoder_is_loaded_by_name(monkeypatch):
    loaded = []
    monkeypatch.setattr("sentence_transformers.CrossEncoder", lambda name: loaded.append(name) or Judge({}))
    mine(LADDER, MiningOptions(), cross_encoder="some/reranker")
    assert loaded == ["some/reranker"]


def test_vectors_are_kept_for_other_options(tmp_path):
    model = Compass()
    first = mine(LADDER, model=model, cache_folder=tmp_path, identity="compass")
    seen = len(model.seen)
    assert seen == 14
    again = mine(
        LADDER, MiningOptions(num_negatives=2, range_min=0), model=model, cache_folder=tmp_path, identity="compass"
    )
    assert len(model.seen) == seen
    assert list_negatives(again)[0] == ["d@30", "d@40"]
    turned = Compass({"q: ": 90})
    assert mine(LADDER, model=turned, cache_folder=tmp_path, identity="turned").rows != first.rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_negatives": 0}, "num_negatives must be 1 or more, not 0"),
        ({"range_min": -1}, "range_min must be 0 or more, not -1"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"range_max": 14}, "range_min=10 and range_max=14 leave 4 candidates a query, and num_negatives=5"),
        ({"relative_margin": -0.1}, "relative_margin must be 0 or more, not -0.1"),
        ({"absolute_margin": -1}, "absolute_margin must be 0 or more"),
        ({"min_score": 0.5, "max_score": 0.4}, "min_score=0.5 is above max_score=0.4"),
        ({"sampling_strategy": "best"}, "must be 'top' or 'random', not 'best'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MiningOptions(**options)


def test_rows_of_several_tasks_and_of_none():
    with pytest.raises(ValueError, match="of the tasks a, b; mine them one by one"):
        mine([make_row("q@0", "p@1", task="b"), make_row("q@0", "p@1", task="a")])
    assert mine([]).rows == ()
