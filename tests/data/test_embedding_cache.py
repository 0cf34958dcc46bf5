from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoTokenizer, BertConfig, BertModel

from instructor_st.data.embedding_cache import Scorer, embed_texts, load_scorer
from tests.conftest import MINILM
from tests.loopback_hub import serve_hub
from tests.test_hub_download import run_with_hub

TEXTS = [f"text {number}" for number in range(10)]


class Embedder:
    """Gives the numbers in the texts as vectors, and remembers the blocks."""

    def __init__(self, fail_at=None):
        self.blocks = []
        self.fail_at = fail_at

    def __call__(self, texts):
        if len(self.blocks) == self.fail_at:
            raise KeyboardInterrupt
        self.blocks.append(texts)
        return np.array([[int(text.split()[-1]), 4, 0] for text in texts])


def embed(texts, cache, embedder, identity="m", block=4):
    return embed_texts(texts, scorer=Scorer(embedder, identity), cache=cache, block=block)


def test_vectors_have_length_1_and_each_distinct_text_is_embedded_once():
    embedder = Embedder()
    vectors = embed(["text 3", "text 0", "text 3", "text 8", "text 3"], None, embedder, block=2)
    assert embedder.blocks == [["text 3", "text 0"], ["text 8"]]
    np.testing.assert_allclose(
        vectors, [[0.6, 0.8, 0], [0, 1, 0], [0.6, 0.8, 0], [2 / 5**0.5, 1 / 5**0.5, 0], [0.6, 0.8, 0]], rtol=1e-7
    )
    assert vectors.dtype == np.float32
    zero = embed_texts(["a"], scorer=Scorer(lambda texts: np.zeros((1, 3)), "zero"), cache=None)
    assert zero.tolist() == [[0, 0, 0]]
    assert embed([], None, embedder).shape == (0, 0)


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    whole = embed(TEXTS, None, Embedder())
    with pytest.raises(KeyboardInterrupt):
        embed(TEXTS, tmp_path / "new" / "folder", Embedder(fail_at=2))
    embedder = Embedder()
    again = embed(TEXTS, tmp_path / "new" / "folder", embedder)
    assert embedder.blocks == [TEXTS[8:]]
    assert again.tobytes() == whole.tobytes()
    embed(TEXTS, tmp_path / "new" / "folder", embedder)
    assert len(embedder.blocks) == 1
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [path.suffix for path in files] == [".npy"] * 3
    assert sorted(len(np.load(path)) for path in files) == [2, 4, 4]


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "other", "longer"])
def test_a_damaged_file_is_embedded_anew(tmp_path, damage):
    whole = embed(TEXTS[:4], tmp_path, Embedder())
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    damaged = {
        "empty": b"",
        "cut": data[:-20],
        "bit": data[:140] + bytes([data[140] ^ 1]) + data[141:],
        "other": b"not an array at all, but long enough for a checksum",
        "longer": data + b"\0",
    }
    path.write_bytes(damaged[damage])
    embedder = Embedder()
    assert embed(TEXTS[:4], tmp_path, embedder).tobytes() == whole.tobytes()
    assert len(embedder.blocks) == 1
    assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    seen = []

    def stop(partial, path):
        seen.append((partial.exists(), path.exists()))
        raise KeyboardInterrupt

    monkeypatch.setattr("instructor_st.data.embedding_cache.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        embed(TEXTS, tmp_path, Embedder())
    assert seen == [(True, False)]
    assert list(tmp_path.iterdir()) == []


def test_models_and_blocks_are_told_apart(tmp_path):
    embed(["text 1", "text 2"], tmp_path, Embedder())
    for texts, identity in ((["text 1", "text 2"], "n"), (["text 2", "text 1"], "m"), (["text 1"], "m")):
        embedder = Embedder()
        embed(texts, tmp_path, embedder, identity)
        assert embedder.blocks == [texts]
    # Two ways to cut one string.
    for texts in (["1", "12"], ["11", "2"]):
        embedder = Embedder()
        embed(texts, tmp_path, embedder)
        assert embedder.blocks == [texts]
    assert len(list(tmp_path.iterdir())) == 6


def test_scorers_that_give_nonsense_and_wrong_options():
    def scorer(array):
        return Scorer(lambda texts: np.array(array), "the model")

    with pytest.raises(ValueError, match=r"'the model' gives an array of shape \(1, 2\) for 2 texts"):
        embed_texts(["a", "b"], scorer=scorer([[1, 2]]), cache=None)
    with pytest.raises(ValueError, match=r"'the model' gives a vector that is not finite for the text 'b'"):
        embed_texts(["a", "b"], scorer=scorer([[1, 2], [1, float("nan")]]), cache=None)
    shifting = Scorer(lambda texts: np.ones((1, 1 + (texts == ["b"]))), "the model")
    with pytest.raises(ValueError, match="dimension 1 and of dimension 2"):
        embed_texts(["a", "b"], scorer=shifting, cache=None, block=1)
    with pytest.raises(ValueError, match="block must be 1 or more, not 0"):
        embed_texts(["a"], scorer=scorer([[1]]), cache=None, block=0)
    with pytest.raises(ValueError, match="not one text"):
        embed_texts("abc", scorer=scorer([[1]]), cache=None)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    """A small random model, saved in bfloat16."""
    folder = tmp_path_factory.mktemp("models")
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    torch.manual_seed(0)
    BertModel(config).to(torch.bfloat16).save_pretrained(folder / "bert")
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), model_kwargs={"dtype": torch.bfloat16})
    model = SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu")
    model.save(str(folder / "tiny"))
    return folder / "tiny"


