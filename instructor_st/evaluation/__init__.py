"""Evaluation of instruction models."""

from instructor_st.evaluation.held_out import HeldOutEvaluator, HeldOutReport, HeldOutScore
from instructor_st.evaluation.report import build_results, format_comparison, write_results

__all__ = [
    "HeldOutEvaluator",
    "HeldOutReport",
    "HeldOutScore",
    "build_results",
    "format_comparison",
    "write_results",
]
