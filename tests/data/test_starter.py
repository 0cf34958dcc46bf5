"""The embedded starter mixture is what its readme says."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from instructor_st.data import STARTER_FOLDER, load_training_data


@pytest.fixture(scope="module")
def starter():
    return load_training_data(STARTER_FOLDER)


def test_size(starter):
    assert len(starter.train) == len(starter.held_out) == 17
    assert sum(map(len, starter.train.values())) == 1092
    assert sum(map(len, starter.held_out.values())) == 378
    assert set(starter.report) == {"rows read"}


def test_no_held_out_text_is_trained_on(starter):
    texts = [
        {instructed.text for rows in part.values() for row in rows for instructed in row.texts}
        for part in (starter.train, starter.held_out)
    ]
    assert not texts[0] & texts[1]


def test_no_row_repeats_and_no_positive_is_a_negative(starter):
    for part in (starter.train, starter.held_out):
        for task, rows in part.items():
            assert len(set(rows)) == len(rows), task
            for row in rows:
                assert len({instructed.text for instructed in row.texts}) == 3, row


def test_instructions_follow_the_template_in_three_wordings(starter):
    for task, rows in starter.train.items():
        wordings = Counter(row.query.instruction for row in rows)
        assert len(wordings) == 3, task
        for row in rows:
            for instructed in row.texts:
                assert instructed.instruction.startswith("Represent the "), instructed
                assert instructed.instruction.endswith(": "), instructed
                assert instructed.instruction.count(":") == 1, instructed


def test_same_texts_under_other_instructions_have_other_answers(starter):
    """Eight tasks over four sets of texts: what is right under one instruction is wrong under the other."""
    tasks_of_text = defaultdict(set)
    for task, rows in starter.train.items():
        for row in rows:
            tasks_of_text[row.query.text].add(task)
    pairs = {frozenset(tasks) for tasks in tasks_of_text.values() if len(tasks) > 1}
    assert {tuple(sorted(pair)) for pair in pairs} == {
        ("diary_emotion", "diary_setting"),
        ("message_business", "message_intent"),
        ("news_region", "news_topic"),
        ("science_field", "science_role"),
    }
    for pair in pairs:
        labels = [{row.query.text: row.label for row in starter.train[task]} for task in pair]
        for task, own, other in zip(pair, labels, reversed(labels), strict=True):
            for row in starter.train[task]:
                positive, negative = row.positive.text, row.negatives[0].text
                assert own[positive] == own[row.query.text] != own[negative]
                assert other[negative] == other[row.query.text] != other[positive]
