"""Freezing and LoRA: what changes, what does not, and what is saved."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from instructor_st import INSTRUCTOR
from instructor_st.data import build_train_dataset
from instructor_st.training import InstructionTrainer, TrainArguments, build_losses
from instructor_st.training.trainable import add_lora, count_parameters, freeze_parameters, merge_lora
from tests.conftest import T5
from tests.training.small_trainer import make_rows

PAIRS = [["Represent the one: ", "harbour alpha 0"], ["Represent the two: ", "river"], ["", "gate"]]


@pytest.fixture(params=["prepend", "dual"])
def model(request) -> INSTRUCTOR:
    base = SentenceTransformer(modules=[Transformer(T5), Pooling(128)], device="cpu")
    return INSTRUCTOR.from_encoder(base, request.param, device="cpu")


def train(model: INSTRUCTOR, folder, **options) -> InstructionTrainer:
    rows = {"one": make_rows("one"), "two": make_rows("two")}
    args = TrainArguments(
        output_dir=str(folder), per_device_train_batch_size=4, precision="float32", learning_rate=5e-2, use_cpu=True,
        disable_tqdm=True, num_train_epochs=1, **options,
    )  # fmt: skip
    trainer = InstructionTrainer(
        model=model, args=args, train_dataset=build_train_dataset(rows), loss=build_losses(model, rows)
    )
    trainer.train(resume_from_checkpoint=options.get("resume_from_checkpoint"))
    return trainer


def test_frozen_parameters_stay(model, tmp_path):
    freeze_parameters(model, ["*.shared.*", "*layer_norm*"])
    frozen = {name: each.detach().clone() for name, each in model.named_parameters() if not each.requires_grad}
    assert frozen
    others = {name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad}
    counts = count_parameters(model)
    assert counts.total - counts.trained == sum(each.numel() for each in frozen.values())
    train(model, tmp_path, save_strategy="no")
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], each) for name, each in frozen.items())
    assert any(not torch.equal(after[name], each) for name, each in others.items())


def test_patterns_that_match_nothing_or_all_are_errors(model):
    with pytest.raises(ValueError, match=r"No parameter matches 'nothing\*'\. Names look like 0\."):
        freeze_parameters(model, ["nothing*"])
    with pytest.raises(ValueError, match="nothing is left to train"):
        freeze_parameters(model, ["*"])


def test_lora_trains_adapters_alone_and_merges_into_an_ordinary_model(model, tmp_path):
    untrained = model.encode(PAIRS)
    whole = count_parameters(model)
    names = set(model.state_dict())
    add_lora(model, 2)
    np.testing.assert_allclose(model.encode(PAIRS), untrained, atol=1e-6)  # LoRA begins at zero
    backbone = {n: p.detach().clone() for n, p in model.named_parameters() if "lora" not in n and not p.requires_grad}
    assert backbone
    assert count_parameters(model).trained < whole.trained
    trainer = train(model, tmp_path, save_strategy="epoch")
    parameters = dict(model.named_parameters())
    assert all(torch.equal(parameters[name], each) for name, each in backbone.items())
    trained = model.encode(PAIRS)
    assert np.abs(trained - untrained).max() > 1e-3
    # What lies in the checkpoint is the trained model.
    checkpoint = str(tmp_path / f"checkpoint-{trainer.state.global_step}")
    np.testing.assert_allclose(INSTRUCTOR(checkpoint, device="cpu").encode(PAIRS), trained, atol=1e-5)
    assert not list((tmp_path / checkpoint).rglob("adapter_*"))
    merge_lora(model)
    np.testing.assert_allclose(model.encode(PAIRS), trained, atol=1e-5)
    assert set(model.state_dict()) == names
    assert count_parameters(model) == whole
    trainer.save_final_model(tmp_path / "final")
    assert not list((tmp_path / "final").rglob("adapter_*"))
    np.testing.assert_allclose(INSTRUCTOR(str(tmp_path / "final"), device="cpu").encode(PAIRS), trained, atol=1e-5)
    merge_lora(model)  # nothing to do


def test_training_with_lora_is_resumed_exactly(model, tmp_path):
    start = copy.deepcopy(model)
    options = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": None}
    add_lora(model, 2)
    train(model, tmp_path, **options)
    again = start
    torch.manual_seed(1)  # other adapters than the first time
    add_lora(again, 2)
    train(again, tmp_path, **options, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    expected = dict(model.named_parameters())
    assert all(torch.equal(each, expected[name]) for name, each in again.named_parameters())


def test_lora_options(model):
    with pytest.raises(ValueError, match="rank must be 1 or more, not 0"):
        add_lora(model, 0)
    add_lora(model, 3, alpha=5, targets=["q", "v"])
    matrices = {name: each for name, each in model.named_parameters() if "lora_A" in name}
    assert {name.rsplit(".lora_A", 1)[0].rsplit(".", 1)[1] for name in matrices} == {"q", "v"}
    assert {each.shape[0] for each in matrices.values()} == {3}
