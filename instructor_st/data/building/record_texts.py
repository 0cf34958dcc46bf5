"""The texts of a record, whatever its form: every string in it but ids, labels and what else names it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["is_text_column", "list_texts"]

# Columns that name a record, its class or its part; everything else is taken for a text.
_NO_TEXT = re.compile(r"(.*[_-])?ids?|[a-z]?(doc|query|corpus)?id|(.*[_-])?labels?([_-].*)?|class|split|task")


def is_text_column(name: str) -> bool:
    """Say whether a column may hold texts, by its name.

    Args:
        name: The column's name.

    Returns:
        False for the names of ids, labels, classes, splits and tasks.
    """
    return not _NO_TEXT.fullmatch(name.lower())


def list_texts(value: Any) -> Iterator[str]:
    """List the texts of a record.

    Args:
        value: The record, or a part of it: a string, a mapping or a list of such.

    Yields:
        Every string, those in lists and mappings too, but not those of columns that hold no text (`is_text_column`).
    """
    if isinstance(value, str):
        cell = _read_cell(value)
        if cell is value:
            yield value
        else:
            yield from list_texts(cell)
    elif isinstance(value, Mapping):
        for name, each in value.items():
            if is_text_column(str(name)):
                yield from list_texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from list_texts(each)


def _read_cell(value: str) -> Any:
    """CSV has no lists, so a cell may hold one as JSON (see `parse_row`)."""
    if value.startswith('["') and value.endswith('"]'):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value
