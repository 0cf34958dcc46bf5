"""Tuned tasks: instructions found by training, kept under a name in the model that they were tuned for."""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import Module
from torch import Tensor

from instructor_st.atomic_files import write_text
from instructor_st.modules.stored_head import StoredHead
from instructor_st.modules.tuned_dense import DenseDelta

__all__ = ["TUNED_TASKS_FOLDER", "TunedTask", "TunedTasks"]

TUNED_TASKS_FOLDER = "tuned_tasks"
_RECORD, _TENSORS = "task.json", "task.safetensors"
# No instruction of the template has this form, so a name never hides one; it is a folder's name too.
_NAME = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
_MAX_NAME = 64
_FORMAT = 1

Architecture = Literal["dual", "prepend"]


@dataclass(frozen=True, eq=False)
class TunedTask:
    """A task that a model was tuned for, without the model.

    Attributes:
        name: What stands in the instruction's place: `model.encode([[name, text]])`. Small letters, digits, `-` and `_`.
        architecture: `"dual"` or `"prepend"`.
        instruction: The instruction that the tuning began with.
        vectors: Dual: the instruction's vector, `(1, h_instruction)`. Prepend: the soft prompt, `(k, hidden)`.
        dense_delta: Dual: what is added to the Dense behind the concatenation for this task's texts, if it was tuned.
        head: A head for predictions, if one was kept.
        probe: The untuned model's embedding of `PROBE`, `(dimension,)`: it tells whether a model is the one that the
            task was tuned for. `None` if nobody asked.
        notes: What else is worth keeping (settings, the report), JSON-able.
    """

    name: str
    architecture: Architecture
    instruction: str
    vectors: Tensor
    dense_delta: DenseDelta | None = None
    head: StoredHead | None = None
    probe: Tensor | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_task_name(self.name)
        if self.architecture not in ("dual", "prepend"):
            raise ValueError(f"Tuned task {self.name!r}: architecture must be 'dual' or 'prepend'.")
        if self.vectors.ndim != 2 or len(self.vectors) < 1 or (self.architecture == "dual" and len(self.vectors) > 1):
            raise ValueError(
                f"Tuned task {self.name!r}: vectors must be (1, h) for a dual model and (k, hidden) for a prepend "
                f"model, not {tuple(self.vectors.shape)}."
            )
        if self.architecture == "prepend" and self.dense_delta is not None:
            raise ValueError(f"Tuned task {self.name!r}: only a dual model has a tuned Dense.")

    @property
    def num_bytes(self) -> int:
        """What its tensors take, in bytes, without the probe and the head."""
        tensors = [self.vectors, *(self.dense_delta.tensors.values() if self.dense_delta else ())]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def without_head(self) -> TunedTask:
        """Return the task without its head."""
        return replace(self, head=None)

    def save(self, folder: str | Path) -> Path:
        """Write the task into a folder of its own, in full or not at all.

        Args:
            folder: Where it goes; a tuned task that lies there is replaced.

        Returns:
            The folder.

        Raises:
            ValueError: If something else lies there.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / _RECORD).is_file():
            raise ValueError(f"{folder} exists and is no tuned task; name another folder.")
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        tensors = {"vectors": self.vectors}
        if self.dense_delta is not None:
            tensors |= {f"dense.{name}": tensor for name, tensor in self.dense_delta.tensors.items()}
        if self.probe is not None:
            tensors["probe"] = self.probe
        save_file({name: each.detach().cpu().contiguous() for name, each in tensors.items()}, partial / _TENSORS)
        record = {"format": _FORMAT, "name": self.name, "architecture": self.architecture}
        record |= {"instruction": self.instruction, "notes": dict(self.notes)}
        write_text(partial / _RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        if self.head is not None:
            self.head.save(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> TunedTask:
        """Read a task from its folder.

        Args:
            folder: The folder that `save` wrote.

        Returns:
            The task, its tensors on the CPU.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If a file is broken; the message names it.
        """
        folder = Path(folder)
        for name in (_RECORD, _TENSORS):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder / name}: no such file; a tuned task has {_RECORD} and {_TENSORS}.")
        record = _read_record(folder / _RECORD)
        try:
            tensors = load_file(folder / _TENSORS)
        except SafetensorError as error:
            raise ValueError(f"{folder / _TENSORS}: not a safetensors file ({error}); copy the task anew.") from None
        if "vectors" not in tensors:
            raise ValueError(f"{folder / _TENSORS}: 'vectors' is missing; copy the task anew.")
        if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
            raise ValueError(f"{folder / _TENSORS}: {', '.join(broken)} not finite; tune the task anew.")
        delta = {name.removeprefix("dense."): tensor for name, tensor in tensors.items() if name.startswith("dense.")}
        head = StoredHead.load(folder)
        try:
            return cls(
                name=record["name"],
                architecture=record["architecture"],
                instruction=record["instruction"],
                vectors=tensors["vectors"],
                dense_delta=DenseDelta(delta) if delta else None,
                head=head,
                probe=tensors.get("probe"),
                notes=record.get("notes", {}),
            )
        except KeyError as error:
            raise ValueError(f"{folder / _RECORD}: {error} is missing; copy the task anew.") from None
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None


class TunedTasks(Mapping[str, TunedTask]):
    """The tuned tasks of a model's first module, by name, in the order of their coming.

    Args:
        architecture: The model's.
        dimension: Size of a vector: the instruction encoder's or, prepend, the token embeddings'.
    """

    def __init__(self, architecture: Architecture, dimension: int) -> None:
        self.architecture: Architecture = architecture
        self.dimension = dimension
        self._tasks: dict[str, TunedTask] = {}

    def __getitem__(self, name: str) -> TunedTask:
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: TunedTask) -> None:
        """Add a task; one of the same name is replaced.

        Args:
            task: The task.

        Raises:
            ValueError: If it was tuned for another architecture or for vectors of another size.
        """
        size = task.vectors.shape[1]
        if task.architecture != self.architecture or size != self.dimension:
            raise ValueError(
                f"Tuned task {task.name!r} is for a {task.architecture} model with vectors of {size}; this is a "
                f"{self.architecture} model with vectors of {self.dimension}. A tuned task fits the model that it was "
                "tuned for only."
            )
        self._tasks[task.name] = task

    def remove(self, name: str) -> TunedTask:
        """Take a task out.

        Args:
            name: Its name.

        Returns:
            The task.

        Raises:
            KeyError: If there is none of that name.
        """
        if name not in self._tasks:
            raise KeyError(f"no tuned task {name!r}; there are: {', '.join(self._tasks) or 'none'}")
        return self._tasks.pop(name)

    def save(self, folder: str | Path) -> None:
        """Write every task into a sub-folder of its name; tasks of other names that lie there are removed.

        Args:
            folder: The model's folder; the tasks go to `tuned_tasks` in it.
        """
        root = Path(folder, TUNED_TASKS_FOLDER)
        for name, task in self._tasks.items():
            root.mkdir(parents=True, exist_ok=True)
            task.save(root / name)
        for left_over in root.iterdir() if root.is_dir() else ():
            if left_over.name not in self._tasks and (left_over / _RECORD).is_file():
                shutil.rmtree(left_over)

    def load_from_model(self, model_name_or_path: str, subfolder: str, names: list[str], **hub: Any) -> None:
        """Add the tasks that a model's configuration names, from a local folder or the Hub.

        Args:
            model_name_or_path: The model.
            subfolder: Its module's folder.
            names: Which tasks; nothing is looked for if there is none.
            **hub: `token`, `cache_folder`, `revision`, `local_files_only`.

        Raises:
            FileNotFoundError: If one is missing.
            ValueError: If one is broken.
        """
        if not names:
            return
        for name in names:
            check_task_name(name)
        place = posixpath.join(subfolder, TUNED_TASKS_FOLDER)
        folder = Module.load_dir_path(model_name_or_path, subfolder=place, **hub)
        if folder is None:
            raise FileNotFoundError(
                f"{model_name_or_path}: the configuration names tuned tasks, but {place} is missing."
            )
        self.load(folder, names)

    def load(self, folder: str | Path, names: list[str]) -> None:
        """Add the tasks of a model's folder.

        Args:
            folder: The folder `tuned_tasks`.
            names: Which ones, in order.

        Raises:
            FileNotFoundError: If one is missing.
            ValueError: If one is broken, or its name is not its folder's.
        """
        for name in names:
            check_task_name(name)
            task = TunedTask.load(Path(folder, name))
            if task.name != name:
                raise ValueError(f"{Path(folder, name)}: the task's name is {task.name!r}; rename the folder.")
            self.add(task)


def check_task_name(name: str) -> None:
    """Refuse a name that could be an instruction, or no folder's name.

    Raises:
        ValueError: If it is.
    """
    if not isinstance(name, str) or len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a tuned task: at most {_MAX_NAME} small letters and digits, with single - or _ "
            "between them, such as 'support-tickets'."
        )


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); copy the task anew.") from None
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise ValueError(f"{path}: not a tuned task of format {_FORMAT}; a newer instructor-st may have written it.")
    return record
