"""What instruction finetuning trains: an instruction's vector and Dense of a dual model, or a prepend model's soft prompt.

A tuner embeds texts with the model's weights frozen and a few parameters of its own; the model itself never changes.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn

from instructor_st.modules import DenseDelta, DualEncoderConcat, InstructionPrepend, TunedTask, TunedTasks
from instructor_st.training.finetune_settings import FinetuneSettings
from instructor_st.training.trainable import add_lora

__all__ = ["DualTuner", "PrependTuner", "Tuner", "make_tuner"]

_EMBED_BATCH = 64
_LORA_RANK = 8
_EMPTY_PROMPT_LENGTH = 8


class Tuner(nn.Module, ABC):
    """Embeds numbered texts under instructions that can be trained."""

    default_learning_rate: float

    @abstractmethod
    def embed(self, places: Tensor, side: int = 0) -> Tensor:
        """Embed texts.

        Args:
            places: Numbers of texts, `(batch,)`.
            side: 0 for the task's instruction, 1 for that of the documents, if they have their own.

        Returns:
            `(batch, dimension)`.
        """

    @abstractmethod
    def make_tasks(self, names: Sequence[str], instructions: Sequence[str]) -> list[TunedTask]:
        """Make the tuned tasks, one a side, of the parameters as they are.

        Args:
            names: Their names.
            instructions: The instructions that the tuning began with.

        Returns:
            The tasks, on the CPU.
        """

    def embed_all(self, places: Tensor, side: int = 0) -> Tensor:
        """Embed texts without gradients and without dropout, in blocks; see `embed`."""
        was_training = self.training
        self.eval()
        with torch.no_grad():
            blocks = [self.embed(block, side) for block in places.split(_EMBED_BATCH * (16 if self.is_cached else 1))]
        self.train(was_training)
        return torch.cat(blocks)

    is_cached: bool = False

    def group_parameters(self, settings: FinetuneSettings) -> list[dict[str, Any]]:
        """Return the optimiser's groups: weight decay is for the Dense's change alone."""
        decayed = {id(parameter) for parameter in self.decayed_parameters()}
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups = [
            {"params": [each for each in trained if id(each) in decayed], "weight_decay": settings.weight_decay},
            {"params": [each for each in trained if id(each) not in decayed], "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def decayed_parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters whose zero means no change."""
        return ()


class DualTuner(Tuner):
    """A dual model's instruction vector, or the encoder that makes it, and the change of the Dense.

    Args:
        model: The dual model; it stays as it is.
        text_vectors: What its text encoder made of the texts, `(texts, h_text)`; they never change.
        instructions: One a side.
        settings: What is trained.

    Raises:
        ValueError: If the Dense takes no notice of the instruction and is not to be changed either.
    """

    is_cached = True

    def __init__(
        self, model: SentenceTransformer, text_vectors: Tensor, instructions: Sequence[str], settings: FinetuneSettings
    ) -> None:
        super().__init__()
        concat: Any = model[0]
        # In a list, so that neither counts as a part of this module: they are not trained.
        # In float32, in which the optimiser's steps are not lost, whatever the model's precision.
        rest = [copy.deepcopy(module).float() for module in list(model)[1:]]
        self._frozen = [concat, rest]
        self._dimension = model.truncate_dim
        self._text_vectors = text_vectors.float()
        self._dropout = settings.dropout
        self._rank = settings.dense_rank
        dense = rest[0] if rest else None
        if settings.tune_dense and not isinstance(dense, Dense):
            raise ValueError("tune_dense: this model has no Dense behind the concatenation; say tune_dense=False.")
        self.delta = nn.ParameterDict()
        if settings.tune_dense and isinstance(dense, Dense):
            self.delta = nn.ParameterDict(DenseDelta.zeros(dense).tensors)
        elif isinstance(dense, Dense) and _ignores_instruction(dense, concat):
            raise ValueError(
                "The model's Dense takes no notice of the instruction (its weights there are 0, as from_encoder makes "
                "them), so no instruction vector can change an embedding. Train the model, or say tune_dense=True."
            )
        with torch.no_grad():
            vectors = [concat.embed_instruction(each).float().clone() for each in instructions]
        self.vectors = nn.ParameterList(vectors if settings.part == "vector" else [])
        self.encoder, self._tokens = None, []
        if settings.part != "vector":
            self.encoder = _copy_encoder(concat, settings)
            self._tokens = [
                {name: tokens.to(model.device) for name, tokens in concat.tokenize_instructions([each]).items()}
                for each in instructions
            ]
        self.default_learning_rate = {"vector": 3e-4, "lora": 3e-4, "encoder": 2e-5}[settings.part]

    def embed(self, places: Tensor, side: int = 0) -> Tensor:
        """Embed texts; see `Tuner.embed`."""
        texts = F.dropout(self._text_vectors[places], self._dropout, self.training)
        vector = self._find_vector(side)
        features: dict[str, Any] = {"sentence_embedding": torch.cat([vector.expand(len(texts), -1), texts], dim=1)}
        modules = self._frozen[1]
        if len(self.delta):
            dense, *modules = modules
            features["sentence_embedding"] = self._find_delta().apply(dense, features["sentence_embedding"])
        for module in modules:
            features = module(features)
        embeddings: Tensor = features["sentence_embedding"][:, : self._dimension]
        return embeddings

    def make_tasks(self, names: Sequence[str], instructions: Sequence[str]) -> list[TunedTask]:
        """Make the tuned tasks; see `Tuner.make_tasks`."""
        self.eval()
        with torch.no_grad():
            found = self._find_delta().tensors if len(self.delta) else {}
            delta = {name: tensor.detach().cpu().clone() for name, tensor in found.items()}
            vectors = [self._find_vector(side).detach().cpu().clone() for side in range(len(names))]
        return [
            TunedTask(name, "dual", instruction, vector, DenseDelta(delta) if delta else None)
            for name, instruction, vector in zip(names, instructions, vectors, strict=True)
        ]

    def decayed_parameters(self) -> Iterable[nn.Parameter]:
        """Return the change of the Dense."""
        return self.delta.values()

    def _find_delta(self) -> DenseDelta:
        """Return the change of the Dense: whole in training, else as it will be stored."""
        delta = DenseDelta(dict(self.delta))
        return delta if self.training or self._rank is None else delta.compress(self._rank)

    def _find_vector(self, side: int) -> Tensor:
        side = min(side, max(len(self.vectors), len(self._tokens)) - 1)
        if self.encoder is None:
            own: Tensor = self.vectors[side]
            return own
        pooled = self._frozen[0].instruction_pooling_module(self.encoder(dict(self._tokens[side])))
        vector: Tensor = pooled["sentence_embedding"].float()
        return vector


