from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, M2M100Config, M2M100ForConditionalGeneration

from instructor_st.data.augmentation import generating_model
from instructor_st.data.augmentation.generating_model import GeneratingModel, GenerationOptions
from instructor_st.data.augmentation.text_generators import BackTranslator, Checkpoint, Paraphraser, Sampling
from tests.conftest import MINILM, T5
from tests.toy_translation import get_causal_model, get_translators, make_paraphrases, make_sentences, translate

FLOAT32 = {"dtype": "float32", "device": "cpu"}
COMMIT = "c" * 40


@pytest.fixture(scope="session")
def translators(tmp_path_factory) -> tuple[Path, Path]:
    return get_translators(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def causal_model(tmp_path_factory) -> Path:
    return get_causal_model(tmp_path_factory.getbasetemp())


def build(translators: tuple[Path, Path], **options) -> BackTranslator:
    return BackTranslator(*map(str, translators), **{**FLOAT32, **options})


@pytest.mark.slow
def test_sentences_go_there_and_back(translators):
    sentences = make_sentences(40)
    candidates = build(translators, batch_size=8)(sentences)
    best = [translate(each[0]) == translate(sentence) for sentence, each in zip(sentences, candidates, strict=True)]
    assert sum(best) >= 36
    assert all(1 < len(each) <= 4 and len(set(each)) == len(each) for each in candidates)
    # The way back has synonyms to choose from, so that the same sentence is found in other words too.
    others = [
        any(candidate != sentence and translate(candidate) == translate(sentence) for candidate in each)
        for sentence, each in zip(sentences, candidates, strict=True)
    ]
    assert sum(others) >= 30


@pytest.mark.slow
def test_the_candidates_are_those_of_transformers_own_beam_search(translators):
    """One candidate, one beam: forward's best, then backward's best; computed here by hand."""
    text = make_sentences(1)[0]
    for folder in translators:
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)
        tokens = model.generate(**tokenizer([text], return_tensors="pt"), num_beams=3, max_length=30)
        (text,) = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    assert build(translators, num_candidates=1, num_beams=3)(make_sentences(1)) == [[text]]


@pytest.mark.slow
def test_neighbouring_candidates_come_from_different_translations(translators):
    (text,) = make_sentences(1)
    forward = GeneratingModel(str(translators[0]), GenerationOptions(**FLOAT32))
    backward = GeneratingModel(str(translators[1]), GenerationOptions(**FLOAT32))
    (ways,) = forward.generate([text], num_outputs=2)
    back = backward.generate(ways, num_outputs=2)
    expected = [back[0][0], back[1][0], back[0][1], back[1][1]]
    assert len(set(expected)) == 4
    assert build(translators)([text]) == [expected]
    # Three are asked: two ways there and two back, and the last one goes.
    assert build(translators, num_candidates=3)([text]) == [expected[:3]]


@pytest.mark.slow
def test_neither_order_nor_batches_matter(translators):
    sentences = make_sentences(13)
    whole = build(translators)(sentences)
    assert build(translators, batch_size=3)(sentences[::-1]) == whole[::-1]
    assert build(translators)([]) == []
    assert build(translators)([sentences[0], sentences[0]]) == [whole[0], whole[0]]


@pytest.mark.slow
def test_long_texts_have_no_candidate_and_unfinished_outputs_are_left_out(translators):
    sentence = make_sentences(1)[0]
    long_text = " ".join([sentence] * 6)
    assert len(long_text.split()) > 32
    candidates = build(translators)([long_text, sentence])
    assert candidates[0] == []
    assert candidates[1] == build(translators)([sentence])[0] != []
    assert build(translators, max_new_tokens=3)([sentence]) == [[]]


@pytest.mark.slow
def test_draws_depend_on_the_seed_and_on_the_texts_alone(translators):
    sentences = make_sentences(10)
    options = {"sampling": Sampling(temperature=3.0), "batch_size": 4}
    generator = build(translators, **options)
    drawn = generator(sentences)
    before = torch.random.get_rng_state()
    # The models were loaded in the first call, which must not have changed its draws.
    assert generator(sentences[::-1])[::-1] == drawn
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(5)
    assert build(translators, **options)(sentences) == drawn
    others = [
        {"sampling": Sampling(temperature=3.0, seed=1)},
        {"sampling": Sampling(temperature=0.5)},
        {"sampling": None},
    ]
    assert all(build(translators, **{**options, **other})(sentences) != drawn for other in others)
    # The likeliest token alone is left to draw: all ways there are one, with two ways back.
    likeliest = build(translators, sampling=Sampling(temperature=3.0, top_p=1e-6))(sentences)
    assert all(len(each) == 2 for each in likeliest)


