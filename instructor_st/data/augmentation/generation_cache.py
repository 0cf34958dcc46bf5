"""Candidates kept on disk: a run that was stopped goes on, and generates nothing twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from instructor_st.data.augmentation.text_generators import TextGenerator

__all__ = ["CachedGenerator"]

_TABLES = """
CREATE TABLE IF NOT EXISTS generators (id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS candidates (
    generator INTEGER NOT NULL REFERENCES generators (id),
    text BLOB NOT NULL,
    candidates TEXT NOT NULL,
    PRIMARY KEY (generator, text)
) WITHOUT ROWID;
"""
_LOOK_UP = """
SELECT text, candidates FROM candidates JOIN generators ON generator = id WHERE identity = ? AND text IN
"""
_INSERT = """
INSERT OR IGNORE INTO candidates SELECT id, ?, ? FROM generators WHERE identity = ?
"""
_MAX_VARIABLES = 500
"""SQLite takes a limited number of values in a query, 999 in old versions."""


class CachedGenerator:
    """A text generator that looks into a SQLite file first and writes what it generates there, batch by batch.

    The texts of a call are cut into batches before anything is looked up, and a batch is written whole or not at all.
    What a batch is generated with does therefore not depend on where an earlier run stopped, nor do its last bits.

    Attributes:
        generated: Texts that were generated for.
        found: Texts whose candidates were there.
    """

    def __init__(self, generator: TextGenerator, path: str | Path, *, identity: str, batch_size: int = 32) -> None:
        """Open the file, or make it.

        Args:
            generator: What generates.
            path: The SQLite file; its folder is made if need be. Several generators may share it.
            identity: All that the candidates depend on (`BackTranslator.identity`): another one, other candidates.
            batch_size: Texts that the generator is given at once.

        Raises:
            ValueError: If the file is something else, or `batch_size` is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}.")
        self.generated = 0
        self.found = 0
        self._generator = generator
        self._identity = identity
        self._batch_size = batch_size
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(path, timeout=60)
            self._database.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{path} is not a cache of candidates ({error}). Delete it, or name another one."
            ) from None

    def __call__(self, texts: list[str]) -> list[list[str]]:
        """Find or generate candidates.

        Args:
            texts: The texts.

        Returns:
            The candidates of each text.

        Raises:
            ValueError: If the generator answers with more or fewer lists than it was given texts.
        """
        known: dict[str, list[str]] = {}
        for batch in self._cut(texts):
            found = self._look_up(batch)
            missing = [text for text in batch if text not in found]
            if missing:
                found |= self._generate(missing)
            self.found += len(batch) - len(missing)
            known |= found
        return [list(known[text]) for text in texts]

    def __enter__(self) -> CachedGenerator:
        """Use it as a context manager, so that the file is closed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def count_known(self, texts: Iterable[str]) -> int:
        """Count the texts that nothing need be generated for.

        Args:
            texts: The texts; equal ones count once.

        Returns:
            Their number.
        """
        return sum(len(self._look_up(batch)) for batch in self._cut(texts))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _cut(self, texts: Iterable[str]) -> Iterator[list[str]]:
        """Batches of like length, each text once, the same for the same texts."""
        ordered = sorted(set(texts), key=lambda text: (-len(text), text))
        for start in range(0, len(ordered), self._batch_size):
            yield ordered[start : start + self._batch_size]

    def _look_up(self, texts: Sequence[str]) -> dict[str, list[str]]:
        by_key = {_hash_text(text): text for text in texts}
        keys, found = list(by_key), {}
        for start in range(0, len(keys), _MAX_VARIABLES):
            part = keys[start : start + _MAX_VARIABLES]
            places = ", ".join("?" * len(part))
            query = f"{_LOOK_UP} ({places})"
            for key, candidates in self._database.execute(query, (self._identity, *part)):
                found[by_key[key]] = json.loads(candidates)
        return found

    def _generate(self, texts: list[str]) -> dict[str, list[str]]:
        generated = self._generator(texts)
        if len(generated) != len(texts):
            raise ValueError(f"The generator was given {len(texts)} texts and answered with {len(generated)} lists.")
        records = [
            (_hash_text(text), json.dumps(candidates), self._identity)
            for text, candidates in zip(texts, generated, strict=True)
        ]
        with self._database:
            # Another process may have been faster: what is there stays.
            self._database.execute("INSERT OR IGNORE INTO generators (identity) VALUES (?)", (self._identity,))
            self._database.executemany(_INSERT, records)
        self.generated += len(texts)
        return self._look_up(texts)


def _hash_text(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
