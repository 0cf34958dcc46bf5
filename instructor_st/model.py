"""`INSTRUCTOR`: a `SentenceTransformer` whose inputs carry instructions."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from instructor_st.modules import DualEncoderConcat, InstructionPooling, InstructionPrepend, TunedTask, TunedTasks
from instructor_st.pairs import check_inputs
from instructor_st.reinstruct import encode_text, reinstruct
from instructor_st.tuned_models import add_tuned_task, get_tuned_tasks, remove_tuned_task

__all__ = ["INSTRUCTOR"]

logger = logging.get_logger(__name__)

Architecture = Literal["prepend", "dual"]
Head = Literal["residual", "linear"]

LEGACY_MAX_SEQ_LENGTH = 512
"""The old package's window, which it used whatever a checkpoint said."""

_LEGACY_ENCODE_ORDER = (
    "batch_size",
    "show_progress_bar",
    "output_value",
    "convert_to_numpy",
    "convert_to_tensor",
    "device",
    "normalize_embeddings",
)


class INSTRUCTOR(SentenceTransformer):
    """An instruction model: `encode([[instruction, text], ...])`, and everything a `SentenceTransformer` does.

    Loads own checkpoints, and any pipeline of stock modules that begins with `Transformer` and `Pooling`, such as
    `hkunlp/instructor-large` or a local copy of it, as the old `InstructorEmbedding` package would have: the
    instruction before the text and out of the pooling, windows of 512 tokens (the encoder's positions permitting)
    unless `processor_kwargs={"model_max_length": ...}` says otherwise.

    Vectors equal those of `InstructorEmbedding` 1.0.1 to 1e-5 (float32), except where it lost the text or dropped a part:

    - An instruction that fills the window: it pooled the closing special token alone and never saw the text. Here the
      instruction is cut so that the text keeps its first token, with a warning.
    - An instruction and a text that merge into one token at their border (`"...docu"` + `"ment"`, no separator): it
      gave an all-zero vector, or an `AssertionError` for the whole batch. Here the last token counts as the text's.
    - `[[instruction, text], "text"]`: it took the string's first two characters for a pair. Here a string is a text
      without an instruction.
    - `[instruction, text, 0]`: it ignored the third part. Here this is a `ValueError`.

    Example:
        >>> model = INSTRUCTOR("hkunlp/instructor-large")
        >>> model.encode([["Represent the Science sentence: ", "Parton energy loss in QCD matter"]])
    """

    @classmethod
    def from_encoder(
        cls,
        base: str | SentenceTransformer,
        architecture: Architecture = "prepend",
        *,
        instruction_encoder: str | None = None,
        share_encoders: bool = False,
        instruction_pooling: Literal["cls", "mean"] | None = None,
        head: Head = "residual",
        embedding_dimension: int | None = None,
        **load_kwargs: Any,
    ) -> INSTRUCTOR:
        """Build an instruction model around an existing encoder.

        Args:
            base: A `transformers` checkpoint or a `SentenceTransformer` that begins with `Transformer` and `Pooling`:
                a folder, a Hub id, or the model itself (which is copied). Its pooling mode and what follows the
                pooling (`Dense`, `Normalize`) are kept.
            architecture: `"prepend"` (the paper's) or `"dual"` (`DualEncoderConcat` and a `Dense`). An untrained dual
                model embeds as its base does, whatever the instruction.
            instruction_encoder: Dual only: another `transformers` checkpoint for the instructions. By default a copy of
                the base.
            share_encoders: Dual only: one set of weights for both encoders.
            instruction_pooling: Dual only: `"cls"` or `"mean"`; by default the base's.
            head: Dual only: `"residual"` (a GELU layer beside a linear one, so that an instruction can act on the text)
                or `"linear"`, which can only shift all texts of an instruction alike.
            embedding_dimension: Dual only: size of the head's output; by default the text encoder's.
            **load_kwargs: Passed on to `SentenceTransformer` (`device`, `revision`, `model_kwargs`, ...).

        Returns:
            The untrained model.

        Raises:
            ValueError: If the base's modules, its pooling or an option do not fit the architecture.
        """
        if architecture not in ("prepend", "dual"):
            raise ValueError(f"architecture must be 'prepend' or 'dual', not {architecture!r}.")
        if architecture == "prepend":
            options = {
                "instruction_encoder": instruction_encoder is not None,
                "share_encoders": share_encoders,
                "instruction_pooling": instruction_pooling is not None,
                "head": head != "residual",
                "embedding_dimension": embedding_dimension is not None,
            }
            if given := [name for name, is_given in options.items() if is_given]:
                raise ValueError(f"{', '.join(given)}: only architecture='dual' has this.")
        if share_encoders and instruction_encoder is not None:
            raise ValueError("share_encoders=True and an instruction_encoder of its own exclude each other.")
        loaded = _load_base(base, load_kwargs)
        transformer, pooling, *rest = _check_stock_pipeline(loaded)
        if architecture == "prepend":
            modules = [*_convert_stock_modules(transformer, pooling), *rest]
        else:
            second: Transformer | None = None
            if instruction_encoder is not None:
                second = _check_stock_pipeline(SentenceTransformer(instruction_encoder, **load_kwargs))[0]
            elif not share_encoders:
                second = copy.deepcopy(transformer)
            concat = _build_concat(transformer, second, pooling, instruction_pooling)
            dense = _build_head(concat, head, embedding_dimension)
            if rest and isinstance(rest[0], Dense) and rest[0].in_features != dense.out_features:
                raise ValueError(f"The base's own Dense needs embedding_dimension={rest[0].in_features}.")
            modules = [concat, dense, *rest]
        return cls(
            modules=modules,
            device=str(loaded.device),
            trust_remote_code=loaded.trust_remote_code,
            similarity_fn_name=loaded.similarity_fn_name,
            truncate_dim=loaded.truncate_dim,
            model_card_data=loaded.model_card_data,
        )

    def encode(self, inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Embed texts with their instructions; see `SentenceTransformer.encode` for the arguments.

        Args:
            inputs: `[[instruction, text], ...]`; also tuples, `{"instruction": ..., "text": ...}` and plain strings,
                mixed at will. A flat list of strings is a list of texts, as in `SentenceTransformer`.
            *args: The arguments of `SentenceTransformer.encode`, or, where the first is a number, those of the old
                package: `batch_size, show_progress_bar, output_value, convert_to_numpy, convert_to_tensor, device,
                normalize_embeddings`.
            **kwargs: The same by name. `prompt=` and `prompt_name=` give the instruction of plain strings.

        Returns:
            An array `(inputs, dimensions)` (float32), `(dimensions,)` for a single input, or what `convert_to_tensor`,
            `output_value` and `precision` ask for.

        Raises:
            ValueError: If an input has none of the accepted forms. All inputs are checked before the first is
                embedded, and the message names the position.
        """
        if "sentences" in kwargs:  # the old package's name
            inputs = kwargs.pop("sentences")
        if args and isinstance(args[0], int):
            if len(args) > len(_LEGACY_ENCODE_ORDER):
                raise ValueError(f"Too many positional arguments; the old order is {', '.join(_LEGACY_ENCODE_ORDER)}.")
            kwargs = {**dict(zip(_LEGACY_ENCODE_ORDER, args, strict=False)), **kwargs}
            args = ()
        if self.is_singular_input(inputs):
            check_inputs([inputs])
        else:
            inputs = inputs.tolist() if isinstance(inputs, np.ndarray) else list(inputs)
            check_inputs(inputs)
        first = self[0]
        if not _is_instruction_module(first) and not all(isinstance(value, str) for value in inputs):
            raise ValueError(
                f"This pipeline begins with {type(first).__name__}, which would tokenise [instruction, text] as a pair "
                "of texts. Build it with INSTRUCTOR.from_encoder, or give the instruction as prompt=."
            )
        with first.remember_instructions() if isinstance(first, DualEncoderConcat) else nullcontext():
            return super().encode(inputs, *args, **kwargs)

    @property
    def tuned_tasks(self) -> TunedTasks:
        """The model's tuned tasks by name."""
        return get_tuned_tasks(self)

    def add_tuned_task(self, task: TunedTask | str | Path) -> TunedTask:
        """Add a tuned task, or the folder that holds one; see `tuned_models.add_tuned_task`."""
        return add_tuned_task(self, task)

    def remove_tuned_task(self, name: str) -> TunedTask:
        """Take a tuned task out; see `tuned_models.remove_tuned_task`."""
        return remove_tuned_task(self, name)

    def encode_text(self, texts: Sequence[str], **kwargs: Any) -> np.ndarray[Any, Any]:
        """Embed texts by a dual model's text encoder alone; see `reinstruct.encode_text`."""
        return encode_text(self, texts, **kwargs)

    def reinstruct(self, text_vectors: Any, instruction: str, **kwargs: Any) -> np.ndarray[Any, Any]:
        """Turn a dual model's text vectors into embeddings under an instruction; see `reinstruct.reinstruct`."""
        return reinstruct(self, text_vectors, instruction, **kwargs)

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Let the encoders recompute their layers' activations in the backward pass; the trainer calls it when told to.

        sentence-transformers has it under the name `gradient_checkpointing_enable` alone, which transformers warns of and
        will call no more from version 6 on.

        Args:
            activation_checkpointing_kwargs: For `torch.utils.checkpoint.checkpoint`.
            every_n_layers: Checkpoint every so many layers only.
            offload: Hold the layers' inputs in the host's memory.

        Raises:
            ValueError: If no encoder supports it.
        """
        covered: set[nn.Module] = set()
        # Outer modules come first, and reach all that is in them.
        for module in self.modules():
            if isinstance(module, PreTrainedModel) and module.supports_gradient_checkpointing and module not in covered:
                module.activation_checkpointing_enable(
                    activation_checkpointing_kwargs, every_n_layers=every_n_layers, offload=offload
                )
                covered.update(module.modules())
        if not covered:
            raise ValueError("No encoder of the model supports activation checkpointing; train without it.")

    def _load_config_modules(self, model_name_or_path: str, *args: Any, **kwargs: Any) -> Any:
        modules: Any
        modules, module_kwargs = super()._load_config_modules(model_name_or_path, *args, **kwargs)
        names = list(modules)
        if _is_instruction_module(modules[names[0]]):
            return modules, module_kwargs
        transformer, pooling, *_ = _check_stock_pipeline(modules.values(), model_name_or_path)
        prepend, pooling = _convert_stock_modules(transformer, pooling)
        if "model_max_length" not in (kwargs.get("processor_kwargs") or {}):
            positions = getattr(prepend.config, "max_position_embeddings", LEGACY_MAX_SEQ_LENGTH)
            prepend.max_seq_length = min(LEGACY_MAX_SEQ_LENGTH, positions)
        logger.info(f"{model_name_or_path} is read as an INSTRUCTOR checkpoint (window {prepend.max_seq_length}).")
        modules[names[0]], modules[names[1]] = prepend, pooling
        return modules, module_kwargs

    def _load_default_modules(self, model_name_or_path: str, *args: Any, **kwargs: Any) -> Any:
        modules: Any
        modules, module_kwargs = super()._load_default_modules(model_name_or_path, *args, **kwargs)
        return _convert_stock_modules(*_check_stock_pipeline(modules, model_name_or_path)), module_kwargs


def _is_instruction_module(module: nn.Module) -> bool:
    return isinstance(module, (InstructionPrepend, DualEncoderConcat))


def _check_stock_pipeline(modules: Iterable[nn.Module], source: str = "The base") -> list[Any]:
    """Return the modules if they begin with a stock `Transformer` and `Pooling`."""
    modules = list(modules)
    if type(modules[0]) is Transformer and len(modules) > 1 and isinstance(modules[1], Pooling):
        return modules
    found = ", ".join(type(module).__name__ for module in modules)
    if _is_instruction_module(modules[0]):
        raise ValueError(f"{source} is an instruction model already ({found}); load it with INSTRUCTOR(...).")
    raise ValueError(f"{source} consists of {found}; an instruction model needs Transformer and Pooling at its start.")


def _convert_stock_modules(transformer: Transformer, pooling: Pooling) -> list[Any]:
    prepend = InstructionPrepend.from_transformer(transformer)
    return [prepend, InstructionPooling(pooling.embedding_dimension, pooling.pooling_mode)]


def _load_base(base: str | SentenceTransformer, load_kwargs: dict[str, Any]) -> SentenceTransformer:
    if isinstance(base, SentenceTransformer):
        if unused := sorted(load_kwargs.keys() - {"device"}):
            raise ValueError(f"{', '.join(unused)}: the base is loaded already, so this cannot have an effect.")
        loaded = copy.deepcopy(base).to(load_kwargs.get("device", base.device))
    else:
        loaded = SentenceTransformer(base, **load_kwargs)
    if prompts := {name: prompt for name, prompt in loaded.prompts.items() if prompt}:
        logger.warning(f"The base's prompts are not taken over; write them as instructions: {prompts}.")
    return loaded


def _build_concat(
    text_encoder: Transformer,
    instruction_encoder: Transformer | None,
    pooling: Pooling,
    instruction_pooling: Literal["cls", "mean"] | None,
) -> DualEncoderConcat:
    if pooling.pooling_mode not in ("cls", "mean"):
        raise ValueError(
            f"The base pools by {pooling.pooling_mode!r}; a dual model knows 'cls' and 'mean'. "
            "Use architecture='prepend', or another base."
        )
    return DualEncoderConcat(
        text_encoder,
        instruction_encoder,
        text_pooling=pooling.pooling_mode,
        instruction_pooling=instruction_pooling or pooling.pooling_mode,
    )


def _build_head(concat: DualEncoderConcat, head: Head, embedding_dimension: int | None) -> Dense:
    """Build the Dense behind the concatenation so that it hands the text vector through before any training.

    `[0 | I]` reads the text half. In the residual head the GELU layer starts at zero: GELU(0) = 0, and its slope there
    is 1/2, so it learns from the first step on.
    """
    text_dimension = concat.text_encoder.get_embedding_dimension()
    instruction_dimension = concat.instruction_encoder.get_embedding_dimension()
    out_features = embedding_dimension or text_dimension
    pass_text = torch.cat(
        [torch.zeros(out_features, instruction_dimension), torch.eye(out_features, text_dimension)], 1
    )
    if head == "linear":
        return Dense(
            pass_text.shape[1],
            out_features,
            activation_function=nn.Identity(),
            init_weight=pass_text,
            init_bias=torch.zeros(out_features),
        )
    if head != "residual":
        raise ValueError(f"head must be 'residual' or 'linear', not {head!r}.")
    dense = Dense(
        pass_text.shape[1],
        out_features,
        activation_function=nn.GELU(),
        init_weight=torch.zeros_like(pass_text),
        init_bias=torch.zeros(out_features),
        use_residual=True,
    )
    if not hasattr(dense, "residual"):
        raise ValueError(f"embedding_dimension must differ from the concatenation's {pass_text.shape[1]}.")
    dense.residual.weight = nn.Parameter(pass_text)
    return dense
