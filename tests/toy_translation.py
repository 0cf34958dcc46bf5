"""A toy language with its translation models, trained in seconds; a causal model that has learnt some paraphrases."""

from __future__ import annotations

import json
import random
from pathlib import Path

import sentencepiece
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, MarianConfig, MarianMTModel, MarianTokenizer
from transformers import PreTrainedTokenizerFast as FastTokenizer

NOUNS = {"dog": "hundo", "cat": "kato", "teacher": "instruo", "farmer": "kampulo", "child": "infano", "king": "rego"}
ADJECTIVES = {"big": "granda", "large": "granda", "small": "eta", "little": "eta", "quick": "rapida", "fast": "rapida"}
VERBS = {"sees": "vidas", "watches": "vidas", "likes": "amas", "follows": "sekvas"}
PLACES = {"house": "domo", "river": "rivero", "garden": "gardeno"}
CHAT_TEMPLATE = "{% for message in messages %}User: {{ message.content }}\nAnswer:{% endfor %}"


def make_sentences(count: int, seed: int = 0) -> list[str]:
    """Different English sentences of two lengths: "The big dog sees 4 cats." and "... near the house."."""
    draw, sentences = random.Random(seed), dict[str, None]()
    while len(sentences) < count:
        first, second = draw.sample(sorted(NOUNS), 2)
        adjective, verb, number = draw.choice(sorted(ADJECTIVES)), draw.choice(sorted(VERBS)), draw.randint(2, 9)
        place = f" near the {draw.choice(sorted(PLACES))}" if draw.random() < 0.4 else ""
        sentences[f"The {adjective} {first} {verb} {number} {second}s{place}."] = None
    return list(sentences)


def translate(sentence: str) -> str | None:
    """Word for word in another order; synonyms have one translation. None if it is not a sentence of the language."""
    words = sentence.removesuffix(".").split()
    try:
        _, adjective, noun, verb, number, plural = words[:6]
        place = f"Apud la {PLACES[words[8]]} la" if words[6:8] == ["near", "the"] and len(words) == 9 else "La"
        if (place == "La" and len(words) > 6) or words[0] != "The" or plural[-1] != "s" or not sentence.endswith("."):
            return None
        objects = f"{NOUNS[plural[:-1]]}j"
        return f"{place} {NOUNS[noun]} {ADJECTIVES[adjective]} {int(number)} {objects} {VERBS[verb]}."
    except (KeyError, ValueError, IndexError):
        return None


def get_translators(base: Path) -> tuple[Path, Path]:
    """Folders of a model into the toy language and of one back, trained once a test run."""
    folder = base / "translators"
    forward, backward = folder / "en-toy", folder / "toy-en"
    if not folder.exists():
        pairs = [(sentence, str(translate(sentence))) for sentence in make_sentences(300)]
        _train_marian(pairs, forward)
        _train_marian([(toy, english) for english, toy in pairs], backward)
    return forward, backward


def get_causal_model(base: Path) -> Path:
    """A folder of a causal model that knows the paraphrases of `make_paraphrases`, as a chat and as plain text."""
    folder = base / "causal"
    if not folder.exists():
        _train_causal(folder)
    return folder


def make_paraphrases() -> dict[str, str]:
    """Sentences and the paraphrases that the causal model has learnt."""
    sentences = make_sentences(10, seed=1)
    return {text: text.replace("The", "One") for text in sentences}


def _train_marian(pairs: list[tuple[str, str]], folder: Path, steps: int = 350) -> None:
    tokenizer = _build_marian_tokenizer(pairs, folder)
    pad = tokenizer.pad_token_id
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=64,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_position_embeddings=32,
        pad_token_id=pad,
        eos_token_id=0,
        decoder_start_token_id=pad,
        forced_eos_token_id=0,
        scale_embedding=True,
        dropout=0.0,
    )
    torch.manual_seed(0)
    model = MarianMTModel(config).train()
    batch = tokenizer([source for source, _ in pairs], text_target=[target for _, target in pairs], padding=True)
    batch = {name: torch.tensor(values) for name, values in batch.items()}
    batch["labels"][batch["labels"] == pad] = -100
    _optimize(model, batch, steps)
    # As in the released translation models.
    model.generation_config.update(num_beams=4, max_length=32, bad_words_ids=[[pad]], forced_eos_token_id=0)
    model.save_pretrained(folder)


def _build_marian_tokenizer(pairs: list[tuple[str, str]], folder: Path) -> MarianTokenizer:
    folder.mkdir(parents=True)
    pieces = dict[str, None]()
    for name, lines in zip(("source", "target"), zip(*pairs, strict=True), strict=True):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_prefix=str(folder / name),
            vocab_size=300,
            model_type="word",
            hard_vocab_limit=False,
            minloglevel=2,
        )
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
        (folder / f"{name}.vocab").unlink()
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
        pieces.update(dict.fromkeys(model.id_to_piece(place) for place in range(model.get_piece_size())))
    names = ["</s>", "<unk>", *(piece for piece in pieces if piece not in ("<s>", "</s>", "<unk>")), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({name: place for place, name in enumerate(names)}), encoding="utf-8")
    files = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
    tokenizer = MarianTokenizer(*files, source_lang="en", target_lang="eo", model_max_length=32)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _train_causal(folder: Path, steps: int = 200) -> None:
    examples = []
    for text, answer in make_paraphrases().items():
        examples.append(f"User: {text}\nAnswer: {answer}<end>")
        examples.append(f"{text} => {answer}\n\nAnd then{text[3:]}\n\nAnd then{text[3:]}")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(examples, vocab_size=400, special_tokens=["<end>"], show_progress=False)
    tokenizer = FastTokenizer(tokenizer_object=bpe._tokenizer, eos_token="<end>", model_max_length=96)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.pad_token = tokenizer.eos_token
    batch = tokenizer(examples, padding=True, return_tensors="pt")
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=96,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).train()
    values = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}
    _optimize(model, values, steps)
    model.save_pretrained(folder)
    # Many causal models have no token to pad with.
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)


def _optimize(model: torch.nn.Module, batch: dict[str, torch.Tensor], steps: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    draw = torch.Generator().manual_seed(0)
    rows = len(batch["input_ids"])
    for _ in range(steps):
        places = torch.randint(rows, (min(rows, 64),), generator=draw)
        loss = model(**{name: values[places] for name, values in batch.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
    torch.set_num_threads(threads)
