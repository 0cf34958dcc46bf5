from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from instructor_st.data.building.examples import ClassText, TextPair
from instructor_st.data.building.instruction_negatives import find_instruction_negatives
from instructor_st.data.building.pair_construction import pair_classes
from instructor_st.data.embedding_cache import Scorer

MADE = "rows with an instruction negative"
NOT_SHARED = "rows without an instruction negative: the query stands in no other task"
NOT_WRONG = "rows without an instruction negative: no text of another task is known to be wrong here"


def find(pairs_by_task, **options):
    reports = {task: Counter() for task in pairs_by_task}
    found = find_instruction_negatives(pairs_by_task, reports=reports, **options)
    assert {task: len(rows) for task, rows in found.items()} == {
        task: len(rows) for task, rows in pairs_by_task.items()
    }
    return {task: [row.negatives for row in rows] for task, rows in found.items()}, reports


def test_the_positive_of_one_task_is_the_first_negative_of_the_other():
    tasks = {
        "sentiment": [
            TextPair("good soup", "good film", ("bad play", "bad book"), "good", "s:1"),
            TextPair("bad soup", "bad film", ("good play",), "bad", "s:2"),
        ],
        "topic": [
            TextPair("good soup", "bad soup", (), "food", "t:1"),
            TextPair("good film", "bad film", ("bad soup",), "film", "t:2"),
        ],
    }
    found = find_instruction_negatives(tasks)
    # As many negatives as before, but at least one; all the rest is as it was.
    assert found == {
        "sentiment": [
            TextPair("good soup", "good film", ("bad soup", "bad play"), "good", "s:1"),
            TextPair("bad soup", "bad film", ("good soup",), "bad", "s:2"),  # right in `topic` as it has its class
        ],
        "topic": [
            TextPair("good soup", "bad soup", ("good film",), "food", "t:1"),
            TextPair("good film", "bad film", ("good soup",), "film", "t:2"),
        ],
    }
    assert tasks["sentiment"][0].negatives == ("bad play", "bad book")


def test_pairs_without_classes():
    tasks = {
        "answers": [
            TextPair("q1", "a1", ("wrong", "wrong2", "d1")),
            TextPair("q2", "a2"),
            TextPair("d2", "a2"),  # so q2 and d2 have one answer
            TextPair("q3", "a3"),
            TextPair("d3", "q3"),
            TextPair("q4", "a4"),
            TextPair("q4", "b4"),
        ],
        "duplicates": [
            TextPair("q1", "d1", ("x", "a1")),
            TextPair("q2", "d2"),
            TextPair("q3", "d3"),
            TextPair("q4", "b4"),
            TextPair("q5", "d5"),
        ],
    }
    found, reports = find(tasks)
    assert found == {
        # d1 was a negative already and moves; d2 shares an answer with q2; d3 has q3 as its positive; b4 is q4's too.
        "answers": [("d1", "wrong", "wrong2"), (), (), (), (), (), ()],
        "duplicates": [("a1", "x"), ("a2",), ("a3",), ("a4",), ()],
    }
    assert reports == {
        "answers": {MADE: 1, NOT_WRONG: 6},
        "duplicates": {MADE: 4, NOT_SHARED: 1},
    }


def test_what_a_task_with_classes_does_not_know_is_not_taken():
    tasks = {
        "classes": [
            TextPair("q", "r", (), "one"),
            TextPair("s", "t", ("first", "known"), "one"),
            TextPair("u", "v", (), "two"),
            TextPair("w", "x", ("same",), "one"),
            TextPair("same", "x", (), "one"),
            TextPair("free", "y"),  # a row without a class
        ],
        "pairs": [
            TextPair("q", "unknown"),
            TextPair("s", "known"),
            TextPair("t", "u"),
            TextPair("u", "t"),
            TextPair("w", "same"),
            TextPair("free", "unknown"),
        ],
    }
    found, _ = find(tasks)
    assert found["classes"] == [
        (),  # nobody knows the class of `unknown`
        ("known", "first"),  # of no known class, but the task has it as a negative of s
        ("t",),  # of another class
        ("same",),  # a given negative is left alone, though it has the class of w; nothing new is made of it
        (),
        ("unknown",),
    ]
    assert found["pairs"] == [("r",), ("t",), (), ("v",), ("x",), ("y",)]


