"""What a mixture says of where a task's records come from."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

__all__ = [
    "FileSource",
    "HubSource",
    "MediSource",
    "NaturalInstructionsSource",
    "RegistrySource",
    "Source",
    "Spec",
]


class Spec(BaseModel):
    """A part of a mixture: frozen, and closed to fields that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileSource(Spec):
    """A folder or a file of JSON Lines, CSV or Parquet, plain or packed with gzip or zstd.

    Attributes:
        files: The path; in a mixture file relative to that file.
    """

    files: Path


class MediSource(Spec):
    """The released MEDI's own file, a JSON list of `{query, pos, neg, task_id}`.

    Attributes:
        medi: The path of `medi-data.json`.
        task_id: The rows of this task only; by default all.
    """

    medi: Path
    task_id: int | None = None


class NaturalInstructionsSource(Spec):
    """A task of a Super-NaturalInstructions checkout.

    Attributes:
        natural_instructions: The checkout; its tasks lie in `tasks/`.
        task: The task's file name without `.json`.
    """

    natural_instructions: Path
    task: str


class HubSource(Spec):
    """A data set of the Hub.

    Attributes:
        hub: Its id.
        config: Its configuration.
        split: Its split.
        revision: A commit, a tag or a branch.
        streaming: Whether to stream it rather than to download it whole.
    """

    hub: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    streaming: bool = True


class RegistrySource(Spec):
    """The worked examples of a task of the registry.

    Attributes:
        registry: The task's name.
    """

    registry: str


Source = FileSource | MediSource | NaturalInstructionsSource | HubSource | RegistrySource
