from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from instructor_st.evaluation.embedder import InstructedEmbedder, takes_instructions
from tests.conftest import MINILM

TEXTS = ["a red fox", "the stock fell", "a red fox", "rain"]
INSTRUCTIONS = ["animals: ", "", "animals: ", "weather: "]


@pytest.fixture(scope="module")
def stock() -> SentenceTransformer:
    return SentenceTransformer(MINILM, device="cpu")


def test_own_models_get_pairs(prepend_model):
    assert takes_instructions(prepend_model)
    embedder = InstructedEmbedder(prepend_model)
    vectors = embedder.embed(TEXTS, INSTRUCTIONS)
    wanted = prepend_model.encode([list(pair) for pair in zip(INSTRUCTIONS, TEXTS, strict=True)])
    np.testing.assert_allclose(vectors, wanted, atol=1e-6)
    assert vectors.dtype == np.float32
    assert (embedder.texts, embedder.seconds > 0) == (3, True)


def test_stock_models_get_prompts(stock):
    assert not takes_instructions(stock)
    embedder = InstructedEmbedder(stock, batch_size=2)
    vectors = embedder.embed(TEXTS, INSTRUCTIONS)
    for vector, text, instruction in zip(vectors, TEXTS, INSTRUCTIONS, strict=True):
        np.testing.assert_allclose(vector, stock.encode(text, prompt=instruction), atol=1e-5)
    np.testing.assert_allclose(embedder.embed(["rain"], "weather: ")[0], vectors[3], atol=1e-5)


def test_no_instruction_is_none_even_where_the_model_has_a_default_prompt(stock):
    plain = stock.encode("rain")
    stock.prompts, stock.default_prompt_name = {"always": "Represent: "}, "always"
    try:
        np.testing.assert_allclose(InstructedEmbedder(stock).embed(["rain"])[0], plain, atol=1e-6)
    finally:
        stock.prompts, stock.default_prompt_name = {}, None


def test_no_text_and_too_few_instructions(prepend_model):
    embedder = InstructedEmbedder(prepend_model)
    assert embedder.embed([]).shape == (0, 384)
    with pytest.raises(ValueError, match="2 texts and 1 instructions"):
        embedder.embed(["a", "b"], ["x: "])


def test_a_vector_that_is_not_finite_is_an_error(stock):
    broken = SentenceTransformer(MINILM, device="cpu")
    with torch.no_grad():
        # The embedding of one word, so that texts without it stay whole.
        word = broken.tokenizer.convert_tokens_to_ids("fox")
        broken[0].auto_model.get_input_embeddings().weight[word] = float("nan")
    with pytest.raises(ValueError, match="not finite for 2 of 3 texts, first for text 1"):
        InstructedEmbedder(broken, batch_size=1).embed(["rain", "a fox", "a fox"])
    np.testing.assert_allclose(
        InstructedEmbedder(broken).embed(["rain"]), InstructedEmbedder(stock).embed(["rain"]), atol=1e-6
    )
