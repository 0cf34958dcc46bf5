"""Tuned tasks of a whole model: adding, removing, and telling whether a task belongs to a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense

from instructor_st.modules import DualEncoderConcat, InstructionPrepend, TunedDense, TunedTask, TunedTasks

__all__ = ["PROBE", "add_tuned_task", "embed_probe", "get_tuned_tasks", "remove_tuned_task"]

PROBE = "A sentence by which a model is recognised."
"""The text whose embedding, without an instruction, a tuned task keeps."""

# bfloat16 changes a vector by less than 1e-4 of its cosine, a training step on real data by more than this.
_MIN_PROBE_COSINE = 0.999


def get_tuned_tasks(model: SentenceTransformer) -> TunedTasks:
    """Return the tuned tasks of a model.

    Args:
        model: A model that begins with one of our modules.

    Returns:
        The tasks by name; change them by `add_tuned_task` and `remove_tuned_task`.

    Raises:
        ValueError: If the model begins with another module.
    """
    first = model[0]
    if not isinstance(first, (InstructionPrepend, DualEncoderConcat)):
        raise ValueError(
            f"A model that begins with {type(first).__name__} takes no instructions, hence no tuned tasks."
        )
    return first.tuned_tasks


def embed_probe(model: SentenceTransformer) -> torch.Tensor:
    """Embed the text by which a tuned task recognises its model.

    Args:
        model: The model.

    Returns:
        A vector, `(dimension,)`, float32, on the CPU.
    """
    get_tuned_tasks(model)
    # Whole, however the user cuts embeddings.
    with model.truncate_embeddings(None):
        vector: torch.Tensor = model.encode([["", PROBE]], convert_to_tensor=True, show_progress_bar=False)[0]
    return vector.float().cpu()


def add_tuned_task(model: SentenceTransformer, task: TunedTask | str | Path) -> TunedTask:
    """Add a tuned task to the model that it was tuned for; one of the same name is replaced.

    From then on `model.encode([[name, text]])` embeds for the task, and saving the model saves the task.

    Args:
        model: The model.
        task: The task, or the folder that holds it.

    Returns:
        The task as it was added.

    Raises:
        FileNotFoundError: If the folder is not there.
        ValueError: If the task was tuned for another model, by size or by the embedding of `PROBE`.
    """
    tasks = get_tuned_tasks(model)
    if not isinstance(task, TunedTask):
        task = TunedTask.load(task)
    if task.dense_delta is not None:
        if len(model) < 2:
            raise ValueError(f"Tuned task {task.name!r} changes the Dense, and this model has none.")
        task.dense_delta.check_fit(model[1])
    probe = embed_probe(model)
    if task.probe is None:
        task = replace(task, probe=probe)
    else:
        _check_probe(task, probe)
    tasks.add(task)
    dense = model[1] if len(model) > 1 else None
    if task.dense_delta is not None and isinstance(dense, Dense) and not isinstance(dense, TunedDense):
        model[1] = TunedDense.from_dense(dense)
    return task


def remove_tuned_task(model: SentenceTransformer, name: str) -> TunedTask:
    """Take a tuned task out of a model.

    Args:
        model: The model.
        name: The task's name.

    Returns:
        The task.

    Raises:
        KeyError: If there is none of that name.
    """
    return get_tuned_tasks(model).remove(name)


def _check_probe(task: TunedTask, probe: torch.Tensor) -> None:
    wanted = task.probe
    assert wanted is not None
    cosine = F.cosine_similarity(wanted, probe, dim=0).item() if wanted.shape == probe.shape else float("nan")
    if not cosine >= _MIN_PROBE_COSINE:
        raise ValueError(
            f"Tuned task {task.name!r} was tuned for another model: the probe text's embeddings have the cosine "
            f"{cosine:.4f} (at least {_MIN_PROBE_COSINE} is expected). Load the model that it was tuned for, or tune anew."
        )