@pytest.mark.slow
def test_weights_are_read_from_safetensors_or_from_a_pickle_without_code(translators, tmp_path):
    sentences = make_sentences(3)
    expected = build(translators)(sentences)
    old = tmp_path / "old"
    shutil.copytree(translators[1], old)
    torch.save(AutoModelForSeq2SeqLM.from_pretrained(old).state_dict(), old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    assert build((translators[0], old))(sentences) == expected
    with pytest.raises(OSError, match="safetensors"):
        build((translators[0], old), use_safetensors=True)(sentences)


@pytest.mark.slow
def test_a_model_of_the_hub_is_known_and_loaded_by_its_commit(translators, tmp_path, monkeypatch):
    cache = tmp_path / "models--acme--toy"
    shutil.copytree(translators[0], cache / "snapshots" / COMMIT)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    generator = Paraphraser("acme/toy", **FLOAT32)
    assert (
        json.loads(generator.identity)["model"] | {"model": "acme/toy", "revision": COMMIT}
        == json.loads(generator.identity)["model"]
    )
    # The branch moves before the weights are read: the commit is what counts.
    (cache / "refs" / "main").write_text("d" * 40)
    assert generator([make_sentences(1)[0]]) == Paraphraser(str(translators[0]), **FLOAT32)(make_sentences(1))


@pytest.mark.slow
def test_the_identity_follows_files_and_options(translators, tmp_path):
    def identify(**options) -> str:
        return build(translators, **options).identity

    moved = tmp_path / translators[0].name
    shutil.copytree(translators[0], moved)
    assert BackTranslator(str(moved), str(translators[1]), **FLOAT32).identity == identify()
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(weights)
    options = [
        {"num_candidates": 3},
        {"num_beams": 5},
        {"max_new_tokens": 20},
        {"dtype": "bfloat16"},
        {"sampling": Sampling()},
        {"sampling": Sampling(seed=1)},
    ]
    identities = [identify(), *(identify(**option) for option in options)]
    identities.append(BackTranslator(str(moved), str(translators[1]), **FLOAT32).identity)
    template = Checkpoint(str(translators[0]), template=">>eo<< {text}")
    identities.append(BackTranslator(template, str(translators[1]), **FLOAT32).identity)
    assert max(Counter(identities).values()) == 1
    assert identify(batch_size=7) == identify()


@pytest.mark.slow
def test_nothing_is_loaded_before_it_is_needed(translators, tmp_path):
    copies = [tmp_path / folder.name for folder in translators]
    for folder, copy in zip(translators, copies, strict=True):
        shutil.copytree(folder, copy)
        (copy / "model.safetensors").unlink()
    generator = build(tuple(copies))
    assert "toy-en" in generator.identity
    with pytest.raises(OSError, match="en-toy"):
        generator(["The big dog sees 4 cats."])


@pytest.mark.slow
def test_the_template_is_what_the_model_is_given(translators):
    """The template turns a word that the model does not know into the sentence that it knows."""
    sentence = make_sentences(1)[0]
    template = sentence.replace("The", "{text}")
    given = Paraphraser(Checkpoint(str(translators[0]), template=template), num_candidates=1, **FLOAT32)(["The"])
    assert given == [[translate(sentence)]]


@pytest.mark.slow
def test_a_causal_chat_model_answers(causal_model):
    pairs = make_paraphrases()
    generator = Paraphraser(
        Checkpoint(str(causal_model), template="{text}"), num_candidates=1, num_beams=1, batch_size=4, **FLOAT32
    )
    # Batches of texts of different lengths: padding on the wrong side would give other answers.
    assert len({len(text.split()) for text in pairs}) == 2
    assert generator(list(pairs)) == [[answer] for answer in pairs.values()]
    several = Paraphraser(Checkpoint(str(causal_model), template="{text}"), num_candidates=3, **FLOAT32)
    assert [each[0] for each in several(list(pairs))] == list(pairs.values())


@pytest.mark.slow
def test_a_causal_model_without_chat_template_answers_up_to_the_first_blank_line(causal_model, tmp_path):
    pairs = make_paraphrases()
    plain = tmp_path / "plain"
    shutil.copytree(causal_model, plain)
    (plain / "chat_template.jinja").unlink()
    generator = Paraphraser(
        Checkpoint(str(plain), template="{text} =>"), num_candidates=1, num_beams=1, batch_size=4, **FLOAT32
    )
    assert generator(list(pairs)) == [[answer] for answer in pairs.values()]
    # Twice the text's tokens and 16 are room for the answer and a blank line; 6 are not.
    short = Paraphraser(Checkpoint(str(plain), template="{text} =>"), num_beams=1, max_new_tokens=6, **FLOAT32)
    assert short(list(pairs)[:2]) == [[], []]
    # Half of the 96 positions are for what goes in.
    assert generator(["The big dog sees 4 cats. " * 9]) == [[]]


@pytest.mark.slow
def test_an_answer_stands_behind_the_thoughts(causal_model):
    model = GeneratingModel(str(causal_model), GenerationOptions(**FLOAT32))
    end = model._tokenizer.eos_token_id

    def read(text: str) -> str | None:
        return model._read_output([*model._tokenizer(text).input_ids, end])

    assert read(" <think>hm</think>\n\nOne cat. ") == "One cat."
    assert read("One cat.\n\nAnd a dog.") == "One cat.\n\nAnd a dog."


def test_language_codes_set_the_first_token_and_unknown_ones_are_named(tmp_path):
    import sentencepiece
    from transformers import M2M100Tokenizer

    lines = iter(make_sentences(50))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_prefix=str(tmp_path / "m"), vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "m.model"))
    names = ["<s>", "<pad>", "</s>", "<unk>", *(pieces.id_to_piece(place) for place in range(3, len(pieces)))]
    (tmp_path / "vocab.json").write_text(json.dumps({name: place for place, name in enumerate(names)}))
    folder = tmp_path / "model"
    tokenizer = M2M100Tokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "m.model"))
    tokenizer.save_pretrained(folder)
    sizes = dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"), 1)
    config = M2M100Config(vocab_size=200, d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, **sizes)
    M2M100ForConditionalGeneration(config).save_pretrained(folder)
    found = GeneratingModel(
        Checkpoint(str(folder), source_language="fr", target_language="de"), GenerationOptions(**FLOAT32)
    )
    assert found._tokenizer(["dog"]).input_ids[0][0] == tokenizer.get_lang_id("fr")
    assert found._model.generation_config.forced_bos_token_id == tokenizer.get_lang_id("de")
    wrong = Checkpoint(str(folder), source_language="fr", target_language="deu_Latn")
    with pytest.raises(ValueError, match=r"'deu_Latn' is not a language of .*model"):
        Paraphraser(wrong, **FLOAT32)(["dog"])


