"""Heads: what turns embeddings into the loss of one task, by the task's type, and into predictions."""

from __future__ import annotations

import torch

from instructor_st.modules.stored_head import StoredHead
from instructor_st.training.classification_head import ClassificationHead, balance_classes, balance_labels
from instructor_st.training.pair_heads import PairsHead, SimilarityHead
from instructor_st.training.regression_head import RegressionHead
from instructor_st.training.task_head import ClassPrediction, Prediction, ScorePrediction, TaskHead

__all__ = [
    "HEADS",
    "ClassPrediction",
    "ClassificationHead",
    "PairsHead",
    "Prediction",
    "RegressionHead",
    "ScorePrediction",
    "SimilarityHead",
    "TaskHead",
    "balance_classes",
    "balance_labels",
    "restore_head",
    "store_head",
]

HEADS: dict[str, type[TaskHead]] = {
    head.kind: head for head in (ClassificationHead, RegressionHead, PairsHead, SimilarityHead)
}
"""The heads by their kind."""


def store_head(head: TaskHead) -> StoredHead:
    """Take from a head what is to be stored.

    Args:
        head: The head; later changes of it do not reach what was stored.

    Returns:
        Its configuration, and its weights in single precision on the CPU.

    Raises:
        StoredHeadError: If a weight is not finite.
    """
    tensors = {
        name: tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
        for name, tensor in head.state_dict().items()
    }
    return StoredHead(head.config(), tensors)


def restore_head(stored: StoredHead) -> TaskHead:
    """Make a head of what was stored.

    Args:
        stored: The configuration and the weights.

    Returns:
        The head, on the CPU; it predicts what the stored one did.

    Raises:
        ValueError: If the configuration has a value that is none.
    """
    head = HEADS[stored.config["kind"]].from_config(stored.config)
    head.load_state_dict(stored.tensors)
    return head
