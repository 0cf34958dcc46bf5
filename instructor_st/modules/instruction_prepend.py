"""The paper's input side: the instruction is put before the text, and a mask says which tokens are which."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from transformers.utils import logging

from instructor_st.modules.soft_prompt import SoftPromptTable
from instructor_st.modules.text_modality import pin_text_modality
from instructor_st.modules.tuned_tasks import TUNED_TASKS_FOLDER, TunedTasks
from instructor_st.pairs import InstructedText, parse_inputs

__all__ = ["InstructionPrepend"]

logger = logging.get_logger(__name__)

INSTRUCTION_MASK = "instruction_mask"
SOFT_PROMPT = "soft_prompt"
_OUR_KEYS = (INSTRUCTION_MASK, SOFT_PROMPT)
# Distinct instructions are few (one to a few hundred); the bound only guards against one a text.
_MAX_CACHED_INSTRUCTIONS = 50_000


class InstructionPrepend(Transformer):
    """Embeds the tokens of `instruction + text` and marks the instruction's tokens for the pooling.

    The encoder attends to the whole input; `InstructionPooling` then averages the text's tokens only (Su et al. 2022,
    "One Embedder, Any Task", arXiv 2212.09741, section 2.1). It is a sentence-transformers `Transformer`: loading,
    saving, PEFT, `max_seq_length`, flash-attention unpadding and the trainer work as they do there.

    Instruction and text are joined as the released INSTRUCTOR models expect it, `(instruction + text.strip()).strip()`,
    so an instruction brings its own separator (`"Represent the sentence: "`). The mask covers the leading special
    tokens and as many tokens as the instruction has on its own, except when that is a single position: then nothing is
    masked (so did the old package, and stored vectors depend on it).

    An instruction that fills the whole window is cut by one token so that the text keeps its first one.

    An instruction that is exactly the name of a tuned task (`tuned_tasks`) stands for that task's soft prompt: `k` vectors
    in place of the embeddings of as many tokens (Lester et al. 2021, arXiv 2104.08691).

    Args:
        model_name_or_path: A `transformers` checkpoint, local or on the Hub.
        **kwargs: Arguments of `sentence_transformers.base.modules.Transformer`. The modality is pinned to text.

    Raises:
        ValueError: If the checkpoint cannot read plain text.
    """

    # modules.json and pickles name the package, whichever file the class lives in.
    __module__ = "instructor_st.modules"

    def __init__(self, model_name_or_path: str, **kwargs: Any) -> None:
        super().__init__(model_name_or_path, **kwargs)
        self._prepare()

    @classmethod
    def from_transformer(cls, transformer: Transformer) -> InstructionPrepend:
        """Turn a loaded `Transformer` into an `InstructionPrepend` with the same weights, tokenizer and settings.

        Args:
            transformer: The module; it shares its weights with the result and is not to be used any more.

        Returns:
            The new module.

        Raises:
            ValueError: If the encoder cannot read plain text.
        """
        module = cls.__new__(cls)
        module.__dict__.update(transformer.__dict__)
        module._prepare()
        return module

    def _prepare(self) -> None:
        pin_text_modality(self)
        embeddings: Any = self.model.get_input_embeddings()
        self.tuned_tasks = TunedTasks("prepend", int(embeddings.weight.shape[1]))
        self._meter: _InstructionMeter | None = None
        self._has_warned = False
        tokenizer: Any = self.tokenizer
        if tokenizer.truncation_side == "left":
            # Cutting from the left would take the instruction away and keep its mask.
            logger.warning("The tokenizer cuts long inputs on the left; with instructions they are cut on the right.")
            tokenizer.truncation_side = "right"

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        processing_kwargs: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Tokenise inputs, each with its own instruction.

        Args:
            inputs: `[instruction, text]` in any form that `instructor_st.pairs` accepts, mixed at will.
            prompt: The instruction for bare strings.
            processing_kwargs: Passed on to `Transformer.preprocess`.
            **kwargs: Passed on to `Transformer.preprocess` (`task`, `max_length`).

        Returns:
            The features of `Transformer.preprocess` and `instruction_mask`: integers, `(batch, sequence)`, or
            `(1, total tokens)` when the batch is flattened; 1 where a token belongs to the instruction. Where the model
            has tuned tasks, also `soft_prompt` of that shape: which of all their vectors stands at a position, counted
            from 1, and 0 for none.

        Raises:
            ValueError: If an input has none of the accepted forms, or a soft prompt leaves the text no room.
        """
        pairs = parse_inputs(inputs, prompt)
        if not pairs:
            return {}
        meter = self._get_meter()
        soft_prompts = SoftPromptTable(self.tuned_tasks, meter.tokenizer) if self.tuned_tasks else None
        names = [pair.instruction for pair in pairs]
        if soft_prompts is not None:
            pairs = soft_prompts.put_placeholders(pairs)
        joined = [(pair.instruction + pair.text.strip()).strip() for pair in pairs]
        features = super().preprocess(joined, processing_kwargs=processing_kwargs, **kwargs)
        starts, lengths = _locate_rows(features)
        if soft_prompts is not None:
            features[SOFT_PROMPT] = soft_prompts.locate(names, joined, features["input_ids"], starts, lengths)
        masked = self._count_masked_positions(meter, pairs, joined, features["input_ids"], starts, lengths)
        features[INSTRUCTION_MASK] = _build_mask(features, starts, masked)
        return features

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Embed the tokens; adds `token_embeddings`, `(batch, sequence, hidden)`, to the features.

        Args:
            features: The output of `preprocess`.
            **kwargs: Passed on to the backbone.

        Returns:
            The same dict, with the outputs added and the inputs as they were.
        """
        # Backbones whose forward takes **kwargs would get our mask as an argument.
        backbone_features = {key: value for key, value in features.items() if key not in _OUR_KEYS}
        if SOFT_PROMPT in features and bool((features[SOFT_PROMPT] > 0).any()):
            input_ids = backbone_features.pop("input_ids")
            backbone_features["inputs_embeds"] = self._embed_inputs(input_ids, features[SOFT_PROMPT])
        outputs = super().forward(backbone_features, **kwargs)
        features.update({key: value for key, value in outputs.items() if key != "inputs_embeds"})
        return features

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Save the encoder, the tokenizer, the settings and the tuned tasks.

        Args:
            output_path: The folder.
            *args: Passed on.
            safe_serialization: Whether to write safetensors.
            **kwargs: Passed on.
        """
        super().save(output_path, *args, safe_serialization=safe_serialization, **kwargs)
        self.tuned_tasks.save(output_path)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, with the names of the tuned tasks if there are any."""
        config: dict[str, Any] = super().get_config_dict()
        return {**config, TUNED_TASKS_FOLDER: list(self.tuned_tasks)} if self.tuned_tasks else config

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> InstructionPrepend:  # type: ignore[override]
        """Load from a local folder or the Hub.

        Args:
            model_name_or_path: The folder or the Hub id.
            subfolder: The folder inside it.
            **kwargs: Arguments of `Transformer.load`.

        Returns:
            The module.
        """
        module = super().load(model_name_or_path, subfolder=subfolder, **kwargs)
        hub_keys = ("token", "cache_folder", "revision", "local_files_only")
        hub = {key: kwargs[key] for key in hub_keys if key in kwargs}
        names = cls.load_config(model_name_or_path, subfolder, **hub).get(TUNED_TASKS_FOLDER, [])
        module.tuned_tasks.load_from_model(model_name_or_path, subfolder, names, **hub)
        return module

    @classmethod
    def _load_init_kwargs(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        init_kwargs: dict[str, Any] = super()._load_init_kwargs(*args, **kwargs)
        init_kwargs.pop(TUNED_TASKS_FOLDER, None)
        return init_kwargs

    def _embed_inputs(self, input_ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Embed tokens, soft prompts in their places, `(batch, sequence, hidden)`."""
        vectors: torch.Tensor = self.model.get_input_embeddings()(input_ids)
        table = torch.cat([task.vectors.to(vectors) for task in self.tuned_tasks.values()])
        return torch.where((places > 0)[..., None], table[(places - 1).clamp(min=0)], vectors)

    def __repr__(self) -> str:
        return super().__repr__().replace("Transformer(", f"{type(self).__name__}(", 1)

    def _get_meter(self) -> _InstructionMeter:
        if self._meter is None or not self._meter.belongs_to(self.tokenizer):
            self._meter = _InstructionMeter(self.tokenizer)
        return self._meter

    def _count_masked_positions(
        self,
        meter: _InstructionMeter,
        pairs: list[InstructedText],
        joined: list[str],
        input_ids: torch.Tensor,
        starts: torch.Tensor,
        lengths: torch.Tensor,
    ) -> torch.Tensor:
        """Count the leading positions of each row that belong to its instruction, `(batch,)`."""
        leading = torch.tensor(meter.count_leading_tokens([pair.instruction for pair in pairs]))
        leading[leading <= 1] = 0
        content_ends = lengths - meter.trailing_special_tokens
        for row in torch.nonzero((leading > 0) & (leading >= content_ends)).flatten().tolist():
            leading[row] = self._mend_row(
                meter, pairs[row], joined[row], input_ids, int(starts[row]), int(lengths[row]), int(leading[row])
            )
        return leading

    def _mend_row(
        self,
        meter: _InstructionMeter,
        pair: InstructedText,
        joined: str,
        input_ids: torch.Tensor,
        start: int,
        length: int,
        leading: int,
    ) -> int:
        """Keep at least one position of a row for the pooling when its instruction seems to reach the row's end.

        Three things look alike here: a text without tokens, a text whose first word merged with the instruction's last
        one, and an instruction that fills the window. Only the last one loses the text; its last token gives way.
        """
        content_end = length - meter.trailing_special_tokens
        text_ids = meter.tokenize([pair.text.strip()], add_special_tokens=False)[0]
        if not text_ids:
            return content_end if meter.trailing_special_tokens else max(content_end - 1, 0)
        if content_end < 1:
            return 0
        if len(meter.tokenize([joined])[0]) > length:
            if not self._has_warned:
                self._has_warned = True
                logger.warning(
                    f"An instruction of {leading} tokens fills the whole window of {length}: it is cut so that one token "
                    f"of the text remains. Shorten it ({pair.instruction[:60]!r}…) or raise max_seq_length. "
                    "Further ones are cut without a word."
                )
            position = start + content_end - 1
            input_ids.view(-1)[position] = text_ids[0]
        return content_end - 1


