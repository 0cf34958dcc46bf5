"""Every source of a mixture, opened the same way: a stream of records whose texts are sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from instructor_st.data.sources.hub_data import read_hub_data
from instructor_st.data.sources.medi_file import read_medi_file
from instructor_st.data.sources.natural_instructions import read_natural_instructions
from instructor_st.data.sources.record_files import list_data_files, read_record_file
from instructor_st.data.sources.records import BadRecord, OnBadRecord, Record, raise_bad_record
from instructor_st.data.sources.specs import (
    FileSource,
    HubSource,
    MediSource,
    NaturalInstructionsSource,
    RegistrySource,
    Source,
)
from instructor_st.tasks import get_task

__all__ = ["open_source"]


def open_source(source: Source, *, on_bad: OnBadRecord = raise_bad_record) -> Iterator[Record]:
    """Open a source of a mixture.

    A record with a NUL character or a lone surrogate in a text is bad, whatever it was read from: no tokenizer and no
    Parquet file takes them.

    Args:
        source: The source. A folder's files are read one after the other, by name.
        on_bad: Is told of each record that cannot be used; by default it raises.

    Returns:
        The good records, read as they are asked for. The columns are the source's own; MEDI and Super-NaturalInstructions
        have those that `read_medi_file` and `read_natural_instructions` name, a task of the registry has query,
        positive, negative and label.

    Raises:
        FileNotFoundError: If the source is not there.
        KeyError: If a task of the registry is not there.
        HubDataError: If a Hub data set has no such configuration or split, or cannot be read.
        UnreadableFileError: While reading, if a file breaks off; the message names the last good record.
    """
    return _keep_sound_texts(_open(source, on_bad), on_bad)


def _open(source: Source, on_bad: OnBadRecord) -> Iterator[Record]:
    if isinstance(source, FileSource):
        return _read_files(list_data_files(source.files), on_bad)
    if isinstance(source, MediSource):
        return read_medi_file(source.medi, task_id=source.task_id, on_bad=on_bad)
    if isinstance(source, NaturalInstructionsSource):
        return read_natural_instructions(source.natural_instructions, source.task, on_bad=on_bad)
    if isinstance(source, HubSource):
        return read_hub_data(
            source.hub,
            config=source.config,
            split=source.split,
            revision=source.revision,
            streaming=source.streaming,
            on_bad=on_bad,
        )
    return _list_examples(source)


def _read_files(paths: list[Path], on_bad: OnBadRecord) -> Iterator[Record]:
    for path in paths:
        yield from read_record_file(path, on_bad=on_bad)


def _list_examples(source: RegistrySource) -> Iterator[Record]:
    """The worked examples of a task of the registry; the held-out one is for evaluation."""
    task = get_task(source.registry)
    return iter(
        [
            Record(
                f"registry/{task.name}:example {number}",
                {
                    "query": example.query,
                    "positive": example.positive,
                    "negative": example.negative,
                    "label": example.label,
                },
            )
            for number, example in enumerate(task.examples, 1)
            if not example.held_out
        ]
    )


def _keep_sound_texts(records: Iterator[Record], on_bad: OnBadRecord) -> Iterator[Record]:
    for record in records:
        bad = _find_unsound_text(record)
        if bad is None:
            yield record
        else:
            on_bad(bad)


def _find_unsound_text(record: Record) -> BadRecord | None:
    for column, value in record.values.items():
        parts: list[Any] = [value]
        while parts:
            part = parts.pop()
            if isinstance(part, str):
                if "\0" in part:
                    return BadRecord(record.where, "a NUL character", f"in column {column!r}; take it out")
                if not part.isascii() and not _is_unicode(part):
                    return BadRecord(
                        record.where, "a lone surrogate", f"in column {column!r}; half a character is lost"
                    )
            elif isinstance(part, Mapping):
                parts += [*part.keys(), *part.values()]
            elif isinstance(part, (list, tuple)):
                parts += part
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
