"""The head of a task on disk: `head.json` and `head.safetensors` beside the model; torch comes on first use."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from instructor_st.atomic_files import write_text

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CONFIG_FILE", "TENSORS_FILE", "StoredHead", "StoredHeadError"]

CONFIG_FILE = "head.json"
TENSORS_FILE = "head.safetensors"

_KINDS = ("classification", "regression", "pairs", "similarity")
_MEND = "Save the head anew, or take both its files away and use the model without one."


class StoredHeadError(ValueError):
    """A head that cannot be stored or read; the message names the file, the place and the mend."""


@dataclass(frozen=True, eq=False)
class StoredHead:
    """What makes a head: its configuration and its weights.

    Attributes:
        config: What JSON can hold; `kind` is `classification`, `regression`, `pairs` or `similarity`, and the first two
            have a `dimension`, the first its `labels`.
        tensors: Single precision. `linear.weight` `(outputs, dimension)` and `linear.bias` `(outputs,)` for the first two
            kinds, with an output a label or a single one; none for the others.

    Raises:
        StoredHeadError: If the kind is not known, or the tensors are not finite or not those that the configuration
            asks for.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]

    def __post_init__(self) -> None:
        shapes = _find_shapes(self.config)
        if set(self.tensors) != set(shapes):
            raise StoredHeadError(
                f"A {self.config['kind']} head has the tensors [{', '.join(sorted(shapes))}]; "
                f"[{', '.join(sorted(self.tensors))}] came."
            )
        for name, shape in shapes.items():
            tensor = self.tensors[name]
            if tuple(tensor.shape) != shape:
                raise StoredHeadError(f"{name} has the shape {tuple(tensor.shape)}; its config asks for {shape}.")
            if str(tensor.dtype) != "torch.float32":
                raise StoredHeadError(f"{name} has the type {tensor.dtype}; a stored head has torch.float32.")
            if count := int((~tensor.isfinite()).sum()):
                raise StoredHeadError(
                    f"{name} has {count} value(s) that are not finite: the training went astray; lower its learning rate."
                )

    def save(self, folder: str | Path) -> None:
        """Write the head into a folder, in place of the one that is there.

        Each file is written under a temporary name and renamed. `head.json` holds the other's SHA-256, so that `load`
        notices two files that are not of one save.

        Args:
            folder: The folder, such as the model's; it is made if need be.
        """
        from safetensors.torch import save

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = save({name: tensor.contiguous() for name, tensor in self.tensors.items()}, {"format": "pt"})
        record = {"config": self.config, "sha256": {TENSORS_FILE: hashlib.sha256(content).hexdigest()}}
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        partial = folder / f"{TENSORS_FILE}.partial"
        try:
            # Both are on disk before the first takes its place: a full disk leaves the old head whole.
            partial.write_bytes(content)
            write_text(folder / CONFIG_FILE, text)
            os.replace(partial, folder / TENSORS_FILE)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: str | Path) -> StoredHead | None:
        """Read the head of a folder; no code is run and nothing is unpickled.

        Args:
            folder: The folder.

        Returns:
            The head; nothing if the folder has none.

        Raises:
            StoredHeadError: If a file is missing or broken, or the two do not belong together.
        """
        config_path, tensors_path = Path(folder, CONFIG_FILE), Path(folder, TENSORS_FILE)
        if not config_path.exists() and not tensors_path.exists():
            return None
        for path in (config_path, tensors_path):
            if not path.exists():
                raise StoredHeadError(f"{path} is missing; the head's other file is there. {_MEND}")
        config, digest = _read_record(config_path)
        try:
            _find_shapes(config)
        except StoredHeadError as error:
            raise StoredHeadError(f"{config_path}: {error} {_MEND}") from error
        tensors = _read_tensors(tensors_path, digest)
        try:
            return cls(config, tensors)
        except StoredHeadError as error:
            raise StoredHeadError(f"{tensors_path}: {error} {_MEND}") from error


def _find_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Work out which tensors a configuration asks for, by name."""
    kind = config.get("kind")
    if kind not in _KINDS:
        raise StoredHeadError(
            f"kind is {kind!r}; known are {', '.join(_KINDS)}. A newer version of instructor-st may know it."
        )
    if kind in ("pairs", "similarity"):
        return {}
    dimension, labels = config.get("dimension"), config.get("labels")
    if isinstance(dimension, bool) or not isinstance(dimension, int) or dimension < 1:
        raise StoredHeadError(f"dimension must be a whole number of 1 or more, not {dimension!r}.")
    if kind == "regression":
        return {"linear.weight": (1, dimension), "linear.bias": (1,)}
    if not isinstance(labels, list):
        raise StoredHeadError(f"labels must be a list of names, not {labels!r}.")
    return {"linear.weight": (len(labels), dimension), "linear.bias": (len(labels),)}


def _read_record(path: Path) -> tuple[dict[str, Any], str]:
    """Read the configuration, and the digest of the tensors' file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        config, digest = record["config"], record["sha256"][TENSORS_FILE]
    except (ValueError, RecursionError) as error:
        raise StoredHeadError(f"{path} is not JSON: {error}. {_MEND}") from error
    except (KeyError, TypeError, IndexError) as error:
        raise StoredHeadError(f"{path} must have `config` and `sha256` with {TENSORS_FILE!r}. {_MEND}") from error
    if not isinstance(config, dict):
        raise StoredHeadError(f"{path}: config must be an object, not {config!r}. {_MEND}")
    return config, digest


def _read_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    """Read the tensors, if they are those that were saved with the configuration."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise StoredHeadError(
            f"{path} is not the file that {CONFIG_FILE} beside it was saved with: a save or a copy was interrupted. {_MEND}"
        )
    try:
        return dict(load(content))
    except SafetensorError as error:
        raise StoredHeadError(f"{path} is not a safetensors file: {error}. {_MEND}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")
