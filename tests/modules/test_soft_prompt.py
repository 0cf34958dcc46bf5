from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import _create_minibatch
from sentence_transformers.base.losses.merged_forward import merge_feature_batches
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from instructor_st import INSTRUCTOR
from instructor_st.modules import InstructionPrepend, TunedTask
from instructor_st.modules.soft_prompt import SoftPromptTable
from tests.conftest import MINILM, T5
from tests.modules.test_instruction_prepend import make_flat

INSTRUCTION = "Represent the Science sentence for retrieval: "
TEXTS = ["Parton energy loss in QCD matter", "red", "", "[UNK] <unk> ☃ of words", "word " * 60, "  blanks around  "]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def read_prompt(model: SentenceTransformer, instruction: str) -> torch.Tensor:
    """The token embeddings of an instruction, `(tokens, hidden)`."""
    ids = model.tokenizer(instruction.strip(), add_special_tokens=False)["input_ids"]
    return model[0].model.get_input_embeddings().weight.detach()[ids].clone()


def add(model: SentenceTransformer, name: str, vectors: torch.Tensor) -> None:
    model[0].tuned_tasks.add(TunedTask(name, "prepend", "", vectors))


@pytest.fixture(scope="module")
def roberta_folder(tmp_path_factory) -> str:
    """A tiny RoBERTa: positions from the padding token on, two closing tokens, blanks that belong to words."""
    folder = str(tmp_path_factory.mktemp("roberta"))
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([INSTRUCTION + text for text in TEXTS] * 5, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=128, **{f"{name}_token": token for name, token in names.items()}
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer.get_vocab()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=140,
        initializer_range=0.5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["minilm", "t5", "roberta"])
def model(request) -> INSTRUCTOR:
    if request.param == "t5":
        return INSTRUCTOR(T5, device="cpu")
    if request.param == "minilm":
        return INSTRUCTOR.from_encoder(MINILM, "prepend", device="cpu")
    encoder = Transformer(request.getfixturevalue("roberta_folder"))
    base = SentenceTransformer(modules=[encoder, Pooling(32)], device="cpu")
    return INSTRUCTOR.from_encoder(base, "prepend", device="cpu")


@pytest.fixture(autouse=True)
def clean(request):
    """The shared models have no tasks before and after each test."""
    yield
    for name in ("model", "t5_model", "prepend_model"):
        if name in request.fixturenames:
            shared = request.getfixturevalue(name)
            for task in list(shared[0].tuned_tasks):
                shared[0].tuned_tasks.remove(task)


def test_an_instructions_own_embeddings_are_that_instruction(model):
    add(model, "science", read_prompt(model, INSTRUCTION))
    tuned = model.encode([["science", text] for text in TEXTS])
    np.testing.assert_allclose(tuned, model.encode([[INSTRUCTION, text] for text in TEXTS]), atol=1e-5)
    assert np.abs(tuned - model.encode([["", text] for text in TEXTS]))[:2].max() > 1e-3
    np.testing.assert_array_equal(model.encode(TEXTS, prompt="science"), tuned)
    np.testing.assert_array_equal(model.encode([{"instruction": "science", "text": text} for text in TEXTS]), tuned)


def test_other_vectors_are_another_instruction(model):
    vectors = read_prompt(model, INSTRUCTION)
    add(model, "science", vectors)
    add(model, "changed", vectors.flip(0))
    both = model.encode([["science", TEXTS[0]], ["changed", TEXTS[0]]])
    assert np.abs(both[0] - both[1]).max() > 1e-4


@pytest.mark.parametrize("name", ["Science", "science ", " science", "science: ", "scienc", "science-2", ""])
def test_only_the_exact_name_is_the_task(model, name):
    before = model.encode([[name, TEXTS[0]]])
    add(model, "science", read_prompt(model, INSTRUCTION))
    np.testing.assert_allclose(model.encode([[name, TEXTS[0]]]), before, atol=1e-6)
    assert not model.preprocess([[name, TEXTS[0]]])["soft_prompt"].any()


