"""Rows of tuned tasks are the same only if text and task are."""

from __future__ import annotations

import pytest
import torch

from instructor_st import INSTRUCTOR
from instructor_st.modules import TunedTask
from instructor_st.training.false_negatives import hash_rows
from tests.conftest import MINILM


@pytest.mark.parametrize(("architecture", "length"), [("dual", 1), ("prepend", 3)])
def test_a_text_under_two_tuned_tasks_is_two_rows(architecture, length):
    model = INSTRUCTOR.from_encoder(MINILM, architecture, device="cpu")
    for name in ("first", "second"):
        model.add_tuned_task(TunedTask(name, architecture, "", torch.zeros(length, 384)))
    instructions = ["first", "second", "", "Represent the text: "]
    hashes = hash_rows(model.preprocess([[each, "a river"] for each in instructions])).tolist()
    assert len(set(hashes)) == len(instructions)
    # Beside longer texts, in another order, the same rows hash alike.
    again = hash_rows(
        model.preprocess([["second", "a river"], ["first", "a much longer text " * 3], ["first", "a river"]])
    )
    assert again.tolist()[::2] == [hashes[1], hashes[0]]
