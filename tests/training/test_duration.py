from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from instructor_st import INSTRUCTOR
from instructor_st.data import build_train_dataset
from instructor_st.training import InstructionTrainer, TrainArguments, build_losses, estimate_duration
from instructor_st.training.duration import DurationEstimate, count_steps
from tests.conftest import T5
from tests.training.small_trainer import make_rows


def make_trainer(folder, *, tasks=("one", "two"), **options) -> InstructionTrainer:
    """Eight rows a task, four a batch; the model keeps its dropout, so that random numbers matter."""
    model = INSTRUCTOR(T5, device="cpu")
    rows = {task: make_rows(task) for task in tasks}
    args = TrainArguments(
        output_dir=str(folder), per_device_train_batch_size=4, precision="float32", use_cpu=True, disable_tqdm=True,
        save_strategy="no", **options,
    )  # fmt: skip
    return InstructionTrainer(
        model=model, args=args, train_dataset=build_train_dataset(rows), loss=build_losses(model, rows)
    )


def draw_random_numbers() -> tuple:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("training", [True, False])
def test_an_estimate_leaves_everything_as_it_was(tmp_path, training):
    trainer = make_trainer(tmp_path)
    compute = trainer.compute_loss
    # A loss may draw random numbers of every kind.
    trainer.compute_loss = lambda *inputs: (draw_random_numbers(), compute(*inputs))[1]
    trainer.model.train(training)
    before = {name: each.clone() for name, each in trainer.model.state_dict().items()}
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    expected = draw_random_numbers()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.random.set_rng_state(states[2])
    estimate = estimate_duration(trainer, batches=2)
    assert draw_random_numbers() == expected
    after = trainer.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], each) for name, each in before.items())
    assert all(each.grad is None for each in trainer.model.parameters())
    assert trainer.model.training is training
    assert trainer.task_log.take() == {}
    assert trainer.state.global_step == 0
    assert trainer.state.log_history == []
    assert estimate.steps == 8
    assert estimate.seconds_per_step > 0


def test_training_after_an_estimate_equals_training_without_one_bit_for_bit(tmp_path):
    results = []
    for estimated in (False, True):
        trainer = make_trainer(tmp_path / str(estimated), num_train_epochs=1, logging_steps=1, learning_rate=1e-3)
        start = {name: each.clone() for name, each in trainer.model.state_dict().items()}
        if estimated:
            estimate_duration(trainer)
        trainer.train()
        assert any(not torch.equal(start[name], each) for name, each in trainer.model.state_dict().items())
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert len(losses) == 4
        results.append((losses, trainer.model.state_dict()))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(results[1][1][name], each) for name, each in results[0][1].items())


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"num_train_epochs": 1}, 4),  # two tasks of eight rows, four a batch
        ({"num_train_epochs": 2.5}, 10),
        ({"num_train_epochs": 0.3}, 2),
        ({"num_train_epochs": 1, "gradient_accumulation_steps": 3}, 2),
        ({"num_train_epochs": 3, "gradient_accumulation_steps": 3}, 6),
        ({"num_train_epochs": 1, "gradient_accumulation_steps": 9}, 1),
        ({"num_train_epochs": 1, "max_steps": 7}, 7),
        ({"max_steps": 3, "gradient_accumulation_steps": 2}, 3),
    ],
)
def test_counted_steps_are_those_of_the_training(tmp_path, options, steps):
    trainer = make_trainer(tmp_path, **options)
    assert count_steps(trainer) == steps
    trainer.train()
    assert trainer.state.global_step == steps


def test_seconds_by_hand(tmp_path, monkeypatch):
    ticks = iter([0.0, 100.0, 200.0, 201.0, 300.0, 303.0])  # start and end of three batches
    monkeypatch.setattr("instructor_st.training.duration.time.perf_counter", lambda: next(ticks))
    trainer = make_trainer(tmp_path, num_train_epochs=2, gradient_accumulation_steps=2)
    estimate = estimate_duration(trainer, batches=2)
    # The first batch is not timed; a step is two batches of 2 s on average, and there are 2 * 4 / 2 steps.
    assert estimate == DurationEstimate(steps=4, seconds_per_step=4.0)
    assert estimate.seconds == 16.0


@pytest.mark.parametrize("compiled", [False, True])
def test_an_estimate_says_that_compiling_is_not_in_it(tmp_path, monkeypatch, compiled):
    for name in ("ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_DYNAMO_MODE"):
        monkeypatch.setenv(name, "no")  # which the settings write to, and pytest takes back
        monkeypatch.delenv(name)
    estimate = estimate_duration(make_trainer(tmp_path, torch_compile=compiled), batches=1)
    assert estimate.is_compiled_later is compiled
    shown = str(DurationEstimate(steps=90, seconds_per_step=4.0, is_compiled_later=estimate.is_compiled_later))
    assert shown.startswith("90 steps of about 4.00 s: about 6 min, evaluations and checkpoints apart.")
    assert ("torch.compile is not included" in shown) is compiled


def test_a_single_batch_is_timed_all_the_same(tmp_path):
    trainer = make_trainer(tmp_path, tasks=("one",), num_train_epochs=1)
    trainer.args.per_device_train_batch_size = 8
    estimate = estimate_duration(trainer)
    assert estimate.steps == 1
    assert estimate.seconds_per_step > 0
