"""A transformers checkpoint that generates texts: loaded when it is needed, in batches, without a random outcome."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["CAUSAL_TEMPLATE", "Checkpoint", "GeneratingModel", "GenerationOptions", "Sampling"]

CAUSAL_TEMPLATE = (
    "Rewrite the text below in other words. Keep its language, its meaning, its names and its numbers. "
    "Answer with the rewritten text only.\n\nText: {text}\n\nRewritten text:"
)
"""What a causal checkpoint is asked if its `Checkpoint` has no template."""

_DTYPES = ("auto", "float32", "bfloat16", "float16")
_UNBOUNDED = 1_000_000
"""Tokenizers without a limit report a far larger one."""


@dataclass(frozen=True)
class Checkpoint:
    """A generating model of transformers.

    Attributes:
        model: A folder or a Hub id.
        revision: A commit, a tag or a branch of the Hub; the default branch by default.
        template: What the model is given, with `{text}` in the text's place (`translate English to German: {text}` for
            T5, `>>deu<< {text}` for a Marian model of several languages); by default the text alone, and
            `CAUSAL_TEMPLATE` for a causal model.
        source_language: The text's language by the tokenizer's own code, for models that are told (M2M100, NLLB, mBART).
        target_language: The output's language, for such models.
    """

    model: str
    revision: str | None = None
    template: str | None = None
    source_language: str | None = None
    target_language: str | None = None

    def __post_init__(self) -> None:
        """Check the template.

        Raises:
            ValueError: If the template has no place for the text.
        """
        if self.template is not None and "{text}" not in self.template:
            raise ValueError(
                f"The template {self.template!r} of {self.model} has no {{text}} for the text to stand in."
            )


@dataclass(frozen=True)
class Sampling:
    """Draws of outputs, instead of the search for the likeliest.

    Attributes:
        temperature: Above 1 more variety, below 1 less.
        top_p: Tokens are drawn from the likeliest that together have this probability.
        seed: Of the draws; each batch has its own, made of this one and its texts, so that the order does not matter.
    """

    temperature: float = 1.0
    top_p: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: If one is left.
        """
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}.")


