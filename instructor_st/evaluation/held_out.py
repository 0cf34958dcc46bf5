"""Evaluation on held-out rows with the right instruction, a wrong one and none."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from instructor_st.data import Row
from instructor_st.pairs import InstructedText

__all__ = ["HeldOutEvaluator", "HeldOutReport", "HeldOutScore"]

Condition = Literal["right", "wrong", "none"]
Metric = Literal["accuracy", "mean_reciprocal_rank"]


@dataclass(frozen=True)
class HeldOutScore:
    """Scores of one task under one condition.

    Attributes:
        task: The task.
        condition: The `"right"` instruction, a `"wrong"` one (another task's) or `"none"`.
        accuracy: Share of the rows with hard negatives whose positive is nearer to the query than all of these (a tie
            counts as an error); `None` where no row has any.
        mean_reciprocal_rank: Mean of 1 / rank of the row's positive among all documents of the task, those of the row's
            class left out (a tie counts against it).
        rows: Number of rows.
    """

    task: str
    condition: Condition
    accuracy: float | None
    mean_reciprocal_rank: float
    rows: int


@dataclass(frozen=True)
class HeldOutReport:
    """Scores of all tasks under all conditions.

    Attributes:
        scores: One a task and condition.
        texts_per_second: Distinct inputs embedded in a second.
    """

    scores: tuple[HeldOutScore, ...]
    texts_per_second: float

    def average(self, condition: Condition, metric: Metric) -> float:
        """Average a metric over the tasks that have it, each task counting alike; NaN if none has."""
        values = [getattr(score, metric) for score in self.scores if score.condition == condition]
        values = [value for value in values if value is not None]
        return statistics.fmean(values) if values else float("nan")


class HeldOutEvaluator(BaseEvaluator):
    """Ranks each held-out row's documents, with the row's own instructions and without them.

    As a sentence-transformers evaluator it returns the averages; `evaluate` gives the whole report. The wrong
    instruction of a task is that of a task over the same texts, if there is one (whoever follows instructions then
    finds the other task's answers), else that of the next task in alphabetical order.

    Args:
        rows_by_task: The held-out rows.
        batch_size: Inputs embedded at once.
        name: Prefix of the metrics.
        with_gap: Whether it also evaluates with a wrong instruction, for the metric `instruction_gap`.

    Raises:
        ValueError: If there is no row.
    """

    def __init__(
        self,
        rows_by_task: Mapping[str, Sequence[Row]],
        *,
        batch_size: int = 32,
        name: str = "held_out",
        with_gap: bool = False,
    ):
        super().__init__()
        self.rows_by_task = {task: list(rows) for task, rows in sorted(rows_by_task.items()) if rows}
        if not self.rows_by_task:
            raise ValueError("There is no held-out row to evaluate with.")
        self.batch_size = batch_size
        self.name = name
        self.with_gap = with_gap and len(self.rows_by_task) > 1
        self.primary_metric = f"{name}_mean_reciprocal_rank"

    def __call__(  # type: ignore[override]
        self, model: SentenceTransformer, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Evaluate with the right instruction, as the trainer does it.

        Args:
            model: The model.
            output_path: Not used; the trainer's log and results.json hold the scores.
            epoch: Not used.
            steps: Not used.

        Returns:
            The averages over tasks of accuracy and mean reciprocal rank with the right instruction, and, if asked for,
            of accuracy with a wrong one, and by how much the right one is better (`instruction_gap`).
        """
        conditions: tuple[Condition, ...] = ("right", "wrong") if self.with_gap else ("right",)
        report = self.evaluate(model, conditions=conditions, show_progress_bar=False)
        values = {
            "accuracy": report.average("right", "accuracy"),
            "mean_reciprocal_rank": report.average("right", "mean_reciprocal_rank"),
        }
        if self.with_gap:
            values["accuracy_wrong"] = report.average("wrong", "accuracy")
            values["instruction_gap"] = values["accuracy"] - values["accuracy_wrong"]
        metrics: dict[str, float] = self.prefix_name_to_metrics(values, self.name)
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics

    def evaluate(
        self,
        model: SentenceTransformer,
        *,
        conditions: Sequence[Condition] = ("right", "wrong", "none"),
        show_progress_bar: bool = True,
    ) -> HeldOutReport:
        """Evaluate under several conditions; `"wrong"` is skipped where there is one task only.

        Args:
            model: The model.
            conditions: Which instructions to try.
            show_progress_bar: Whether to show the embedding's progress.

        Returns:
            The report.
        """
        variants = {
            (task, condition): self._set_instructions(task, condition)
            for condition in conditions
            if condition != "wrong" or len(self.rows_by_task) > 1
            for task in self.rows_by_task
        }
        places: dict[InstructedText, int] = {}
        for rows in variants.values():
            for row in rows:
                for text in row.texts:
                    places.setdefault(text, len(places))
        start = time.perf_counter()
        vectors = model.encode(
            [list(text) for text in places],
            batch_size=self.batch_size,
            convert_to_tensor=True,
            normalize_embeddings=True,
            show_progress_bar=show_progress_bar,
        ).float()
        seconds = time.perf_counter() - start
        scores = [_score_rows(*key, rows, vectors, places) for key, rows in variants.items()]
        return HeldOutReport(tuple(scores), len(places) / seconds)

    def _set_instructions(self, task: str, condition: Condition) -> list[Row]:
        rows = self.rows_by_task[task]
        if condition == "right":
            return rows
        if condition == "none":
            return [_reinstruct(row, "", "") for row in rows]
        others = self.rows_by_task[self._choose_wrong_task(task)]
        donors = (others[place % len(others)] for place in range(len(rows)))
        return [
            _reinstruct(row, donor.query.instruction, donor.positive.instruction)
            for row, donor in zip(rows, donors, strict=True)
        ]

    def _choose_wrong_task(self, task: str) -> str:
        texts = {row.query.text for row in self.rows_by_task[task]}
        names = list(self.rows_by_task)
        later = names[names.index(task) + 1 :] + names[: names.index(task)]
        shared = (name for name in later if any(row.query.text in texts for row in self.rows_by_task[name]))
        return next(shared, later[0])


def _reinstruct(row: Row, query_instruction: str, document_instruction: str) -> Row:
    return replace(
        row,
        query=row.query._replace(instruction=query_instruction),
        positive=row.positive._replace(instruction=document_instruction),
        negatives=tuple(negative._replace(instruction=document_instruction) for negative in row.negatives),
    )


def _score_rows(
    task: str, condition: Condition, rows: Sequence[Row], vectors: torch.Tensor, places: Mapping[InstructedText, int]
) -> HeldOutScore:
    documents = list(dict.fromkeys(text for row in rows for text in row.texts[1:]))
    document_places = torch.tensor([places[text] for text in documents], device=vectors.device)
    column = {text: number for number, text in enumerate(documents)}
    classes = _find_classes(rows)
    similarities = vectors[torch.tensor([places[row.query] for row in rows], device=vectors.device)]
    similarities = similarities @ vectors[document_places].T
    wins, ranks = [], []
    for row, scores in zip(rows, similarities.tolist(), strict=True):
        own = scores[column[row.positive]]
        if row.negatives:
            wins.append(all(own > scores[column[negative]] for negative in row.negatives))
        rivals = [
            scores[column[text]]
            for text in documents
            if text.text not in (row.positive.text, row.query.text)
            and (row.label is None or classes.get(text.text) != row.label)
        ]
        ranks.append(1 + sum(score >= own for score in rivals))
    return HeldOutScore(
        task=task,
        condition=condition,
        accuracy=statistics.fmean(wins) if wins else None,
        mean_reciprocal_rank=statistics.fmean(1 / rank for rank in ranks),
        rows=len(rows),
    )


def _find_classes(rows: Sequence[Row]) -> dict[str, str]:
    """Which class each text belongs to, as far as the rows say it."""
    return {text.text: row.label for row in rows if row.label is not None for text in (row.query, row.positive)}