def test_mixed_batches_equal_one_by_one(model):
    add(model, "science", read_prompt(model, INSTRUCTION))
    add(model, "short", read_prompt(model, "Find it: "))
    add(model, "single", read_prompt(model, INSTRUCTION)[:1])
    names = ["science", INSTRUCTION, "short", "", "single", "Science"]
    inputs = [[names[place % 6], TEXTS[place // 6]] for place in range(36)] + ["a bare string", "science"]
    together = model.encode(inputs, batch_size=64)
    alone = np.stack([model.encode([each])[0] for each in inputs])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    for place in range(0, 36, 6):
        np.testing.assert_allclose(together[place], together[place + 1], atol=1e-5)
    for name in list(model[0].tuned_tasks):
        model[0].tuned_tasks.remove(name)
    plain = [place for place in range(len(inputs)) if isinstance(inputs[place], str) or place % 6 in (1, 3, 5)]
    np.testing.assert_allclose(model.encode([inputs[place] for place in plain]), together[plain], atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 40])
def test_vectors_stand_where_the_instruction_would(model, length):
    """Against the backbone called by hand: opening tokens, the vectors, the text, closing tokens."""
    generator = torch.Generator().manual_seed(length)
    embeddings = model[0].model.get_input_embeddings()
    width = embeddings.weight.shape[1]
    vectors = torch.randn(length, width, generator=generator) * embeddings.weight.std().item()
    add(model, "task", vectors)
    whole = model.tokenizer("a: red apples")["input_ids"]
    opening = int(whole[0] == model.tokenizer.cls_token_id)
    text = whole[opening + len(model.tokenizer("a:", add_special_tokens=False)["input_ids"]) :]
    parts = [embeddings(torch.tensor(whole[:opening], dtype=torch.long)), vectors, embeddings(torch.tensor(text))]
    with torch.no_grad():
        hidden = model[0].model(inputs_embeds=torch.cat(parts)[None]).last_hidden_state[0]
        # A single masked position is pooled, as the old package did it.
        start = opening + length if opening + length > 1 else 0
        features = {"sentence_embedding": hidden[start:].mean(0, keepdim=True)}
        for module in list(model)[2:]:
            features = module(features)
    np.testing.assert_allclose(
        model.encode([["task", "red apples"]])[0], features["sentence_embedding"][0].numpy(), atol=1e-5
    )


@pytest.mark.parametrize("spare", [1, 2, 7])
def test_truncated_windows(model, spare):
    prompt = read_prompt(model, INSTRUCTION)
    add(model, "science", prompt)
    before = model.max_seq_length
    model.max_seq_length = len(prompt) + model.tokenizer.num_special_tokens_to_add() + spare
    try:
        tuned = model.encode([["science", text] for text in TEXTS])
        plain = model.encode([[INSTRUCTION, text] for text in TEXTS])
    finally:
        model.max_seq_length = before
    np.testing.assert_allclose(tuned, plain, atol=1e-5)


def test_a_prompt_that_leaves_no_room_is_refused(model):
    prompt = read_prompt(model, INSTRUCTION)
    add(model, "science", prompt)
    window = len(prompt) + model.tokenizer.num_special_tokens_to_add()
    before = model.max_seq_length
    model.max_seq_length = window
    try:
        with pytest.raises(ValueError, match=rf"'science' has {len(prompt)} vectors.* window of {window} tokens"):
            model.encode([["science", "red"]])
        # Others are embedded, and so is a text without tokens, which loses nothing.
        tuned, plain, _ = model.encode([["science", " "], [INSTRUCTION, " "], ["another: ", "red"]])
        np.testing.assert_allclose(tuned, plain, atol=1e-5)
    finally:
        model.max_seq_length = before


def test_a_window_of_the_call_is_looked_at_too(model):
    prompt = read_prompt(model, INSTRUCTION)
    add(model, "science", prompt)
    room = len(prompt) + model.tokenizer.num_special_tokens_to_add()
    batch = [["science", "red apples"], ["", "word " * 60], ["science", "word " * 60]]
    features = model[0].preprocess(batch, max_length=room + 2)
    assert features["input_ids"].shape == (3, room + 2)
    assert (features["soft_prompt"] > 0).sum(dim=1).tolist() == [len(prompt), 0, len(prompt)]
    for window in (room, room - 3):
        with pytest.raises(ValueError, match=r"'science'.*no room"):
            model[0].preprocess(batch, max_length=window)
        with pytest.raises(ValueError, match=r"'science'.*no room"):
            model[0].preprocess(batch, processing_kwargs={"text": {"max_length": window}})
    with pytest.raises(ValueError, match=r"'science'.*no room"):
        model[0].preprocess(
            [["science", "\N{SNOWMAN} and more"]], max_length=room
        )  # its first token is the placeholder's


def test_left_padding(t5_model):
    add(t5_model, "science", read_prompt(t5_model, INSTRUCTION))
    inputs = [["science", "red"], [INSTRUCTION, "red"], ["", "word " * 30]]
    right = t5_model.encode(inputs)
    t5_model.tokenizer.padding_side = "left"
    try:
        features = t5_model.preprocess(inputs)
        left = t5_model.encode(inputs)
    finally:
        t5_model.tokenizer.padding_side = "right"
    pads = int((features["attention_mask"][0] == 0).sum())
    assert pads > 0
    assert features["soft_prompt"][0].nonzero().flatten()[0] == pads
    np.testing.assert_allclose(left, right, atol=1e-5)
    np.testing.assert_allclose(left[0], left[1], atol=1e-5)


def test_flattened_batches(t5_model):
    add(t5_model, "science", read_prompt(t5_model, INSTRUCTION))
    add(t5_model, "short", read_prompt(t5_model, "Find it: "))
    inputs = [["science", "red apples"], [INSTRUCTION, "red"], "bare", ["short", ""], ["science", "word " * 20]]
    padded = t5_model.preprocess(inputs)
    keep = padded["attention_mask"].bool()
    flat_module = make_flat(t5_model[0])
    flat = flat_module.preprocess(inputs)
    assert flat["soft_prompt"].shape == flat["input_ids"].shape == (1, int(keep.sum()))
    for key in ("soft_prompt", "instruction_mask", "input_ids"):
        assert flat[key][0].tolist() == padded[key][keep].tolist(), key
    embedded = t5_model[0]._embed_inputs(padded["input_ids"], padded["soft_prompt"])
    torch.testing.assert_close(flat_module._embed_inputs(flat["input_ids"], flat["soft_prompt"])[0], embedded[keep])
    part = _create_minibatch(flat, 1, 4)
    assert part["soft_prompt"].tolist() == flat_module.preprocess(inputs[1:4])["soft_prompt"].tolist()


def test_places_count_through_all_tasks(prepend_model):
    add(prepend_model, "one", torch.ones(1, 384))
    add(prepend_model, "three", torch.ones(3, 384))
    features = prepend_model.preprocess([["three", "red"], ["one", "red"], ["x", "red"]])
    assert features["soft_prompt"].tolist() == [[0, 2, 3, 4, 0, 0], [0, 1, 0, 0, 0, 0], [0] * 6]
    assert features["instruction_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]
    assert features["input_ids"][0, 4] == prepend_model.tokenizer.convert_tokens_to_ids("red")


def test_without_tasks_features_are_as_ever(model):
    assert "soft_prompt" not in model.preprocess([["science", "red"]])


def test_minibatches_and_merged_columns_keep_prompts_with_their_rows(model):
    add(model, "science", read_prompt(model, INSTRUCTION))
    add(model, "short", read_prompt(model, "Find it: "))
    inputs = [["science", "red"], ["", "word " * 20], ["short", "red apples"], "bare", ["science", "blue"]]
    with torch.no_grad():
        whole = model(model.preprocess(inputs))["sentence_embedding"]
        features = model.preprocess(inputs)
        parts = [model(_create_minibatch(features, at, at + 2))["sentence_embedding"] for at in (0, 2, 4)]
        torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)
        merged = merge_feature_batches([model.preprocess(inputs[:2]), model.preprocess(inputs[2:4])])
        assert merged is not None
        torch.testing.assert_close(model(merged)["sentence_embedding"], whole[:4], atol=1e-5, rtol=0)


def test_forward_leaves_its_inputs_and_the_backbone_our_keys(t5_model, monkeypatch):
    add(t5_model, "science", read_prompt(t5_model, INSTRUCTION))
    seen = {}
    backbone = t5_model[0].model
    original = backbone.forward
    monkeypatch.setattr(backbone, "forward", lambda **kwargs: seen.update(kwargs) or original(**kwargs))
    features = t5_model.preprocess([["science", "red"], ["", "a"]])
    before = {key: value.clone() for key, value in features.items() if isinstance(value, torch.Tensor)}
    first = t5_model(features)["sentence_embedding"]
    for key, value in before.items():
        assert torch.equal(features[key], value), key
    assert "inputs_embeds" in seen
    assert not {"input_ids", "soft_prompt", "instruction_mask"} & seen.keys()
    assert "inputs_embeds" not in features
    torch.testing.assert_close(t5_model(features)["sentence_embedding"], first, atol=0, rtol=0)


def test_the_prompt_receives_its_gradient(t5_model):
    vectors = torch.nn.Parameter(read_prompt(t5_model, INSTRUCTION))
    add(t5_model, "science", vectors)
    t5_model(t5_model.preprocess([["science", "red"], ["", "blue"]]))["sentence_embedding"][1, 3].backward()
    assert not vectors.grad.any()  # the other row's
    t5_model(t5_model.preprocess([["science", "red"], ["", "blue"]]))["sentence_embedding"][0, 3].backward()
    assert vectors.grad.abs().sum(dim=1).min() > 0
    t5_model.zero_grad()


def test_half_precision_models_take_single_precision_prompts(t5_model):
    half = copy.deepcopy(t5_model).bfloat16()
    add(half, "science", read_prompt(t5_model, INSTRUCTION))
    tuned, plain = half.encode([["science", "red"], [INSTRUCTION, "red"]])
    np.testing.assert_allclose(tuned, plain, atol=2e-2)


def test_a_tokenizer_without_special_tokens_is_refused(t5_model):
    class Bare(SimpleNamespace):
        unk_token = mask_token = pad_token = None

        def num_special_tokens_to_add(self) -> int:
            return 0

    with pytest.raises(ValueError, match="no unknown, mask or padding token"):
        SoftPromptTable(t5_model[0].tuned_tasks, Bare())


def test_a_token_whose_copies_melt_together_is_passed_over(t5_model):
    class Melting(SimpleNamespace):
        unk_token, mask_token, pad_token = "<u>", None, "<p>"

        def num_special_tokens_to_add(self) -> int:
            return 0

        def convert_tokens_to_ids(self, token: str) -> int:
            return {"<u>": 5, "<p>": 6}[token]

        def encode(self, text: str, **options: bool) -> list[int]:
            return [5] if "<u>" in text else [6] * text.count("<p>")

    add(t5_model, "three", torch.ones(3, 128))
    table = SoftPromptTable(t5_model[0].tuned_tasks, Melting())
    ids = torch.tensor([[9, 6, 6, 6, 4], [9, 6, 1, 0, 0]])
    places = table.locate(["three", "x"], ["", ""], ids, torch.tensor([0, 5]), torch.tensor([5, 3]))
    assert places.tolist() == [[0, 1, 2, 3, 0], [0] * 5]


def test_the_setting_up_of_another_module_over_the_same_weights_leaves_the_tasks(t5_model):
    add(t5_model, "science", read_prompt(t5_model, INSTRUCTION))
    plain = Transformer(T5)
    assert not InstructionPrepend.from_transformer(plain).tuned_tasks
    assert list(t5_model[0].tuned_tasks) == ["science"]
