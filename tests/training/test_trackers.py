from __future__ import annotations

import sys
from types import ModuleType

from transformers.integrations import integration_utils

from instructor_st import INSTRUCTOR
from tests.conftest import T5
from tests.training.small_trainer import make_trainer


def test_tensorboard_gets_a_scalar_of_each_task(tmp_path, monkeypatch):
    class Writer:
        """Stands in for tensorboard's `SummaryWriter`, which takes the same calls."""

        def __init__(self) -> None:
            self.scalars, self.closed = {}, False

        def add_scalar(self, tag, value, step) -> None:
            self.scalars.setdefault(tag, {})[step] = value

        def add_text(self, *args) -> None: ...

        def flush(self) -> None: ...

        def close(self) -> None:
            self.closed = True

    writer = Writer()
    stand_in = ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = lambda log_dir: writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    trainer = make_trainer(
        INSTRUCTOR(T5, device="cpu"), tmp_path, num_train_epochs=1, save_strategy="no", logging_steps=1,
        report_to="tensorboard",
    )  # fmt: skip
    trainer.train()
    assert writer.closed
    for what in ("loss", "accuracy"):
        shown = {task: writer.scalars[f"train/{what}/{task}"] for task in ("one", "two")}
        # Each step is of one task.
        assert sorted([*shown["one"], *shown["two"]]) == [1, 2, 3, 4]
        for each in trainer.state.log_history[:4]:
            (task,) = (task for task in shown if f"{what}/{task}" in each)
            assert shown[task][each["step"]] == each[f"{what}/{task}"]
