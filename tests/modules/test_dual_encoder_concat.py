from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import _create_minibatch
from sentence_transformers.base.losses.merged_forward import merge_feature_batches
from sentence_transformers.base.modules import Transformer

from instructor_st import INSTRUCTOR
from instructor_st.modules import DualEncoderConcat, dual_encoder_concat
from tests.conftest import FIXTURES, MINILM
from tests.modules.test_instruction_prepend import PAIRS, check_mixed_batch

T5_FOLDER = str(FIXTURES / "t5-tiny-instructor")


@pytest.fixture(scope="module")
def small() -> DualEncoderConcat:
    """Two different backbones: a T5 (128) for instructions, a BERT (384) for texts."""
    module = DualEncoderConcat(Transformer(MINILM), Transformer(T5_FOLDER), text_pooling="cls")
    return module.eval()


def encode_plainly(encoder: Transformer, text: str, pooling: str) -> torch.Tensor:
    """One text through a backbone, pooled without any of our code."""
    tokens = encoder.tokenizer(text, return_tensors="pt")
    hidden = encoder.model(**tokens).last_hidden_state[0]
    return hidden[0] if pooling == "cls" else hidden.mean(0)


def test_output_is_instruction_then_text(small):
    out = small(small.preprocess(PAIRS))["sentence_embedding"]
    assert out.shape == (len(PAIRS), 128 + 384)
    assert small.get_embedding_dimension() == 512
    for (instruction, text), vector in zip(PAIRS, out, strict=True):
        expected = torch.cat(
            [
                encode_plainly(small.instruction_encoder, instruction, "mean"),
                encode_plainly(small.text_encoder, text, "cls"),
            ]
        )
        torch.testing.assert_close(vector, expected, atol=1e-5, rtol=0)


def test_each_distinct_instruction_is_encoded_once_in_training_too(small, monkeypatch):
    rows = []
    backbone = small.instruction_encoder.model
    original = backbone.forward
    monkeypatch.setattr(
        backbone, "forward", lambda **kwargs: rows.append(len(kwargs["input_ids"])) or original(**kwargs)
    )
    batch = [["one: ", "a"], ["two: ", "b"], ["one: ", "c"], ["one: ", "d"], ["", "e"]]
    small.train()
    try:
        small(small.preprocess(batch))
    finally:
        small.eval()
    assert rows == [3]


def test_encode_runs_each_distinct_instruction_once_a_call(dual_model, monkeypatch):
    rows = []
    backbone = dual_model[0].instruction_encoder.model
    original = backbone.forward
    monkeypatch.setattr(
        backbone, "forward", lambda **kwargs: rows.append(len(kwargs["input_ids"])) or original(**kwargs)
    )
    pairs = [[f"Represent number {place % 3}: ", f"text {'word ' * place}"] for place in range(20)]
    together = dual_model.encode(pairs, batch_size=4)
    assert sum(rows) == 3
    plain = SentenceTransformer(modules=list(dual_model), device="cpu").encode(pairs, batch_size=4)
    np.testing.assert_allclose(together, plain, atol=1e-6)
    monkeypatch.setattr(dual_encoder_concat, "_MAX_REMEMBERED", 1)  # forgetting costs time only
    np.testing.assert_allclose(dual_model.encode(pairs, batch_size=4), plain, atol=1e-6)
    with torch.no_grad():  # the next call sees changed weights
        weight = dual_model[0].instruction_encoder.model.embeddings.word_embeddings.weight
        weight.mul_(-1)
        try:
            changed = dual_model.encode(pairs)
        finally:
            weight.mul_(-1)
    assert np.abs(changed - together).max() > 1e-3


def test_encode_from_several_threads(dual_model):
    batches = [[[f"Represent number {n % 3} of {m}: ", f"text {n}"] for n in range(6)] for m in range(8)]
    expected = [dual_model.encode(batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            for ours, alone in zip(threads.map(dual_model.encode, batches), expected, strict=True):
                np.testing.assert_allclose(ours, alone, atol=1e-6)


def test_gradients_are_those_of_two_plain_forwards(small):
    batch = [["Represent one: ", "a b"], ["Represent two: ", "c"], ["Represent one: ", "d e f"]]
    weights = torch.randn(3, 512, generator=torch.Generator().manual_seed(0))

    def collect(outputs: torch.Tensor) -> dict[str, torch.Tensor]:
        small.zero_grad()
        (outputs * weights).sum().backward()
        return {name: p.grad.clone() for name, p in small.named_parameters() if p.grad is not None}

    ours = collect(small(small.preprocess(batch))["sentence_embedding"])
    plain = collect(
        torch.stack(
            [
                torch.cat(
                    [
                        encode_plainly(small.instruction_encoder, instruction, "mean"),
                        encode_plainly(small.text_encoder, text, "cls"),
                    ]
                )
                for instruction, text in batch
            ]
        )
    )
    small.zero_grad()
    assert ours.keys() == plain.keys()
    assert any(name.startswith("instruction_encoder") for name in ours)
    for name, gradient in plain.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-4, rtol=1e-4, msg=name)


def test_mixed_batch_equals_one_by_one(dual_model):
    check_mixed_batch(dual_model)


def test_text_half_does_not_depend_on_the_instruction(small):
    out = small(small.preprocess([["Represent one: ", "same"], ["Something else: ", "same"]]))["sentence_embedding"]
    torch.testing.assert_close(out[0, 128:], out[1, 128:], atol=1e-6, rtol=0)
    assert (out[0, :128] - out[1, :128]).abs().max() > 1e-3


def test_minibatches_of_gradcache_keep_instructions_with_their_texts(small):
    features = small.preprocess(PAIRS)
    whole = small(dict(features))["sentence_embedding"]
    parts = [small(_create_minibatch(features, begin, begin + 2))["sentence_embedding"] for begin in (0, 2, 4)]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)


