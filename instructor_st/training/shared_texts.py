"""Which texts of a data set stand in more than one of its rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["find_shared_texts"]

IntArray = npt.NDArray[np.int64]

_NO_TEXT = bytes(8)
_ROWS_AT_ONCE = 10_000


def find_shared_texts(dataset: Dataset, *, ignored_columns: Collection[str] = ()) -> IntArray:
    """Number the texts that more than one row holds, in whatever columns.

    A cell is a text, or `[instruction, text]` (or `{"instruction": ..., "text": ...}`), whose text counts whatever its
    instruction. Two texts are the same if their 64-bit BLAKE2 hashes are. Columns of anything else are not read.

    Args:
        dataset: The rows. A transform that is set on them is not applied.
        ignored_columns: Columns that are not embedded, such as labels.

    Returns:
        `(rows, text columns)`: the number of the cell's text where another row holds that text too, else -1. No row
        has a number twice.

    Raises:
        ValueError: If a cell is a list of strings of another length than two.
    """
    schema = dataset.features.arrow_schema
    names = [name for name in schema.names if name not in ignored_columns and _is_text(schema.field(name).type)]
    hashes = np.zeros((len(dataset), len(names)), dtype=np.uint64)
    if names:
        begin = 0
        for table in dataset.with_format("arrow").select_columns(names).iter(batch_size=_ROWS_AT_ONCE):
            for place, name in enumerate(names):
                hashes[begin : begin + table.num_rows, place] = _hash(_read_texts(table.column(name), name))
            begin += table.num_rows
    return _number_shared(hashes)


def _is_text(kind: Any) -> bool:
    """Tell a column of texts, of lists of strings or of instruction and text, by its Arrow type."""
    import pyarrow.types as types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
    elif types.is_struct(kind):
        place = kind.get_field_index("text")
        kind = kind.field(place).type if place >= 0 else kind
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _read_texts(column: Any, name: str) -> list[str | None]:
    import pyarrow.compute as compute
    import pyarrow.types as types

    if types.is_struct(column.type):
        column = compute.struct_field(column, "text")
    elif not (types.is_string(column.type) or types.is_large_string(column.type)):
        lengths = {
            length for length in compute.unique(compute.list_value_length(column)).to_pylist() if length is not None
        }
        if lengths - {2}:
            raise ValueError(
                f"Column {name!r} has a list of {min(lengths - {2})} strings, where [instruction, text] has two. Mend the "
                "rows, or let batches hold duplicates (allow_duplicates=True)."
            )
        column = compute.list_element(column, 1)
    texts: list[str | None] = column.to_pylist()
    return texts


def _hash(texts: Sequence[str | None]) -> npt.NDArray[np.uint64]:
    """Hash texts alike in every process, which Python's own salted hash does not."""
    digests = (_NO_TEXT if text is None else blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), dtype="<u8")


def _number_shared(hashes: npt.NDArray[np.uint64]) -> IntArray:
    """Number the hashes that stand in several rows; 0 is no text."""
    if not hashes.size:
        return np.full(hashes.shape, -1, dtype=np.int64)
    ordered = np.sort(hashes, axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = 0
    values, numbers, counts = np.unique(ordered, return_inverse=True, return_counts=True)
    shared = (counts > 1) & (values != 0)
    renumbered = np.where(shared, np.cumsum(shared) - 1, -1)
    return renumbered[numbers.reshape(hashes.shape)]