@dataclass(frozen=True)
class GenerationOptions:
    """How a checkpoint is run.

    Attributes:
        num_candidates: Outputs that are wanted of a text.
        num_beams: The width of the beam search; more if more outputs are asked.
        max_new_tokens: At most so many tokens an output, and never more than twice the text's and 16.
        batch_size: Texts that the model is given at once.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: bfloat16 where the hardware computes in it.
        device: A torch device; by default the accelerator if there is one.
        use_safetensors: As in transformers: `None` takes safetensors if there are any, `True` nothing else.
    """

    num_candidates: int = 4
    num_beams: int = 4
    max_new_tokens: int = 512
    batch_size: int = 32
    dtype: str = "auto"
    device: str | None = None
    use_safetensors: bool | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: If one is left.
        """
        for name in ("num_candidates", "num_beams", "max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}.")
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, not {self.dtype!r}.")


class GeneratingModel:
    """One checkpoint: texts in, several outputs each. It is found at once and loaded when it is first needed.

    Attributes:
        checkpoint: Which it is.
        is_seq2seq: Whether it is sequence-to-sequence, by its configuration; otherwise it is taken for causal.
        revision: The commit of a Hub model, or a hash of a folder's files.
        device: Where it runs.
        dtype: What it computes in.
    """

    def __init__(
        self, checkpoint: str | Checkpoint, options: GenerationOptions, *, sampling: Sampling | None = None
    ) -> None:
        """Find the checkpoint and read its configuration.

        Args:
            checkpoint: The checkpoint.
            options: How to run it.
            sampling: Draw outputs instead of searching for the likeliest.

        Raises:
            OSError: If the checkpoint cannot be found.
            ValueError: If it needs code of its repository, which is never run.
        """
        from transformers import AutoConfig

        self.checkpoint = Checkpoint(checkpoint) if isinstance(checkpoint, str) else checkpoint
        self.revision = _find_revision(self.checkpoint)
        self.device = options.device or _choose_device()
        self.dtype = options.dtype if options.dtype != "auto" else _choose_dtype(self.device)
        self._options = options
        self._sampling = sampling
        self._is_folder = Path(self.checkpoint.model).is_dir()
        # What the identity names is what is loaded, even if the branch moves in between.
        self._load_options: dict[str, Any] = {"trust_remote_code": False}
        if not self._is_folder:
            self._load_options["revision"] = self.revision
        self._config: Any = AutoConfig.from_pretrained(self.checkpoint.model, **self._load_options)
        self.is_seq2seq = bool(self._config.is_encoder_decoder)
        self._template = self.checkpoint.template or ("{text}" if self.is_seq2seq else CAUSAL_TEMPLATE)

    @property
    def identity(self) -> dict[str, Any]:
        """All that its outputs depend on; a folder is known by its name and files: it may move, not change."""
        folder = Path(self.checkpoint.model).resolve()
        return {
            "model": folder.name if self._is_folder else self.checkpoint.model,
            "revision": self.revision,
            "template": self._template,
            "languages": [self.checkpoint.source_language, self.checkpoint.target_language],
            "search": asdict(self._sampling) if self._sampling else {"num_beams": self._options.num_beams},
            "max_new_tokens": self._options.max_new_tokens,
            "dtype": self.dtype,
        }

    def generate(self, texts: Sequence[str], *, num_outputs: int) -> list[list[str]]:
        """Generate outputs in batches of like length, the longest first: what does not fit into memory fails at once.

        Args:
            texts: The texts.
            num_outputs: How many outputs to ask of each.

        Returns:
            The outputs of each text, best first, without those that came to no end; none for a text that is too long.
        """
        outputs: list[list[str]] = [[] for _ in texts]
        prompts = [self._write_prompt(text) for text in texts]
        lengths = [len(tokens) for tokens in self._encode(prompts).input_ids] if prompts else []
        fitting = [place for place, length in enumerate(lengths) if length <= self._max_input_tokens]
        fitting.sort(key=lambda place: (-lengths[place], texts[place]))
        for start in range(0, len(fitting), self._options.batch_size):
            batch = fitting[start : start + self._options.batch_size]
            longest = max(len(self._tokenizer(texts[place], verbose=False).input_ids) for place in batch)
            found = self._generate_batch([prompts[place] for place in batch], num_outputs, 2 * longest + 16)
            for place, each in zip(batch, found, strict=True):
                outputs[place] = each
        return outputs

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.checkpoint.model, **self._load_options)
        except (ImportError, ValueError) as error:
            raise ImportError(
                f"The tokenizer of {self.checkpoint.model} cannot be loaded: {error}\nMany translation models need "
                'sentencepiece and sacremoses: pip install "instructor-st[augment]"'
            ) from error
        tokenizer.padding_side = "right" if self.is_seq2seq else "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        if self.checkpoint.source_language:
            tokenizer.src_lang = self.checkpoint.source_language
        return tokenizer

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

        loader: Any = AutoModelForSeq2SeqLM if self.is_seq2seq else AutoModelForCausalLM
        options = {"dtype": getattr(torch, self.dtype), "use_safetensors": self._options.use_safetensors}
        model = loader.from_pretrained(self.checkpoint.model, **self._load_options, **options).to(self.device).eval()
        # A forced end would make outputs that ran out of tokens look finished; the length is set call by call.
        model.generation_config.forced_eos_token_id = None
        model.generation_config.max_length = None
        if self.checkpoint.target_language:
            model.generation_config.forced_bos_token_id = self._find_language(self.checkpoint.target_language)
        return model

    def _generate_batch(self, prompts: list[str], num_outputs: int, budget: int) -> list[list[str]]:
        import torch

        inputs = self._encode(prompts, padding=True, return_tensors="pt").to(self.device)
        width = inputs.input_ids.shape[1]
        room = self._max_positions - (1 if self.is_seq2seq else width)
        search: dict[str, Any] = {"do_sample": False, "num_beams": max(self._options.num_beams, num_outputs)}
        if self._sampling:
            search = {"do_sample": True, "num_beams": 1, "top_k": 0}
            search |= {"temperature": self._sampling.temperature, "top_p": self._sampling.top_p}
        # Loaded before the seed is set: loading draws numbers too.
        model = self._model
        with torch.inference_mode(), _seeded(self._sampling, prompts):
            sequences = model.generate(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                num_return_sequences=num_outputs,
                max_new_tokens=min(self._options.max_new_tokens, budget, room),
                pad_token_id=self._tokenizer.pad_token_id,
                **search,
            )
        sequences = sequences[:, 1 if self.is_seq2seq else width :].tolist()
        texts = [self._read_output(sequence) for sequence in sequences]
        return [
            [text for text in texts[start : start + num_outputs] if text is not None]
            for start in range(0, len(texts), num_outputs)
        ]

    def _read_output(self, tokens: list[int]) -> str | None:
        """The output's text, if it came to an end."""
        ends = self._model.generation_config.eos_token_id
        if not isinstance(ends, list):
            ends = [ends]
        end = next((place for place, token in enumerate(tokens) if token in ends), None)
        text = str(self._tokenizer.decode(tokens[:end], skip_special_tokens=True)).strip()
        if not self.is_seq2seq and not self._is_chat and "\n\n" in text:
            return text.split("\n\n")[0].strip()
        # What a model thinks aloud before its answer is not the answer.
        return None if end is None else text.split("</think>")[-1].strip()

    @property
    def _is_chat(self) -> bool:
        return not self.is_seq2seq and bool(getattr(self._tokenizer, "chat_template", None))

    def _write_prompt(self, text: str) -> str:
        prompt = self._template.replace("{text}", text)
        if not self._is_chat:
            return prompt
        chat = [{"role": "user", "content": prompt}]
        options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
        return str(self._tokenizer.apply_chat_template(chat, **options))

    def _encode(self, prompts: list[str], **options: Any) -> Any:
        # A chat template writes the special tokens itself.
        return self._tokenizer(prompts, add_special_tokens=not self._is_chat, verbose=False, **options)

    @property
    def _max_positions(self) -> int:
        # Models of several kinds of input keep it in a configuration of their own for text.
        configs = (self._config, self._config.get_text_config())
        found = (getattr(config, "max_position_embeddings", None) for config in configs)
        return next((int(limit) for limit in found if limit), _UNBOUNDED)

    @property
    def _max_input_tokens(self) -> int:
        limit = min(self._max_positions, int(self._tokenizer.model_max_length))
        # A causal model's output stands behind its input.
        return limit if self.is_seq2seq else limit // 2

    def _find_language(self, language: str) -> int:
        find = getattr(self._tokenizer, "get_lang_id", self._tokenizer.convert_tokens_to_ids)
        try:
            token = find(language)
        except KeyError:
            token = None
        if token is None or token == self._tokenizer.unk_token_id:
            raise ValueError(
                f"{language!r} is not a language of {self.checkpoint.model}: its tokenizer has no such code."
            )
        return int(token)


