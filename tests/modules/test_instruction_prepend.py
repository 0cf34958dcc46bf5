from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import _create_minibatch
from sentence_transformers.base.losses.merged_forward import merge_feature_batches
from transformers import DataCollatorWithFlattening

from instructor_st import INSTRUCTOR
from instructor_st.modules import InstructionPooling, InstructionPrepend
from tests.conftest import FIXTURES, MINILM, T5

PAIRS = [
    ["Represent the Science sentence: ", "Parton energy loss in QCD matter"],
    ["Represent the caption: ", "red"],
    ["", "no instruction at all"],
    ["Represent the Wikipedia document for retrieving supporting facts: ", "Capitalism has been dominant"],
    ["Represent the title: ", ""],
]


def make_flat(module: InstructionPrepend) -> InstructionPrepend:
    """The state that flash attention brings about, without a GPU: preprocess packs rows, no forward is possible."""
    flat = copy.copy(module)
    flat.__dict__ = dict(module.__dict__)
    flat.can_flatten_inputs = True
    flat.data_collator = DataCollatorWithFlattening(
        return_seq_idx=True, return_flash_attn_kwargs=True, return_position_ids=True
    )
    flat._flatten_position_offset = 0
    return flat


@pytest.mark.parametrize("name", ["t5-tiny-instructor", "minilm-instructor"])
def test_mask_covers_as_many_tokens_as_the_old_package_masked(name, reference, minilm_instructor):
    module = INSTRUCTOR(T5 if name.startswith("t5") else minilm_instructor, device="cpu")[0]
    cases = [case for case in reference[name][0] if case["category"] != "instr_too_long"]
    assert len(cases) == 65
    features = module.preprocess([[case["instruction"], case["text"]] for case in cases])
    assert features["instruction_mask"].shape == features["input_ids"].shape
    assert features["instruction_mask"].dtype == torch.long
    for case, mask, ids, attention in zip(
        cases, features["instruction_mask"], features["input_ids"], features["attention_mask"], strict=True
    ):
        assert ids[attention.bool()].tolist() == case["input_ids"], case["id"]
        expected = [1] * case["n_masked"] + [0] * (len(mask) - case["n_masked"])
        assert mask.tolist() == expected, case["id"]


def test_left_padding_moves_the_mask_with_the_tokens(t5_model):
    right = t5_model.encode(PAIRS)
    tokenizer = t5_model.tokenizer
    tokenizer.padding_side = "left"
    try:
        features = t5_model.preprocess(PAIRS)
        left = t5_model.encode(PAIRS)
    finally:
        tokenizer.padding_side = "right"
    row = features["instruction_mask"][1]
    pads = int((features["attention_mask"][1] == 0).sum())
    assert pads > 0
    assert row[:pads].sum() == 0
    assert row[pads] == 1
    np.testing.assert_allclose(left, right, atol=1e-6)  # T5's positions are relative


def test_left_truncation_is_turned_off(t5_model):
    long = ["Represent the sentence: ", "a long text of many words that does not fit " * 100]
    model = INSTRUCTOR(T5, device="cpu", processor_kwargs={"truncation_side": "left"})
    assert model.tokenizer.truncation_side == "right"
    np.testing.assert_array_equal(model.encode([long]), t5_model.encode([long]))


def test_truncation_keeps_the_mask_and_pools_the_texts_tokens(t5_model):
    model = copy.deepcopy(t5_model)
    model.max_seq_length = 12
    pair = ["Represent the sentence: ", "a long text of many words that does not fit into this window"]
    features = model.preprocess([pair])
    assert features["input_ids"].shape == (1, 12)
    assert features["instruction_mask"].tolist() == [[1] * 5 + [0] * 7]
    out = model[0](dict(features))
    by_hand = out["token_embeddings"][0, 5:].mean(0)
    pooled = model[1](out)["sentence_embedding"][0]
    torch.testing.assert_close(pooled, by_hand)


def test_max_length_of_a_call_is_respected(t5_model):
    features = t5_model[0].preprocess([["Represent the sentence: ", "word " * 50]], max_length=9)
    assert features["input_ids"].shape == (1, 9)
    assert features["instruction_mask"].tolist() == [[1] * 5 + [0] * 4]


def test_instruction_that_fills_the_window_leaves_the_text_one_token(t5_model):
    model = copy.deepcopy(t5_model)
    model.max_seq_length = 10
    long = "Represent the passage " + "the " * 30
    features = model.preprocess([[long, "harbour master"], ["Represent: ", "b"]])
    first = model.tokenizer("harbour master", add_special_tokens=False)["input_ids"][0]
    assert features["input_ids"][0, 8] == first
    assert features["input_ids"][0, 9] == model.tokenizer.eos_token_id
    assert features["instruction_mask"][0].tolist() == [1] * 8 + [0] * 2
    other = model.encode([[long, "other words"]])
    assert np.abs(model.encode([[long, "harbour master"]]) - other).max() > 1e-3


