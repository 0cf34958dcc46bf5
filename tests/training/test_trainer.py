from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import TrainerCallback

from instructor_st import INSTRUCTOR
from instructor_st.data import build_train_dataset, parse_row
from instructor_st.evaluation import HeldOutEvaluator
from instructor_st.training import (
    CheckpointError,
    InstructionTrainer,
    NonFiniteLossError,
    TaskBatchSampler,
    TrainArguments,
    build_losses,
    set_dropout,
)
from instructor_st.training import trainer as trainer_module
from instructor_st.training.checkpoints import find_last_checkpoint, is_whole, list_checkpoints, mark_whole
from tests.conftest import T5

WORDS = [
    "harbour",
    "gate",
    "cell",
    "energy",
    "apple",
    "paper",
    "river",
    "window",
    "market",
    "garden",
    "table",
    "sentence",
]


def make_rows(task: str, count: int = 8) -> list:
    return [
        parse_row(
            {
                "query": [f"Represent the {task}: ", f"{WORDS[i]} alpha {i}"],
                "positive": [f"Represent the {task} answer: ", f"{WORDS[i]} beta"],
                "negative_1": [f"Represent the {task} answer: ", f"{WORDS[i + 1]} gamma"],
            },
            "here",
            task=task,
        )
        for i in range(count)
    ]


def make_trainer(model: SentenceTransformer, folder, **options) -> InstructionTrainer:
    rows = {task: make_rows(task) for task in ("one", "two")}
    defaults = {
        "per_device_train_batch_size": 4, "precision": "float32", "learning_rate": 5e-3, "use_cpu": True,
        "disable_tqdm": True,
    }  # fmt: skip
    args = TrainArguments(output_dir=str(folder), **{**defaults, **options})
    return InstructionTrainer(
        model=model,
        args=args,
        train_dataset=build_train_dataset(rows),
        loss=build_losses(model, rows),
        evaluator=HeldOutEvaluator(rows),
    )


@pytest.fixture(params=["prepend", "dual"])
def model(request) -> INSTRUCTOR:
    if request.param == "prepend":
        return INSTRUCTOR(T5, device="cpu")
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    base = SentenceTransformer(modules=[Transformer(T5), Pooling(128)], device="cpu")
    return INSTRUCTOR.from_encoder(base, "dual", device="cpu")


def test_training_learns_and_best_model_is_reloaded_without_a_flag(model, tmp_path):
    trainer = make_trainer(
        model,
        tmp_path,
        num_train_epochs=4,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=None,
        load_best_model_at_end=True,
        metric_for_best_model="eval_held_out_mean_reciprocal_rank",
        greater_is_better=True,
    )
    before = model.encode([["Represent the one: ", "harbour alpha 0"]])
    trainer.train()
    pairs = [list(row.query) for row in make_rows("one")]
    after = model.encode(pairs)
    assert np.abs(after[0] - before[0]).max() > 1e-3
    best = trainer.state.best_model_checkpoint
    assert best is not None
    np.testing.assert_array_equal(after, INSTRUCTOR(best, device="cpu").encode(pairs))
    history = [
        entry["eval_held_out_mean_reciprocal_rank"]
        for entry in trainer.state.log_history
        if "eval_held_out_mean_reciprocal_rank" in entry
    ]
    assert len(history) == 4
    assert trainer.state.best_metric == max(history)
    assert trainer.args.multi_dataset_batch_sampler is TaskBatchSampler


def test_final_model_is_whole_or_absent_and_its_card_shows_no_row(tmp_path):
    model = INSTRUCTOR(T5, device="cpu")
    trainer = make_trainer(model, tmp_path, num_train_epochs=1, save_strategy="no")
    trainer.train()
    target = tmp_path / "final"
    (tmp_path / "final.partial").mkdir()  # what an interrupted run leaves
    (tmp_path / "final.partial" / "rubbish").touch()
    assert trainer.save_final_model(target) == target
    trainer.save_final_model(target)
    assert not (tmp_path / "final.partial").exists()
    assert not (target / "rubbish").exists()
    assert json.loads((target / "modules.json").read_text())[0]["type"] == "instructor_st.modules.InstructionPrepend"
    card = (target / "README.md").read_text(encoding="utf-8")
    assert len(card) > 100
    for row in make_rows("one"):
        for instructed in row.texts:
            assert instructed.text not in card


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    results = []
    for interrupted in (False, True):
        torch.manual_seed(0)
        model = INSTRUCTOR(T5, device="cpu")
        set_dropout(model, 0.0)
        folder = tmp_path / str(interrupted)
        options = {"num_train_epochs": 2, "save_strategy": "epoch", "save_total_limit": None}
        make_trainer(model, folder, **options).train()
        if interrupted:
            model = INSTRUCTOR(T5, device="cpu")
            set_dropout(model, 0.0)
            make_trainer(model, folder, **options).train(resume_from_checkpoint=str(folder / "checkpoint-4"))
        results.append(model.encode([["Represent the one: ", "harbour alpha 0"]]))
    np.testing.assert_allclose(results[0], results[1], atol=1e-6)


