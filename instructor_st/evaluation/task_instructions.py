"""Which instruction an evaluation gives to the texts of a task, side by side; from a file that users can override."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

__all__ = ["NO_INSTRUCTION", "Side", "TaskInstruction", "find_instruction", "read_instructions"]

Side = Literal["query", "document"]


@dataclass(frozen=True)
class TaskInstruction:
    """The instructions of a task.

    Attributes:
        query: For queries, and for all texts of tasks with one side. Empty means none.
        document: For documents; `None` means that they share the queries'.
    """

    query: str
    document: str | None = None

    def choose(self, side: Side | None) -> str:
        """Return a side's instruction; `None` stands for tasks with one side."""
        return self.document if side == "document" and self.document is not None else self.query


NO_INSTRUCTION = TaskInstruction("")


def read_instructions(path: str | Path) -> dict[str, TaskInstruction]:
    """Read instructions by name.

    Args:
        path: A YAML or JSON file: a name, then an instruction or `{query: ..., document: ...}`. A name is a task's, a
            task type's, or `default`.

    Returns:
        The instructions.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has another form; the message names the file and the entry.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of instructions.")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: wanted a mapping from names to instructions, not {type(found).__name__}.")
    return {str(name): _parse(value, f"{path}: {name}") for name, value in found.items()}


def find_instruction(
    instructions: Mapping[str, TaskInstruction], task: str, task_type: str | None = None
) -> TaskInstruction | None:
    """Find a task's instructions: those of its name, else of its type, else `default`.

    Args:
        instructions: By name.
        task: The task's name.
        task_type: Its type.

    Returns:
        The instructions; `None` if there are none.
    """
    for name in (task, task_type, "default"):
        if name is not None and name in instructions:
            return instructions[name]
    return None


def _parse(value: Any, where: str) -> TaskInstruction:
    if isinstance(value, str):
        return TaskInstruction(value)
    if not isinstance(value, dict) or not isinstance(value.get("query"), str):
        raise ValueError(f"{where}: wanted an instruction, or query: and document:, not {value!r}.")
    if unknown := sorted(value.keys() - {"query", "document"}):
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; known are query and document.")
    document = value.get("document")
    if document is not None and not isinstance(document, str):
        raise ValueError(f"{where}: document must be an instruction, not {document!r}.")
    return TaskInstruction(value["query"], document)
