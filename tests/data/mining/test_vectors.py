from __future__ import annotations

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from instructor_st.data.mining.vectors import encode_instructed, fingerprint_model
from instructor_st.pairs import InstructedText
from tests.conftest import MINILM


def test_vectors_are_those_of_the_model_with_each_texts_instruction(prepend_model):
    inputs = [InstructedText(word, text) for text in ("cat", "a ship at sea") for word in ("a: ", "", "Represent b: ")]
    pairs = prepend_model.encode([list(each) for each in inputs], normalize_embeddings=True)
    np.testing.assert_allclose(encode_instructed(inputs, prepend_model), pairs, atol=1e-6)
    stock = SentenceTransformer(MINILM, device="cpu", prompts={"default": "never: "}, default_prompt_name="default")
    prompted = [stock.encode(each.text, prompt=each.instruction, normalize_embeddings=True) for each in inputs]
    np.testing.assert_allclose(encode_instructed(inputs, stock), prompted, atol=1e-6)
    assert np.abs(pairs[0] - pairs[2]).max() > 0.01


def test_models_are_told_apart_by_weights_and_window():
    model = SentenceTransformer(MINILM, device="cpu")
    fingerprint = fingerprint_model(model)
    assert fingerprint_model(SentenceTransformer(MINILM, device="cpu")) == fingerprint
    model.max_seq_length = 64
    assert fingerprint_model(model) != fingerprint
    model.max_seq_length = SentenceTransformer(MINILM, device="cpu").max_seq_length
    assert fingerprint_model(model) == fingerprint
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    assert fingerprint_model(model) != fingerprint
    assert fingerprint_model(model.bfloat16()) != fingerprint
