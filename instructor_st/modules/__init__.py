"""The modules of an instruction model's pipeline; imported on first use, since they bring torch along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instructor_st.modules.dual_encoder_concat import DualEncoderConcat
    from instructor_st.modules.instruction_pooling import InstructionPooling
    from instructor_st.modules.instruction_prepend import InstructionPrepend
    from instructor_st.modules.stored_head import StoredHead
    from instructor_st.modules.tuned_dense import DenseDelta, TunedDense
    from instructor_st.modules.tuned_tasks import TunedTask, TunedTasks

__all__ = [
    "DenseDelta",
    "DualEncoderConcat",
    "InstructionPooling",
    "InstructionPrepend",
    "StoredHead",
    "TunedDense",
    "TunedTask",
    "TunedTasks",
]

_FILES = {
    "DenseDelta": "tuned_dense",
    "DualEncoderConcat": "dual_encoder_concat",
    "InstructionPooling": "instruction_pooling",
    "InstructionPrepend": "instruction_prepend",
    "StoredHead": "stored_head",
    "TunedDense": "tuned_dense",
    "TunedTask": "tuned_tasks",
    "TunedTasks": "tuned_tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
