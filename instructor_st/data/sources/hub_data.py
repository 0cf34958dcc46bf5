"""Any data set of the Hugging Face Hub, streamed or downloaded, as records."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from instructor_st.data.sources.record_files import list_arrow_rows
from instructor_st.data.sources.records import BadRecord, OnBadRecord, Record, raise_bad_record

__all__ = ["HubDataError", "read_hub_data"]

_BATCH_ROWS = 256


class HubDataError(ValueError):
    """A data set that cannot be read, or not to its end; the message names it."""


def read_hub_data(
    name: str,
    *,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    streaming: bool = True,
    on_bad: OnBadRecord = raise_bad_record,
) -> Iterator[Record]:
    """Read a data set of the Hub; code that comes with one is never run.

    Args:
        name: Its id, or the path of a local folder that `datasets.load_dataset` can open.
        config: Its configuration.
        split: Its split.
        revision: A commit, a tag or a branch.
        streaming: Whether to stream it rather than to download it whole.
        on_bad: Is told of each row with a text that is not UTF-8; by default it raises.

    Returns:
        The rows, with their own columns; labels stay numbers. `where` is `id/config/split:N`, from 1.

    Raises:
        FileNotFoundError: If there is no such data set or revision, or it cannot be reached.
        HubDataError: If it has no such configuration or split, needs code of its own, or reading it fails; the message
            names the last good record.
    """
    place = "/".join(part for part in (name, config, split) if part)
    rows = _load(name, config, split, revision, streaming)
    return _iterate_records(rows, place, on_bad)


def _load(name: str, config: str | None, split: str, revision: str | None, streaming: bool) -> Any:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    # Before datasets 4 a user could be asked, or a variable be set, to run a data set's own code.
    refusal = {"trust_remote_code": False} if "trust_remote_code" in inspect.signature(load_dataset).parameters else {}
    at = f" at revision {revision!r}" if revision else ""
    try:
        rows = load_dataset(name, config, split=split, revision=revision, streaming=streaming, **refusal)
    except (FileNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"Hub data set {name!r}{at}: not there, or not to be reached ({error}). Check id and revision; a private or "
            "gated one needs `hf auth login`, and HF_HUB_OFFLINE must not be set unless it is in the cache."
        ) from error
    except (DatasetsError, OSError, RuntimeError, ValueError) as error:
        raise HubDataError(
            f"Hub data set {name!r}{at}, configuration {config!r}, split {split!r}: it cannot be read: {error}"
        ) from error
    # As Arrow tables, whose rows can be checked one by one; images and sounds are not decoded.
    return rows.with_format("arrow")


def _iterate_records(rows: Any, place: str, on_bad: OnBadRecord) -> Iterator[Record]:
    number = 0
    last = "none"
    batches = rows.iter(batch_size=_BATCH_ROWS)
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:  # What a data set's reader raises, down to the network's errors, is not bounded.
            raise HubDataError(
                f"Hub data set {place}: reading fails ({error}). The last good record is {last}. Try again, or without "
                "streaming, which downloads it first."
            ) from error
        if batch is None:
            return
        for values in list_arrow_rows(batch):
            number += 1
            where = f"{place}:{number}"
            if values is None:
                on_bad(BadRecord(where, "not UTF-8"))
                continue
            last = where
            yield Record(where, values)
