"""The modules of an instruction model's pipeline; imported on first use, since they bring torch along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instructor_st.modules.dual_encoder_concat import DualEncoderConcat
    from instructor_st.modules.instruction_pooling import InstructionPooling
    from instructor_st.modules.instruction_prepend import InstructionPrepend

__all__ = ["DualEncoderConcat", "InstructionPooling", "InstructionPrepend"]

_FILES = {
    "DualEncoderConcat": "dual_encoder_concat",
    "InstructionPooling": "instruction_pooling",
    "InstructionPrepend": "instruction_prepend",
}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
