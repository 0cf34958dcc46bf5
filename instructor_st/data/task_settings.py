"""What a built mixture says of how its tasks are to be trained: weights and loss settings, from its manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["TaskSettings", "read_task_settings"]


@dataclass(frozen=True)
class TaskSettings:
    """How a task is to be trained.

    Attributes:
        weight: How often its rows are seen, 1 being the measure.
        loss: Settings of its loss that differ from those of the other tasks.
    """

    weight: float = 1.0
    loss: Mapping[str, Any] = field(default_factory=dict)


def read_task_settings(folder: str | Path) -> dict[str, TaskSettings]:
    """Read the settings of a mixture's tasks.

    Args:
        folder: The folder that build_data.py, mine_negatives.py or augment.py wrote, or any other folder or file of rows.

    Returns:
        The settings by task, named as in the training data; nothing where there is no manifest.

    Raises:
        ValueError: If the manifest cannot be read.
    """
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        return {}
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))["tasks"]
        return {
            str(task["name"]).replace(".", "_"): TaskSettings(
                float(task.get("weight", 1)), _read_numbers(dict(task.get("loss") or {}))
            )
            for task in tasks
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no manifest of a mixture ({error}). Build the mixture again.") from None


def _read_numbers(values: dict[str, Any]) -> dict[str, Any]:
    """YAML 1.1 takes `2e-2` for a text."""
    read = {}
    for name, value in values.items():
        try:
            read[name] = float(value) if isinstance(value, str) else value
        except ValueError:
            read[name] = value
    return read