def test_a_given_negative_of_the_querys_class_is_not_put_first():
    tasks = {
        "classes": [TextPair("w", "x", ("other", "same"), "one"), TextPair("same", "x", (), "one")],
        "pairs": [TextPair("w", "same")],
    }
    assert find(tasks)[0]["classes"] == [("other", "same"), ()]


LABELS = {
    "q": ("good", "food"),
    "near": ("bad", "food"),
    "far": ("bad", "food"),
    "same": ("good", "food"),
    "nearer": ("bad", "film"),
    "film": ("good", "film"),
}
VECTORS = {"q": [1, 0], "near": [0.8, 0.6], "far": [0, 1], "same": [0.99, 0.1], "nearer": [0.9, 0.4], "film": [0.5, 1]}


def make_class_tasks(partners):
    """Two tasks over the same texts; `partners` gives each text's positive in both."""
    return {
        task: [TextPair(text, partners[text][place], ("old",), LABELS[text][place]) for text in LABELS]
        for place, task in enumerate(("sentiment", "topic"))
    }


PARTNERS = {
    "q": ("film", "same"),
    "near": ("far", "q"),
    "far": ("near", "near"),
    "same": ("q", "q"),
    "nearer": ("near", "film"),
    "film": ("q", "nearer"),
}


@pytest.mark.parametrize("block", [1, 4, 512])
def test_with_a_scorer_the_most_similar_text_of_the_other_class(block, tmp_path):
    scorer = Scorer(lambda texts: np.array([VECTORS[text] for text in texts]), "by hand")
    found, reports = find(make_class_tasks(PARTNERS), scorer=scorer, cache=tmp_path, block=block)
    assert dict(zip(LABELS, found["sentiment"], strict=True)) == {
        "q": ("near",),  # same and nearer are more similar, but good, and no food
        "near": ("same",),  # .85, q has .8
        "far": ("same",),  # .1, q has 0
        "same": ("near",),
        "nearer": ("film",),
        "film": ("nearer",),
    }
    assert dict(zip(LABELS, found["topic"], strict=True)) == {
        "q": ("film",),
        "near": ("nearer",),
        "far": ("nearer",),
        "same": ("film",),
        "nearer": ("near",),
        "film": ("same",),  # .54; q has .45
    }
    assert reports["topic"] == {MADE: 6}
    assert list(tmp_path.iterdir())


def test_without_a_scorer_the_positive_if_it_is_wrong_here_else_any_text_that_is():
    found, _ = find(make_class_tasks(PARTNERS))
    sentiment = dict(zip(LABELS, found["sentiment"], strict=True))
    assert sentiment["q"] in {("near",), ("far",)}  # its positive in `topic` is good as well
    assert sentiment["near"] == ("q",)
    assert sentiment["far"] in {("q",), ("same",)}
    assert sentiment["nearer"] == ("film",)
    many = {
        "sentiment": [TextPair(f"g{n}", f"g{n + 1}", (), "good") for n in range(40)]
        + [TextPair(f"b{n}", f"b{n + 1}", (), "bad") for n in range(3)],
        "topic": [TextPair(f"g{n}", f"g{n + 1}", (), "food") for n in range(40)]
        + [TextPair(f"b{n}", f"b{n + 1}", (), "food") for n in range(3)],
    }
    drawn = Counter(find(many)[0]["sentiment"][:40])
    assert set(drawn) == {("b0",), ("b1",), ("b2",), ("b3",)}
    assert find(many) == find(many)
    # Every text is food, so `topic` has nothing wrong to take.
    assert find(many)[1]["topic"] == {NOT_WRONG: 43}


