"""Super-NaturalInstructions tasks in miniature, built into rows that the paper's rule gives by hand.

All vectors are from this table; their cosines are sums of two products and exact to the digits that stand here.

         A=(1, 0)  B=(.96, .28)  C=(.8, .6)  D=(.6, .8)  E=(.28, .96)  F=(0, 1)
    A       1         .96           .8          .6          .28           0
    B                 1             .936        .8          .5376         .28
    C                               1           .96         .8            .6
    D                                           1           .936          .8
    E                                                       1             .96
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instructor_st.data import read_rows
from instructor_st.data.building.build import TaskResult, build_mixture
from instructor_st.data.building.mixture import Mixture
from instructor_st.data.embedding_cache import Scorer
from instructor_st.data.sources.natural_instructions import read_natural_instructions
from instructor_st.data.sources.records import BadRecordError

A, B, C, D, E, F = (1, 0), (0.96, 0.28), (0.8, 0.6), (0.6, 0.8), (0.28, 0.96), (0, 1)


def write_task(checkout: Path, name: str, instances: list[Any]) -> None:
    """A task's file in the form of the checkout; what it has besides is there, and must not be read as rows."""
    (checkout / "tasks").mkdir(parents=True, exist_ok=True)
    example = {"input": "Never a row: the input.", "output": "Never a row: the output.", "explanation": "None."}
    document = {
        "Contributors": ["nobody"],
        "Source": ["made up"],
        "Categories": ["Sentiment Analysis"],
        "Definition": ["Read the text.", "Answer."],
        "Positive Examples": [example],
        "Negative Examples": [example],
        "Instances": instances,
        "Instance License": ["none"],
    }
    (checkout / "tasks" / f"{name}.json").write_text(json.dumps(document, indent=4), encoding="utf-8")


def make_instances(outputs: dict[str, str | list[str]]) -> list[dict[str, Any]]:
    return [
        {"id": f"task-{number}", "input": text, "output": [output] if isinstance(output, str) else output}
        for number, (text, output) in enumerate(outputs.items())
    ]


def build(
    checkout: Path, name: str, vectors: dict[str, Any], *, strict: bool = False, **task: Any
) -> tuple[TaskResult, list[tuple[str, ...]]]:
    """Build one task; what became of it, and its rows: query, positive, negatives, read back from the shard."""
    instructions = {"query": "Represent the text: ", "document": "Represent the other: "}
    source = {"natural_instructions": checkout, "task": name}
    settings = {"name": "ni", "held_out_share": 0, "near_duplicates": None, "paraphrase_share": 0}
    spec = {"name": name, "source": source, "instructions": instructions, **task}
    mixture = Mixture.model_validate({**settings, "tasks": [spec]})
    # A text without a vector is an error: only inputs and outputs are asked for.
    scorer = Scorer(embed=lambda texts: np.array([vectors[text] for text in texts], dtype=float), identity="by hand")
    output = checkout.parent / "out"
    (result,) = build_mixture(mixture, output, scorer=scorer, strict=strict, show_progress_bar=False).results
    assert list(result.shards) == [f"train/{name}.parquet"]
    rows = list(read_rows(output / "train" / f"{name}.parquet"))
    assert len(rows) == result.train_rows
    for row in rows:
        assert row.task == name
        assert [text.instruction for text in row.texts] == [
            "Represent the text: ",
            *["Represent the other: "] * (1 + len(row.negatives)),
        ]
    return result, [tuple(text.text for text in row.texts) + ((row.label,) if row.label else ()) for row in rows]


@pytest.fixture
def checkout(tmp_path) -> Path:
    return tmp_path / "natural-instructions"


MOODS = {"a": "glad", "b": "sad", "c": "glad", "d": "sad", "e": "sad", "f": "glad"}
MOOD_VECTORS = {"a": A, "b": B, "c": C, "d": D, "e": E, "f": F}


def test_a_classification_task(checkout):
    write_task(checkout, "task101_mood", make_instances(MOODS))
    columns = {"text": "input", "label": "output"}
    result, rows = build(checkout, "task101_mood", MOOD_VECTORS, kind="classes", columns=columns, negatives=2)
    # The most similar of the class | the two most similar of the other class.
    assert rows == [
        ("a", "c", "b", "d", "glad"),  # c .8, f 0           | b .96, d .6, e .28
        ("b", "d", "a", "c", "sad"),  # d .8, e .5376        | a .96, c .936, f .28
        ("c", "a", "d", "b", "glad"),  # a .8, f .6          | d .96, b .936, e .8
        ("d", "e", "c", "f", "sad"),  # e .936, b .8         | c .96, f .8, a .6
        ("e", "d", "f", "c", "sad"),  # d .936, b .5376      | f .96, c .8, a .28
        ("f", "c", "e", "d", "glad"),  # c .6, a 0           | e .96, d .8, b .28
    ]
    assert result.counts == {"records read": 6, "pairs made": 6}
    assert [file.name for file in result.files] == ["task101_mood.json"]


