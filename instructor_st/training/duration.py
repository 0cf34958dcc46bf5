"""How long training will take, from a few real steps before it starts."""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from instructor_st.training.task_log import TaskLog

if TYPE_CHECKING:
    from instructor_st.training.trainer import InstructionTrainer

__all__ = ["DurationEstimate", "count_steps", "estimate_duration"]


@dataclass(frozen=True)
class DurationEstimate:
    """An estimate.

    Attributes:
        steps: Optimizer steps of the whole training.
        seconds_per_step: Of forward and backward, without evaluations and checkpoints.
        is_compiled_later: Whether training compiles the model, which was timed as it is.
    """

    steps: int
    seconds_per_step: float
    is_compiled_later: bool = False

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return self.steps * self.seconds_per_step

    def __str__(self) -> str:
        """`960 steps of about 0.25 s: about 4 min, ...`, with what it leaves out."""
        text = (
            f"{self.steps} steps of about {self.seconds_per_step:.2f} s: about {self.seconds / 60:.0f} min, evaluations and "
            "checkpoints apart."
        )
        if self.is_compiled_later:
            text += (
                " torch.compile is not included: neither the time that compiling takes (again for new shapes of batches) "
                "nor what it saves a step."
            )
        return text


def count_steps(trainer: InstructionTrainer) -> int:
    """Count the optimizer steps of a whole training.

    Args:
        trainer: The trainer.

    Returns:
        The steps: `max_steps` if that is set, else those of all epochs.
    """
    args = trainer.args
    if args.max_steps > 0:
        return int(args.max_steps)
    batches = len(trainer.get_train_dataloader())
    return math.ceil(args.num_train_epochs * max(1, math.ceil(batches / args.gradient_accumulation_steps)))


def estimate_duration(trainer: InstructionTrainer, *, batches: int = 4) -> DurationEstimate:
    """Time forward and backward of the first batches; the model and the random numbers stay as they were.

    Batches of other tasks may be longer or shorter, so that it is an estimate only. The first batch is not timed. What
    torch.compile costs and saves is left out: the model is compiled when training starts, and `is_compiled_later` says so.

    Args:
        trainer: The trainer, before its training; with several processes all of them call it.
        batches: How many batches to time.

    Returns:
        The estimate.
    """
    loader: Any = trainer.get_train_dataloader()
    model: Any = trainer.model
    was_training = model.training
    seconds = []
    with _keep_random_numbers():
        model.train()
        for indices in itertools.islice(loader.batch_sampler, batches + 1):
            batch = loader.collate_fn([loader.dataset[index] for index in indices])
            start = time.perf_counter()
            inputs = trainer._prepare_inputs(batch)
            with trainer.compute_loss_context_manager():
                loss: Any = trainer.compute_loss(model, inputs)
            trainer.accelerator.backward(loss)
            # Reading the value waits until an accelerator has done its work.
            float(loss.detach())
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
            model.zero_grad(set_to_none=True)
    model.train(was_training)
    trainer.task_log = TaskLog()
    timed = seconds[1:] or seconds
    seconds_per_step = statistics.fmean(timed) * trainer.args.gradient_accumulation_steps
    return DurationEstimate(count_steps(trainer), seconds_per_step, is_compiled_later=_will_be_compiled(trainer))


def _will_be_compiled(trainer: InstructionTrainer) -> bool:
    from accelerate.utils import DynamoBackend

    # `accelerate launch --dynamo_backend` compiles as `--torch_compile` does.
    return bool(trainer.accelerator.state.dynamo_plugin.backend != DynamoBackend.NO)


@contextmanager
def _keep_random_numbers() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(python)
    np.random.set_state(numpy)
