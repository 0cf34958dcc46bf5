"""Files of records, read one record at a time: JSON Lines, CSV and Parquet, each plain or packed with gzip or zstd."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from instructor_st.data.sources.csv_records import read_csv_records
from instructor_st.data.sources.packed_files import (
    PACKED_SUFFIXES,
    BrokenOffError,
    keep_good_records,
    open_unpacked,
    strip_packed,
)
from instructor_st.data.sources.records import BadRecord, OnBadRecord, Record, raise_bad_record

__all__ = [
    "MAX_RECORD_BYTES",
    "RECORD_SUFFIXES",
    "is_record_file",
    "list_arrow_rows",
    "list_data_files",
    "read_record_file",
]

MAX_RECORD_BYTES = 1_000_000
"""A record longer than this is bad; nothing of it is kept in memory beyond this length."""

RECORD_SUFFIXES = (".jsonl", ".csv", ".parquet")
"""Endings of record files; `.gz` or `.zst` may follow."""

_BATCH_ROWS = 256
_BUFFER_BYTES = 1 << 18
_CUT_WORD = re.compile(r"|-|\.|[eE][+-]?|t(ru?)?|f(a(ls?)?)?|n(ul?)?")
_Read = Iterator[Record | BadRecord]


def is_record_file(path: Path) -> bool:
    """Whether a file has the ending of a record file.

    Args:
        path: The file.

    Returns:
        Whether `read_record_file` reads it.
    """
    return strip_packed(path.name).lower().endswith(RECORD_SUFFIXES)


def list_data_files(folder: str | Path) -> list[Path]:
    """Find the row files of a folder, or take a single file.

    Args:
        folder: A folder (searched with its sub-folders) or a file.

    Returns:
        The files, sorted.

    Raises:
        FileNotFoundError: If the path does not exist or holds no file of a known kind.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist. Check the path; a relative one begins at {Path.cwd()}.")
    candidates = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in candidates if is_record_file(path)]
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no row file; known are {', '.join(RECORD_SUFFIXES)}, plain, .gz or .zst."
        )
    return files


def read_record_file(
    path: str | Path,
    *,
    on_bad: OnBadRecord = raise_bad_record,
    max_record_bytes: int = MAX_RECORD_BYTES,
    fill_short_rows: bool = False,
) -> Iterator[Record]:
    """Read a file record by record; memory does not grow with the file.

    Bad are: a line or a text that is not UTF-8, a JSON Lines line that is no JSON object, a CSV row with another number
    of cells than the header or a stray quote, and a record that is too long. `where` is `file:line` (for a CSV record of
    several lines the last one), for Parquet `file:row`, both from 1.

    Args:
        path: A `.csv` or `.parquet` file, or one of JSON Lines (any other ending); `.gz` or `.zst` may follow.
        on_bad: Is told of each bad record; by default it raises.
        max_record_bytes: The longest JSON Lines or CSV record.
        fill_short_rows: Whether missing cells at the end of a CSV row are `None` rather than a fault.

    Returns:
        The good records.

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableFileError: If the file ends in the middle of a record, or what packs it is cut or damaged; the message
            names the last good record.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    name = strip_packed(path.name).lower()
    if name.endswith(".csv"):
        records = read_csv_records(path, max_record_bytes=max_record_bytes, fill_short_rows=fill_short_rows)
    elif name.endswith(".parquet"):
        records = _read_parquet(path)
    else:
        records = _read_json_lines(path, max_record_bytes)
    return keep_good_records(path, records, on_bad=on_bad)


def list_arrow_rows(rows: Any) -> Iterator[dict[str, Any] | None]:
    """Turn Arrow rows into Python values.

    Args:
        rows: A `pyarrow.RecordBatch` or `pyarrow.Table`.

    Yields:
        Each row's columns, or `None` for a row with a text that is not UTF-8.
    """
    try:
        yield from rows.to_pylist()
    except UnicodeDecodeError:
        # Nothing has been yielded yet: the list is made whole or not at all.
        if rows.num_rows > 1:
            for number in range(rows.num_rows):
                yield from list_arrow_rows(rows.slice(number, 1))
        else:
            yield None


def _read_json_lines(path: Path, limit: int) -> _Read:
    with open_unpacked(path) as file:
        number = 0
        # Two bytes more, for the line end.
        while line := file.readline(limit + 2):
            number += 1
            if len(line) > limit and len(line.rstrip(b"\r\n")) > limit:
                while not line.endswith(b"\n") and (line := file.readline(_BUFFER_BYTES)):
                    pass
                yield BadRecord(f"{path}:{number}", f"longer than {limit:,} bytes")
            elif line.strip():
                yield _parse_json_line(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, f"{path}:{number}")


def _parse_json_line(line: bytes, where: str) -> Record | BadRecord:
    try:
        text = line.decode("utf-8")
        values = json.loads(text)
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            raise BrokenOffError(f"line {where.rsplit(':', 1)[1]} is cut within a character") from None
        return BadRecord(where, "not UTF-8", f"byte {error.start + 1} of the line; save the file as UTF-8")
    except json.JSONDecodeError as error:
        # Only the last line of a file can be without an end, and only it can be cut.
        if not line.endswith(b"\n") and _is_cut(text, error):
            raise BrokenOffError(f"line {where.rsplit(':', 1)[1]} is cut within its JSON") from None
        return BadRecord(where, "not JSON", f"{error.msg} at column {error.colno}; one JSON object a line is expected")
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits, and lists in lists in lists.
        return BadRecord(where, "not JSON", f"{error}; one JSON object a line is expected")
    if not isinstance(values, dict):
        return BadRecord(where, f"a JSON object is expected, not {type(values).__name__}")
    return Record(where, values)


def _is_cut(text: str, error: json.JSONDecodeError) -> bool:
    """Whether a text is the beginning of JSON rather than something else."""
    rest = text[error.pos :].rstrip()
    if error.msg.startswith("Unterminated string") or _CUT_WORD.fullmatch(rest):
        return True
    return error.msg.startswith("Invalid \\u") and len(rest) < len("\\u0000")


def _read_parquet(path: Path) -> _Read:
    if path.suffix.lower() not in PACKED_SUFFIXES:
        yield from _read_parquet_rows(path, path)
        return
    # Parquet is read from its end, so a packed file is unpacked to the disk.
    with tempfile.TemporaryFile() as unpacked:
        with open_unpacked(path) as file:
            shutil.copyfileobj(file, unpacked)
        yield from _read_parquet_rows(path, unpacked)


def _read_parquet_rows(path: Path, file: Path | IO[bytes]) -> _Read:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        # Buffered, or whole column chunks would be read, which may be as large as the file.
        with pyarrow.parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False) as parquet:
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS):
                for values in list_arrow_rows(batch):
                    number += 1
                    where = f"{path}:{number}"
                    yield BadRecord(where, "not UTF-8") if values is None else Record(where, values)
    except (pyarrow.ArrowException, OSError) as error:
        raise BrokenOffError(f"cannot be read as Parquet ({error})") from None
