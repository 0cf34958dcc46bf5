"""Loss and accuracy of each task between two entries of the training log."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["NonFiniteLossError", "TaskLog"]


class NonFiniteLossError(ArithmeticError):
    """A loss that is not a number or infinite; the message names the task and the step."""


class TaskLog:
    """Sums up losses and accuracies by task, on the device where they are, until they are asked for.

    Reading a number from an accelerator waits for it, so the sums are read only when the log is written.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, task: str, loss: Tensor, accuracy: Tensor | None) -> None:
        """Add a batch.

        Args:
            task: Its task.
            loss: Its loss, a scalar.
            accuracy: The share of its queries whose positive scored highest, a scalar; `None` if the loss has none.
        """
        with torch.no_grad():
            one = torch.ones((), device=loss.device)
            has_accuracy = accuracy is not None
            batch = torch.stack(
                [
                    loss.detach().float(),
                    accuracy.detach().float().to(loss.device) if accuracy is not None else torch.zeros_like(one),
                    one,
                    one if has_accuracy else torch.zeros_like(one),
                ]
            )
            self._sums[task] = self._sums[task] + batch if task in self._sums else batch

    def find_non_finite(self) -> str | None:
        """Name a task whose losses since the last entry are not all finite, or nothing."""
        return next((task for task, sums in self._sums.items() if not torch.isfinite(sums[0]).item()), None)

    def take(self, reduce: Callable[[Tensor], Tensor] | None = None) -> dict[str, float]:
        """Give the averages since the last call, and begin anew.

        Args:
            reduce: Sums a tensor up over all processes, which have seen the same tasks.

        Returns:
            `loss/TASK` and `accuracy/TASK` of each task that was seen, and `accuracy`, the mean over all batches.
        """
        if not self._sums:
            return {}
        tasks = sorted(self._sums)
        sums = torch.stack([self._sums[task] for task in tasks])
        self._sums = {}
        values = (sums if reduce is None else reduce(sums)).tolist()
        logs: dict[str, float] = {}
        for task, (loss, accuracy, batches, rated) in zip(tasks, values, strict=True):
            logs[f"loss/{task}"] = loss / batches
            if rated:
                logs[f"accuracy/{task}"] = accuracy / rated
        if rated_batches := sum(value[3] for value in values):
            logs["accuracy"] = sum(value[1] for value in values) / rated_batches
        return logs
