"""Two encoders side by side: one for the instruction, one for the text, their vectors concatenated."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from sentence_transformers.base.modules import InputModule, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers.utils import logging

from instructor_st.modules.text_modality import pin_text_modality
from instructor_st.modules.tuned_dense import DENSE_DELTAS, DenseDelta
from instructor_st.modules.tuned_tasks import TUNED_TASKS_FOLDER, TunedTasks
from instructor_st.pairs import parse_inputs

__all__ = ["DualEncoderConcat"]

logger = logging.get_logger(__name__)

EncoderPooling = Literal["cls", "mean"]
INSTRUCTION_IDS = "instruction_ids"
INSTRUCTION_ATTENTION_MASK = "instruction_attention_mask"
TUNED_TASK = "tuned_task"
# Distinct instructions are few; the bound only guards against one a text.
_MAX_REMEMBERED = 10_000
_INSTRUCTION_KEYS = (INSTRUCTION_IDS, INSTRUCTION_ATTENTION_MASK, TUNED_TASK)


class DualEncoderConcat(InputModule):
    """Encodes instruction and text apart and concatenates the two vectors, instruction first.

    The output has `h_instruction + h_text` dimensions; a `Dense` behind it mixes the two. Text vectors do not depend on
    the instruction. Each distinct instruction of a batch passes its encoder once, in training too (where the rows that
    share an instruction therefore share its dropout).

    An instruction that is exactly the name of a tuned task (`tuned_tasks`) stands for that task's vector.

    Args:
        text_encoder: The encoder of the texts. Its inputs are padded, never flattened: the instruction travels with its
            row, and flattened batches have no rows.
        instruction_encoder: The encoder of the instructions; `None` shares the text encoder's weights.
        text_pooling: `"mean"` of the text's tokens or its first token (`"cls"`).
        instruction_pooling: The same for the instruction.

    Raises:
        ValueError: If a pooling is neither `"mean"` nor `"cls"`, or an encoder cannot read plain text.
    """

    __module__ = "instructor_st.modules"
    config_file_name: str = "dual_encoder_config.json"
    config_keys: list[str] = ["text_pooling", "instruction_pooling", "share_encoders"]  # noqa: RUF012
    save_in_root: bool = True

    def __init__(
        self,
        text_encoder: Transformer,
        instruction_encoder: Transformer | None = None,
        *,
        text_pooling: EncoderPooling = "mean",
        instruction_pooling: EncoderPooling = "mean",
    ) -> None:
        super().__init__()
        for name, mode in (("text_pooling", text_pooling), ("instruction_pooling", instruction_pooling)):
            if mode not in ("cls", "mean"):
                raise ValueError(f"{name} must be 'cls' or 'mean', not {mode!r}.")
        self.share_encoders = instruction_encoder is None or instruction_encoder is text_encoder
        self.text_pooling: EncoderPooling = text_pooling
        self.instruction_pooling: EncoderPooling = instruction_pooling
        # The text encoder comes first: sentence-transformers takes the first backbone for the model's own.
        self.text_encoder = text_encoder
        self.instruction_encoder = text_encoder if instruction_encoder is None else instruction_encoder
        for encoder in self._name_encoders().values():
            pin_text_modality(encoder)
        self.text_encoder.unpad_inputs = False
        self.tuned_tasks = TunedTasks("dual", self.instruction_encoder.get_embedding_dimension())
        self._remembered: dict[tuple[int, ...], torch.Tensor] | None = None
        self.text_pooling_module = Pooling(self.text_encoder.get_embedding_dimension(), text_pooling)
        self.instruction_pooling_module = Pooling(
            self.instruction_encoder.get_embedding_dimension(), instruction_pooling
        )

    @property
    def tokenizer(self) -> Any:  # type: ignore[override]
        """The text encoder's tokenizer."""
        return self.text_encoder.tokenizer

    @property
    def processor(self) -> Any:
        """The text encoder's processor."""
        return self.text_encoder.processor

    @property
    def max_seq_length(self) -> int | None:
        """The window of the text encoder, in tokens; the instruction encoder keeps its own."""
        return self.text_encoder.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        self.text_encoder.max_seq_length = value

    def get_embedding_dimension(self) -> int:
        """Size of the concatenation, `h_instruction + h_text`."""
        return self.instruction_encoder.get_embedding_dimension() + self.text_encoder.get_embedding_dimension()

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Tokenise texts and instructions apart.

        Args:
            inputs: `[instruction, text]` in any form that `instructor_st.pairs` accepts, mixed at will.
            prompt: The instruction for bare strings.
            **kwargs: Passed on to the text encoder's `preprocess` (`task`, `max_length`, `processing_kwargs`).

        Returns:
            The text's features (`input_ids` and `attention_mask`, `(batch, sequence)`, ...) and the instruction's,
            `instruction_ids` and `instruction_attention_mask`, `(batch, 1, instruction length)`: one a row, so that
            whatever slices or joins batches keeps them with their texts. Where the model has tuned tasks, also
            `tuned_task`, `(batch, 1)`: the task's place, counted from 1, and 0 for none.

        Raises:
            ValueError: If an input has none of the accepted forms.
        """
        pairs = parse_inputs(inputs, prompt)
        if not pairs:
            return {}
        places = {name: place for place, name in enumerate(self.tuned_tasks, 1)}
        tuned = [places.get(pair.instruction, 0) for pair in pairs]
        features: dict[str, Any] = self.text_encoder.preprocess([pair.text for pair in pairs], **kwargs)
        instructions = ["" if place else pair.instruction for pair, place in zip(pairs, tuned, strict=True)]
        distinct = {instruction: place for place, instruction in enumerate(dict.fromkeys(instructions))}
        tokens = self.tokenize_instructions(list(distinct))
        rows = torch.tensor([distinct[instruction] for instruction in instructions])
        features[INSTRUCTION_IDS] = tokens["input_ids"][rows].unsqueeze(1)
        features[INSTRUCTION_ATTENTION_MASK] = tokens["attention_mask"][rows].unsqueeze(1)
        if places:
            features[TUNED_TASK] = torch.tensor(tuned).unsqueeze(1)
        return features

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Encode and concatenate.

        Args:
            features: The output of `preprocess`.
            **kwargs: Not used.

        Returns:
            The same dict with `token_embeddings` (the text's, `(batch, sequence, h_text)`) and `sentence_embedding`,
            `(batch, h_instruction + h_text)`, added; `dense_deltas`, what tuned tasks change in the Dense, for their rows.
        """
        text = self.text_encoder({key: value for key, value in features.items() if key not in _INSTRUCTION_KEYS})
        text_vectors = self.text_pooling_module(text)["sentence_embedding"]
        instruction_vectors = self._encode_instructions(
            features[INSTRUCTION_IDS].squeeze(1), features[INSTRUCTION_ATTENTION_MASK].squeeze(1)
        )
        if TUNED_TASK in features:
            places = features[TUNED_TASK].squeeze(1)
            instruction_vectors = self._put_tuned_vectors(instruction_vectors, places)
            features[DENSE_DELTAS] = self._collect_deltas(places)
        features["token_embeddings"] = text["token_embeddings"]
        features["sentence_embedding"] = torch.cat([instruction_vectors, text_vectors], dim=-1)
        return features

    def embed_instruction(self, instruction: str) -> torch.Tensor:
        """Compute the vector of an instruction, or take that of a tuned task.

        Args:
            instruction: The instruction, or a tuned task's name.

        Returns:
            `(1, h_instruction)`, on the module's device.
        """
        device = next(self.parameters()).device
        tokens = self.tokenize_instructions(["" if instruction in self.tuned_tasks else instruction])
        vectors = self._encode_instructions(tokens["input_ids"].to(device), tokens["attention_mask"].to(device))
        return self.tuned_tasks[instruction].vectors.to(vectors) if instruction in self.tuned_tasks else vectors

    @contextmanager
    def remember_instructions(self) -> Iterator[None]:
        """Encode each distinct instruction once for all forward passes without gradients inside the context.

        The weights must not change meanwhile; `INSTRUCTOR.encode` uses it for the length of a call.
        """
        self._remembered = {}
        try:
            yield
        finally:
            self._remembered = None

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Save the configuration and each encoder in a sub-folder of its own.

        Args:
            output_path: The folder.
            *args: Not used.
            safe_serialization: Whether to write safetensors.
            **kwargs: Not used.
        """
        self.save_config(output_path)
        for name, encoder in self._name_encoders().items():
            folder = Path(output_path, name)
            folder.mkdir(parents=True, exist_ok=True)
            encoder.save(str(folder), safe_serialization=safe_serialization)
        self.tuned_tasks.save(output_path)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, with the names of the tuned tasks if there are any."""
        config: dict[str, Any] = super().get_config_dict()
        return {**config, TUNED_TASKS_FOLDER: list(self.tuned_tasks)} if self.tuned_tasks else config

    @classmethod
    def load(  # type: ignore[override]
        cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any
    ) -> DualEncoderConcat:
        """Load from a local folder or the Hub.

        Args:
            model_name_or_path: The folder or the Hub id.
            subfolder: The folder inside it.
            **kwargs: Arguments of `Transformer.load` (`token`, `revision`, `model_kwargs`, ...), for both encoders.

        Returns:
            The module.
        """
        hub_keys = ("token", "cache_folder", "revision", "local_files_only")
        hub = {key: kwargs[key] for key in hub_keys if key in kwargs}
        config = cls.load_config(model_name_or_path, subfolder, **hub)
        tuned_names = config.pop(TUNED_TASKS_FOLDER, [])
        names = ("text_encoder",) if config.pop("share_encoders", False) else ("text_encoder", "instruction_encoder")
        encoders = {
            name: Transformer.load(model_name_or_path, subfolder=posixpath.join(subfolder, name), **kwargs)
            for name in names
        }
        module = cls(**encoders, **config)
        module.tuned_tasks.load_from_model(model_name_or_path, subfolder, tuned_names, **hub)
        return module

    def _name_encoders(self) -> dict[str, Transformer]:
        if self.share_encoders:
            return {"text_encoder": self.text_encoder}
        return {"text_encoder": self.text_encoder, "instruction_encoder": self.instruction_encoder}

    def tokenize_instructions(self, instructions: list[str]) -> dict[str, torch.Tensor]:
        """Tokenise distinct instructions, `(distinct, length)`."""
        tokenizer: Any = self.instruction_encoder.tokenizer
        tokens = tokenizer(instructions, padding=True, truncation=True, return_tensors="pt")
        window = self.instruction_encoder.max_seq_length
        if window is not None and tokens["input_ids"].shape[1] >= window:
            logger.warning_once(f"An instruction fills the instruction encoder's window of {window} tokens and is cut.")
        attention_mask = tokens["attention_mask"]
        # A tokenizer without special tokens makes no token of "": one padding token then stands for it.
        if tokens["input_ids"].shape[1] == 0:
            pad = torch.full((len(instructions), 1), tokenizer.pad_token_id or 0)
            return {"input_ids": pad, "attention_mask": torch.ones_like(pad)}
        attention_mask[attention_mask.sum(dim=1) == 0, 0] = 1
        return {"input_ids": tokens["input_ids"].long(), "attention_mask": attention_mask}

    def _encode_instructions(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Encode each distinct row once and hand every row its vector, `(batch, h_instruction)`."""
        rows = torch.stack([input_ids, attention_mask], dim=1)
        distinct, places = torch.unique(rows, dim=0, return_inverse=True)
        remembered = self._remembered  # another thread's call may end meanwhile
        if remembered is None or torch.is_grad_enabled():
            return self._encode_distinct(distinct)[places]
        keys = [tuple(ids[mask.bool()].tolist()) for ids, mask in distinct]
        vectors = {key: remembered[key] for key in keys if key in remembered}
        if new := [place for place, key in enumerate(keys) if key not in vectors]:
            vectors.update(zip((keys[place] for place in new), self._encode_distinct(distinct[new]), strict=True))
            if len(remembered) < _MAX_REMEMBERED:
                remembered.update(vectors)
        return torch.stack([vectors[key] for key in keys])[places]

    def _put_tuned_vectors(self, vectors: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Give the rows of tuned tasks these tasks' vectors, `(batch, h_instruction)`."""
        table = torch.cat([task.vectors.to(vectors) for task in self.tuned_tasks.values()])
        return torch.where((places > 0)[:, None], table[(places - 1).clamp(min=0)], vectors)

    def _collect_deltas(self, places: torch.Tensor) -> list[tuple[torch.Tensor, DenseDelta]]:
        """Pair the rows of each tuned task that changes the Dense with what it changes."""
        deltas = [(place, task.dense_delta) for place, task in enumerate(self.tuned_tasks.values(), 1)]
        found = [(torch.nonzero(places == place).squeeze(1), delta) for place, delta in deltas if delta is not None]
        return [(rows, delta) for rows, delta in found if len(rows)]

    def _encode_distinct(self, rows: torch.Tensor) -> torch.Tensor:
        tokens = {"input_ids": rows[:, 0], "attention_mask": rows[:, 1]}
        vectors: torch.Tensor = self.instruction_pooling_module(self.instruction_encoder(tokens))["sentence_embedding"]
        return vectors

    def __repr__(self) -> str:
        names = {name: type(encoder.model).__name__ for name, encoder in self._name_encoders().items()}
        return f"{type(self).__name__}({ {**self.get_config_dict(), **names} })"
