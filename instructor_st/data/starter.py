"""The starter mixture: the worked examples of the task registry as training rows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

from instructor_st.data.schema import Row
from instructor_st.data.training_sets import TrainingData
from instructor_st.pairs import InstructedText
from instructor_st.tasks import Example, TaskMetadata, get_tasks

__all__ = ["STARTER_ROWS_PER_TASK", "load_starter_data"]

STARTER_ROWS_PER_TASK = 4
"""What every task of the registry has, so that all weigh alike."""


def load_starter_data(
    tasks: Iterable[TaskMetadata] | None = None,
    *,
    wordings: int = 1,
    max_rows_per_task: int | None = STARTER_ROWS_PER_TASK,
    seed: int = 0,
) -> TrainingData:
    """Make training rows of the registry's worked examples.

    An example that is trained on stands under its task's instructions and, with more than one wording, under paraphrases
    of them drawn at random; the held-out one stands under the instructions themselves.

    Args:
        tasks: The tasks; all of the registry by default.
        wordings: Rows an example, each with another wording, from 1 (the instructions alone) to 6.
        max_rows_per_task: Keep at most so many training rows a task, drawn at random; `None` keeps all.
        seed: Of the draws.

    Returns:
        The rows by task, with a report.

    Raises:
        ValueError: If an option is out of range, or there is no task.
    """
    if not 1 <= wordings <= 6:
        raise ValueError(f"wordings must be from 1 to 6, not {wordings}.")
    if max_rows_per_task is not None and max_rows_per_task < 1:
        raise ValueError(f"max_rows_per_task must be 1 or more, not {max_rows_per_task}.")
    report: Counter[str] = Counter()
    train: dict[str, list[Row]] = {}
    held_out: dict[str, list[Row]] = {}
    for task in get_tasks() if tasks is None else tasks:
        rows = []
        for place, example in enumerate(task.examples):
            if example.held_out:
                held_out.setdefault(task.name, []).append(_build_row(task, example, 0))
                continue
            draw = random.Random(f"{seed}/{task.name}/{place}")
            count = min(len(task.query.wordings), len(task.document.wordings))
            numbers = [0, *draw.sample(range(1, count), min(wordings, count) - 1)]
            rows += [_build_row(task, example, number) for number in numbers]
        report["rows read"] += len(rows) + len(held_out.get(task.name, ()))
        if max_rows_per_task is not None and len(rows) > max_rows_per_task:
            report["left out: more rows than max_rows_per_task"] += len(rows) - max_rows_per_task
            rows = random.Random(f"{seed}/{task.name}").sample(rows, max_rows_per_task)
        train[task.name] = rows
    if not train:
        raise ValueError("There is no task to make rows of.")
    return TrainingData(train, held_out, report)


def _build_row(task: TaskMetadata, example: Example, wording: int) -> Row:
    query, document = task.query.wordings[wording], task.document.wordings[wording]
    return Row(
        query=InstructedText(query, example.query),
        positive=InstructedText(document, example.positive),
        negatives=(InstructedText(document, example.negative),),
        task=task.name,
        label=example.label,
    )