def test_a_classification_task_is_found_out_by_its_outputs(checkout):
    # 22 inputs and 2 outputs, fewer than a tenth: by its outputs alone this is a classification task.
    texts = [f"text {number}" for number in range(22)]
    write_task(
        checkout, "task102_parity", make_instances({text: ["even", "odd"][n % 2] for n, text in enumerate(texts)})
    )
    # Angles 0, .3, .9, 1.8, ... 69.3 degrees: the gaps grow, so what comes before is nearer than what comes after.
    angles = [math.radians(0.3 * n * (n + 1) / 2) for n in range(22)]
    vectors = {text: (math.cos(angle), math.sin(angle)) for text, angle in zip(texts, angles, strict=True)}
    result, rows = build(checkout, "task102_parity", vectors, kind="text_to_text")
    # So the best of the class is two before, the best of the other class one before; the first ones look ahead.
    assert rows[:3] == [
        ("text 0", "text 2", "text 1", "even"),
        ("text 1", "text 3", "text 0", "odd"),
        ("text 2", "text 0", "text 1", "even"),
    ]
    assert rows[3:] == [(f"text {n}", f"text {n - 2}", f"text {n - 1}", ["even", "odd"][n % 2]) for n in range(3, 22)]
    assert result.counts["examples whose outputs are class labels"] == 22


#            input: vector, output: vector
FREE = {"x0": A, "y0": A, "x1": B, "y1": F, "x2": C, "y2": B, "x3": F, "y3": C}


def test_a_text_to_text_task_pairs_inputs(checkout):
    write_task(checkout, "task201_free", make_instances({f"x{n}": f"y{n}" for n in range(4)}))
    result, rows = build(checkout, "task201_free", FREE, kind="text_to_text", negatives=2)
    # cos x + cos y, the highest is the positive | cos x - cos y, the highest is the hard negative, if its output is less
    # similar to the query's output than the positive's is.
    assert rows == [
        # x1 .96 + 0, x2 .8 + .96 = 1.76, x3 0 + .8       | x1 .96 - 0, x3 0 - .8
        ("x0", "x2", "x1", "x3"),
        # x0 .96 + 0, x2 .936 + .28 = 1.216, x3 .28 + .6  | x0 .96 - 0; x3 is none, .6 is above .28
        ("x1", "x2", "x0"),
        # x0 .8 + .96 = 1.76, x1 .936 + .28, x3 .6 + .936 | x1 .936 - .28, x3 .6 - .936
        ("x2", "x0", "x1", "x3"),
        # x0 0 + .8, x1 .28 + .6, x2 .6 + .936 = 1.536    | x1 .28 - .6 = -.32, x0 0 - .8
        ("x3", "x2", "x1", "x0"),
    ]
    assert result.counts == {
        "records read": 4,
        "pairs made": 4,
        "pairs with fewer hard negatives than asked for": 1,
    }


def test_a_text_to_text_task_pairs_inputs_with_outputs(checkout):
    write_task(checkout, "task201_free", make_instances({f"x{n}": f"y{n}" for n in range(4)}))
    result, rows = build(checkout, "task201_free", FREE, kind="text_to_text", negatives=2, answers=True)
    # cos x - cos y, as above; the outputs of the highest two are the hard negatives.
    assert rows == [
        ("x0", "y0", "y1", "y2"),  # .96 - 0 = .96; .8 - .96 = -.16;        0 - .8 = -.8
        ("x1", "y1", "y0", "y2"),  # .96 - 0 = .96; .936 - .28 = .656;      .28 - .6 = -.32
        ("x2", "y2", "y1", "y0"),  # .936 - .28 = .656; .8 - .96 = -.16;    .6 - .936 = -.336
        ("x3", "y3", "y1", "y2"),  # .28 - .6 = -.32; .6 - .936 = -.336;    0 - .8 = -.8
    ]
    assert result.counts == {"records read": 4, "pairs made": 4}


#          p has two outputs, and r shares one of them
SEVERAL = {"p": ["p1", "p2"], "q": "q1", "r": ["r1", "p2"]}
SEVERAL_VECTORS = {"p": A, "q": B, "r": E, "p1": A, "p2": C, "q1": F, "r1": B}


