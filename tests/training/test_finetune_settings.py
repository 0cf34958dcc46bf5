from __future__ import annotations

import dataclasses
import json

import pytest

from instructor_st.training import FinetuneSettings

OTHERS = {
    "part": "lora",
    "tune_dense": False,
    "dense_rank": 3,
    "prompt_length": 5,
    "class_objective": "cross_entropy",
    "learning_rate": 0.5,
    "max_epochs": 7,
    "batch_size": 9,
    "temperature": 0.25,
    "dropout": 0.0,
    "weight_decay": 0.0,
    "balance_classes": False,
    "max_repeats": 1,
    "folds": 1,
    "keep_head": False,
    "seed": 11,
}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("part", "dense", "part must be one of vector, lora, encoder, not 'dense'"),
        ("class_objective", "hinge", "class_objective must be one of contrastive, cross_entropy, not 'hinge'"),
        *(
            (name, value, f"{name} must be 1 or more, not {value}")
            for name in ("max_epochs", "batch_size", "max_repeats", "dense_rank", "prompt_length", "folds")
            for value in (0, -3)
        ),
        *(
            (name, value, "temperature and learning_rate must be above 0")
            for name in ("temperature", "learning_rate")
            for value in (0, -0.1)
        ),
        *((name, -0.1, "dropout must be from 0 to below 1, and weight") for name in ("dropout", "weight_decay")),
        ("dropout", 1, "dropout must be from 0 to below 1, and weight_decay 0 or more"),
    ],
)
def test_a_value_that_is_none_is_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        FinetuneSettings(**{name: value})


@pytest.mark.parametrize("values", [{}, OTHERS])
def test_settings_survive_json(values):
    settings = FinetuneSettings(**values)
    stored = json.loads(json.dumps(settings.to_dict()))
    assert FinetuneSettings(**stored) == settings
    assert stored.keys() == OTHERS.keys() == {field.name for field in dataclasses.fields(settings)}
    if values:
        assert stored == values


def test_settings_are_given_by_name_and_do_not_change():
    with pytest.raises(TypeError, match="positional"):
        FinetuneSettings("vector")
    with pytest.raises(dataclasses.FrozenInstanceError):
        FinetuneSettings().seed = 1
