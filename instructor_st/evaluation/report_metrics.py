"""The metrics of a held-out report that is there already, by the names that the trainer knows them by."""

from __future__ import annotations

from typing import Any

from sentence_transformers import SentenceTransformer

from instructor_st.evaluation.held_out import HeldOutEvaluator, HeldOutReport

__all__ = ["list_report_metrics"]


def list_report_metrics(
    evaluator: HeldOutEvaluator, report: HeldOutReport, *, model: SentenceTransformer
) -> dict[str, float]:
    """Give what the evaluator would give the trainer, without embedding anything again.

    Args:
        evaluator: The evaluator.
        report: Its report under all conditions.
        model: The model that the report is of; it stays as it is, its card too.

    Returns:
        The metrics by name, as the evaluator itself names them (without the trainer's `eval_`).
    """
    return _Reported(evaluator, report)(model)


class _Reported(HeldOutEvaluator):
    """An evaluator whose report is known."""

    def __init__(self, evaluator: HeldOutEvaluator, report: HeldOutReport) -> None:
        super().__init__(evaluator.rows_by_task, name=evaluator.name, with_gap=evaluator.with_gap)
        self._report = report

    def evaluate(self, *args: Any, **kwargs: Any) -> HeldOutReport:
        return self._report

    def store_metrics_in_model_card_data(self, *args: Any, **kwargs: Any) -> None:
        """Leave the card to the real evaluator."""
