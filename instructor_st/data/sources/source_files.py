"""The files that a source is read from, and their hashes: what a manifest says of them, and what a rebuild looks at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from instructor_st.data.shards import hash_file
from instructor_st.data.sources.record_files import list_data_files
from instructor_st.data.sources.specs import FileSource, HubSource, MediSource, NaturalInstructionsSource, Source

__all__ = ["SourceFile", "list_source_files"]


@dataclass(frozen=True)
class SourceFile:
    """A file of a source.

    Attributes:
        name: Its name, without the folder.
        bytes: Its size.
        sha256: Its hash.
    """

    name: str
    bytes: int
    sha256: str


def list_source_files(source: Source | Path) -> list[SourceFile]:
    """List the local files of a source with their hashes.

    Args:
        source: The source, or a folder or file of rows.

    Returns:
        The files, sorted; none for a data set of the Hub (its revision stands in the mixture) and for the registry.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    return [_describe(path, path.stat().st_mtime_ns, path.stat().st_size) for path in _list_paths(source)]


def _list_paths(source: Source | Path) -> list[Path]:
    if isinstance(source, Path):
        return list_data_files(source)
    if isinstance(source, FileSource):
        return list_data_files(source.files)
    if isinstance(source, MediSource):
        return [source.medi]
    if isinstance(source, NaturalInstructionsSource):
        return [source.natural_instructions / "tasks" / f"{source.task}.json"]
    assert isinstance(source, HubSource) or source.registry
    return []


# A file that many tasks read is hashed once; its time and size tell whether it has changed since.
@lru_cache(maxsize=4096)
def _describe(path: Path, modified: int, size: int) -> SourceFile:
    return SourceFile(path.name, size, hash_file(path))
