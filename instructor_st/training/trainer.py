"""The trainer: sentence-transformers' own, with batches of one task and losses by task."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from torch import nn

from instructor_st.training.loss import MultitaskInstructionLoss

__all__ = ["InstructionTrainer", "build_losses", "set_dropout"]


class InstructionTrainer(SentenceTransformerTrainer):
    """`SentenceTransformerTrainer` without the data samples in its model card, and with a whole or no final model."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Leave the callback out: its card prints rows of the training data, which may not be ours to publish."""

    def save_final_model(self, folder: str | Path) -> Path:
        """Save the model so that the folder is there in full or not at all.

        Args:
            folder: Where the model goes; a model that lies there is replaced.

        Returns:
            The folder.
        """
        folder = Path(folder)
        if self.is_world_process_zero():
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            self.model.save_pretrained(str(partial))
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        self.accelerator.wait_for_everyone()
        return folder


def build_losses(
    model: SentenceTransformer,
    tasks: Iterable[str],
    *,
    labelled_tasks: Collection[str] = (),
    temperature: float = 0.05,
    gather_across_devices: bool = False,
) -> dict[str, nn.Module]:
    """Give every task its loss.

    Args:
        model: The model.
        tasks: The names of the training data sets.
        labelled_tasks: Those whose rows carry a class: there a row's hard negatives are its own.
        temperature: Of the loss.
        gather_across_devices: Whether the rows of all processes are one batch.

    Returns:
        The losses by task; tasks of one kind share one.
    """
    shared, own = [
        MultitaskInstructionLoss(
            model,
            temperature=temperature,
            share_hard_negatives=share,
            gather_across_devices=gather_across_devices,
        )
        for share in (True, False)
    ]
    return {task: own if task in labelled_tasks else shared for task in tasks}


def set_dropout(model: nn.Module, probability: float) -> None:
    """Set every dropout probability of a model, those that attention layers keep as a plain number too.

    Args:
        model: The model, changed in place.
        probability: From 0 to 1.

    Raises:
        ValueError: If the probability is out of range.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"A dropout probability is from 0 to 1, not {probability}.")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, probability)
