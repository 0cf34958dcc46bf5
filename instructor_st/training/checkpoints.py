"""Checkpoints that are whole: marked when the last of their files is written, and only then resumed from."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from instructor_st.atomic_files import write_text

__all__ = [
    "CheckpointError",
    "find_last_checkpoint",
    "is_interrupted",
    "is_whole",
    "list_checkpoints",
    "mark_whole",
    "remove_broken_checkpoints",
    "remove_mark",
]

_MARK = "complete.json"
_NAME = re.compile(r"checkpoint-(\d+)")


class CheckpointError(OSError):
    """A checkpoint that cannot be written or resumed from; the message names it, and the last whole one."""


def mark_whole(folder: str | Path) -> None:
    """Mark a checkpoint as whole, with the sizes of its files.

    Args:
        folder: The checkpoint; nothing is written to it afterwards.
    """
    folder = Path(folder)
    write_text(folder / _MARK, json.dumps({"bytes": _measure_files(folder)}, indent=1))


def remove_mark(folder: str | Path) -> None:
    """Take a checkpoint's mark away before it is written anew.

    Args:
        folder: The checkpoint; it need not be there.
    """
    (Path(folder) / _MARK).unlink(missing_ok=True)


def is_whole(folder: str | Path) -> bool:
    """Tell whether a checkpoint was written to its end and is as it was written.

    Args:
        folder: The checkpoint.

    Returns:
        Whether it was marked, and every file that it had then is there in its size.
    """
    folder = Path(folder)
    try:
        expected = json.loads((folder / _MARK).read_text(encoding="utf-8"))["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    found = _measure_files(folder)
    return isinstance(expected, dict) and all(found.get(name) == size for name, size in expected.items())


def is_interrupted(folder: str | Path) -> bool:
    """Tell whether the writing of a checkpoint was interrupted, or its files have changed.

    Args:
        folder: The checkpoint.

    Returns:
        Whether nothing can go on from it. A checkpoint without a mark that has the trainer's state, which is written
        last, may be another program's and counts as usable.
    """
    folder = Path(folder)
    return not is_whole(folder) and ((folder / _MARK).exists() or not (folder / "trainer_state.json").exists())


def find_last_checkpoint(output: str | Path) -> Path | None:
    """Find the whole checkpoint with the highest step.

    Args:
        output: The folder that training writes to.

    Returns:
        The checkpoint, or nothing if there is none.
    """
    whole = [path for path in _list_checkpoints(Path(output)) if is_whole(path)]
    return whole[-1] if whole else None


def list_checkpoints(output: str | Path) -> list[Path]:
    """List the checkpoints of a folder, whole or not.

    Args:
        output: The folder that training writes to.

    Returns:
        Their folders, in the order of their steps.
    """
    return _list_checkpoints(Path(output))


def remove_broken_checkpoints(output: str | Path) -> list[str]:
    """Take away checkpoints whose writing was interrupted, or that have changed: nothing can go on from them.

    What may be another program's is left alone; see `is_interrupted`.

    Args:
        output: The folder that training writes to.

    Returns:
        The names of those that were removed.
    """
    broken = [path for path in _list_checkpoints(Path(output)) if is_interrupted(path)]
    for path in broken:
        shutil.rmtree(path)
    return [path.name for path in broken]


def _list_checkpoints(output: Path) -> list[Path]:
    if not output.is_dir():
        return []
    steps = {path: match for path in output.iterdir() if path.is_dir() and (match := _NAME.fullmatch(path.name))}
    return sorted(steps, key=lambda path: int(steps[path].group(1)))


def _measure_files(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != _MARK)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(files)}
