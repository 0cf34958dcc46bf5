"""CSV read record by record: a bad one costs itself, and a long one no memory."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from instructor_st.data.sources.packed_files import BrokenOffError, open_unpacked
from instructor_st.data.sources.records import BadRecord, Record

__all__ = ["read_csv_records"]


@dataclass(frozen=True)
class _Row:
    where: str
    cells: list[str]


class _TooLongError(Exception):
    """A record is longer than the limit; it has been skipped."""


def read_csv_records(path: Path, *, max_record_bytes: int, fill_short_rows: bool) -> Iterator[Record | BadRecord]:
    """Read a CSV file with a header.

    Args:
        path: The file, plain or packed.
        max_record_bytes: The longest record.
        fill_short_rows: Whether missing cells at the end of a row are `None` rather than a fault.

    Yields:
        The records, good and bad; blank lines are none. `where` names a record's last line.

    Raises:
        BrokenOffError: If the header cannot be read, or the file ends within quotes.
    """
    # The module's own limit on a field (128 kB) is lower than ours, and holds for the process.
    csv.field_size_limit(max(csv.field_size_limit(), min(max_record_bytes, 2**31 - 1)))
    with open_unpacked(path) as file:
        rows = _iterate_rows(path, _Lines(file, max_record_bytes))
        header = next(rows, None)
        if header is None:
            return
        if isinstance(header, BadRecord):
            raise BrokenOffError(f"the header, {header}")
        if twice := [name for name, count in Counter(header.cells).items() if name and count > 1]:
            raise BrokenOffError(f"the header has {', '.join(map(repr, twice))} twice")
        for row in rows:
            yield row if isinstance(row, BadRecord) else _build_record(header.cells, row, fill_short_rows)


def _iterate_rows(path: Path, lines: _Lines) -> Iterator[_Row | BadRecord]:
    reader = csv.reader(lines, strict=True)
    while True:
        first = lines.start_record()
        try:
            cells = next(reader, None)
        except _TooLongError:
            yield BadRecord(f"{path}:{lines.number}", f"longer than {lines.limit:,} bytes", f"from line {first} on")
            continue
        except csv.Error as error:
            if lines.at_end:
                raise BrokenOffError(f"the record from line {first} on has a quote that is not closed") from None
            yield BadRecord(f"{path}:{lines.number}", "not CSV", f"from line {first} on: {error}; is a quote missing?")
            continue
        if cells is None:
            return
        where = f"{path}:{lines.number}"
        if not lines.is_utf8:
            yield BadRecord(where, "not UTF-8", "save the file as UTF-8")
        elif cells:
            yield _Row(where, cells)


def _build_record(header: list[str], row: _Row, fill_short_rows: bool) -> Record | BadRecord:
    counts = f"{len(row.cells)} instead of {len(header)}"
    if len(row.cells) > len(header):
        return BadRecord(row.where, "more cells than the header has", f"{counts}; is a quote missing?")
    if len(row.cells) < len(header) and not fill_short_rows:
        return BadRecord(row.where, "fewer cells than the header has", f"{counts}; is it cut, or a quote missing?")
    return Record(row.where, dict.fromkeys(header) | dict(zip(header, row.cells, strict=False)))


class _Lines:
    """A file's lines for `csv.reader`, which asks for as many as a record has."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._record_bytes = 0
        self._record_quotes = 0
        self.limit = limit
        self.number = 0
        self.at_end = False
        self.is_utf8 = True

    def start_record(self) -> int:
        """Forget the last record; return the number of the next one's first line."""
        self._record_bytes = self._record_quotes = 0
        self.is_utf8 = True
        return self.number + 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        # Two bytes more, for the line end.
        line = self._file.readline(self.limit + 2)
        if not line:
            self.at_end = True
            raise StopIteration
        self._record_bytes += len(line.rstrip(b"\r\n"))
        self._record_quotes += line.count(b'"')
        if self._record_bytes > self.limit:
            self._skip_record(line)
            raise _TooLongError
        self.number += 1
        if self.number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            # The record is bad, and yet its quotes must be followed to its end.
            self.is_utf8 = False
            return line.decode("utf-8", "replace")

    def _skip_record(self, line: bytes) -> None:
        """Read on to the next line end outside quotes."""
        first = self.number + 1
        while not (line.endswith(b"\n") and self._record_quotes % 2 == 0):
            self.number += line.endswith(b"\n")
            line = self._file.readline(1 << 18)
            if not line:
                if self._record_quotes % 2:
                    raise BrokenOffError(f"the record with line {first} has a quote that is not closed")
                break
            self._record_quotes += line.count(b'"')
        self.number += 1