def test_a_text_of_several_classes_is_wrong_only_if_it_shares_none():
    tasks = {
        "tags": [
            TextPair("q", "r", (), "red"),
            TextPair("both", "s", (), "red"),
            TextPair("both", "b", (), "blue"),
            TextPair("b", "both", (), "blue"),
            TextPair("c", "d", (), "blue"),
        ],
        "topic": [TextPair("q", "both", (), "t"), TextPair("c", "q", (), "t")],
    }
    assert find(tasks)[0]["tags"][0] == ("c",)
    scorer = Scorer(lambda texts: np.array([[1, 0] if text != "c" else [0, 1] for text in texts]), "by hand")
    assert find(tasks, scorer=scorer)[0]["tags"][0] == ("c",)


def test_a_text_of_another_class_that_was_paired_with_the_query_is_not_taken():
    linked = [f"l{number}" for number in range(8)]
    tasks = {
        "tags": [
            TextPair("q", "r", (), "red"),
            *(TextPair(text, "q") for text in linked),  # rows without a class
            *(TextPair(text, f"{text}+", (), "blue") for text in linked),
            TextPair("c", "d", (), "blue"),
        ],
        "topic": [TextPair(text, "q", (), "t") for text in (*linked, "c")],
    }
    assert find(tasks)[0]["tags"][0] == ("c",)
    scorer = Scorer(lambda texts: np.array([[1, 0] if text != "c" else [0, 1] for text in texts]), "by hand")
    assert find(tasks, scorer=scorer)[0]["tags"][0] == ("c",)


def test_several_tasks_take_turns():
    names = [f"q{number}" for number in range(60)]
    tasks = {task: [TextPair(name, f"{task}-{name}", ("x", "y")) for name in names] for task in ("a", "b", "c")}
    found, _ = find(tasks)
    kinds = Counter(negatives[0][0] for negatives in found["a"])
    assert set(kinds) == {"b", "c"}
    assert min(kinds.values()) > 15
    assert all(negatives[1:] == ("x",) for negatives in found["a"])
    # Rows of one query differ as well.
    rows = {"a": [TextPair("q", f"p{n}") for n in range(30)], "b": [TextPair("q", f"r{n}") for n in range(3)]}
    assert set(find(rows)[0]["a"]) == {("r0",), ("r1",), ("r2",)}


def test_nothing_made_is_labelled_right_over_random_classes():
    random = np.random.default_rng(0)
    texts = [f"t{number}" for number in range(200)]
    scorer = Scorer(lambda each: np.array([random_vectors[text] for text in each]), "random")
    random_vectors = {text: random.standard_normal(8) for text in texts}
    labels = {task: dict(zip(texts, random.integers(4, size=200).astype(str), strict=True)) for task in ("a", "b", "c")}
    tasks = {
        task: pair_classes(
            [ClassText(text, label) for text, label in own.items()],
            scorer=scorer,
            cache=None,
            negatives=2,
            report=Counter(),
        )
        for task, own in labels.items()
    }
    for options in ({}, {"scorer": scorer}):
        found, reports = find(tasks, **options)
        for task, rows in tasks.items():
            assert reports[task] == {MADE: 200}
            for row, negatives in zip(rows, found[task], strict=True):
                assert len(set(negatives)) == 2
                assert negatives[1] in row.negatives
                assert labels[task][negatives[0]] != labels[task][row.query]
                assert any(labels[other][negatives[0]] == labels[other][row.query] for other in labels if other != task)


def test_one_task_alone_and_wrong_options():
    rows = [TextPair("q", "p", ("n",)), TextPair("r", "s")]
    assert find({"a": rows}) == ({"a": [("n",), ()]}, {"a": {NOT_SHARED: 2}})
    assert find_instruction_negatives({}) == {}
    with pytest.raises(ValueError, match="block must be 1 or more, not 0"):
        find_instruction_negatives({"a": rows}, block=0)