def test_a_task_with_several_outputs_pairs_inputs(checkout):
    write_task(checkout, "task301_several", make_instances(SEVERAL))
    result, rows = build(checkout, "task301_several", SEVERAL_VECTORS, kind="text_to_text")
    # An instance with two outputs is two examples. cos x + cos y | cos x - cos y, where p2 is right for p and for r, so
    # that neither is a negative of the other.
    assert rows == [
        # p, p1: q .96 + 0; r .28 + .96 = 1.24 with r1, .28 + .8 with p2              | q .96 - 0
        ("p", "r", "q"),
        # p, p2: q .96 + .6 = 1.56; r .28 + .936 with r1, .28 + 1 with p2             | q is the positive, r is right
        ("p", "q"),
        # q, q1: p .96 + 0 with p1, .96 + .6 = 1.56 with p2; r .5376 + .28, + .6      | r .5376 - .28 with r1
        ("q", "p", "r"),
        # r, r1: p .28 + .96 = 1.24 with p1, .28 + .936 with p2; q .5376 + .28        | q .5376 - .28
        ("r", "p", "q"),
        # r, p2: p .28 + .8 with p1, .28 + 1 = 1.28 with p2; q .5376 + .6             | q .5376 - .6
        ("r", "p", "q"),
    ]
    assert result.counts == {
        "records read": 5,
        "pairs made": 5,
        "pairs with fewer hard negatives than asked for": 1,
    }


def test_a_task_with_several_outputs_pairs_inputs_with_each(checkout):
    write_task(checkout, "task301_several", make_instances(SEVERAL))
    _, rows = build(checkout, "task301_several", SEVERAL_VECTORS, kind="text_to_text", answers=True)
    # cos x - cos y; all outputs of an input are right for it.
    assert rows == [
        ("p", "p1", "q1"),  # q1 .96 - 0; r1 .28 - .96
        ("p", "p2", "q1"),  # q1 .96 - .6 = .36; r1 .28 - .936
        ("q", "q1", "p1"),  # p1 .96 - 0; p2 .96 - .6 and .5376 - .6; r1 .5376 - .28
        ("r", "r1", "q1"),  # q1 .5376 - .28; p1 .28 - .96
        ("r", "p2", "q1"),  # q1 .5376 - .6 = -.0624; p1 .28 - .8; r1 would have 1 - .936 = .064, but is right
    ]


FAULTS = [
    {"id": "1", "input": "good one", "output": ["first"]},
    {"id": "2", "input": "no output at all"},
    {"id": "3", "input": " \n", "output": ["of a blank input"]},
    {"id": "4", "input": "half \ud83d a character", "output": ["x"]},
    {"id": "5", "input": "fine", "output": ["a NUL \x00 in it"]},
    {"id": "6", "input": "numbers", "output": [3]},
    {"id": "7", "input": "bare", "output": "not in a list"},
    {"id": "8", "input": ["words"], "output": ["x"]},
    "no object",
    {"id": "10", "input": "good two", "output": ["second", " "]},
]


def test_faults_are_counted_and_told_with_their_places(checkout):
    write_task(checkout, "task401_faults", FAULTS)
    vectors = {"good one": A, "good two": B, "first": C, "second": F}
    result, rows = build(checkout, "task401_faults", vectors, kind="text_to_text", answers=True)
    assert rows == [("good one", "first", "second"), ("good two", "second", "first")]
    # Of 10 instances six give no record that can be used; the tenth gives two, whose second is blank.
    assert result.counts == {
        "bad record: 'input' is no string": 1,
        "bad record: 'output' is no list of strings": 2,
        "bad record: a JSON object is expected, not str": 1,
        "bad record: a NUL character": 1,
        "bad record: a lone surrogate": 1,
        "bad record: no 'output'": 1,
        "left out: blank text": 2,
        "pairs made": 2,
        "records read": 4,
    }
    path = checkout / "tasks" / "task401_faults.json"
    assert list(result.bad_records) == [
        f"{path}:instance 2: no 'output' (it has 'id', 'input')",
        f"{path}:instance 4: a lone surrogate (in column 'input'; half a character is lost)",
        f"{path}:instance 5: a NUL character (in column 'output'; take it out)",
        f"{path}:instance 6: 'output' is no list of strings (it is [3])",
        f"{path}:instance 7: 'output' is no list of strings (it is 'not in a list')",
        f"{path}:instance 8: 'input' is no string (it is ['words'])",
        f"{path}:instance 9: a JSON object is expected, not str",
    ]


def test_strict_stops_at_the_first_fault(checkout, tmp_path):
    write_task(checkout, "task401_faults", FAULTS)
    with pytest.raises(BadRecordError, match=r"task401_faults\.json:instance 2: no 'output'"):
        build(checkout, "task401_faults", {}, kind="text_to_text", answers=True, strict=True)
    assert not (tmp_path / "out" / "train").exists()


def test_the_columns_of_a_record(checkout):
    write_task(checkout, "task301_several", [*make_instances(SEVERAL), {"input": "s", "output": ["s1"]}])
    records = list(read_natural_instructions(checkout, "task301_several"))
    assert all(list(record.values) == ["input", "output", "definition", "id"] for record in records)
    assert {record.values["definition"] for record in records} == {"Read the text.\nAnswer."}
    columns = ("input", "output", "id")
    assert [tuple(record.values[column] for column in columns) for record in records] == [
        ("p", "p1", "task-0"),
        ("p", "p2", "task-0"),
        ("q", "q1", "task-1"),
        ("r", "r1", "task-2"),
        ("r", "p2", "task-2"),
        ("s", "s1", None),
    ]
