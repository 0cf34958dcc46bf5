"""Tasks and their instructions; nothing here imports torch."""

from instructor_st.tasks.template import format_instruction

__all__ = ["format_instruction"]
