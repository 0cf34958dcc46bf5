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
from instructor_st.pairs import parse_inputs

__all__ = ["DualEncoderConcat"]

logger = logging.get_logger(__name__)

EncoderPooling = Literal["cls", "mean"]
INSTRUCTION_IDS = "instruction_ids"
INSTRUCTION_ATTENTION_MASK = "instruction_attention_mask"
# Distinct instructions are few; the bound only guards against one a text.
_MAX_REMEMBERED = 10_000
_INSTRUCTION_KEYS = (INSTRUCTION_IDS, INSTRUCTION_ATTENTION_MASK)


class DualEncoderConcat(InputModule):
    """Encodes instruction and text apart and concatenates the two vectors, instruction first.

    The output has `h_instruction + h_text` dimensions; a `Dense` behind it mixes the two. Text vectors do not depend on
    the instruction. Each distinct instruction of a batch passes its encoder once, in training too (where the rows that
    share an instruction therefore share its dropout).

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
        self._remembered: dict[tuple[int, ...], torch.Tensor] | None = None
        self._pool_text = Pooling(self.text_encoder.get_embedding_dimension(), text_pooling)
        self._pool_instruction = Pooling(self.instruction_encoder.get_embedding_dimension(), instruction_pooling)

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
            whatever slices or joins batches keeps them with their texts.

        Raises:
            ValueError: If an input has none of the accepted forms.
        """
        pairs = parse_inputs(inputs, prompt)
        if not pairs:
            return {}
        features: dict[str, Any] = self.text_encoder.preprocess([pair.text for pair in pairs], **kwargs)
        distinct = {instruction: place for place, instruction in enumerate(dict.fromkeys(p.instruction for p in pairs))}
        tokens = self._tokenize_instructions(list(distinct))
        rows = torch.tensor([distinct[pair.instruction] for pair in pairs])
        features[INSTRUCTION_IDS] = tokens["input_ids"][rows].unsqueeze(1)
        features[INSTRUCTION_ATTENTION_MASK] = tokens["attention_mask"][rows].unsqueeze(1)
        return features

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Encode and concatenate.

        Args:
            features: The output of `preprocess`.
            **kwargs: Not used.

        Returns:
            The same dict with `token_embeddings` (the text's, `(batch, sequence, h_text)`) and `sentence_embedding`,
            `(batch, h_instruction + h_text)`, added.
        """
        text = self.text_encoder({key: value for key, value in features.items() if key not in _INSTRUCTION_KEYS})
        text_vectors = self._pool_text(text)["sentence_embedding"]
        instruction_vectors = self._encode_instructions(
            features[INSTRUCTION_IDS].squeeze(1), features[INSTRUCTION_ATTENTION_MASK].squeeze(1)
        )
        features["token_embeddings"] = text["token_embeddings"]
        features["sentence_embedding"] = torch.cat([instruction_vectors, text_vectors], dim=-1)
        return features

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
        config = cls.load_config(model_name_or_path, subfolder, **{k: kwargs[k] for k in hub_keys if k in kwargs})
        names = ("text_encoder",) if config.pop("share_encoders", False) else ("text_encoder", "instruction_encoder")
        encoders = {
            name: Transformer.load(model_name_or_path, subfolder=posixpath.join(subfolder, name), **kwargs)
            for name in names
        }
        return cls(**encoders, **config)

    def _name_encoders(self) -> dict[str, Transformer]:
        if self.share_encoders:
            return {"text_encoder": self.text_encoder}
        return {"text_encoder": self.text_encoder, "instruction_encoder": self.instruction_encoder}

    def _tokenize_instructions(self, instructions: list[str]) -> dict[str, torch.Tensor]:
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

    def _encode_distinct(self, rows: torch.Tensor) -> torch.Tensor:
        tokens = {"input_ids": rows[:, 0], "attention_mask": rows[:, 1]}
        vectors: torch.Tensor = self._pool_instruction(self.instruction_encoder(tokens))["sentence_embedding"]
        return vectors

    def __repr__(self) -> str:
        names = {name: type(encoder.model).__name__ for name, encoder in self._name_encoders().items()}
        return f"{type(self).__name__}({ {**self.get_config_dict(), **names} })"
