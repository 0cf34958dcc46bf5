"""The starter mixture: the registry's worked examples as rows."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from instructor_st.data import load_starter_data
from instructor_st.tasks import get_task, get_tasks


@pytest.fixture(scope="module")
def starter():
    return load_starter_data()


def test_every_task_is_trained_on_and_holds_one_example_out(starter):
    names = {task.name for task in get_tasks()}
    assert set(starter.train) == set(starter.held_out) == names
    assert all(len(rows) == 1 for rows in starter.held_out.values())
    assert all(len({row.query.text for row in rows}) == len(rows) == 4 for rows in starter.train.values())
    left_out = sum(len(task.examples) - 1 - 4 for task in get_tasks())
    assert starter.report["left out: more rows than max_rows_per_task"] == left_out
    assert starter.report["rows read"] == sum(len(task.examples) for task in get_tasks())


def test_no_held_out_text_is_trained_on(starter):
    texts = [
        {instructed.text for rows in part.values() for row in rows for instructed in row.texts}
        for part in (starter.train, starter.held_out)
    ]
    # Short answers, such as a name or a label's word, may recur by chance.
    assert not {text for text in texts[0] & texts[1] if len(text.split()) >= 5}


def test_rows_are_the_examples_under_several_wordings():
    task = get_task("natural_questions")
    for wordings in (1, 3, 6):
        data = load_starter_data([task], wordings=wordings, max_rows_per_task=None)
        by_query = defaultdict(list)
        for row in data.train[task.name]:
            by_query[row.query.text].append(row)
        trained = {example.query: example for example in task.examples if not example.held_out}
        assert set(by_query) == set(trained)
        for query, rows in by_query.items():
            assert len({row.query.instruction for row in rows}) == len(rows) == wordings
            assert rows[0].query.instruction == task.query.instruction
            assert rows[0].positive.instruction == rows[0].negatives[0].instruction == task.document.instruction
            for row in rows:
                assert row.query.instruction in task.query.wordings
                assert row.positive.instruction in task.document.wordings
                assert (row.positive.text, row.negatives[0].text) == (trained[query].positive, trained[query].negative)
    (row,) = data.held_out[task.name]
    assert row.query.instruction == task.query.instruction


def test_different_examples_get_different_wordings():
    options = {"wordings": 2, "max_rows_per_task": None}
    rows = load_starter_data([get_task("massive_intent")], **options).train["massive_intent"]
    assert len(Counter(row.query.instruction for row in rows)) > 3
    assert rows == load_starter_data([get_task("massive_intent")], **options).train["massive_intent"]
    assert rows != load_starter_data([get_task("massive_intent")], **options, seed=1).train["massive_intent"]


def test_labels_go_along_and_a_cap_is_reported():
    data = load_starter_data([get_task("massive_intent")], wordings=1, max_rows_per_task=5)
    assert all(row.label in get_task("massive_intent").labels for row in data.train["massive_intent"])
    assert len(data.train["massive_intent"]) == 5
    left_out = len(get_task("massive_intent").examples) - 1 - 5
    assert data.report["left out: more rows than max_rows_per_task"] == left_out


def test_same_texts_under_other_instructions_have_other_answers():
    starter = load_starter_data(max_rows_per_task=None)
    for task in get_tasks():
        for other in task.shares_texts_with:
            answers = [
                {row.query.text: row.positive.text for row in starter.train[name]} for name in (task.name, other)
            ]
            shared = answers[0].keys() & answers[1].keys()
            assert len(shared) >= 4
            assert all(answers[0][query] != answers[1][query] for query in shared)


def test_options_out_of_range():
    for options in ({"wordings": 0}, {"wordings": 7}, {"max_rows_per_task": 0}, {"tasks": []}):
        with pytest.raises(ValueError, match=r"must be|no task"):
            load_starter_data(**options)