def test_code_of_a_model_repository_is_not_run(tmp_path):
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(
        f"import pathlib\npathlib.Path({str(ran)!r}).touch()\nfrom transformers import PretrainedConfig\n"
        "class EvilConfig(PretrainedConfig):\n    model_type = 'evil'\n"
    )
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trust_remote_code"):
        Paraphraser(str(tmp_path), **FLOAT32)
    assert not ran.exists()


def test_a_model_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"minilm.* is not a sequence-to-sequence checkpoint"):
        BackTranslator(T5, MINILM, **FLOAT32)
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        Paraphraser(str(tmp_path), **FLOAT32)
    with pytest.raises(FileNotFoundError, match="no/such/model is neither a folder nor the id of a Hub model"):
        Paraphraser("no/such/model", **FLOAT32)


def test_a_missing_tokenizer_library_names_the_extra(monkeypatch):
    def fail(*_, **__):
        raise ImportError("MarianTokenizer requires the SentencePiece library")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(ImportError, match=r"SentencePiece library\n.*instructor-st\[augment\]"):
        Paraphraser(T5, **FLOAT32)(["a"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Checkpoint("m", template="paraphrase:"), "has no {text}"),
        (lambda: Sampling(temperature=0), "temperature must be above 0, not 0"),
        (lambda: Sampling(top_p=1.5), "top_p must be above 0 and at most 1, not 1.5"),
        (lambda: Paraphraser(T5, num_candidates=0), "num_candidates must be 1 or more, not 0"),
        (lambda: Paraphraser(T5, batch_size=0), "batch_size must be 1 or more, not 0"),
        (lambda: BackTranslator(T5, T5, max_new_tokens=0), "max_new_tokens must be 1 or more, not 0"),
        (lambda: Paraphraser(T5, dtype="int8"), "dtype must be one of .*, not 'int8'"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx2": True}, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_computes_in_it(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert GeneratingModel(T5, GenerationOptions(device="cpu")).dtype == dtype
    assert generating_model._choose_dtype("meta") == "float32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert generating_model._choose_dtype("cuda") == "float32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert generating_model._choose_dtype("cuda:1") == "bfloat16"


@pytest.mark.slow
def test_bfloat16_translates_too(translators):
    sentences = make_sentences(10)
    candidates = build(translators, dtype="bfloat16")(sentences)
    best = [translate(each[0]) == translate(sentence) for sentence, each in zip(sentences, candidates, strict=True)]
    assert sum(best) >= 7
    assert build(translators, dtype="bfloat16")._forward._model.dtype == torch.bfloat16
