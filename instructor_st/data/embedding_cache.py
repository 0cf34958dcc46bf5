"""Vectors of a task's texts, by a model that scores pairs; they are kept on disk block by block."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Scorer", "embed_texts", "load_scorer"]

Vectors = npt.NDArray[np.float32]

_MODEL_SUFFIXES = {".bin", ".json", ".model", ".safetensors", ".txt"}
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Scorer:
    """A model that scores pairs by the cosine of their vectors.

    Attributes:
        embed: Gives the vectors of texts, (number of texts, dimension), in their order.
        identity: What tells models apart in the cache; two models whose vectors differ must not share it.
    """

    embed: Callable[[list[str]], npt.NDArray[Any]]
    identity: str


def load_scorer(model: str | None) -> Scorer:
    """Load a scoring model.

    It runs in float32 on the device that sentence-transformers chooses. Its identity is the name, the size and a hash
    of its configuration, tokenizer and weights, so a folder may move and a model that was trained on is another one.

    Args:
        model: A folder or a Hub id of a sentence-transformers model; by default the bundled all-MiniLM-L6-v2.

    Returns:
        The scorer.

    Raises:
        ImportError: If the bundled model is wanted and not installed.
        ValueError: If the model cannot be loaded; the message names it.
    """
    from sentence_transformers import SentenceTransformer

    from instructor_st.bundled_model import find_bundled_model

    name = find_bundled_model() if model is None else model
    try:
        loaded = SentenceTransformer(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The scoring model {name!r} cannot be loaded. Name a folder or a Hub id of a sentence-transformers model, "
            f"or none for the bundled one. ({error})"
        ) from error
    loaded.float()

    def embed(texts: list[str]) -> npt.NDArray[Any]:
        return np.asarray(loaded.encode(texts, show_progress_bar=False))

    return Scorer(embed=embed, identity=_identify_model(_find_folder(name)))


def embed_texts(
    texts: Sequence[str],
    *,
    scorer: Scorer,
    cache: Path | None,
    block: int = 1024,
    show_progress_bar: bool = False,
) -> Vectors:
    """Embed texts in blocks and keep each block's vectors on disk.

    Each distinct text is embedded once, so copies have the same vector to the last bit. Which texts make a block
    depends on the texts alone: a run that was stopped finds its blocks again and gives the same vectors as one that was
    not. A file that is damaged or cut short is embedded anew.

    Args:
        texts: The texts.
        scorer: The model.
        cache: A folder for the vectors, made if need be; `None` keeps nothing.
        block: Distinct texts a block.
        show_progress_bar: Whether to show one, by blocks.

    Returns:
        Vectors of length 1, (number of texts, dimension); a zero vector stays one. No texts give shape (0, 0).

    Raises:
        ValueError: If `texts` is one string, `block` is less than 1, or the scorer gives vectors of another number, of
            changing dimensions, or that are not finite.
    """
    if isinstance(texts, str):
        raise ValueError("embed_texts takes a sequence of texts, not one text. Put it into a list.")
    if block < 1:
        raise ValueError(f"block must be 1 or more, not {block}.")
    numbers: dict[str, int] = {}
    places = [numbers.setdefault(text, len(numbers)) for text in texts]
    if not places:
        return np.zeros((0, 0), dtype=np.float32)
    distinct = list(numbers)
    vectors: Vectors | None = None
    for start in _count_blocks(len(distinct), block, show_progress_bar):
        part = distinct[start : start + block]
        part_vectors = _embed_block(part, scorer, cache)
        if vectors is None:
            vectors = np.empty((len(distinct), part_vectors.shape[1]), dtype=np.float32)
        if part_vectors.shape[1] != vectors.shape[1]:
            raise ValueError(
                f"The scorer {scorer.identity!r} gives vectors of dimension {vectors.shape[1]} and of dimension "
                f"{part_vectors.shape[1]} (from text {start} on). A scorer needs one dimension."
            )
        vectors[start : start + block] = part_vectors
    assert vectors is not None
    # Without copies the places are 0, 1, 2, ...: no second array is needed.
    return vectors if len(distinct) == len(places) else vectors[places]


def _count_blocks(count: int, block: int, show_progress_bar: bool) -> Iterator[int]:
    from tqdm.auto import tqdm

    yield from tqdm(range(0, count, block), desc="Embedding blocks", disable=not show_progress_bar)


def _embed_block(texts: list[str], scorer: Scorer, cache: Path | None) -> Vectors:
    path = None if cache is None else cache / f"{_hash_block(texts, scorer.identity)}.npy"
    known = None if path is None else _read_vectors(path, len(texts))
    if known is not None:
        return known
    vectors = _normalize(np.asarray(scorer.embed(texts)), texts, scorer.identity)
    if path is not None:
        _write_vectors(path, vectors)
    return vectors


def _normalize(raw: npt.NDArray[Any], texts: list[str], identity: str) -> Vectors:
    if raw.ndim != 2 or len(raw) != len(texts):
        raise ValueError(f"The scorer {identity!r} gives an array of shape {raw.shape} for {len(texts)} texts.")
    vectors = raw.astype(np.float64)
    if not np.isfinite(vectors).all():
        place = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise ValueError(
            f"The scorer {identity!r} gives a vector that is not finite for the text {texts[place][:80]!r}. "
            "Leave the text out or take another scoring model."
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _hash_block(texts: list[str], identity: str) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for part in (identity, *texts):
        data = part.encode("utf-8", "surrogatepass")
        # The length before each text: ["ab", "c"] and ["a", "bc"] are two blocks.
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _read_vectors(path: Path, count: int) -> Vectors | None:
    """Read a block; `None` if there is none, or if it is not what was written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    payload, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if _checksum(payload) != digest:
        return None
    vectors: Vectors = np.load(io.BytesIO(payload), allow_pickle=False)
    return vectors if len(vectors) == count else None


