"""Mixture files: what they may say, and what they are told when they say something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructor_st.data.building.mixture import MixtureError, read_mixture
from instructor_st.data.sources.specs import FileSource, HubSource, RegistrySource
from instructor_st.tasks import get_task

TASK = """
  - name: riddles
    source: {files: 'riddles.jsonl'}
    kind: pairs
    columns: {positive: answer}
    instructions:
      query: {instruction: 'Represent the riddle for finding its answer: ', paraphrases: ['riddle: ']}
      document: 'Represent the answer of a riddle: '
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mixture.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_mixture(tmp_path, monkeypatch):
    monkeypatch.setenv("RIDDLES", str(tmp_path / "far"))
    text = f"""name: games
seed: 3
evaluation_texts: [dev]
tasks:{TASK}
  - name: intents
    source: {{hub: somebody/intents, split: train, revision: abc}}
    kind: classes
    instructions: massive_intent
    max_rows: 7
  - name: packed
    source: {{files: '${{RIDDLES}}/more.jsonl.gz'}}
    kind: triplets
    instructions: {{query: 'Represent the riddle: '}}
  - {{name: worked, source: {{registry: quora_duplicates}}, kind: triplets, instructions: quora_duplicates}}
"""
    mixture = read_mixture(write(tmp_path, text))
    riddles, intents, packed, worked = mixture.tasks
    assert riddles.source == FileSource(files=tmp_path / "riddles.jsonl")
    assert riddles.sides.query.wordings == ("Represent the riddle for finding its answer: ", "riddle: ")
    assert riddles.sides.document.wordings == ("Represent the answer of a riddle: ",)
    assert (riddles.max_rows, intents.max_rows) == (2000, 7)
    assert intents.source == HubSource(hub="somebody/intents", revision="abc")
    assert intents.sides.query.wordings == get_task("massive_intent").query.wordings
    assert packed.source == FileSource(files=tmp_path / "far" / "more.jsonl.gz")
    # Without instructions of their own, documents have the queries'.
    assert packed.sides.document == packed.sides.query
    assert worked.source == RegistrySource(registry="quora_duplicates")
    assert (mixture.seed, mixture.evaluation_texts) == (3, (tmp_path / "dev",))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: pairs", "kind: pears", r"task 'riddles', kind: Input should be 'classes'"),
        (
            "positive: answer",
            "answer: positive",
            r"kind 'pairs' has no role answer; its roles are query, positive, neg",
        ),
        (
            "{files: 'riddles.jsonl'}",
            "{file: 'riddles.jsonl'}",
            "task 'riddles', source: it must have the fields of one kind",
        ),
        ("    kind:", "    colour: red\n    kind:", "task 'riddles', colour: Extra inputs are not permitted"),
        ("answer of a riddle: '", "answer of a riddle'", r"instructions.*String should match pattern"),
        ("name: riddles", "name: a/b", r"task 'a/b', name: String should match pattern"),
        ("riddles.jsonl", "${NOWHERE}/x.jsonl", "the environment variable NOWHERE of .* is not set"),
        ("kind: pairs\n    columns: {positive: answer}", "kind: scored", "needs positive_score"),
        ("{positive: answer}", "{positive: [answer, 3]}", r"columns, positive: .* expected, not \['answer', 3\]"),
        (
            "    kind:",
            "    remove: {query: '(a'}\n    kind:",
            r"remove, query: '\(a' is no regular expression: missing \)",
        ),
        ("    kind:", "    remove: {title: a}\n    kind:", "kind 'pairs' has no role title"),
        ("tasks:", "tasks: []\nothers:", "tasks: Tuple should have at least 1 item"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, old, new, message):
    text = f"name: games\ntasks:{TASK}"
    assert old in text
    path = write(tmp_path, text.replace(old, new))
    with pytest.raises(MixtureError, match=message) as error:
        read_mixture(path)
    assert str(error.value).startswith(f"{path}: ")


def test_names_and_files(tmp_path):
    twice = TASK + TASK.replace("riddles\n", "Riddles\n", 1)
    with pytest.raises(MixtureError, match="two tasks are named 'Riddles'"):
        read_mixture(write(tmp_path, f"name: games\ntasks:{twice}"))
    unknown = "{name: a, source: {registry: stsb}, kind: pairs, instructions: massive_intend}"
    with pytest.raises(MixtureError, match=r"task 'a', instructions: No task 'massive_intend'.*massive_intent"):
        read_mixture(write(tmp_path, f"name: games\ntasks: [{unknown}]"))
    with pytest.raises(MixtureError, match="no such mixture file"):
        read_mixture(tmp_path / "nothing.yaml")
    with pytest.raises(MixtureError, match="not readable as YAML"):
        read_mixture(write(tmp_path, "name: [games"))
    with pytest.raises(MixtureError, match="a mixture is a mapping"):
        read_mixture(write(tmp_path, "- games"))
