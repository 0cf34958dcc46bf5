from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from instructor_st import INSTRUCTOR
from instructor_st.modules import DenseDelta, DualEncoderConcat, TunedTask
from instructor_st.reinstruct import encode_text, reinstruct
from instructor_st.tuned_models import add_tuned_task, get_tuned_tasks
from tests.conftest import MINILM, T5

TEXTS = ["Parton energy loss in QCD matter", "", "red", "word " * 300, "☃ and more"]
INSTRUCTION = "Represent the Science sentence: "


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def small() -> SentenceTransformer:
    """Two backbones of different sizes, a Dense that mixes them, and three tuned tasks."""
    concat = DualEncoderConcat(Transformer(MINILM), Transformer(T5), text_pooling="cls", instruction_pooling="mean")
    torch.manual_seed(0)
    dense = Dense(512, 200, use_residual=True, activation_function=torch.nn.GELU())
    model = SentenceTransformer(modules=[concat, dense, Normalize()], device="cpu")
    delta = DenseDelta({"linear": draw(200, 512), "residual": draw(200, 512, seed=1), "bias": draw(200, seed=2)})
    add_tuned_task(model, TunedTask("vector", "dual", "", draw(1, 128, seed=3)))
    add_tuned_task(model, TunedTask("dense", "dual", "", draw(1, 128, seed=4), delta))
    add_tuned_task(model, TunedTask("factors", "dual", "", draw(1, 128, seed=5), delta.compress(4)))
    return model


@pytest.mark.parametrize("instruction", [INSTRUCTION, "", "vector", "dense", "factors", "dense "])
@pytest.mark.parametrize("block_size", [2, 8192])
def test_it_gives_what_encode_gives(small, instruction, block_size):
    vectors = encode_text(small, TEXTS)
    assert vectors.shape == (5, 384)
    found = reinstruct(small, vectors, instruction, block_size=block_size)
    expected = small.encode([[instruction, text] for text in TEXTS])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_instructions_differ(small):
    vectors = encode_text(small, TEXTS)
    found = [reinstruct(small, vectors, each) for each in (INSTRUCTION, "", "vector", "dense", "factors")]
    for place, one in enumerate(found):
        for other in found[:place]:
            assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"share_encoders": True}, {"head": "linear", "embedding_dimension": 64}])
def test_models_of_from_encoder(options):
    model = INSTRUCTOR.from_encoder(MINILM, "dual", device="cpu", **options)
    with torch.no_grad():
        model[1].linear.weight.copy_(draw(*model[1].linear.weight.shape))
    vectors = encode_text(model, TEXTS, batch_size=2)
    expected = model.encode([[INSTRUCTION, text] for text in TEXTS])
    np.testing.assert_allclose(reinstruct(model, vectors, INSTRUCTION), expected, atol=1e-6)


def test_text_vectors_are_the_text_half_of_the_concatenation(small):
    features = small.preprocess([[INSTRUCTION, text] for text in TEXTS])
    with torch.no_grad():
        half = small[0](features)["sentence_embedding"][:, 128:]
    np.testing.assert_allclose(encode_text(small, TEXTS, batch_size=2), half, atol=5e-6)


def test_forms_of_the_vectors(small, tmp_path):
    vectors = encode_text(small, TEXTS)
    expected = reinstruct(small, vectors, "dense")
    np.save(tmp_path / "vectors.npy", vectors)
    stored = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    single = torch.from_numpy(vectors)
    for each in (stored, single, single.clone().requires_grad_(), single.double(), vectors.astype(np.float64)):
        np.testing.assert_allclose(reinstruct(small, each, "dense", block_size=2), expected, atol=1e-6)
    for each in (single.bfloat16(), vectors.astype(np.float16)):
        np.testing.assert_allclose(reinstruct(small, each, "dense"), expected, atol=2e-2)


