from __future__ import annotations

import warnings

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from instructor_st import INSTRUCTOR
from instructor_st.training import set_dropout
from tests.conftest import T5
from tests.training.small_trainer import make_trainer


def build_model(architecture: str) -> INSTRUCTOR:
    if architecture == "prepend":
        model = INSTRUCTOR(T5, device="cpu")
    else:
        base = SentenceTransformer(modules=[Transformer(T5), Pooling(128)], device="cpu")
        model = INSTRUCTOR.from_encoder(base, "dual", device="cpu", share_encoders=architecture == "shared")
    set_dropout(model, 0.0)
    return model


def count_layer_runs(model: INSTRUCTOR) -> list[int]:
    """Counts of the encoders' layers' forward passes, which go on counting."""
    layers = [module for module in model.modules() if type(module).__name__ == "T5Block"]
    runs = [0] * len(layers)
    for place, layer in enumerate(layers):

        def count(*_, place=place) -> None:
            runs[place] += 1

        layer.layer[0].register_forward_pre_hook(count)
    return runs


@pytest.mark.parametrize("architecture", ["prepend", "dual", "shared"])
def test_training_with_recomputed_activations_is_the_same_and_warns_of_nothing(tmp_path, architecture):
    losses, runs = [], []
    for checkpointing in (False, True):
        model = build_model(architecture)
        trainer = make_trainer(
            model, tmp_path, num_train_epochs=1, save_strategy="no", logging_steps=1, max_steps=2,
            activation_checkpointing=checkpointing,
        )  # fmt: skip
        counted = count_layer_runs(model)
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        runs.append(counted)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    # Each layer runs a second time in the backward pass.
    assert all(runs[0])
    assert runs[1] == [2 * times for times in runs[0]]


def test_every_second_layer_may_keep_its_activations():
    model = build_model("prepend")
    model.activation_checkpointing_enable(every_n_layers=2)
    layers = [module for module in model.modules() if type(module).__name__ == "T5Block"]
    assert [layer.gradient_checkpointing for layer in layers] == [place % 2 == 0 for place in range(len(layers))]
    assert len(layers) > 1


def test_a_model_without_an_encoder_that_can_do_it_is_named(monkeypatch):
    model = build_model("prepend")
    for module in model.modules():
        if hasattr(module, "supports_gradient_checkpointing"):
            monkeypatch.setattr(module, "supports_gradient_checkpointing", False)
    with pytest.raises(ValueError, match="No encoder of the model supports activation checkpointing"):
        model.activation_checkpointing_enable()
