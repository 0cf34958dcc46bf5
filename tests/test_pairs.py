from __future__ import annotations

import pytest

from instructor_st.pairs import InstructedText, check_inputs, parse_input, parse_inputs


@pytest.mark.parametrize(
    "value",
    [
        ["Represent: ", "a"],
        ("Represent: ", "a"),
        {"instruction": "Represent: ", "text": "a"},
        {"text": "a", "instruction": "Represent: "},
    ],
)
def test_every_form_gives_the_same_pair(value):
    assert parse_input(value) == InstructedText("Represent: ", "a")


def test_bare_string_takes_the_prompt_and_a_pair_keeps_its_own():
    inputs = ["a", ["", "b"], ["own: ", "c"]]
    assert parse_inputs(inputs, "prompt: ") == [("prompt: ", "a"), ("", "b"), ("own: ", "c")]
    assert parse_inputs(inputs) == [("", "a"), ("", "b"), ("own: ", "c")]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (None, "NoneType is neither a string nor a pair"),
        (5, "int is neither"),
        (b"a", "bytes is neither"),
        ([], "this one has 0"),
        (["only text"], "this one has 1"),
        (["i", "t", 0], "the third one"),
        (["i", "t", "u", "v"], "this one has 4"),
        (["i", None], "the text must be a string, not NoneType"),
        ([None, "t"], "the instruction must be a string, not NoneType"),
        (["i", 5], "the text must be a string, not int"),
        ([["i", "t"], ["i", "t"]], "the instruction must be a string, not list"),
        ({"text": "t"}, "exactly the keys"),
        ({"instruction": "i", "text": "t", "label": "l"}, "exactly the keys"),
        ({"instruction": "i", "text": 5}, "the text must be a string, not int"),
    ],
)
def test_other_forms_are_refused_with_value_and_mend(value, fault):
    with pytest.raises(ValueError, match="Accepted: ") as caught:
        parse_input(value)
    assert fault in str(caught.value)
    assert repr(value) in str(caught.value)


def test_long_values_are_shortened_in_the_message():
    with pytest.raises(ValueError, match="Cannot embed") as caught:
        parse_input(["x" * 10_000, 5])
    assert len(str(caught.value)) < 500


def test_check_inputs_names_the_position():
    with pytest.raises(ValueError, match=r"Input 2 of 4: Cannot embed None"):
        check_inputs(["a", ["i", "b"], None, 5])
    check_inputs(["a", ["i", "b"]])


@pytest.mark.parametrize("value", ["ok \ud83d", ["\udc00: ", "text"], {"instruction": "é", "text": "\ud800"}])
def test_half_characters_are_refused(value):
    with pytest.raises(ValueError, match="is a lone surrogate"):
        parse_input(value)
    assert parse_input(["é: ", "😀"]) == InstructedText("é: ", "😀")
