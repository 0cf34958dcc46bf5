"""A Super-NaturalInstructions checkout: a JSON file a task, with a definition and instances."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instructor_st.data.sources.json_walk import JsonWalk
from instructor_st.data.sources.packed_files import BrokenOffError, keep_good_records, open_unpacked
from instructor_st.data.sources.record_files import MAX_RECORD_BYTES
from instructor_st.data.sources.records import BadRecord, OnBadRecord, Record, raise_bad_record

__all__ = ["read_natural_instructions"]


def read_natural_instructions(
    checkout: str | Path,
    task: str,
    *,
    on_bad: OnBadRecord = raise_bad_record,
    max_record_characters: int = MAX_RECORD_BYTES,
) -> Iterator[Record]:
    """Read the instances of a task one by one; memory does not grow with the file.

    Args:
        checkout: The checkout's folder; the tasks lie in its `tasks/`.
        task: The task's file name without `.json`.
        on_bad: Is told of each instance that cannot be used; by default it raises.
        max_record_characters: The longest instance.

    Returns:
        A record for each output of each instance, with the columns input, output, definition and id (`None` where the
        instance has none); `where` is `file:instance N`, from 1.

    Raises:
        FileNotFoundError: If there is no such checkout or task.
        UnreadableFileError: If the file has no definition or no instances, or breaks off; the message names the last
            good instance.
    """
    path = Path(checkout) / "tasks" / f"{task}.json"
    if not path.is_file():
        raise FileNotFoundError(_explain_missing(Path(checkout), task))
    return keep_good_records(path, _iterate_instances(path, max_record_characters), on_bad=on_bad)


def _explain_missing(checkout: Path, task: str) -> str:
    folder = checkout / "tasks"
    if not folder.is_dir():
        return (
            f"{folder}: no such folder. Get the tasks with `git clone https://github.com/allenai/natural-instructions` "
            "and give the folder of the checkout."
        )
    near = difflib.get_close_matches(task.removesuffix(".json"), (path.stem for path in folder.glob("*.json")), n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "a task is named like its file, without .json."
    return f"{folder}: no task {task!r}; {hint}"


def _iterate_instances(path: Path, max_characters: int) -> Iterator[Record | BadRecord]:
    definition = _read_definition(path, max_characters)
    with open_unpacked(path) as file:
        walk = JsonWalk(file, max_characters=max_characters)
        has_instances = False
        for key in walk.walk_keys():
            if key != "Instances":
                walk.skip_value()
                continue
            has_instances = True
            for number, instance in enumerate(walk.walk_items(), 1):
                where = f"{path}:instance {number}"
                if instance.fault:
                    yield BadRecord(where, instance.fault, instance.detail)
                else:
                    yield from _build_records(where, instance.value, definition)
        walk.finish()
    if not has_instances:
        raise BrokenOffError("no 'Instances' in it, so this is no task of Super-NaturalInstructions")


def _read_definition(path: Path, max_characters: int) -> str:
    with open_unpacked(path) as file:
        walk = JsonWalk(file, max_characters=max_characters)
        for key in walk.walk_keys():
            if key != "Definition":
                walk.skip_value()
                continue
            value = walk.read_value().value
            parts = [value] if isinstance(value, str) else value
            if isinstance(parts, list) and parts and all(isinstance(part, str) for part in parts):
                return "\n".join(parts)
            raise BrokenOffError("its 'Definition' is no list of strings")
    raise BrokenOffError("no 'Definition' in it, so this is no task of Super-NaturalInstructions")


def _build_records(where: str, instance: Any, definition: str) -> Iterator[Record | BadRecord]:
    if not isinstance(instance, dict):
        yield BadRecord(where, f"a JSON object is expected, not {type(instance).__name__}")
        return
    for key in ("input", "output"):
        if key not in instance:
            yield BadRecord(where, f"no {key!r}", f"it has {', '.join(map(repr, instance)) or 'nothing'}")
            return
    text, outputs = instance["input"], instance["output"]
    if not isinstance(text, str):
        yield BadRecord(where, "'input' is no string", f"it is {repr(text)[:80]}")
    elif not isinstance(outputs, list) or not outputs or not all(isinstance(output, str) for output in outputs):
        yield BadRecord(where, "'output' is no list of strings", f"it is {repr(outputs)[:80]}")
    else:
        for output in outputs:
            values = {"input": text, "output": output, "definition": definition, "id": instance.get("id")}
            yield Record(where, values)
