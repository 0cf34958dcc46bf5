"""A trainer over a few rows of two tasks, and what spoils its run."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import TrainerCallback

from instructor_st.data import build_train_dataset, parse_row
from instructor_st.evaluation import HeldOutEvaluator
from instructor_st.training import InstructionTrainer, TrainArguments, build_losses
from instructor_st.training.checkpoints import list_checkpoints

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