def _write_vectors(path: Path, vectors: Vectors) -> None:
    """Write a block: an `.npy` file, and behind it a checksum, which numpy's reader does not look at."""
    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    payload = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes may write one block at once; each has its own temporary name.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(payload + _checksum(payload))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _checksum(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=_DIGEST_BYTES).digest()


def _find_folder(name: str) -> Path:
    """Find the folder that a model was loaded from: its own, or the Hub cache's."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    # sentence-transformers knows its own models without their organisation.
    names = [name] if "/" in name else [f"sentence-transformers/{name}", name]
    for candidate in names:
        try:
            return Path(snapshot_download(candidate, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
    raise ValueError(
        f"The scoring model {name!r} was loaded, but its files are not in the Hub cache. "
        "Save it to a folder and name that folder."
    )


def _identify_model(folder: Path) -> str:
    """Name, size and hash of the files that a model's vectors depend on."""
    digest, size = hashlib.blake2b(digest_size=16), 0
    for path in _list_model_files(folder):
        name = path.relative_to(folder).as_posix().encode()
        length = path.stat().st_size
        digest.update(len(name).to_bytes(8, "big") + name + length.to_bytes(8, "big"))
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        size += length
    return f"{_name_folder(folder)}:{size}:{digest.hexdigest()}"


def _list_model_files(folder: Path) -> list[Path]:
    """The files of the root and of the modules; checkpoints and exports beside them do not count."""
    modules = folder / "modules.json"
    parts = json.loads(modules.read_text(encoding="utf-8")) if modules.is_file() else []
    files = set(folder.iterdir())
    for part in parts:
        if part["path"]:
            files.update((folder / part["path"]).rglob("*"))
    return sorted(path for path in files if path.suffix in _MODEL_SUFFIXES and path.is_file())


def _name_folder(folder: Path) -> str:
    # A snapshot of the Hub cache is .../models--ORGANISATION--NAME/snapshots/COMMIT.
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.resolve().name
