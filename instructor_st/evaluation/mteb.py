"""An encoder for mteb >= 2.26 that gives every task, side and text its instruction, and evaluation with mteb's cache."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import mteb
import numpy as np
import torch
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer

from instructor_st.evaluation.embedder import Array, InstructedEmbedder
from instructor_st.evaluation.results import Result, find_versions
from instructor_st.evaluation.task_instructions import NO_INSTRUCTION, Side, TaskInstruction, find_instruction

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.results import TaskResult
    from mteb.types import BatchedInput
    from torch.utils.data import DataLoader

__all__ = ["OWN_INSTRUCTION", "InstructionEncoder", "MtebEvaluation", "evaluate_mteb", "fingerprint_model"]

logger = logging.getLogger(__name__)

OWN_INSTRUCTION = "{instruction}"
"""Where it stands in a task's instruction, the instruction that a data set brings with a text is put."""

_PUNCTUATION = ".:;,?!"


class InstructionEncoder(AbsEncoder):  # type: ignore[misc, unused-ignore]
    """Lets mteb evaluate a SentenceTransformer under instructions.

    A task's instructions are those of its name, else of its type, else `default`, else none; mteb's own prompts and the
    model's `prompts` are not used. Queries get the query side, documents the document side, and the texts of tasks with
    one side (all but retrieval and reranking) the query side. A document is its title and its text, joined as mteb does.

    Where a data set brings an instruction with a query (FollowIR, InstructIR), mteb appends it to the text. Here the
    bare query is embedded, and the data set's instruction takes the place of the task's: it stands alone, unless the
    task's instruction has `{instruction}` somewhere; then it is put there. A query whose own instruction is blank gets
    the task's, without the placeholder. The data set's instruction is given a colon and a space at its end if it has no
    punctuation there, and a space if it has, so that it does not run into the query.

    Args:
        model: The model, or an embedder of it, whose counts of texts and seconds then go on.
        instructions: By task name, task type or `default`.
        name: The model's name in mteb's results, `organisation/name`; by default that of its card, else its folder's.
        revision: Its revision there; by default a fingerprint of its weights, so that results of two models of one
            name are never mixed up.
        batch_size: Inputs embedded at once; an embedder has its own.

    Attributes:
        embedder: What embeds, and counts.
        mteb_model_meta: Name, revision and so on. The instructions' fingerprint is an experiment of mteb's, so that
            `ResultCache` keeps a folder for each set of instructions.
    """

    embedder: InstructedEmbedder
    model: SentenceTransformer
    mteb_model_meta: ModelMeta

    def __init__(
        self,
        model: SentenceTransformer | InstructedEmbedder,
        *,
        instructions: Mapping[str, TaskInstruction],
        name: str | None = None,
        revision: str | None = None,
        batch_size: int = 32,
    ) -> None:
        self.embedder = _hold_embedder(model, batch_size)
        self.model = self.embedder.model
        self.instructions = dict(instructions)
        self.mteb_model_meta = _build_meta(self.embedder, self.instructions, name=name, revision=revision)

    def encode(
        self,
        inputs: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Array:
        """Embed a task's texts.

        Args:
            inputs: mteb's batches.
            task_metadata: The task; its name and type choose the instructions.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: The side.
            **kwargs: mteb's `batch_size` and `show_progress_bar`, which are the embedder's own here.

        Returns:
            `(texts, dimension)`, float32.

        Raises:
            ValueError: If a `precision` other than float32 is asked for, the texts are not texts, or an embedding is
                not finite.
        """
        if kwargs.get("precision", "float32") != "float32":
            raise ValueError(f"precision={kwargs['precision']!r} is not known here; embeddings are float32.")
        side: Side | None = None if prompt_type is None else PromptType(prompt_type).value
        found = find_instruction(self.instructions, task_metadata.name, task_metadata.type) or NO_INSTRUCTION
        instruction = found.choose(side)
        texts: list[str] = []
        instructions: list[str] = []
        for batch in inputs:
            read, own = _read_batch(batch, task_metadata.name)
            texts += read
            instructions += [_combine(instruction, each) for each in own]
        return self.embedder.embed(texts, instructions)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Compare all with all by the model's own similarity, `(first, second)`."""
        compare: Any = self.model.similarity
        return cast(torch.Tensor, compare(_as_tensor(embeddings1), _as_tensor(embeddings2)))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Compare row by row by the model's own similarity, `(rows,)`."""
        compare: Any = self.model.similarity_pairwise
        return cast(torch.Tensor, compare(_as_tensor(embeddings1), _as_tensor(embeddings2)))


@dataclass(frozen=True)
class MtebEvaluation:
    """What `evaluate_mteb` found.

    Attributes:
        results: The main score of every task that could be evaluated.
        failed: Why the others could not, by task.
    """

    results: tuple[Result, ...]
    failed: Mapping[str, str]


def evaluate_mteb(
    model: SentenceTransformer | InstructedEmbedder,
    tasks: Iterable[AbsTask | str],
    *,
    instructions: Mapping[str, TaskInstruction],
    cache_folder: str | Path,
    prediction_folder: str | Path | None = None,
    raise_error: bool = False,
    name: str | None = None,
    revision: str | None = None,
    batch_size: int = 32,
    condition: str = "right",
    overwrite: bool = False,
) -> MtebEvaluation:
    """Evaluate a model on mteb tasks, with mteb's cache and result files.

    A result is kept under the model, its revision and the task's own instructions, so a changed instruction of one task
    repeats that task only, and a run that was stopped goes on where it stopped.

    Args:
        model: The model, or an embedder of it.
        tasks: Tasks, or names of tasks that mteb knows.
        instructions: By task name, task type or `default`.
        cache_folder: For mteb's `ResultCache`.
        prediction_folder: Where predictions go, in a folder a model, revision and instruction; by default nowhere.
        raise_error: Whether a failing task stops the run.
        name: The model's name; see `InstructionEncoder`.
        revision: Its revision; see `InstructionEncoder`.
        batch_size: Inputs embedded at once; an embedder has its own.
        condition: The results' condition.
        overwrite: Whether to evaluate again what has been evaluated.

    Returns:
        The results and the failures. A score that is not finite is a failure.
    """
    embedder = _hold_embedder(model, batch_size)
    revision = revision or fingerprint_model(embedder.model)
    cache = mteb.ResultCache(cache_path=Path(cache_folder))
    results: list[Result] = []
    failed: dict[str, str] = {}
    for each in tasks:
        task_name = each if isinstance(each, str) else each.metadata.name
        try:
            task = mteb.get_task(each) if isinstance(each, str) else each
            encoder = InstructionEncoder(
                embedder, instructions=_narrow(instructions, task), name=name, revision=revision
            )
            results.append(
                _evaluate_task(encoder, task, cache, prediction_folder, condition=condition, overwrite=overwrite)
            )
        except Exception as error:
            if raise_error:
                raise
            failed[task_name] = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
            logger.warning("%s failed: %s", task_name, failed[task_name])
    return MtebEvaluation(tuple(results), failed)


def fingerprint_model(model: SentenceTransformer) -> str:
    """Tell models apart by what they compute with: modules, settings and weights.

    Args:
        model: The model.

    Returns:
        Twelve hexadecimal digits.
    """
    settings: list[tuple[str, Any]] = [
        (type(module).__name__, getattr(module, "get_config_dict", dict)()) for module in model
    ]
    settings.append(("model", {"similarity": model.similarity_fn_name, "truncate_dim": model.truncate_dim}))
    shown = json.dumps(settings, sort_keys=True, default=lambda value: type(value).__name__)
    digest = hashlib.sha256(shown.encode())
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def _hold_embedder(model: SentenceTransformer | InstructedEmbedder, batch_size: int) -> InstructedEmbedder:
    return model if isinstance(model, InstructedEmbedder) else InstructedEmbedder(model, batch_size=batch_size)


def _evaluate_task(
    encoder: InstructionEncoder,
    task: AbsTask,
    cache: Any,
    prediction_folder: str | Path | None,
    *,
    condition: str,
    overwrite: bool,
) -> Result:
    meta, embedder = encoder.mteb_model_meta, encoder.embedder
    if prediction_folder is not None:
        # mteb names the file by the task alone.
        parts = meta.model_name_as_path(), str(meta.revision), str(meta.experiment_name)
        prediction_folder = Path(prediction_folder, *parts)
    texts, seconds = embedder.texts, embedder.seconds
    found = mteb.evaluate(
        encoder,
        task,
        co2_tracker=False,
        encode_kwargs={"batch_size": embedder.batch_size, "show_progress_bar": embedder.show_progress_bar},
        cache=cache,
        overwrite_strategy="always" if overwrite else "only-missing",
        prediction_folder=prediction_folder,
        show_progress_bar=False,
    )
    if found.exceptions:
        raise ValueError(found.exceptions[0].exception)
    texts, seconds = embedder.texts - texts, embedder.seconds - seconds
    return _build_result(
        encoder, task, found.task_results[0], condition=condition, speed=texts / seconds if texts else None
    )


def _build_result(
    encoder: InstructionEncoder, task: AbsTask, found: TaskResult, *, condition: str, speed: float | None
) -> Result:
    metadata = task.metadata
    value = float(found.get_score())
    if not math.isfinite(value):
        raise ValueError(f"{metadata.name}: {metadata.main_score} is {value}; the data leave it undefined.")
    scores = {
        f"{split}/{score['hf_subset']}": score["main_score"] for split, each in found.scores.items() for score in each
    }
    given = find_instruction(encoder.instructions, metadata.name, metadata.type) or NO_INSTRUCTION
    notes: dict[str, Any] = {} if len(scores) == 1 else {"subsets": scores}
    return Result(
        model=str(encoder.mteb_model_meta.name),
        suite="mteb",
        task=metadata.name,
        category=metadata.type,
        condition=condition,
        instruction=given.query,
        document_instruction=given.document,
        metric=metadata.main_score,
        value=value,
        seconds=found.evaluation_time,
        texts_per_second=None if speed is None else round(speed, 1),
        revision=encoder.mteb_model_meta.revision,
        seed=task.seed,
        versions={**find_versions(), "mteb": version("mteb")},
        notes=notes,
    )


def _narrow(instructions: Mapping[str, TaskInstruction], task: AbsTask) -> Mapping[str, TaskInstruction]:
    """Keep what one task is given, so that its results do not depend on other tasks' instructions."""
    if task.is_aggregate:
        return instructions
    found = find_instruction(instructions, task.metadata.name, task.metadata.type)
    return {} if found is None else {task.metadata.name: found}


def _build_meta(
    embedder: InstructedEmbedder,
    instructions: Mapping[str, TaskInstruction],
    *,
    name: str | None,
    revision: str | None,
) -> ModelMeta:
    model = embedder.model
    card = model.model_card_data
    known = name or card.model_id or card.base_model or "unnamed"
    if Path(known).is_absolute() or Path(known).is_dir() or "/" not in known:
        known = f"local/{Path(known).name}"
    given = sorted((key, each.query, each.document) for key, each in instructions.items() if each != NO_INSTRUCTION)
    digest = hashlib.sha256(json.dumps(given).encode()).hexdigest()[:12] if given else "none"
    length = model.max_seq_length
    return ModelMeta.create_empty(
        {
            "name": known,
            "revision": revision or fingerprint_model(model),
            "n_parameters": sum(each.numel() for each in model.parameters()),
            "max_tokens": None if length is None else float(length),
            "embed_dim": model.get_embedding_dimension(),
            "framework": ["Sentence Transformers", "PyTorch"],
            "similarity_fn_name": ScoringFunction(str(model.similarity_fn_name or "cosine")),
            "use_instructions": bool(given),
            "experiment_kwargs": {"instructions": digest},
        }
    )


def _read_batch(batch: Mapping[str, Any], task: str) -> tuple[list[str], list[str]]:
    """Read the texts of a batch and the instructions that it brings, `""` where it brings none."""
    own = batch.get("instruction")
    texts = batch.get("query") if own is not None else None
    texts = batch.get("text") if texts is None else texts
    if texts is None or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{task}: only texts can be embedded; the batch has {', '.join(batch)}.")
    return list(texts), [""] * len(texts) if own is None else [each or "" for each in own]


def _combine(instruction: str, own: str) -> str:
    """Put a text's own instruction in the place of its task's, or where the task's has a placeholder for it."""
    own = own.strip()
    if not own:
        return instruction.replace(f" {OWN_INSTRUCTION}", "").replace(OWN_INSTRUCTION, "")
    if OWN_INSTRUCTION in instruction:
        return instruction.replace(OWN_INSTRUCTION, own)
    return f"{own} " if own[-1] in _PUNCTUATION else f"{own}: "


def _as_tensor(embeddings: Any) -> torch.Tensor:
    return embeddings if isinstance(embeddings, torch.Tensor) else torch.as_tensor(np.asarray(embeddings))
