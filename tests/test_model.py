from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertModel

from instructor_st import INSTRUCTOR, DualEncoderConcat, InstructionPooling, InstructionPrepend
from tests.conftest import MINILM, T5

I, T = "Represent the Science sentence: ", "Parton energy loss in QCD matter"  # noqa: E741
PAIRS = [[I, T], ["", "no instruction"], ["Represent the caption: ", "red apples"]]


# --- parity with the old package ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t5-tiny-instructor", "minilm-instructor"])
def test_vectors_equal_those_of_the_old_package(name, reference, minilm_instructor):
    model = INSTRUCTOR(T5 if name.startswith("t5") else minilm_instructor, device="cpu")
    cases, vectors = reference[name]
    pairs = [[case["instruction"], case["text"]] for case in cases]
    kept = np.array([case["category"] != "instr_too_long" for case in cases])
    assert kept.sum() == 65
    np.testing.assert_allclose(model.encode(pairs)[kept], vectors["batch"][kept], atol=1e-5, rtol=0)
    singles = np.stack([model.encode([pair])[0] for pair in pairs])
    np.testing.assert_allclose(singles[kept], vectors["single"][kept], atol=1e-5, rtol=0)
    texts = [case["text"] for case in cases]
    np.testing.assert_allclose(model.encode(texts), vectors["plain_text_only"], atol=1e-5, rtol=0)
    # The listed exception: there the old package pooled the closing token alone; here the text counts.
    assert np.abs(singles[~kept] - vectors["single"][~kept]).max() > 1e-2


def test_window_is_512_whatever_the_configuration_says(minilm_instructor, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(minilm_instructor, folder)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 256, "do_lower_case": false}')
    assert INSTRUCTOR(str(folder), device="cpu").max_seq_length == 512
    limited = INSTRUCTOR(str(folder), device="cpu", processor_kwargs={"model_max_length": 100})
    assert limited.max_seq_length == 100
    INSTRUCTOR(str(folder), device="cpu").save_pretrained(str(tmp_path / "saved"))
    assert SentenceTransformer(str(tmp_path / "saved"), device="cpu").max_seq_length == 512


def test_old_calls_work(t5_model):
    expected = t5_model.encode([[I, T]])
    assert expected.shape == (1, 96)
    assert expected.dtype == np.float32
    for inputs in (([I, T],), [(I, T)], [{"instruction": I, "text": T}], np.array([[I, T]])):
        np.testing.assert_array_equal(t5_model.encode(inputs), expected)
    np.testing.assert_array_equal(t5_model.encode({"instruction": I, "text": T}), expected[0])
    np.testing.assert_array_equal(t5_model.encode(sentences=[[I, T]]), expected)
    assert t5_model.encode(T).shape == (96,)
    assert t5_model.encode([I, T]).shape == (2, 96)  # two texts, as ever
    assert t5_model.encode((I, T)).shape == (2, 96)
    np.testing.assert_allclose(t5_model.encode([[I, T], T]), np.stack([expected[0], t5_model.encode(T)]), atol=1e-6)
    assert t5_model.encode([]).shape == (0,)


def test_old_positional_arguments(t5_model, monkeypatch):
    seen = {}
    original = SentenceTransformer.encode
    monkeypatch.setattr(
        SentenceTransformer,
        "encode",
        lambda self, inputs, **kwargs: seen.update(kwargs) or original(self, inputs, **kwargs),
    )
    out = t5_model.encode([[I, T]], 7, False, "sentence_embedding", False, True)
    assert isinstance(out, torch.Tensor)
    assert seen["batch_size"] == 7
    assert seen["convert_to_tensor"] is True
    with pytest.raises(ValueError, match="Too many positional arguments"):
        t5_model.encode([[I, T]], 7, False, None, True, False, "cpu", True, 5)


# --- errors --------------------------------------------------------------------------------------------------------


def test_nothing_is_embedded_before_an_error_that_names_the_position(t5_model, monkeypatch):
    calls = []
    monkeypatch.setattr(INSTRUCTOR, "preprocess", lambda *args, **kwargs: calls.append(1))
    with pytest.raises(ValueError, match=r"Input 99 of 100: Cannot embed \['i', None\]"):
        t5_model.encode([[I, T]] * 99 + [["i", None]], batch_size=2)
    with pytest.raises(ValueError, match="Input 0 of 1: Cannot embed 5"):
        t5_model.encode(5)
    assert calls == []


