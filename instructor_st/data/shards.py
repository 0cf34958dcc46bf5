"""Rows in Parquet files: one file a task, written whole or not at all, the same bytes for the same rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from instructor_st.data.schema import Row

__all__ = ["count_rows", "hash_file", "write_rows"]


def write_rows(path: str | Path, rows: Sequence[Row]) -> str:
    """Write rows in the row form: `query`, `positive`, `negative_1`, ..., each `[instruction, text]`, `task`, `label`.

    Rows with fewer negatives than others have nothing in the columns that they do not need.

    Args:
        path: The file, `.parquet`; its folder is made if need be.
        rows: The rows; no row gives a file of no rows.

    Returns:
        The SHA-256 of the file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.list_(pa.string())
    count = max((len(row.negatives) for row in rows), default=0)
    columns = {"query": pa.array([list(row.query) for row in rows], text)}
    columns["positive"] = pa.array([list(row.positive) for row in rows], text)
    for place in range(count):
        negatives = [list(row.negatives[place]) if place < len(row.negatives) else None for row in rows]
        columns[f"negative_{place + 1}"] = pa.array(negatives, text)
    columns["task"] = pa.array([row.task for row in rows], pa.string())
    columns["label"] = pa.array([row.label for row in rows], pa.string())
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        pq.write_table(pa.table(columns), partial, compression="zstd")
        digest = hash_file(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return digest


def count_rows(path: str | Path) -> int:
    """Count the rows of a Parquet file, without reading them.

    Args:
        path: The file.

    Returns:
        How many there are.
    """
    import pyarrow.parquet as pq

    return int(pq.read_metadata(Path(path)).num_rows)


def hash_file(path: str | Path) -> str:
    """Hash a file's bytes.

    Args:
        path: The file.

    Returns:
        Its SHA-256 in hexadecimal digits.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