class _InstructionMeter:
    """Counts the tokens of instructions, each distinct one once, on a copy of the tokenizer.

    Tokenizers keep truncation and padding as state. A call without them on the model's own tokenizer would break the
    batch that another thread is just tokenising.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._source, self._vocabulary_size = tokenizer, len(tokenizer)
        self.tokenizer = copy.deepcopy(tokenizer)
        self._lengths: dict[str, int] = {}
        # The first call also settles the copy's state, before any other thread sees it.
        probe = self.tokenizer("a", return_special_tokens_mask=True, truncation=False, padding=False)
        self.trailing_special_tokens: int = list(reversed(probe["special_tokens_mask"])).index(0)

    def belongs_to(self, tokenizer: Any) -> bool:
        """Whether this is the meter of that tokenizer as it is now."""
        return self._source is tokenizer and self._vocabulary_size == len(tokenizer)

    def tokenize(self, texts: list[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """Tokenise texts whole, without the window."""
        options = {"add_special_tokens": add_special_tokens, "truncation": False, "padding": False, "verbose": False}
        return self.tokenizer(texts, **options)["input_ids"]  # type: ignore[no-any-return]

    def count_leading_tokens(self, instructions: list[str]) -> list[int]:
        """Count each instruction's own tokens with the special tokens before it."""
        if len(self._lengths) > _MAX_CACHED_INSTRUCTIONS:
            self._lengths = {}
        lengths = self._lengths
        if new := [each for each in dict.fromkeys(instructions) if each not in lengths]:
            for instruction, ids in zip(new, self.tokenize([each.strip() for each in new]), strict=True):
                lengths[instruction] = len(ids) - self.trailing_special_tokens
        return [lengths[each] for each in instructions]


def _locate_rows(features: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Find where each row's tokens start in the flattened `input_ids`, and how many they are, both `(batch,)`."""
    if "cu_seq_lens_q" in features:
        boundaries = features["cu_seq_lens_q"]
        return boundaries[:-1].long(), boundaries.diff().long()
    attention_mask = features["attention_mask"]
    row_starts = torch.arange(len(attention_mask)) * attention_mask.shape[1]
    return row_starts + attention_mask.argmax(dim=1), attention_mask.sum(dim=1)


def _build_mask(features: dict[str, Any], starts: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Mark `masked[i]` positions from `starts[i]` on, in the shape of `input_ids`."""
    input_ids = features["input_ids"]
    # +1 where an instruction begins, -1 behind its end; the running sum is the mask.
    steps = torch.zeros(input_ids.numel() + 1, dtype=torch.long)
    steps.index_add_(0, starts, torch.ones_like(starts))
    steps.index_add_(0, starts + masked, -torch.ones_like(starts))
    return steps[:-1].cumsum(0).view(input_ids.shape)
