from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from instructor_st import INSTRUCTOR
from instructor_st.training import (
    CheckpointError,
    NonFiniteLossError,
)
from instructor_st.training import trainer as trainer_module
from instructor_st.training.checkpoints import find_last_checkpoint, is_whole, mark_whole
from tests.conftest import T5
from tests.training.small_trainer import Interfere, make_trainer, name_checkpoints, read_files, spoil


def test_a_loss_that_is_no_number_ends_training_before_the_checkpoint(tmp_path):
    model = INSTRUCTOR(T5, device="cpu")
    trainer = make_trainer(model, tmp_path, num_train_epochs=2, save_strategy="steps", save_steps=2)
    trainer.add_callback(Interfere(3, lambda: spoil(model)))
    message = r"loss of task '(one|two)' is not a finite number, seen at step 3\. .* is checkpoint-2\. Lower"
    with pytest.raises(NonFiniteLossError, match=message):
        trainer.train()
    assert name_checkpoints(tmp_path) == ["checkpoint-2"]


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    model = INSTRUCTOR(T5, device="cpu")
    trainer = make_trainer(model, tmp_path, num_train_epochs=2, save_strategy="steps", save_steps=2)
    trainer.add_callback(Interfere(4, lambda: spoil(model)))
    message = r"The weight 0\.\S+ is not a finite number, seen at step 4\. .* is checkpoint-2\."
    with pytest.raises(NonFiniteLossError, match=message):
        trainer.train()
    assert name_checkpoints(tmp_path) == ["checkpoint-2"]
    with pytest.raises(NonFiniteLossError, match=message):
        trainer.save_final_model(tmp_path / "final")
    assert not list(tmp_path.glob("final*"))


def test_where_losses_are_read_late_neither_log_nor_checkpoint_passes_them(tmp_path):
    # On an accelerator the losses are looked at when the log or a checkpoint is written, as here.
    trainer = make_trainer(INSTRUCTOR(T5, device="cpu"), tmp_path, save_strategy="no")
    trainer.task_log.add("good", torch.tensor(1.0), None)
    trainer.task_log.add("bad", torch.tensor(float("inf")), None)
    message = r"task 'bad' is not a finite number, seen at step 0\. No checkpoint was written yet\."
    for logs in ({"loss": 1.0}, {"train_loss": 1.0}):
        with pytest.raises(NonFiniteLossError, match=message):
            trainer.log(logs)
    with pytest.raises(NonFiniteLossError, match=message):
        trainer._save_checkpoint(trainer.model, None)
    assert list(tmp_path.iterdir()) == []
    trainer.log({"eval_accuracy": 1.0})
    assert [set(entry) & {"loss", "train_loss"} for entry in trainer.state.log_history] == [set()]


@pytest.mark.parametrize("limit", [None, 1])
def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one_alone(tmp_path, monkeypatch, limit):
    trainer = make_trainer(
        INSTRUCTOR(T5, device="cpu"), tmp_path, save_strategy="steps", save_steps=2, save_total_limit=limit
    )
    write, before = trainer._save_optimizer_and_scheduler, {}

    def fail_later(folder):
        if trainer.state.global_step == 4:
            before.update(read_files(tmp_path / "checkpoint-2"))
            raise OSError("No space left on device")
        write(folder)

    monkeypatch.setattr(trainer, "_save_optimizer_and_scheduler", fail_later)
    with pytest.raises(
        CheckpointError, match=r"checkpoint-4 could not be written: No space .* last whole checkpoint is checkpoint-2\."
    ):
        trainer.train()
    assert name_checkpoints(tmp_path) == ["checkpoint-2"]
    assert is_whole(tmp_path / "checkpoint-2")
    assert read_files(tmp_path / "checkpoint-2") == before
    assert trainer.args.save_total_limit == limit


def test_the_first_checkpoint_that_cannot_be_written(tmp_path, monkeypatch):
    trainer = make_trainer(INSTRUCTOR(T5, device="cpu"), tmp_path, save_strategy="epoch")
    monkeypatch.setattr(trainer_module, "mark_whole", lambda folder: folder.joinpath("no", "where").touch())
    with pytest.raises(CheckpointError, match=r"checkpoint-4 could not be written: .*There is no earlier checkpoint\."):
        trainer.train()
    assert list(tmp_path.iterdir()) == []


def test_older_checkpoints_go_when_the_new_one_is_marked(tmp_path, monkeypatch):
    seen = []

    def mark(folder):
        seen.append((name_checkpoints(tmp_path), is_whole(folder)))
        mark_whole(folder)

    monkeypatch.setattr(trainer_module, "mark_whole", mark)
    trainer = make_trainer(
        INSTRUCTOR(T5, device="cpu"), tmp_path, num_train_epochs=2, save_strategy="steps", save_steps=3,
        save_total_limit=1,
    )  # fmt: skip
    trainer.train()
    assert seen == [
        (["checkpoint-3"], False),
        (["checkpoint-3", "checkpoint-6"], False),
        (["checkpoint-6", "checkpoint-8"], False),
    ]
    assert name_checkpoints(tmp_path) == ["checkpoint-8"]
    assert is_whole(tmp_path / "checkpoint-8")
    assert trainer.args.save_total_limit == 1


def test_a_run_that_went_back_keeps_its_own_checkpoint(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 1}
    make_trainer(INSTRUCTOR(T5, device="cpu"), tmp_path, **options).train()
    shutil.copytree(tmp_path / "checkpoint-4", tmp_path / "checkpoint-900")
    for name, age in (("checkpoint-2", 100), ("checkpoint-900", 50)):
        stamp = (tmp_path / "checkpoint-4").stat().st_mtime - age
        os.utime(tmp_path / name, (stamp, stamp))
    trainer = make_trainer(INSTRUCTOR(T5, device="cpu"), tmp_path, **options, save_total_limit=1)
    states = []
    save = trainer._save_optimizer_and_scheduler

    def watch(folder):
        states.append((Path(folder).name, is_whole(folder)))
        save(folder)

    trainer._save_optimizer_and_scheduler = watch
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    # The old checkpoint 4 does not count as whole while it is written anew.
    assert states == [("checkpoint-4", False)]
    assert find_last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert name_checkpoints(tmp_path) == ["checkpoint-4"]


def test_a_best_model_that_cannot_be_loaded_is_an_error(tmp_path):
    trainer = make_trainer(
        INSTRUCTOR(T5, device="cpu"), tmp_path, num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="eval_held_out_mean_reciprocal_rank", greater_is_better=True,
    )  # fmt: skip

    class Break(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            raise AssertionError("the best model is loaded before this")

        def on_save(self, args, state, control, **kwargs):
            if state.global_step == state.max_steps:
                for path in Path(state.best_model_checkpoint).rglob("*.safetensors"):
                    path.write_bytes(b"")

    trainer.add_callback(Break())
    with pytest.raises(CheckpointError, match=r"The best checkpoint .*checkpoint-\d cannot be loaded: "):
        trainer.train()


def test_no_best_model_is_an_error(tmp_path):
    trainer = make_trainer(INSTRUCTOR(T5, device="cpu"), tmp_path, save_strategy="no")
    with pytest.raises(CheckpointError, match="There is no best checkpoint in"):
        trainer._load_best_model()
