"""Texts of evaluation sets, which must not be trained on: held as hashes, and found whole."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from instructor_st.data.row_files import read_records
from instructor_st.data.sources.packed_files import strip_packed
from instructor_st.data.sources.record_files import list_data_files

__all__ = ["MIN_CHARACTERS", "EvaluationTexts", "normalize_text"]

MIN_CHARACTERS = 20
"""A shorter text tells nothing: `thank you` stands in an evaluation set and in half of all training sets."""

# Columns that name a record, its class or its part; everything else is taken for a text.
_NO_TEXT = re.compile(r"(.*[_-])?ids?|[a-z]?(doc|query|corpus)?id|(.*[_-])?labels?([_-].*)?|class|split|task")


def normalize_text(text: str) -> str:
    """Bring a text to the form in which texts are compared.

    Args:
        text: The text.

    Returns:
        The text after Unicode NFKC and case folding, each run of white space one space, none at the ends.
    """
    # Case folding takes some letters apart, so that NFKC has to follow it too.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


class EvaluationTexts:
    """The texts of evaluation sets.

    A text matches if its normalised form (`normalize_text`) equals that of an evaluation text and has at least
    `MIN_CHARACTERS` characters; shorter ones are not telling. Only whole texts match: one that is quoted in a longer one,
    or changed by a word, does not. Twelve bytes a text are held, its hash (8 bytes) and its file; that a text matches by
    chance has the odds of one in 10 ** 13 with a million evaluation texts.

    Attributes:
        too_short: How many texts were not taken, since they are shorter than `MIN_CHARACTERS`.
    """

    def __init__(self, texts: Mapping[str, Iterable[str]]):
        """Hold texts.

        Args:
            texts: The texts of each evaluation set by its name; a text of several sets is the first one's.
        """
        import numpy as np

        self.too_short = 0
        self._names = tuple(texts)
        hashes, owners = array("Q"), array("I")
        for owner, name in enumerate(self._names):
            for text in texts[name]:
                normalized = normalize_text(text)
                if len(normalized) < MIN_CHARACTERS:
                    self.too_short += bool(normalized)
                    continue
                hashes.append(_hash_text(normalized))
                owners.append(owner)
        # `unique` gives the place of each first occurrence, hence the first owner.
        self._hashes, first = np.unique(np.array(hashes, dtype=np.uint64), return_index=True)
        self._owners = np.array(owners, dtype=np.uint32)[first]

    @classmethod
    def read(cls, paths: Iterable[str | Path]) -> EvaluationTexts:
        """Read all texts of evaluation files.

        A text is every string in a record, in its lists and mappings too, but for the columns of ids, labels, splits and
        task names. Instructions are texts as well, since nothing tells `[instruction, text]` from two references.

        Args:
            paths: Files or folders of records (JSON Lines, CSV, Parquet; plain or packed).

        Returns:
            The texts; `find` calls a file by its name without endings.

        Raises:
            FileNotFoundError: If a folder holds no record file.
            ValueError: If a path does not exist, or a record cannot be read.
        """
        files: dict[str, list[Path]] = {}
        for path in [paths] if isinstance(paths, (str, Path)) else paths:
            if not Path(path).exists():
                raise ValueError(
                    f"Evaluation texts: {str(path)!r} does not exist. Texts are wanted, in a file or a folder of .jsonl, "
                    ".csv or .parquet files; the name of an evaluation task is not enough: save its texts to a file first."
                )
            for file in list_data_files(path):
                files.setdefault(strip_packed(file.name).rpartition(".")[0], []).append(file)
        return cls({stem: _read_texts(same_stem) for stem, same_stem in files.items()})

    def find(self, text: str) -> str | None:
        """Say which evaluation set a text is of.

        Args:
            text: The text.

        Returns:
            The set's name (for files their stem), or nothing if it is of none.
        """
        import numpy as np

        # A plain integer would make numpy turn all hashes into floating-point numbers, which takes time and rounds.
        wanted = np.uint64(_hash_text(normalize_text(text)))
        place = int(np.searchsorted(self._hashes, wanted))
        if place == len(self._hashes) or self._hashes[place] != wanted:
            return None
        return self._names[int(self._owners[place])]

    def __contains__(self, text: str) -> bool:
        return self.find(text) is not None

    def __len__(self) -> int:
        """Count the different texts."""
        return len(self._hashes)

    def count_matches(self, texts: Iterable[str]) -> Counter[str]:
        """Count how many texts are of evaluation sets.

        Args:
            texts: The texts; one that stands there twice counts twice.

        Returns:
            The number of matches by the set's name.
        """
        return Counter(name for text in texts if (name := self.find(text)) is not None)


def _hash_text(normalized: str) -> int:
    # JSON may hold lone surrogates, which have no UTF-8.
    data = normalized.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _read_texts(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        for _, record in read_records(file):
            yield from _list_texts(record)


def _list_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        cell = _read_cell(value)
        if cell is value:
            yield value
        else:
            yield from _list_texts(cell)
    elif isinstance(value, Mapping):
        for name, each in value.items():
            if not _NO_TEXT.fullmatch(str(name).lower()):
                yield from _list_texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _list_texts(each)


def _read_cell(value: str) -> Any:
    """CSV has no lists, so a cell may hold one as JSON (see `parse_row`)."""
    if value.startswith('["') and value.endswith('"]'):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value
