"""Makes plain `SentenceTransformer(...)` load our modules without `trust_remote_code`."""

from __future__ import annotations

from typing import Any

import wrapt

__all__ = ["register_modules"]

# modules.json stores these paths: they are a file format and never move.
LOCAL_PREFIX = "instructor_st.modules"
HUB_PREFIX = "instructor_st_modules"
_CLASS_NAMES = ("InstructionPrepend", "InstructionPooling", "DualEncoderConcat", "TunedDense")


def register_modules() -> None:
    """Register our module classes with sentence-transformers, now or as soon as it is imported.

    sentence-transformers >= 6 refuses module classes from outside its own package unless `trust_remote_code=True`,
    installed packages included. Whoever imports `instructor_st` trusts the installed package, so its classes, and no
    others, join the table that sentence-transformers consults first. Nothing heavy is imported here.
    """
    wrapt.register_post_import_hook(_add_to_table, "sentence_transformers")


def _add_to_table(_: Any) -> None:
    from sentence_transformers.base.model import BaseModel

    import instructor_st.modules as modules

    classes = {
        f"{prefix}.{name}": getattr(modules, name) for prefix in (LOCAL_PREFIX, HUB_PREFIX) for name in _CLASS_NAMES
    }
    BaseModel._module_classes = {**BaseModel._module_classes, **classes}
