from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import DataCollatorWithFlattening

from instructor_st.training import MultitaskInstructionLoss
from instructor_st.training.false_negatives import (
    RowFacts,
    exceeds_margin,
    find_false_documents,
    find_false_queries,
    hash_rows,
)
from instructor_st.training.guide import Guide, decode_rows
from tests.conftest import MINILM
from tests.training.naive_loss import build_small_model, naive_loss

ROWS = [
    ["Represent a: ", "one two"],
    ["Represent b: ", "one two"],
    ["Represent a: ", "two one"],
    ["Represent a: ", "one two three four"],
    ["", "one two"],
    ["Represent a: ", "one two"],
    ["Represent a: one ", "two"],
]


def group(hashes: torch.Tensor) -> list[int]:
    """The first place of each value."""
    values = hashes.tolist()
    return [values.index(value) for value in values]


@pytest.fixture(scope="module", params=["prepend", "dual"])
def model(request, tmp_path_factory):
    return build_small_model(tmp_path_factory.mktemp(request.param), request.param)


def flatten(features: dict) -> dict:
    """As flash attention's unpadded batches come: one row of all tokens, and where each text begins."""
    rows = [
        {"input_ids": ids[mask.bool()].tolist()}
        for ids, mask in zip(features["input_ids"], features["attention_mask"], strict=True)
    ]
    collate = DataCollatorWithFlattening(return_flash_attn_kwargs=True, return_tensors="pt")
    flat = dict(collate(rows))
    flat.pop("labels")
    if "instruction_mask" in features:
        flat["instruction_mask"] = features["instruction_mask"][features["attention_mask"].bool()][None]
    return flat


def test_equal_text_and_instruction_is_equal_hash(model):
    hashes = hash_rows(model.preprocess(ROWS))
    assert hashes.dtype == torch.int64
    # Only row 5 repeats another; row 6 is cut elsewhere between instruction and text.
    assert group(hashes) == [0, 1, 2, 3, 4, 0, 6]


def test_hash_does_not_depend_on_the_other_rows_or_the_padding(model):
    together = hash_rows(model.preprocess(ROWS))
    for place, row in enumerate(ROWS):
        assert hash_rows(model.preprocess([row])).item() == together[place].item()


def test_hash_does_not_depend_on_the_side_of_the_padding(tmp_path):
    model = build_small_model(tmp_path, "prepend")
    right = hash_rows(model.preprocess(ROWS))
    model.tokenizer.padding_side = "left"
    features = model.preprocess(ROWS)
    assert features["attention_mask"][0, 0] == 0
    assert torch.equal(hash_rows(features), right)


def test_hash_of_flattened_batches(tmp_path):
    features = build_small_model(tmp_path, "prepend").preprocess(ROWS)
    flat = flatten(features)
    assert flat["input_ids"].shape[0] == 1
    assert torch.equal(hash_rows(flat), hash_rows(features))


def test_hash_tells_many_texts_apart():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 50, (20_000, 6), generator=generator)
    hashes = hash_rows({"input_ids": ids})
    assert len(hashes.unique()) == len(ids.unique(dim=0))


def test_padding_is_not_a_token():
    ids = torch.tensor([[7, 0, 0], [7, 0, 0]])
    one, two = hash_rows({"input_ids": ids, "attention_mask": torch.tensor([[1, 0, 0], [1, 1, 0]])}).tolist()
    assert one != two


def test_features_without_rows_are_refused():
    with pytest.raises(
        ValueError, match=r"its features \(pixel_values\) have no rows of input_ids.*mask_same_text=False"
    ):
        hash_rows({"pixel_values": torch.ones(1)})


def test_false_documents_and_queries_by_hand():
    """Row 0 and 2 have one query, row 1 and 3 one positive; row 3's hard negative is row 0's positive."""
    facts = RowFacts(
        hashes=(torch.tensor([1, 2, 1, 3]), torch.tensor([11, 12, 13, 12]), torch.tensor([21, 22, 23, 11]))
    )
    documents = find_false_documents(facts, torch.arange(4), size=4, columns=2)
    assert documents.int().tolist() == [
        [1, 0, 1, 0, 0, 0, 0, 1],
        [0, 1, 0, 1, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0, 0, 0],
        [0, 1, 0, 1, 0, 0, 0, 0],
    ]
    queries = find_false_queries(facts, torch.tensor([0, 3]), size=4)
    assert queries.int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]
    labelled = RowFacts(labels=torch.tensor([4, 5, 4, 6]))
    assert find_false_queries(labelled, torch.tensor([2]), size=4).int().tolist() == [[1, 0, 1, 0]]
    # Hard negatives of a row with the same label stay: they are of another class.
    documents = find_false_documents(labelled, torch.tensor([2]), size=4, columns=2)
    assert documents.int().tolist() == [[1, 0, 1, 0, 0, 0, 0, 0]]