def test_warning_about_the_window_has_the_numbers_and_comes_once(monkeypatch):
    from instructor_st.modules import instruction_prepend

    messages = []
    monkeypatch.setattr(instruction_prepend.logger, "warning", messages.append)
    model = INSTRUCTOR(T5, device="cpu")
    model.max_seq_length = 10
    instruction = "Represent the passage " + "the " * 30
    model.preprocess([[instruction, "harbour"], [instruction + "again ", "harbour"]])
    model.preprocess([[instruction, "harbour"]])
    assert len(messages) == 1
    assert "fills the whole window of 10" in messages[0]
    assert f"{len(model.tokenizer(instruction)['input_ids']) - 1} tokens" in messages[0]


def test_text_that_merges_with_the_instruction_keeps_one_token(t5_model):
    # "docu" + "ment" become one word: the instruction alone has more tokens than the whole input.
    features = t5_model.preprocess([["Represent the docu", "ment"]])
    kept = (features["attention_mask"] * (1 - features["instruction_mask"])).sum()
    assert kept == 2  # the last token and the closing one
    assert np.abs(t5_model.encode([["Represent the docu", "ment"]])).max() > 0


def test_include_instruction_is_plain_mean_pooling(t5_model):
    features = t5_model[0](t5_model.preprocess(PAIRS))
    plain = t5_model[0](t5_model.preprocess(PAIRS))
    pooling = InstructionPooling(128, include_instruction=True)
    mask = plain["attention_mask"].unsqueeze(-1)
    by_hand = (plain["token_embeddings"] * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(pooling(features)["sentence_embedding"], by_hand)
    pooling.include_prompt = False  # what sentence-transformers' set_pooling_include_prompt does
    assert pooling.include_instruction is False


def test_flattened_preprocessing_marks_the_same_tokens(t5_model):
    padded = t5_model.preprocess(PAIRS)
    flat = make_flat(t5_model[0]).preprocess(PAIRS)
    keep = padded["attention_mask"].bool()
    assert flat["instruction_mask"].shape == flat["input_ids"].shape == (1, int(keep.sum()))
    assert flat["input_ids"][0].tolist() == padded["input_ids"][keep].tolist()
    assert flat["instruction_mask"][0].tolist() == padded["instruction_mask"][keep].tolist()


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken"])
def test_flattened_pooling_equals_padded_pooling(t5_model, mode):
    padded = t5_model[0](t5_model.preprocess(PAIRS))
    flat = make_flat(t5_model[0]).preprocess(PAIRS)
    flat["token_embeddings"] = padded["token_embeddings"][padded["attention_mask"].bool()].unsqueeze(0)
    pooling = InstructionPooling(128, mode)
    torch.testing.assert_close(pooling(flat)["sentence_embedding"], pooling(padded)["sentence_embedding"])


def test_minibatches_of_gradcache_slice_the_mask(t5_model):
    whole = t5_model(t5_model.preprocess(PAIRS))["sentence_embedding"]
    features = t5_model.preprocess(PAIRS)
    parts = [t5_model(_create_minibatch(features, begin, begin + 2))["sentence_embedding"] for begin in (0, 2, 4)]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-6, rtol=0)
    flat = make_flat(t5_model[0]).preprocess(PAIRS)
    part = _create_minibatch(flat, 1, 4)
    again = make_flat(t5_model[0]).preprocess(PAIRS[1:4])
    assert part["instruction_mask"].tolist() == again["instruction_mask"].tolist()


def test_columns_merge_with_their_masks(t5_model):
    columns = [t5_model.preprocess(PAIRS[:2]), t5_model.preprocess(PAIRS[3:])]
    merged = merge_feature_batches(columns)
    assert merged is not None
    separate = torch.cat([t5_model(features)["sentence_embedding"] for features in columns])
    torch.testing.assert_close(t5_model(merged)["sentence_embedding"], separate, atol=1e-6, rtol=0)


def test_forward_adds_and_changes_nothing(t5_model):
    features = t5_model.preprocess(PAIRS)
    before = {key: value.clone() for key, value in features.items() if isinstance(value, torch.Tensor)}
    first = t5_model(features)["sentence_embedding"]
    for key, value in before.items():
        assert torch.equal(features[key], value), key
    torch.testing.assert_close(t5_model(features)["sentence_embedding"], first, atol=0, rtol=0)


def test_our_mask_does_not_reach_the_backbone(t5_model, monkeypatch):
    seen = {}
    backbone = t5_model[0].model
    original = backbone.forward
    monkeypatch.setattr(backbone, "forward", lambda **kwargs: seen.update(kwargs) or original(**kwargs))
    t5_model.encode(PAIRS)
    assert "input_ids" in seen
    assert "instruction_mask" not in seen