class PrependTuner(Tuner):
    """A prepend model's soft prompt: vectors in place of an instruction's token embeddings, the encoder frozen.

    Args:
        model: The prepend model; it stays as it is.
        texts: The texts.
        instructions: One a side; the prompts begin with their token embeddings.
        settings: What is trained.
    """

    default_learning_rate = 1e-3

    def __init__(
        self, model: SentenceTransformer, texts: Sequence[str], instructions: Sequence[str], settings: FinetuneSettings
    ) -> None:
        super().__init__()
        first: Any = model[0]
        # A second module over the same weights, with a registry of its own.
        encoder = copy.copy(first)
        encoder.tuned_tasks = TunedTasks("prepend", first.tuned_tasks.dimension)
        self._frozen = [encoder, list(model)[1:]]
        self._texts = list(texts)
        self._device = model.device
        self._dimension = model.truncate_dim
        self.prompts = nn.ParameterList(
            [_begin_prompt(first, each, settings.prompt_length, settings.seed) for each in instructions]
        )

    def embed(self, places: Tensor, side: int = 0) -> Tensor:
        """Embed texts; see `Tuner.embed`."""
        encoder, rest = self._frozen
        side = min(side, len(self.prompts) - 1)
        # The registry is what forward reads the vectors from, so it holds the parameter while texts are embedded.
        encoder.tuned_tasks.add(TunedTask("soft-prompt", "prepend", "", self.prompts[side]))
        features = encoder.preprocess([["soft-prompt", self._texts[place]] for place in places.tolist()])
        features = batch_to_device(features, self._device)
        for module in (encoder, *rest):
            features = module(features)
        embeddings: Tensor = features["sentence_embedding"][:, : self._dimension]
        return embeddings

    def make_tasks(self, names: Sequence[str], instructions: Sequence[str]) -> list[TunedTask]:
        """Make the tuned tasks; see `Tuner.make_tasks`."""
        prompts = [prompt.detach().cpu().clone() for prompt in self.prompts]
        return [
            TunedTask(name, "prepend", instruction, prompt)
            for name, instruction, prompt in zip(names, instructions, prompts, strict=True)
        ]


def make_tuner(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    text_vectors: Tensor | None,
    instructions: Sequence[str],
    settings: FinetuneSettings,
) -> Tuner:
    """Make the tuner that fits a model.

    Args:
        model: The model.
        texts: The texts.
        text_vectors: Dual only: their vectors, `(texts, h_text)`.
        instructions: One a side.
        settings: What is trained.

    Returns:
        The tuner, untrained: it embeds as the model does.

    Raises:
        ValueError: If the model takes no instructions, or a setting does not fit it.
    """
    # Only LoRA's and an empty prompt's beginnings are random.
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        if isinstance(model[0], DualEncoderConcat):
            assert text_vectors is not None
            return DualTuner(model, text_vectors, instructions, settings).to(model.device)
        if isinstance(model[0], InstructionPrepend):
            if settings.part != "vector":
                raise ValueError(
                    f"part={settings.part!r}: a prepend model has one encoder; its soft prompt is what is trained."
                )
            return PrependTuner(model, texts, instructions, settings).to(model.device)
    raise ValueError(
        f"A model that begins with {type(model[0]).__name__} takes no instructions; there is nothing to tune."
    )


def _ignores_instruction(dense: Dense, concat: DualEncoderConcat) -> bool:
    width = concat.instruction_encoder.get_embedding_dimension()
    layers = [dense.linear, *([dense.residual] if hasattr(dense, "residual") else [])]
    return not any(bool(layer.weight[:, :width].any()) for layer in layers)


def _copy_encoder(concat: DualEncoderConcat, settings: FinetuneSettings) -> Transformer:
    """Copy the instruction encoder, to be trained whole or by LoRA."""
    encoder = copy.deepcopy(concat.instruction_encoder)
    encoder.requires_grad_(True)
    if settings.part == "lora":
        add_lora(encoder, _LORA_RANK)
    return encoder


def _begin_prompt(module: InstructionPrepend, instruction: str, length: int | None, seed: int) -> nn.Parameter:
    """Begin a soft prompt with an instruction's token embeddings, over and over or cut, or with common tokens'."""
    embeddings: Any = module.model.get_input_embeddings()
    tokens: list[int] = []
    if instruction.strip():
        tokenizer: Any = module.tokenizer
        tokens = tokenizer(instruction.strip(), add_special_tokens=False)["input_ids"]
    length = length or len(tokens) or _EMPTY_PROMPT_LENGTH
    if not tokens:
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randperm(embeddings.weight.shape[0], generator=generator)[:length].tolist()
    chosen = [tokens[place % len(tokens)] for place in range(length)]
    return nn.Parameter(embeddings.weight.detach()[chosen].float().clone())