def test_thresholds_by_hand():
    scores, own = torch.tensor([[0.75, 0.7, 0.5], [-0.5, -0.25, 0.0]]), torch.tensor([0.75, -0.25])
    absolute = exceeds_margin(scores, own, margin=0.125, strategy="absolute")
    assert absolute.int().tolist() == [[1, 1, 0], [0, 1, 1]]
    # 0.75 - 0.1875 and -0.25 - 0.0625
    relative = exceeds_margin(scores, own, margin=0.25, strategy="relative")
    assert relative.int().tolist() == [[1, 1, 0], [0, 1, 1]]
    # What scores like the own pair is above no threshold of its own.
    assert exceeds_margin(scores, own, margin=0.0, strategy="absolute").int().tolist() == [[0, 0, 0], [0, 0, 1]]


def make_columns() -> list[list[list[str]]]:
    """Row 2 repeats row 0's positive under its instruction, row 3 under another; row 1's own negative is its positive."""
    queries = [["Find a: ", f"query {name}"] for name in ("red", "blue", "green", "black")]
    positives = [["Doc: ", "sun moon"], ["Doc: ", "sea"], ["Doc: ", "sun moon"], ["Other: ", "sun moon"]]
    negatives = [["Doc: ", "river"], ["Doc: ", "sea"], ["Doc: ", "hill"], ["Doc: ", "wood"]]
    return [queries, positives, negatives]


def test_same_texts_of_a_batch_are_masked_with_dropout_too(tmp_path):
    for architecture in ("prepend", "dual"):
        model = build_small_model(tmp_path / architecture, architecture, dropout=0.3)
        columns = make_columns()
        loss = MultitaskInstructionLoss(model, temperature=0.5)
        torch.manual_seed(3)
        value = loss([model.preprocess(column) for column in columns])
        torch.manual_seed(3)
        features = [model.preprocess(column) for column in columns]
        vectors = [model(features[0])["sentence_embedding"]]
        merged = model(model.preprocess([*columns[1], *columns[2]]))["sentence_embedding"]
        vectors += merged.split(4)
        assert (vectors[1][0] - vectors[1][2]).abs().max() > 1e-3  # dropout sets equal texts apart
        expected, _ = naive_loss(loss.settings, vectors, None, [[tuple(row) for row in column] for column in columns])
        assert value.item() == pytest.approx(expected.item(), abs=1e-6)
        unmasked, _ = naive_loss(loss.settings, vectors)
        assert abs(unmasked.item() - expected.item()) > 1e-3
        torch.manual_seed(3)
        off = MultitaskInstructionLoss(model, temperature=0.5, mask_same_text=False)
        assert off([model.preprocess(column) for column in columns]).item() == pytest.approx(unmasked.item(), abs=1e-6)


def test_decoded_rows(model):
    rows = [["Represent a: ", "One two, three"], ["", "four"]]
    decoded = decode_rows(model.preprocess(rows), model.tokenizer)
    assert [(instruction, text.replace(" ,", ",")) for instruction, text in decoded] == [
        ("represent a: ", "one two, three"),
        ("", "four"),
    ]
    if "instruction_mask" in model.preprocess(rows):
        assert decode_rows(flatten(model.preprocess(rows)), model.tokenizer) == decoded


@pytest.mark.parametrize("strategy", ["absolute", "relative"])
def test_a_guide_of_another_tokenizer_judges(model, t5_model, strategy):
    columns = make_columns()
    guide = t5_model
    loss = MultitaskInstructionLoss(
        model, guide=guide, false_negative_margin=-0.05, margin_strategy=strategy, temperature=0.5
    )
    value = loss([model.preprocess(column) for column in columns])
    value.backward()
    assert all(parameter.grad is None for parameter in guide.parameters())
    model.zero_grad()
    vectors = [model(model.preprocess(column))["sentence_embedding"] for column in columns]
    # The uncased tokenizer of the model has lowered the texts.
    lowered = [[[i.lower(), t] for i, t in column] for column in columns]
    judges = [guide.encode(column, convert_to_tensor=True).clone() for column in lowered]
    texts = [[tuple(row) for row in column] for column in columns]
    expected, _ = naive_loss(loss.settings, vectors, None, texts, judges)
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    # It masks some, and others than the model itself.
    itself, _ = naive_loss(loss.settings, vectors, None, texts)
    unmasked, _ = naive_loss(replace(loss.settings, false_negative_margin=None), vectors, None, texts)
    assert 1e-3 < expected.item() < unmasked.item() - 1e-3
    assert abs(expected.item() - itself.item()) > 1e-3


def test_a_plain_guide_reads_the_text_alone_and_each_batch_once(model):
    guide = SentenceTransformer(MINILM, device="cpu")
    features = [model.preprocess(column) for column in make_columns()]
    judge = Guide(model, guide)
    vectors = judge.embed(features)
    expected = guide.encode([text for _, text in make_columns()[1]], convert_to_tensor=True)
    torch.testing.assert_close(vectors[1], expected, atol=1e-5, rtol=0)
    assert judge.embed(features) is vectors
    assert judge.embed([model.preprocess(column) for column in make_columns()]) is not vectors