def test_a_half_precision_model_gives_single_precision(small):
    half = copy.deepcopy(small).bfloat16()
    vectors = encode_text(half, TEXTS)
    found = reinstruct(half, vectors, "dense")
    assert vectors.dtype == found.dtype == np.float32
    np.testing.assert_allclose(found, half.encode([["dense", text] for text in TEXTS]), atol=1e-2)


def test_a_cut_dimension_is_cut_here_too(small):
    with small.truncate_embeddings(50):
        found = reinstruct(small, encode_text(small, TEXTS), INSTRUCTION)
        np.testing.assert_allclose(found, small.encode([[INSTRUCTION, text] for text in TEXTS]), atol=1e-6)
        assert found.shape == (5, 50)
        assert reinstruct(small, np.zeros((0, 384)), INSTRUCTION).shape == (0, 50)


def test_no_texts(small):
    vectors = encode_text(small, [])
    assert (vectors.shape, vectors.dtype) == ((0, 384), np.float32)
    found = reinstruct(small, vectors, INSTRUCTION)
    assert (found.shape, found.dtype) == ((0, 200), np.float32)


@pytest.mark.parametrize("shape", [(3, 383), (3, 512), (384,), (1, 3, 384)])
def test_vectors_of_another_size_are_refused(small, shape):
    with pytest.raises(ValueError, match=r"must be \(texts, 384\) for this model, not \("):
        reinstruct(small, np.zeros(shape, dtype=np.float32), INSTRUCTION)


@pytest.mark.parametrize("texts", ["abc", [[INSTRUCTION, "a"]], ["a", 5], ["a", "b\ud83d"], ("a", None)])
def test_what_is_no_list_of_texts_is_refused(small, texts):
    with pytest.raises(ValueError, match=r"list of strings|lone surrogate"):
        encode_text(small, texts)


def test_only_dual_models(prepend_model):
    plain = SentenceTransformer(modules=[Transformer(T5), Pooling(128)], device="cpu")
    for model, name in ((prepend_model, "InstructionPrepend"), (plain, "Transformer")):
        for call in (lambda m: encode_text(m, TEXTS), lambda m: reinstruct(m, np.zeros((1, 128)), "")):
            with pytest.raises(ValueError, match=f"Only a dual model.* begins with {name}"):
                call(model)


def list_modes(model: SentenceTransformer) -> list[tuple[str, bool]]:
    return [(name, module.training) for name, module in model.named_modules()]


@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
def test_modes_are_put_back_and_dropout_is_off(small, mode):
    small.eval()
    expected = small.encode([["dense", text] for text in TEXTS])
    small.train(mode != "eval")
    if mode == "mixed":
        small[0].text_encoder.eval()
    before = list_modes(small)
    weights = {name: (tensor.clone(), tensor.device) for name, tensor in small.state_dict().items()}
    flags = [parameter.requires_grad for parameter in small.parameters()]
    try:
        vectors = encode_text(small, TEXTS)
        assert list_modes(small) == before
        np.testing.assert_allclose(reinstruct(small, vectors, "dense"), expected, atol=1e-6)
        assert list_modes(small) == before
    finally:
        small.eval()
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, weights[name][0])
        assert tensor.device == weights[name][1]
    assert [parameter.requires_grad for parameter in small.parameters()] == flags
    assert small.max_seq_length == small[0].text_encoder.max_seq_length
    assert list(get_tuned_tasks(small)) == ["vector", "dense", "factors"]


def test_modes_are_put_back_after_an_error(small, monkeypatch):
    def fail(features: dict) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(small[1], "forward", fail)
    small.train()
    try:
        with pytest.raises(RuntimeError, match="out of memory"):
            reinstruct(small, np.zeros((1, 384), dtype=np.float32), INSTRUCTION)
        assert all(is_training for _, is_training in list_modes(small))
    finally:
        small.eval()


def test_the_texts_are_not_encoded_again(small, monkeypatch):
    vectors = encode_text(small, TEXTS)
    monkeypatch.setattr(small[0].text_encoder.model, "forward", None)
    assert reinstruct(small, vectors, INSTRUCTION).shape == (5, 200)
