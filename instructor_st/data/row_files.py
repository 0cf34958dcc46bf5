"""Reading of row files: JSON Lines, CSV and Parquet, each plain or packed with gzip or zstd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from instructor_st.data.schema import Row, TrainingRow, parse_row, parse_training_row
from instructor_st.data.sources.packed_files import strip_packed
from instructor_st.data.sources.record_files import list_data_files, read_record_file

__all__ = ["read_records", "read_rows", "read_training_rows"]

# Rows that are there to be trained on may be of any length.
_NO_LIMIT = 1 << 40


def read_records(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a file record by record, without holding it in memory.

    Args:
        path: A `.jsonl`, `.csv` or `.parquet` file, plain or packed (`.gz`, `.zst`).

    Yields:
        Where the record stands (`file:line`, for Parquet the row from 1) and its columns.

    Raises:
        ValueError: If a line is not a JSON object, or a CSV line has more cells than the header.
    """
    # A row may leave out its last negatives, so short CSV lines are filled.
    for record in read_record_file(path, max_record_bytes=_NO_LIMIT, fill_short_rows=True):
        yield record.where, dict(record.values)


def read_rows(
    folder: str | Path,
    *,
    query_instruction: str = "",
    document_instruction: str = "",
    report: Counter[str] | None = None,
) -> Iterator[Row]:
    """Read all rows of a folder.

    Rows whose query or positive is blank are left out and counted, not passed over in silence.

    Args:
        folder: A folder or a file; see `list_data_files`. A file's name is the task of rows that name none.
        query_instruction: The instruction of queries that bring none.
        document_instruction: The instruction of documents that bring none.
        report: Receives the counts: rows read, rows left out by reason, columns ignored.

    Yields:
        The rows.

    Raises:
        ValueError: If a record is not a row; the message names `file:line`.
    """
    for row in _read_rows(parse_row, folder, query_instruction, document_instruction, report):
        if isinstance(row, Row):
            yield row


def read_training_rows(
    folder: str | Path,
    *,
    query_instruction: str = "",
    document_instruction: str = "",
    report: Counter[str] | None = None,
) -> Iterator[TrainingRow]:
    """Read all rows of a folder, of whatever kind: pairs, graded pairs, texts with a class.

    Args:
        folder: A folder or a file; see `list_data_files`. A file's name is the task of rows that name none.
        query_instruction: The instruction of texts that bring none.
        document_instruction: The instruction of documents that bring none.
        report: Receives the counts, as in `read_rows`.

    Returns:
        The rows, as they are read.

    Raises:
        ValueError: If a record is not a row; the message names `file:line`.
    """
    return _read_rows(parse_training_row, folder, query_instruction, document_instruction, report)


def _read_rows(
    parse: Callable[..., TrainingRow],
    folder: str | Path,
    query_instruction: str,
    document_instruction: str,
    report: Counter[str] | None,
) -> Iterator[TrainingRow]:
    report = Counter() if report is None else report
    for path in list_data_files(folder):
        task = strip_packed(path.name.lower()).rsplit(".", 1)[0]
        for where, record in read_records(path):
            row = parse(
                record,
                where,
                task=task,
                query_instruction=query_instruction,
                document_instruction=document_instruction,
            )
            report.update(f"column {name!r} of {path.name} is not used" for name in row.ignored)
            needed = row.texts[:2]
            if any(not text.text.strip() for text in needed):
                report[f"left out: blank {'query or positive' if isinstance(row, Row) else 'text'}"] += 1
                continue
            report["rows read"] += 1
            yield row
