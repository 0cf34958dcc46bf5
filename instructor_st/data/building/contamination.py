"""Texts of evaluation sets, which must not be trained on: held as hashes, and found whole."""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from instructor_st.data.building.mteb_texts import (
    MTEB_PREFIX,
    find_mteb_task,
    is_mteb_name,
    list_mteb_datasets,
    read_mteb_texts,
)
from instructor_st.data.building.record_texts import list_texts
from instructor_st.data.row_files import read_records
from instructor_st.data.sources.packed_files import strip_packed
from instructor_st.data.sources.record_files import list_data_files
from instructor_st.data.sources.source_files import list_source_files

__all__ = [
    "MIN_CHARACTERS",
    "EvaluationSet",
    "EvaluationSource",
    "EvaluationTexts",
    "list_evaluation_sources",
    "normalize_text",
]

MIN_CHARACTERS = 20
"""A shorter text tells nothing: `thank you` stands in an evaluation set and in half of all training sets."""


@dataclass(frozen=True)
class EvaluationSet:
    """What is held of an evaluation set.

    Attributes:
        name: Its name.
        texts: How many different texts it has that are long enough to tell; texts that other sets have too are counted.
        too_short: How many texts were not taken, since they are shorter than `MIN_CHARACTERS`.
    """

    name: str
    texts: int
    too_short: int


@dataclass(frozen=True)
class EvaluationSource:
    """What an evaluation set is read from.

    Attributes:
        evaluation_set: The set's name.
        name: A file's name without its folder, or the Hub's id of a data set.
        version: The file's SHA-256, or the data set's revision.
    """

    evaluation_set: str
    name: str
    version: str


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
        sets: What is held of each set, in their order; sets without texts too.
        too_short: How many texts were not taken, since they are shorter than `MIN_CHARACTERS`; in all sets together.
    """

    def __init__(self, texts: Mapping[str, Iterable[str]]):
        """Hold texts.

        Args:
            texts: The texts of each evaluation set by its name; a text of several sets is the first one's.
        """
        import numpy as np

        self._names = tuple(texts)
        sets: list[EvaluationSet] = []
        hashes, owners = array("Q"), array("I")
        for owner, name in enumerate(self._names):
            start, too_short = len(hashes), 0
            for text in texts[name]:
                normalized = normalize_text(text)
                if len(normalized) < MIN_CHARACTERS:
                    too_short += bool(normalized)
                    continue
                hashes.append(_hash_text(normalized))
                owners.append(owner)
            different = len(np.unique(np.array(hashes[start:], dtype=np.uint64)))
            sets.append(EvaluationSet(name, different, too_short))
        self.sets = tuple(sets)
        self.too_short = sum(each.too_short for each in sets)
        # `unique` gives the place of each first occurrence, hence the first owner.
        self._hashes, first = np.unique(np.array(hashes, dtype=np.uint64), return_index=True)
        self._owners = np.array(owners, dtype=np.uint32)[first]

    @classmethod
    def read(cls, paths: Iterable[str | Path]) -> EvaluationTexts:
        """Read all texts of evaluation files and of mteb's tasks.

        A text is every string in a record, in its lists and mappings too, but for the columns of ids, labels, splits and
        task names. Instructions are texts as well, since nothing tells `[instruction, text]` from two references.

        Args:
            paths: Files or folders of records (JSON Lines, CSV, Parquet; plain or packed), and names of mteb's tasks
                (`mteb:Banking77Classification`), which mteb loads from the Hub: see `read_mteb_texts`.

        Returns:
            The texts; `find` calls a file by its name without endings and a task by its name. What has the same name is
            one set.

        Raises:
            FileNotFoundError: If a folder holds no record file.
            ImportError: If a task is named and mteb is not installed.
            ValueError: If a path does not exist, a record cannot be read, or a task is unknown or cannot be loaded.
        """
        texts: dict[str, list[Iterable[str]]] = {}
        for path in _as_list(paths):
            if is_mteb_name(path):
                task = find_mteb_task(path)
                texts.setdefault(task.metadata.name, []).append(read_mteb_texts(task))
            else:
                for file in _list_files(path):
                    texts.setdefault(_name_file(file), []).append(_read_texts(file))
        # The readers are lazy: every path and name is looked at before the first text is read.
        return cls({name: chain.from_iterable(parts) for name, parts in texts.items()})

    def find(self, text: str) -> str | None:
        """Say which evaluation set a text is of.

        Args:
            text: The text.

        Returns:
            The set's name (for files their stem, for mteb's tasks their name); the first one's that has it, or nothing if it is of none.
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


def list_evaluation_sources(paths: Iterable[str | Path]) -> list[EvaluationSource]:
    """List what evaluation texts are read from, so that a change can be noticed; no data set is loaded.

    Args:
        paths: As for `EvaluationTexts.read`.

    Returns:
        The files with their hashes, and the data sets of mteb's tasks with their revisions, in the order given.

    Raises:
        FileNotFoundError: If a folder holds no record file.
        ImportError: If a task is named and mteb is not installed.
        ValueError: If a path does not exist or a task is unknown.
    """
    sources = []
    for path in _as_list(paths):
        if is_mteb_name(path):
            task = find_mteb_task(path)
            datasets = list_mteb_datasets(task)
            sources += [EvaluationSource(task.metadata.name, each.path, each.revision) for each in datasets]
        else:
            for file in _list_files(path):
                (described,) = list_source_files(file)
                sources.append(EvaluationSource(_name_file(file), described.name, described.sha256))
    return sources


def _hash_text(normalized: str) -> int:
    # JSON may hold lone surrogates, which have no UTF-8.
    data = normalized.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _read_texts(file: Path) -> Iterator[str]:
    for _, record in read_records(file):
        yield from list_texts(record)


def _list_files(path: str | Path) -> list[Path]:
    if not Path(path).exists():
        raise ValueError(
            f"Evaluation texts: {str(path)!r} does not exist. Texts are wanted, in a file or a folder of .jsonl, .csv or "
            f".parquet files, or the name of an mteb task: '{MTEB_PREFIX}Banking77Classification'."
        )
    return list_data_files(path)


def _name_file(file: Path) -> str:
    return strip_packed(file.name).rpartition(".")[0]


def _as_list(sources: Iterable[str | Path]) -> list[str | Path]:
    return [sources] if isinstance(sources, (str, Path)) else list(sources)
