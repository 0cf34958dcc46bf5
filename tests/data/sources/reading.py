"""Reads a source whole, for tests."""

from __future__ import annotations

from instructor_st.data.sources.open_source import open_source


def read_all(source):
    """Read a source; give places (without the folder) and values of good records, and places and reasons of bad ones."""
    bad = []
    good = [(name_place(record.where), dict(record.values)) for record in open_source(source, on_bad=bad.append)]
    return good, [(name_place(record.where), record.reason) for record in bad]


def name_place(where):
    return where.rsplit("/", 1)[-1]
