"""Instruction-finetuned text embeddings as a plugin of sentence-transformers.

Importing this package registers its modules, so that `SentenceTransformer("org/instructor-base")` loads them without
`trust_remote_code`. It does not import torch; the classes below are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instructor_st.modules.registration import register_modules

if TYPE_CHECKING:
    from instructor_st.model import INSTRUCTOR
    from instructor_st.modules import DualEncoderConcat, InstructionPooling, InstructionPrepend

__all__ = ["INSTRUCTOR", "DualEncoderConcat", "InstructionPooling", "InstructionPrepend"]
__version__ = "0.1.0.dev0"

register_modules()


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "INSTRUCTOR":
        return import_module("instructor_st.model").INSTRUCTOR
    if name in __all__:
        return getattr(import_module("instructor_st.modules"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
