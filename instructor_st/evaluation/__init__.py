"""Evaluation of instruction models."""

from instructor_st.evaluation.bootstrap import Interval
from instructor_st.evaluation.candidates import InstructionCandidate, TaskMatch, build_candidates, find_nearest_tasks
from instructor_st.evaluation.held_out import HeldOutEvaluator, HeldOutReport, HeldOutScore
from instructor_st.evaluation.held_out_report import build_results, format_comparison
from instructor_st.evaluation.instruction_comparison import (
    InstructionComparison,
    InstructionScore,
    compare_instructions,
)
from instructor_st.evaluation.results import Result, read_results, write_results
from instructor_st.evaluation.suggest import Suggestion, format_suggestion, suggest_instructions
from instructor_st.evaluation.task_instructions import TaskInstruction, read_instructions

__all__ = [
    "HeldOutEvaluator",
    "HeldOutReport",
    "HeldOutScore",
    "InstructionCandidate",
    "InstructionComparison",
    "InstructionScore",
    "Interval",
    "Result",
    "Suggestion",
    "TaskInstruction",
    "TaskMatch",
    "build_candidates",
    "build_results",
    "compare_instructions",
    "find_nearest_tasks",
    "format_comparison",
    "format_suggestion",
    "read_instructions",
    "read_results",
    "suggest_instructions",
    "write_results",
]
