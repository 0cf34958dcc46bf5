"""A folder of rows made from another, task by task: its file names, what an earlier run has done, what is kept or refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from instructor_st.atomic_files import write_text
from instructor_st.data.schema import Row
from instructor_st.data.shards import hash_file, write_rows
from instructor_st.data.sources.record_files import list_data_files

__all__ = ["OutputFolder", "OutputFolderError", "check_output_place", "copy_file", "name_files"]


class OutputFolderError(FileExistsError, ValueError):
    """A folder that cannot be written without harm; the message says why and what to do."""


@dataclass(frozen=True)
class OutputFolder:
    """A folder that a run writes, or wrote: a Parquet file a task, and files of the data that are kept as they are.

    `STATE/tasks/NAME.json` says what was made of a task, `STATE/copies.json` which files were copied. Both may be
    deleted; the tasks are then made anew.

    Attributes:
        folder: The folder.
        state: The name of the sub-folder that holds the state.
        part: The sub-folder of the tasks' files, `train`; blank for the folder itself.
        tasks: The tasks.
        copies: Files of the data that are kept as they are, and where they go.
    """

    folder: Path
    state: str
    part: str
    tasks: tuple[str, ...]
    copies: Mapping[Path, Path]

    @cached_property
    def _names(self) -> dict[str, str]:
        return name_files(self.tasks)

    def find_shard(self, task: str) -> Path:
        """The file for a task's rows."""
        return self.folder / self.part / f"{self._names[task]}.parquet"

    def find_state(self, task: str) -> Path:
        """The file that says what was made of a task."""
        return self.folder / self.state / "tasks" / f"{self._names[task]}.json"

    def read_counts(self, task: str, *, fingerprint: str) -> dict[str, int] | None:
        """Read what an earlier run counted.

        Args:
            task: The task.
            fingerprint: Hash of all that the task's outcome depends on.

        Returns:
            The counts, if that run made just this and its file is as it was written.
        """
        try:
            known = json.loads(self.find_state(task).read_text(encoding="utf-8"))
            if known["fingerprint"] == fingerprint and known["sha256"] == hash_file(self.find_shard(task)):
                return dict(known["counts"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # never finished, or tampered with: made anew
        return None

    def write_task(
        self, task: str, rows: Sequence[Row], *, fingerprint: str, counts: Mapping[str, int]
    ) -> dict[str, int]:
        """Write a task's file, then its state: a file without a state is made anew.

        Args:
            task: The task.
            rows: Its rows.
            fingerprint: Hash of all that they depend on.
            counts: What there is to count.

        Returns:
            The counts, sorted by name.
        """
        shard = self.find_shard(task)
        digest, counts = write_rows(shard, rows), dict(sorted(counts.items()))
        name = shard.relative_to(self.folder).as_posix()
        known = {"fingerprint": fingerprint, "shard": name, "sha256": digest, "counts": counts}
        write_text(self.find_state(task), _format_json(known))
        return counts

    def find_outdated(self) -> tuple[Path, ...]:
        """Find what earlier runs wrote for tasks and files that are no more, for another layout, or half.

        Returns:
            The files.
        """
        wanted = {*self.copies.values(), self._copies_state}
        for task in self.tasks:
            wanted |= {self.find_shard(task), self.find_state(task)}
        state = self.folder / self.state
        found: dict[Path, None] = {}
        for path in [*sorted((state / "tasks").glob("*.json")), self._copies_state]:
            found.update(dict.fromkeys([*(self.folder / name for name in _list_written(path)), path]))
        for halves in ((self.folder / self.part).glob("*.parquet.partial"), (state / "tasks").glob("*.json.partial")):
            found.update(dict.fromkeys(sorted(halves)))
        return tuple(path for path in found if path not in wanted)

    def check_row_files(self, outdated: Iterable[Path]) -> None:
        """Refuse row files that are neither written nor removed here, since training would read them.

        Args:
            outdated: The files that will be removed.

        Raises:
            OutputFolderError: If there is one.
        """
        own = {*outdated, *self.copies.values(), *map(self.find_shard, self.tasks)}
        try:
            strange = [path for path in list_data_files(self.folder) if path not in own]
        except FileNotFoundError:
            return
        if strange:
            raise OutputFolderError(
                f"{self.folder} holds {strange[0].relative_to(self.folder)}, which this run does not write and training "
                "would read. Move it away, or name another output folder."
            )

    def prepare(self, outdated: Iterable[Path]) -> None:
        """Mark the folder as made here, remove what is outdated, copy what is kept.

        Args:
            outdated: The files to remove; folders that they leave empty go too.
        """
        # First of all: a run that is stopped from here on finds the folder to be its own.
        (self.folder / self.state).mkdir(parents=True, exist_ok=True)
        for path in outdated:
            path.unlink(missing_ok=True)
            _remove_empty_folders(path.parent, self.folder)
        names = sorted(path.relative_to(self.folder).as_posix() for path in self.copies.values())
        write_text(self._copies_state, _format_json({"copies": names}))
        for source, target in self.copies.items():
            copy_file(source, target)

    @property
    def _copies_state(self) -> Path:
        return self.folder / self.state / "copies.json"


def check_output_place(output: Path, data: Path, *, state: str) -> None:
    """Refuse a folder that lies in the data, or that holds files and was not made by the same tool.

    Args:
        output: The folder to write.
        data: The folder or file of the rows.
        state: The name of the sub-folder that the tool leaves.

    Raises:
        OutputFolderError: If it is such a folder.
    """
    if output.resolve().is_relative_to(data.resolve()):
        raise OutputFolderError(
            f"{output} lies in the data, {data}, whose rows would then be read again. Name another output folder."
        )
    if output.is_dir() and any(output.iterdir()) and not (output / state).is_dir():
        raise OutputFolderError(f"{output} holds other files. Name a new folder, or one that an earlier run has made.")


def name_files(tasks: Sequence[str]) -> dict[str, str]:
    """Name files for tasks whose names may hold anything; some file systems do not tell case apart.

    Args:
        tasks: The tasks' names.

    Returns:
        A file name without ending for each; one that differs from the task's name has a hash of it.
    """
    often = Counter(task.lower() for task in tasks)
    names = {}
    for task in tasks:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", task).strip(".")[:100]
        if not name or name != task or often[task.lower()] > 1:
            name = f"{name}-{hashlib.blake2b(task.encode(), digest_size=4).hexdigest()}"
        names[task] = name
    return names


def copy_file(source: Path, target: Path) -> None:
    """Copy a file under a temporary name and rename it.

    Args:
        source: The file.
        target: Its copy; its folder is made if need be.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    try:
        shutil.copyfile(source, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _list_written(state: Path) -> list[str]:
    """The files that a state tells of; none if it cannot be read."""
    try:
        known = json.loads(state.read_text(encoding="utf-8"))
        return [*([known["shard"]] if "shard" in known else []), *known.get("copies", [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _remove_empty_folders(folder: Path, top: Path) -> None:
    while folder != top and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _format_json(content: object) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
