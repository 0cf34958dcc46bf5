"""Shards of rows: whole, readable by the trainer's reader, and the same bytes for the same rows."""

from __future__ import annotations

import hashlib

import pytest

from instructor_st.data import Row, read_rows
from instructor_st.data.shards import hash_file, write_rows
from instructor_st.pairs import InstructedText

ROWS = [
    Row(InstructedText("q: ", "one"), InstructedText("d: ", "uno"), (), "t"),
    Row(InstructedText("", "two"), InstructedText("d: ", "due"), (InstructedText("d: ", "x"), InstructedText("", "y")), "t", "b"),
]  # fmt: skip


def test_rows_come_back_as_they_were(tmp_path):
    digest = write_rows(tmp_path / "new" / "t.parquet", ROWS)
    assert list(read_rows(tmp_path)) == ROWS
    assert digest == hash_file(tmp_path / "new" / "t.parquet")
    assert digest == hashlib.sha256((tmp_path / "new" / "t.parquet").read_bytes()).hexdigest()
    assert write_rows(tmp_path / "again.parquet", ROWS) == digest
    assert write_rows(tmp_path / "again.parquet", ROWS[:1]) != digest


def test_nothing_half_written_is_left(tmp_path):
    write_rows(tmp_path / "t.parquet", ROWS)
    before = (tmp_path / "t.parquet").read_bytes()
    broken = Row(InstructedText("q: ", "one"), InstructedText("d: ", "\ud800"), (), "t")
    with pytest.raises(UnicodeEncodeError):
        write_rows(tmp_path / "t.parquet", [broken])
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]
    assert (tmp_path / "t.parquet").read_bytes() == before
