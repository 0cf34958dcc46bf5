from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from instructor_st import INSTRUCTOR
from instructor_st.data import build_train_dataset
from instructor_st.training import (
    TaskBatchSampler,
    TrainArguments,
    set_dropout,
)
from tests.conftest import T5
from tests.training.small_trainer import Interfere, make_rows, make_trainer


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