def test_no_prompt_equals_sentence_transformers_without_a_prompt(prepend_model):
    texts = ["The cell divides in two.", "red apples on a table", ""]
    stock = SentenceTransformer(MINILM, device="cpu").encode(texts)
    np.testing.assert_allclose(prepend_model.encode(texts), stock, atol=1e-6)


def test_one_prompt_equals_stock_pooling_without_the_prompt(prepend_model):
    stock = SentenceTransformer(MINILM, device="cpu")
    stock.set_pooling_include_prompt(False)
    texts = ["The cell divides in two.", "red apples on a table beside the window"]
    prompt = "Represent the sentence for retrieval: "
    ours = prepend_model.encode([[prompt, text] for text in texts])
    np.testing.assert_allclose(ours, stock.encode(texts, prompt=prompt), atol=1e-6)
    # The trap that this package exists for: on stock modules a pair is two segments.
    assert np.abs(ours - stock.encode([[prompt, text] for text in texts])).max() > 1e-2


def test_mixed_batch_equals_one_by_one(prepend_model):
    check_mixed_batch(prepend_model)


def check_mixed_batch(model: INSTRUCTOR) -> None:
    """64 texts of 0 to 600 words under 16 instructions."""
    rng = np.random.default_rng(0)
    words = (FIXTURES / "README.md").read_text(encoding="utf-8").split()
    instructions = ["", *(f"Represent the {' '.join(rng.choice(words, n))}: " for n in range(15))]
    lengths = np.linspace(0, 600, 64).astype(int)
    pairs = [[instructions[i % 16], " ".join(rng.choice(words, n))] for i, n in enumerate(lengths)]
    together = model.encode(pairs, batch_size=16)
    single = np.stack([model.encode([pair])[0] for pair in pairs])
    np.testing.assert_allclose(together, single, atol=1e-6, rtol=0)
    shuffled = rng.permutation(64)
    np.testing.assert_allclose(model.encode([pairs[i] for i in shuffled]), together[shuffled], atol=1e-6, rtol=0)


text = st.text(max_size=40) | st.text(alphabet="ab \n\t.:\u200b\x00é😀[]</s>", max_size=60)


def check_any_string(model: INSTRUCTOR, instruction: str, content: str, window: int) -> None:
    before = model.max_seq_length
    model.max_seq_length = min(window, before)
    try:
        features = model(model.preprocess([[instruction, content], ["Represent: ", "other"]]))
    finally:
        model.max_seq_length = before
    vector = features["sentence_embedding"][0]
    assert torch.isfinite(vector).all()
    assert vector.norm() > 0.5
    kept = features["attention_mask"] * (1 - features["instruction_mask"])
    assert (kept.sum(dim=1) > 0).all()


any_string = given(instruction=text, content=text, window=st.sampled_from([2, 3, 5, 8, 512]))
no_deadline = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=300, **no_deadline)
@any_string
def test_no_string_gives_a_zero_or_nan_vector_t5(t5_model, instruction, content, window):
    check_any_string(t5_model, instruction, content, window)


@settings(max_examples=60, **no_deadline)
@any_string
def test_no_string_gives_a_zero_or_nan_vector_bert(prepend_model, instruction, content, window):
    check_any_string(prepend_model, instruction, content, window)


def test_an_encoder_without_plain_text_is_refused(t5_model):
    module = copy.copy(t5_model[0])
    module.__dict__ = {**t5_model[0].__dict__, "modality_config": {"message": {}}}
    with pytest.raises(ValueError, match="no plain text input"):
        InstructionPrepend.from_transformer(module)


def test_a_new_tokenizer_is_measured_anew(prepend_model, t5_model):
    module = copy.copy(prepend_model[0])
    module.__dict__ = dict(prepend_model[0].__dict__)
    assert module.preprocess([["Represent: ", "a"]])["instruction_mask"].sum() == 3  # [CLS] represent :
    module.processor = copy.deepcopy(module.tokenizer)
    module.tokenizer.add_tokens(["represent:"])
    assert module.preprocess([["Represent: ", "a"]])["instruction_mask"].sum() == 2  # [CLS] represent:
    module.tokenizer.add_tokens(["science:"])  # to the same tokenizer
    assert module.preprocess([["Science: ", "a"]])["instruction_mask"].sum() == 2
    module.processor = t5_model.tokenizer
    count = len(t5_model.tokenizer("Represent:")["input_ids"]) - 1
    assert module.preprocess([["Represent: ", "a"]])["instruction_mask"].sum() == count


def test_the_first_calls_may_come_from_several_threads():
    module = INSTRUCTOR(T5, device="cpu")[0]
    expected = module.preprocess(PAIRS)["instruction_mask"]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(40):
            module._prepare()  # as freshly loaded
            for features in threads.map(module.preprocess, [PAIRS] * 8):
                assert torch.equal(features["instruction_mask"], expected)