def test_plain_sentence_transformer_shows_the_value(t5_model):
    plain = SentenceTransformer(modules=list(t5_model), device="cpu")
    with pytest.raises(ValueError, match=r"Cannot embed \['i', 't', 0\]"):
        plain.encode([["i", "t", 0]])
    np.testing.assert_array_equal(plain.encode(PAIRS), t5_model.encode(PAIRS))


def test_pairs_on_stock_modules_are_refused():
    model = INSTRUCTOR(modules=[Transformer(MINILM), Pooling(384)], device="cpu")
    with pytest.raises(ValueError, match="begins with Transformer, which would tokenise"):
        model.encode([[I, T]])
    assert model.encode([T]).shape == (1, 384)


# --- sentence-transformers' own ways -------------------------------------------------------------------------------


def test_prompts_are_instructions_of_bare_strings(prepend_model, dual_model):
    for model in (prepend_model, dual_model):
        expected = model.encode([[I, T], ["", "b"]])
        np.testing.assert_allclose(model.encode([T, ["", "b"]], prompt=I), expected, atol=1e-6)
        model.prompts["science"] = I
        np.testing.assert_allclose(model.encode([T], prompt_name="science"), expected[:1], atol=1e-6)
        model.prompts["query"] = I
        try:
            np.testing.assert_allclose(model.encode_query([T]), expected[:1], atol=1e-6)
            np.testing.assert_allclose(model.encode_query([["", "b"]]), expected[1:], atol=1e-6)
            np.testing.assert_allclose(model.encode_document([[I, T]]), expected[:1], atol=1e-6)
        finally:
            model.prompts["query"] = ""
            del model.prompts["science"]


@pytest.mark.parametrize("architecture", ["prepend", "dual"])
def test_multi_process_encode_equals_one_process(architecture, prepend_model, dual_model):
    model = prepend_model if architecture == "prepend" else dual_model
    pairs = [[f"Represent number {i % 3}: ", f"text {i}"] for i in range(12)]
    pool = model.start_multi_process_pool(["cpu", "cpu"])
    try:
        together = model.encode(pairs, pool=pool, chunk_size=5)
    finally:
        model.stop_multi_process_pool(pool)
    np.testing.assert_allclose(together, model.encode(pairs), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["prepend", "dual"])
def test_saved_model_gives_the_same_vectors_bit_for_bit(architecture, dtype, prepend_model, dual_model, tmp_path):
    import copy

    model = copy.deepcopy(prepend_model if architecture == "prepend" else dual_model).to(dtype)
    model.save_pretrained(str(tmp_path))
    before = model.encode(PAIRS, convert_to_tensor=True)
    assert before.dtype == dtype
    for loader in (INSTRUCTOR, SentenceTransformer):
        loaded = loader(str(tmp_path), device="cpu", model_kwargs={"dtype": dtype})
        assert torch.equal(loaded.encode(PAIRS, convert_to_tensor=True), before)
    types = [module["type"] for module in json.loads((tmp_path / "modules.json").read_text())]
    first = "InstructionPrepend" if architecture == "prepend" else "DualEncoderConcat"
    assert types[0] == f"instructor_st.modules.{first}"
    assert not list(tmp_path.rglob("*.bin"))


# --- building ------------------------------------------------------------------------------------------------------


def test_prepend_from_encoder_keeps_what_the_base_has(prepend_model):
    assert [type(module) for module in prepend_model] == [InstructionPrepend, InstructionPooling, Normalize]
    assert prepend_model.max_seq_length == 256
    from_memory = INSTRUCTOR.from_encoder(SentenceTransformer(MINILM, device="cpu"))
    np.testing.assert_array_equal(from_memory.encode(PAIRS), prepend_model.encode(PAIRS))


def test_from_encoder_copies_a_model_in_memory(monkeypatch):
    from instructor_st import model as module

    messages = []
    monkeypatch.setattr(module.logger, "warning", messages.append)
    base = SentenceTransformer(MINILM, device="cpu", prompts={"query": "query: "})
    before = base.encode([T])
    built = INSTRUCTOR.from_encoder(base, "dual")
    assert len(messages) == 1
    assert "{'query': 'query: '}" in messages[0]
    with pytest.raises(ValueError, match="revision: the base is loaded already"):
        INSTRUCTOR.from_encoder(base, device="cpu", revision="main")
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(base.encode([T]), before)