def test_set_dropout_reaches_modules_and_plain_numbers():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention_dropout = 0.1
            self.inner = nn.Dropout(0.3)

    module = Attention()
    set_dropout(module, 0.0)
    assert (module.attention_dropout, module.inner.p) == (0.0, 0.0)
    with pytest.raises(ValueError, match=r"not 1\.5"):
        set_dropout(module, 1.5)


def test_precision_is_chosen_or_taken(monkeypatch, tmp_path):
    from instructor_st.training import arguments

    for fast, precision, expected in [
        (True, "auto", True),
        (False, "auto", False),
        (True, "float32", False),
        (False, "bfloat16", True),
    ]:
        monkeypatch.setattr(arguments, "is_bfloat16_fast", lambda fast=fast: fast)
        assert TrainArguments(output_dir=str(tmp_path), precision=precision).bf16 is expected


class Interfere(TrainerCallback):
    """Does something at one step."""

    def __init__(self, step: int, act) -> None:
        self.step, self.act = step, act

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            self.act()


def spoil(model: nn.Module) -> None:
    with torch.no_grad():
        next(parameter for parameter in model.parameters() if parameter.requires_grad).fill_(float("nan"))


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def name_checkpoints(folder: Path) -> list[str]:
    return [path.name for path in list_checkpoints(folder)]


def test_the_log_has_each_task_and_its_averages(tmp_path):
    histories = {}
    for steps in (1, 4):
        trainer = make_trainer(
            INSTRUCTOR(T5, device="cpu"), tmp_path / str(steps), num_train_epochs=1, save_strategy="no",
            logging_steps=steps,
        )  # fmt: skip
        trainer.train()
        histories[steps] = [entry for entry in trainer.state.log_history if "loss" in entry]
    single = histories[1]
    assert len(single) == 4
    losses, accuracies = {"one": [], "two": []}, {"one": [], "two": []}
    for entry in single:
        (task,) = (name.removeprefix("loss/") for name in entry if name.startswith("loss/"))
        assert entry[f"loss/{task}"] == pytest.approx(entry["loss"], abs=1e-4)
        assert entry["accuracy"] == entry[f"accuracy/{task}"]
        losses[task].append(entry[f"loss/{task}"])
        accuracies[task].append(entry[f"accuracy/{task}"])
    assert {task: len(values) for task, values in losses.items()} == {"one": 2, "two": 2}
    (together,) = histories[4]
    for task in losses:
        assert together[f"loss/{task}"] == pytest.approx(np.mean(losses[task]), rel=1e-5)
        assert together[f"accuracy/{task}"] == pytest.approx(np.mean(accuracies[task]))
    assert together["loss"] == pytest.approx(np.mean([*losses["one"], *losses["two"]]), abs=1e-4)
    assert together["accuracy"] == pytest.approx(np.mean([*accuracies["one"], *accuracies["two"]]))


def test_accumulated_batches_have_the_loss_of_a_batch(tmp_path):
    trainer = make_trainer(
        INSTRUCTOR(T5, device="cpu"), tmp_path, num_train_epochs=1, save_strategy="no", logging_steps=1,
        gradient_accumulation_steps=4,
    )  # fmt: skip
    trainer.train()
    (entry,) = (entry for entry in trainer.state.log_history if "loss" in entry)
    assert (entry["loss/one"] + entry["loss/two"]) / 2 == pytest.approx(entry["loss"], abs=1e-4)


@pytest.mark.parametrize("disable_tqdm", [True, False])
def test_the_terminal_shows_the_overall_figures_only(tmp_path, capsys, disable_tqdm):
    trainer = make_trainer(
        INSTRUCTOR(T5, device="cpu"), tmp_path, num_train_epochs=1, save_strategy="no", logging_steps=2,
        disable_tqdm=disable_tqdm,
    )  # fmt: skip
    trainer.add_callback(Interfere(3, lambda: trainer.log({"eval_of/a_task_accuracy": 0.5})))
    trainer.train()
    shown = "".join(capsys.readouterr())
    assert any("loss/one" in entry for entry in trainer.state.log_history)
    assert "'accuracy':" in shown
    assert "'loss':" in shown
    assert "eval_of/a_task_accuracy" in shown
    assert "loss/" not in shown
    assert "accuracy/" not in shown


def test_an_evaluation_loss_is_not_taken_for_one_of_training(tmp_path):
    trainer = make_trainer(INSTRUCTOR(T5, device="cpu"), tmp_path, save_strategy="no")
    metrics = trainer.evaluate(build_train_dataset({"one": make_rows("one")}))
    assert metrics["eval_one_loss"] > 0
    assert trainer.task_log.take() == {}


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