@contextmanager
def _seeded(sampling: Sampling | None, prompts: Sequence[str]) -> Iterator[None]:
    """Draw by a seed of the batch's own, and leave the caller's random numbers as they were."""
    import torch

    if sampling is None:
        yield
        return
    content = json.dumps([sampling.seed, *prompts]).encode()
    seed = int.from_bytes(hashlib.blake2b(content, digest_size=7).digest(), "big")
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def _find_revision(checkpoint: Checkpoint) -> str:
    """The commit of a Hub model, or a hash of a folder's files."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    folder = Path(checkpoint.model)
    if not folder.is_dir():
        try:
            config = hf_hub_download(checkpoint.model, "config.json", revision=checkpoint.revision)
        except HFValidationError:
            raise FileNotFoundError(f"{checkpoint.model} is neither a folder nor the id of a Hub model.") from None
        # The Hub's cache keeps each commit in a folder of its name.
        return Path(config).parent.name
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no transformers checkpoint: there is no config.json.")
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _choose_device() -> str:
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator.type if accelerator else "cpu"


def _choose_dtype(device: str | torch.device) -> str:
    """bfloat16 where the hardware computes in it: elsewhere it is emulated, and slower than float32."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if kind != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return "float32"
    capabilities = torch.cpu.get_capabilities()
    return "bfloat16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "float32"
