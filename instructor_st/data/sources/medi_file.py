"""The released MEDI: one huge JSON list of queries, positives and negatives, each with its instruction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instructor_st.data.sources.json_walk import JsonWalk
from instructor_st.data.sources.packed_files import keep_good_records, open_unpacked
from instructor_st.data.sources.record_files import MAX_RECORD_BYTES
from instructor_st.data.sources.records import BadRecord, OnBadRecord, Record, raise_bad_record

__all__ = ["read_medi_file"]

_SIDES = ("query", "pos", "neg")


def read_medi_file(
    path: str | Path,
    *,
    task_id: int | None = None,
    on_bad: OnBadRecord = raise_bad_record,
    max_record_characters: int = MAX_RECORD_BYTES,
) -> Iterator[Record]:
    """Read MEDI's own file item by item; memory does not grow with the file.

    An item reads `{"query": [instruction, text], "pos": [instruction, text], "neg": [instruction, text], "task_id": 1}`.

    Args:
        path: `medi-data.json`; it may be packed (`.gz`, `.zst`).
        task_id: The items of this task only.
        on_bad: Is told of each item that cannot be used; by default it raises.
        max_record_characters: The longest item.

    Returns:
        The records, with the columns query, positive, negative, query_instruction, document_instruction (the positive's)
        and task_id; `where` is `file:item N`, from 1.

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableFileError: If the file is no JSON list, or breaks off; the message names the last good item.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file. Download MEDI (the README of https://github.com/xlang-ai/instructor-embedding has "
            "the link), unpack it and give the path of its medi-data.json."
        )
    return keep_good_records(path, _iterate_items(path, task_id, max_record_characters), on_bad=on_bad)


def _iterate_items(path: Path, task_id: int | None, max_characters: int) -> Iterator[Record | BadRecord]:
    with open_unpacked(path) as file:
        walk = JsonWalk(file, max_characters=max_characters)
        for number, item in enumerate(walk.walk_items(), 1):
            where = f"{path}:item {number}"
            if item.fault:
                yield BadRecord(where, item.fault, item.detail)
            elif not (task_id is not None and isinstance(item.value, dict) and _is_of_other_task(item.value, task_id)):
                yield _build_record(where, item.value)
        walk.finish()


def _is_of_other_task(item: dict[str, Any], task_id: int) -> bool:
    return _is_whole(item.get("task_id")) and item["task_id"] != task_id


def _build_record(where: str, item: Any) -> Record | BadRecord:
    if not isinstance(item, dict):
        return BadRecord(where, f"a JSON object is expected, not {type(item).__name__}")
    for key in (*_SIDES, "task_id"):
        if key not in item:
            return BadRecord(where, f"no {key!r}", f"it has {', '.join(map(repr, item)) or 'nothing'}")
    for key in _SIDES:
        side = item[key]
        if not isinstance(side, list) or len(side) != 2 or not all(isinstance(part, str) for part in side):
            return BadRecord(where, f"{key!r} is not [instruction, text]", f"it is {repr(side)[:80]}")
    if not _is_whole(item["task_id"]):
        return BadRecord(where, "'task_id' is no whole number", f"it is {repr(item['task_id'])[:80]}")
    (query_instruction, query), (document_instruction, positive), (_, negative) = (item[key] for key in _SIDES)
    values = {
        "query": query,
        "positive": positive,
        "negative": negative,
        "query_instruction": query_instruction,
        "document_instruction": document_instruction,
        "task_id": item["task_id"],
    }
    return Record(where, values)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
