"""Files opened as bytes, unpacked on the way, and what is said of one that breaks off."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from instructor_st.data.sources.records import BadRecord, OnBadRecord, Record

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = [
    "PACKED_SUFFIXES",
    "BrokenOffError",
    "UnreadableFileError",
    "keep_good_records",
    "open_unpacked",
    "strip_packed",
]

PACKED_SUFFIXES = {".gz": "gzip", ".zst": "zstd"}
"""Endings of packed files and their compressions."""

_BUFFER_BYTES = 1 << 18


class UnreadableFileError(ValueError):
    """A file that cannot be read to its end; the message names it and its last good record."""


class BrokenOffError(Exception):
    """Says how a file breaks off; `keep_good_records` adds the file and its last good record."""


def strip_packed(name: str) -> str:
    """Take the ending of a packed file off its name.

    Args:
        name: A file name.

    Returns:
        The name without `.gz` or `.zst`.
    """
    for suffix in PACKED_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def open_unpacked(path: Path) -> BinaryIO:
    """Open a file for reading, unpacked if its name ends in `.gz` or `.zst`.

    Args:
        path: The file.

    Returns:
        Its bytes; reading them raises `BrokenOffError` where a packed file is cut or damaged.

    Raises:
        BrokenOffError: If a packed file has no byte.
        FileNotFoundError: If there is no such file.
    """
    compression = PACKED_SUFFIXES.get(path.suffix.lower())
    if compression is None:
        return open(path, "rb", buffering=_BUFFER_BYTES)
    import pyarrow

    if path.stat().st_size == 0:
        raise BrokenOffError(f"an empty file is no {compression} file")
    return io.BufferedReader(_Unpacked(pyarrow.CompressedInputStream(str(path), compression)), _BUFFER_BYTES)


def keep_good_records(path: Path, records: Iterator[Record | BadRecord], *, on_bad: OnBadRecord) -> Iterator[Record]:
    """Pass good records on, tell of bad ones, and name the last good one should the file break off.

    Args:
        path: The file.
        records: What its reader made of it.
        on_bad: Is told of each bad record.

    Yields:
        The good records.

    Raises:
        UnreadableFileError: If reading raises `BrokenOffError`.
    """
    last = "none"
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except BrokenOffError as error:
            raise UnreadableFileError(
                f"{path}: {error}. The last good record is {last}. Is the file whole? Get it again, or mend it there."
            ) from None
        if isinstance(record, BadRecord):
            on_bad(record)
            continue
        last = record.where
        yield record


class _Unpacked(io.RawIOBase):
    """The unpacked bytes of a stream; its errors become `BrokenOffError`."""

    # pyarrow notices a cut zstd file, which zstandard's own reader takes for a whole one.
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        try:
            return int(self._stream.readinto(buffer))
        except OSError as error:
            raise BrokenOffError(f"the packed file is cut or damaged ({error})") from None

    def close(self) -> None:
        self._stream.close()
        super().close()