def test_a_model_is_itself_wherever_it_lies_and_another_one_once_it_changes(tiny_folder, tmp_path):
    identity = load_scorer(str(tiny_folder)).identity
    assert identity.startswith("tiny:")
    copy = shutil.copytree(tiny_folder, tmp_path / "elsewhere" / "tiny")
    assert load_scorer(str(copy)).identity == identity
    (copy / "README.md").write_text("another card")
    (copy / "checkpoint-5").mkdir()
    (copy / "checkpoint-5" / "trainer_state.json").write_text("{}")
    assert load_scorer(str(copy)).identity == identity
    pooling = copy / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace("mean", "cls"))
    changed = load_scorer(str(copy)).identity
    assert changed != identity
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert load_scorer(str(copy)).identity not in (identity, changed)
    assert load_scorer(str(shutil.copytree(tiny_folder, tmp_path / "twin"))).identity.startswith("twin:")


def test_a_model_that_was_saved_in_bfloat16_scores_in_float32(tiny_folder):
    texts = ["a text", "and another one, which is longer"]
    vectors = embed_texts(texts, scorer=load_scorer(str(tiny_folder)), cache=None)
    model = SentenceTransformer(str(tiny_folder))
    assert not np.array_equal(vectors, model.bfloat16().encode(texts, normalize_embeddings=True))
    expected = model.float().encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_the_bundled_model_is_the_default_and_its_cached_vectors_are_the_same(tmp_path):
    scorer = load_scorer(None)
    assert scorer.identity.split(":")[1].isdigit()
    texts = ["The cat sat on the mat.", "A cat was sitting on a mat.", "Shares fell on Monday."] * 2 + TEXTS
    fresh = embed_texts(texts, scorer=scorer, cache=None, block=5)
    for _ in range(2):
        assert embed_texts(texts, scorer=scorer, cache=tmp_path, block=5).tobytes() == fresh.tobytes()
    next(iter(tmp_path.iterdir())).unlink()
    assert embed_texts(texts, scorer=scorer, cache=tmp_path, block=5).tobytes() == fresh.tobytes()
    assert fresh[0] @ fresh[1] > 0.8 > 0.3 > fresh[0] @ fresh[2]
    np.testing.assert_allclose(np.linalg.norm(fresh, axis=1), 1, atol=1e-6)


@pytest.mark.slow
def test_a_model_of_the_hub_is_known_by_its_id_and_its_files(tiny_folder, tmp_path):
    code = """
import json
from instructor_st.data.embedding_cache import load_scorer
scorer = load_scorer("acme/tiny")
print(json.dumps([scorer.identity, load_scorer("acme/tiny").identity, scorer.embed(["a text"]).tolist()]))
"""
    with serve_hub({"acme/tiny": tiny_folder}) as hub:
        done = run_with_hub(hub.endpoint, tmp_path, code)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second, vectors = json.loads(done.stdout.splitlines()[-1])
    assert first == second
    assert first.startswith("acme/tiny:")
    np.testing.assert_allclose(vectors, load_scorer(str(tiny_folder)).embed(["a text"]), atol=1e-6)


def test_a_model_that_is_none_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"The scoring model '.*nothing-here' cannot be loaded. Name a folder or a Hub id"
    ):
        load_scorer(str(tmp_path / "nothing-here"))
