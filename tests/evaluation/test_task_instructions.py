from __future__ import annotations

import pytest

from instructor_st.evaluation.task_instructions import TaskInstruction, find_instruction, read_instructions


def test_a_side_without_its_own_instruction_shares_the_queries():
    shared, own, none = TaskInstruction("q: "), TaskInstruction("q: ", "d: "), TaskInstruction("q: ", "")
    assert [shared.choose(side) for side in ("query", "document", None)] == ["q: ", "q: ", "q: "]
    assert [own.choose(side) for side in ("query", "document", None)] == ["q: ", "d: ", "q: "]
    assert none.choose("document") == ""


def test_reading(tmp_path):
    path = tmp_path / "i.yaml"
    path.write_text('a: "one: "\nb: {query: "two: ", document: "three: "}\nc: {query: ""}\n', encoding="utf-8")
    assert read_instructions(path) == {
        "a": TaskInstruction("one: "),
        "b": TaskInstruction("two: ", "three: "),
        "c": TaskInstruction(""),
    }


def test_the_name_comes_before_the_type_and_the_type_before_the_default():
    given = {name: TaskInstruction(name) for name in ("sts16", "STS", "default")}
    assert find_instruction(given, "sts16", "STS") == TaskInstruction("sts16")
    assert find_instruction(given, "sts17", "STS") == TaskInstruction("STS")
    assert find_instruction(given, "sts17", "Retrieval") == TaskInstruction("default")
    assert find_instruction({"STS": TaskInstruction("x")}, "sts17") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "wanted a mapping from names to instructions, not list"),
        ("a: [1\n", r"i\.yaml: not YAML"),
        ("a: 3\n", r"i\.yaml: a: wanted an instruction, or query: and document:, not 3"),
        ("a: {document: x}\n", r"i\.yaml: a: wanted an instruction"),
        ("a: {query: x, passage: y}\n", r"a: unknown key 'passage'; known are query and document"),
        ("a: {query: x, document: 5}\n", r"a: document must be an instruction, not 5"),
    ],
)
def test_what_is_no_file_of_instructions(tmp_path, text, message):
    path = tmp_path / "i.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_instructions(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.yaml: no such file"):
        read_instructions(tmp_path / "gone.yaml")
