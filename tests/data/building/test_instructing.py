"""Instructions, paraphrases and held-out rows, all drawn by hash."""

from __future__ import annotations

from collections import Counter

import pytest

from instructor_st.data.building.examples import TextPair
from instructor_st.data.building.instructing import instruct_pairs, split_pairs
from instructor_st.data.building.mixture import Mixture, TaskSpec

QUERY, DOCUMENT = ["q1: ", "q2: ", "q3: "], ["d1: ", "d2: ", "d3: ", "d4: "]
TASK = TaskSpec.model_validate(
    {
        "name": "t",
        "source": {"files": "x.jsonl"},
        "kind": "pairs",
        "instructions": {
            "query": {"instruction": QUERY[0], "paraphrases": QUERY[1:]},
            "document": {"instruction": DOCUMENT[0], "paraphrases": DOCUMENT[1:]},
        },
    }
)
PAIRS = [TextPair(f"query {number}", f"positive {number}", (f"negative {number}",), "x") for number in range(2000)]


def test_every_row_has_the_instructions_or_paraphrases_of_both():
    rows = instruct_pairs(PAIRS, TASK, share=0.25, seed=0)
    assert [tuple(text.text for text in row.texts) for row in rows] == [pair.texts for pair in PAIRS]
    assert all((row.task, row.label) == ("t", "x") for row in rows)
    assert all(row.positive.instruction == row.negatives[0].instruction for row in rows)
    wordings = Counter((row.query.instruction, row.positive.instruction) for row in rows)
    assert set(wordings) == {("q1: ", "d1: "), *((query, document) for query in QUERY[1:] for document in DOCUMENT[1:])}
    assert 0.22 < 1 - wordings["q1: ", "d1: "] / len(rows) < 0.28
    # Six pairs of paraphrases share 500 rows: the sides are drawn apart.
    assert all(50 < count < 120 for wording, count in wordings.items() if wording != ("q1: ", "d1: "))


def test_wordings_depend_on_the_row_and_the_seed_alone():
    rows = instruct_pairs(PAIRS, TASK, share=0.5, seed=0)
    assert instruct_pairs(PAIRS[::-1], TASK, share=0.5, seed=0) == rows[::-1]
    assert instruct_pairs(PAIRS, TASK, share=0.5, seed=1) != rows
    for share in (0, 1):
        instructions = {row.query.instruction for row in instruct_pairs(PAIRS, TASK, share=share, seed=0)}
        assert instructions == ({"q1: "} if share == 0 else set(QUERY[1:]))


def test_rows_of_a_symmetric_task_have_one_wording():
    task = TASK.model_copy(update={"instructions": TASK.sides.model_copy(update={"document": TASK.sides.query})})
    rows = instruct_pairs(PAIRS, task, share=0.5, seed=0)
    assert all(len({text.instruction for text in row.texts}) == 1 for row in rows)
    assert {row.query.instruction for row in rows} == set(QUERY)


def mixture(**changes) -> Mixture:
    return Mixture(name="m", tasks=(TASK,), **changes)


def test_held_out_queries_are_the_same_in_every_task_and_stand_in_no_training_row():
    report: Counter[str] = Counter()
    train, held_out = split_pairs(PAIRS, mixture(held_out_share=0.1, max_held_out=2000), report=report)
    assert 150 < len(held_out) < 250
    assert len(train) + len(held_out) == len(PAIRS)
    assert not report
    other = [TextPair(pair.query, "another positive") for pair in PAIRS[::-1]]
    _, other_held_out = split_pairs(other, mixture(held_out_share=0.1, max_held_out=2000), report=Counter())
    assert {pair.query for pair in other_held_out} == {pair.query for pair in held_out}
    # The query that was held out is somebody's positive, and another one somebody's negative.
    answers = [TextPair("fresh 1", held_out[0].query), TextPair("fresh 2", "positive", (held_out[1].query,))]
    again, _ = split_pairs([*PAIRS, *answers], mixture(held_out_share=0.1, max_held_out=2000), report=report)
    assert again == train
    assert report == {"left out: holds a held-out query": 2}


@pytest.mark.parametrize("cap", [0, 7])
def test_held_out_rows_beyond_the_cap_are_not_trained_on(cap):
    report: Counter[str] = Counter()
    free, all_held_out = split_pairs(PAIRS, mixture(held_out_share=0.1, max_held_out=2000), report=report)
    train, held_out = split_pairs(PAIRS, mixture(held_out_share=0.1, max_held_out=cap), report=report)
    assert train == free
    assert held_out == all_held_out[:cap]
    assert report == {"left out: more than max_held_out": len(all_held_out) - cap}
    assert split_pairs(PAIRS, mixture(held_out_share=0), report=report) == (PAIRS, [])