def test_columns_merge_or_are_refused_but_never_mixed_up(small):
    columns = [small.preprocess(PAIRS[:2]), small.preprocess(PAIRS[:2][::-1])]
    merged = merge_feature_batches(columns)
    assert merged is not None
    separate = torch.cat([small(dict(features))["sentence_embedding"] for features in columns])
    torch.testing.assert_close(small(merged)["sentence_embedding"], separate, atol=1e-5, rtol=0)
    assert merge_feature_batches([small.preprocess(PAIRS[:1]), small.preprocess(PAIRS[1:2])]) is None


def test_feature_names_are_none_of_the_trainers(small):
    features = small.preprocess(PAIRS)
    assert features["instruction_ids"].ndim == features["instruction_attention_mask"].ndim == 3
    assert [key for key in features if key.endswith("_input_ids")] == []


def test_shared_encoders_are_one_set_of_weights(tmp_path):
    model = INSTRUCTOR.from_encoder(MINILM, "dual", share_encoders=True, device="cpu")
    assert model[0].instruction_encoder is model[0].text_encoder
    model.save_pretrained(str(tmp_path))
    assert not (tmp_path / "instruction_encoder").exists()
    loaded = INSTRUCTOR(str(tmp_path), device="cpu")
    assert loaded[0].instruction_encoder is loaded[0].text_encoder
    assert loaded[0].share_encoders
    np.testing.assert_array_equal(model.encode(PAIRS), loaded.encode(PAIRS))
    assert sum(p.numel() for p in loaded[0].parameters()) == sum(p.numel() for p in loaded[0].text_encoder.parameters())


def test_settings_survive_saving(tmp_path):
    module = DualEncoderConcat(
        Transformer(MINILM), Transformer(T5_FOLDER), text_pooling="mean", instruction_pooling="cls"
    )
    module.text_encoder.max_seq_length = 40
    module.instruction_encoder.max_seq_length = 30
    SentenceTransformer(modules=[module], device="cpu").save_pretrained(str(tmp_path))
    loaded = SentenceTransformer(str(tmp_path), device="cpu")[0]
    assert (loaded.text_pooling, loaded.instruction_pooling, loaded.share_encoders) == ("mean", "cls", False)
    assert (loaded.max_seq_length, loaded.instruction_encoder.max_seq_length) == (40, 30)
    assert type(loaded.instruction_encoder.model).__name__ == "T5EncoderModel"
    assert (tmp_path / "text_encoder" / "model.safetensors").exists()
    assert not list(tmp_path.rglob("*.bin"))


def test_window_tokenizer_and_backbone_are_the_texts(small):
    model = SentenceTransformer(modules=[copy.deepcopy(small)], device="cpu")
    assert model.tokenizer is model[0].text_encoder.tokenizer
    assert model[0].processor is model[0].text_encoder.processor
    assert model.transformers_model is model[0].text_encoder.model
    instruction_window = model[0].instruction_encoder.max_seq_length
    model.max_seq_length = 17
    assert model[0].text_encoder.max_seq_length == model.max_seq_length == 17
    assert model[0].instruction_encoder.max_seq_length == instruction_window
    assert model.preprocess([["i", "word " * 50]])["input_ids"].shape == (1, 17)


def test_token_embeddings_are_the_texts(dual_model):
    tokens = dual_model.encode([["Represent the sentence: ", "two words"]], output_value="token_embeddings")
    assert tokens[0].shape == (4, 384)  # [CLS] two words [SEP]


def test_overlong_instruction_is_cut_with_a_warning(small, monkeypatch):
    messages = []
    monkeypatch.setattr(dual_encoder_concat.logger, "warning_once", messages.append)
    features = small.preprocess([["the " * 1000, "a"]])
    window = small.instruction_encoder.max_seq_length
    assert features["instruction_ids"].shape == (1, 1, window)
    assert str(window) in messages[0]


def test_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="text_pooling must be 'cls' or 'mean', not 'max'"):
        DualEncoderConcat(Transformer(MINILM), text_pooling="max")  # type: ignore[arg-type]