@pytest.mark.parametrize("head", ["residual", "linear"])
@pytest.mark.parametrize("share", [True, False])
def test_untrained_dual_model_embeds_as_its_base(head, share):
    base = SentenceTransformer(MINILM, device="cpu")
    model = INSTRUCTOR.from_encoder(MINILM, "dual", head=head, share_encoders=share, device="cpu")
    assert [type(module) for module in model] == [DualEncoderConcat, Dense, Normalize]
    expected = base.encode([text for _, text in PAIRS])
    np.testing.assert_allclose(model.encode(PAIRS), expected, atol=1e-6)


@pytest.mark.parametrize("head", ["residual", "linear"])
def test_both_halves_of_an_untrained_head_learn(head):
    model = INSTRUCTOR.from_encoder(MINILM, "dual", head=head, device="cpu")
    out = model(model.preprocess(PAIRS))["sentence_embedding"]
    out[:, 0].sum().backward()
    gradient = model[1].linear.weight.grad
    assert gradient[:, :384].abs().max() > 0
    assert gradient[:, 384:].abs().max() > 0


def test_dual_from_two_checkpoints_and_its_options():
    model = INSTRUCTOR.from_encoder(
        MINILM, "dual", instruction_encoder=T5, instruction_pooling="cls", embedding_dimension=64, device="cpu"
    )
    assert model[0].get_embedding_dimension() == 128 + 384
    assert (model[0].instruction_pooling, model[0].text_pooling) == ("cls", "mean")
    assert model.encode(PAIRS).shape == (3, 64)


def test_plain_transformers_checkpoint(tmp_path):
    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertModel(config).save_pretrained(tmp_path)
    SentenceTransformer(MINILM, device="cpu").tokenizer.save_pretrained(tmp_path)
    for model in (INSTRUCTOR(str(tmp_path), device="cpu"), INSTRUCTOR.from_encoder(str(tmp_path), device="cpu")):
        assert [type(module) for module in model] == [InstructionPrepend, InstructionPooling]
        assert model.encode(PAIRS).shape == (3, 32)
        assert model.preprocess([[I, T]])["instruction_mask"].sum() > 0
    dual = INSTRUCTOR.from_encoder(str(tmp_path), "dual", device="cpu")
    assert dual.encode(PAIRS).shape == (3, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "both"}, "architecture must be 'prepend' or 'dual'"),
        ({"architecture": "prepend", "share_encoders": True}, "share_encoders: only architecture='dual'"),
        ({"architecture": "prepend", "head": "linear", "embedding_dimension": 3}, "head, embedding_dimension: only"),
        ({"architecture": "dual", "share_encoders": True, "instruction_encoder": T5}, "exclude each other"),
        ({"architecture": "dual", "head": "deep"}, "head must be 'residual' or 'linear'"),
        ({"architecture": "dual", "embedding_dimension": 768}, "must differ from the concatenation's 768"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        INSTRUCTOR.from_encoder(MINILM, device="cpu", **options)


def test_bases_that_do_not_fit_are_refused(prepend_model):
    with pytest.raises(ValueError, match="is an instruction model already"):
        INSTRUCTOR.from_encoder(prepend_model, "dual")
    by_maximum = SentenceTransformer(modules=[Transformer(MINILM), Pooling(384, "max")], device="cpu")
    with pytest.raises(ValueError, match="pools by 'max'"):
        INSTRUCTOR.from_encoder(by_maximum, "dual")
    assert INSTRUCTOR.from_encoder(by_maximum).encode(PAIRS).shape == (3, 384)
    with_dense = SentenceTransformer(modules=[Transformer(MINILM), Pooling(384), Dense(384, 10)], device="cpu")
    assert INSTRUCTOR.from_encoder(with_dense, "dual").encode(PAIRS).shape == (3, 10)
    with pytest.raises(ValueError, match="own Dense needs embedding_dimension=384"):
        INSTRUCTOR.from_encoder(with_dense, "dual", embedding_dimension=5)


def test_a_pipeline_that_is_neither_is_refused(tmp_path):
    SentenceTransformer(modules=[Transformer(MINILM)], device="cpu").save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match="consists of Transformer; an instruction model needs"):
        INSTRUCTOR(str(tmp_path), device="cpu")


def test_old_bin_weights_are_read_and_safetensors_are_written(tmp_path):
    assert Path(T5, "pytorch_model.bin").exists()
    INSTRUCTOR(T5, device="cpu").save_pretrained(str(tmp_path))
    assert sorted(path.name for path in tmp_path.rglob("*.safetensors")) == ["model.safetensors"] * 2
    assert not list(tmp_path.rglob("*.bin"))
