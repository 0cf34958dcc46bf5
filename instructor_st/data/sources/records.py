"""What a source gives: records that say where they stand, and bad ones that say why they are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["BadRecord", "BadRecordError", "OnBadRecord", "Record", "raise_bad_record"]


@dataclass(frozen=True)
class Record:
    """One record of a source.

    Attributes:
        where: `file:line`, or the like (`file:row 17`, `hub-id/config/split:17`).
        values: Column names and values.
    """

    where: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be used.

    Attributes:
        where: `file:line`, or the like.
        reason: A short reason to count by, the same for all records with this fault (`not JSON`, `no column 'text'`).
        detail: What exactly is wrong and how to mend it, or nothing.
    """

    where: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}{f' ({self.detail})' if self.detail else ''}"


class BadRecordError(ValueError):
    """A bad record where none is tolerated.

    Attributes:
        record: The record.
    """

    def __init__(self, record: BadRecord):
        super().__init__(str(record))
        self.record = record


OnBadRecord = Callable[[BadRecord], None]
"""Is told of each bad record: it counts it, or raises."""


def raise_bad_record(record: BadRecord) -> None:
    """Stop at the first bad record.

    Args:
        record: The record.

    Raises:
        BadRecordError: Always.
    """
    raise BadRecordError(record)
