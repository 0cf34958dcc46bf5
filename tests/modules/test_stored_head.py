from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from instructor_st.modules import stored_head
from instructor_st.modules.stored_head import StoredHead, StoredHeadError

CONFIG = {"kind": "classification", "dimension": 2, "labels": ["Öl", "水", "b"], "scale": 0.1}
TENSORS = {"linear.weight": torch.tensor([[1.0, -2.0], [0.1, 1e-40], [3.0, 4.0]]), "linear.bias": torch.zeros(3)}


def write(folder: Path, config: object = CONFIG, content: bytes | None = None, tensors=TENSORS) -> None:
    """Write a head's files as someone else might, digest and all."""
    content = save(tensors) if content is None else content
    digest = hashlib.sha256(content).hexdigest()
    text = json.dumps({"config": config, "sha256": {"head.safetensors": digest}})
    (folder / "head.json").write_text(text, encoding="utf-8")
    (folder / "head.safetensors").write_bytes(content)


def test_importing_it_is_light():
    code = "import sys, instructor_st.modules.stored_head; print([n for n in ('torch', 'safetensors') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_head_comes_back_and_replaces_the_old_one(tmp_path):
    folder = tmp_path / "new" / "model"
    StoredHead({"kind": "similarity", "scale": 20.0}, {}).save(folder)
    assert StoredHead.load(folder).tensors == {}
    StoredHead(CONFIG, TENSORS).save(str(folder))
    loaded = StoredHead.load(str(folder))
    assert loaded.config == CONFIG
    assert {k: v.numpy().tobytes() for k, v in loaded.tensors.items()} == {
        k: v.numpy().tobytes() for k, v in TENSORS.items()
    }
    assert sorted(path.name for path in folder.iterdir()) == ["head.json", "head.safetensors"]
    assert "水" in (folder / "head.json").read_text(encoding="utf-8")
    assert load_file(folder / "head.safetensors").keys() == TENSORS.keys()


def test_a_transposed_tensor_is_stored_as_it_is_seen(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3).T
    StoredHead(CONFIG, {**TENSORS, "linear.weight": weight}).save(tmp_path)
    assert torch.equal(StoredHead.load(tmp_path).tensors["linear.weight"], weight)


def test_there_may_be_no_head(tmp_path):
    (tmp_path / "head.pt").write_bytes(b"another format")
    assert StoredHead.load(tmp_path) is None
    assert StoredHead.load(tmp_path / "nowhere") is None


@pytest.mark.parametrize("failing", ["write_text", "os.replace"])
def test_an_interrupted_save_leaves_the_old_head_or_says_so(failing, tmp_path, monkeypatch):
    StoredHead(CONFIG, TENSORS).save(tmp_path)

    def fail(*args: object) -> None:
        raise OSError("No space left on device")

    other = {**TENSORS, "linear.bias": torch.ones(3)}
    with monkeypatch.context() as patch:
        if failing == "write_text":
            patch.setattr(stored_head, "write_text", fail)
        else:
            real = stored_head.os.replace
            patch.setattr("os.replace", lambda old, new: fail() if str(new).endswith("safetensors") else real(old, new))
        with pytest.raises(OSError, match="No space left"):
            StoredHead(CONFIG, other).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.json", "head.safetensors"]
    if failing == "write_text":
        assert torch.equal(StoredHead.load(tmp_path).tensors["linear.bias"], torch.zeros(3))
    else:
        with pytest.raises(StoredHeadError, match=r"head.safetensors is not the file that head.json .* interrupted"):
            StoredHead.load(tmp_path)


@pytest.mark.parametrize("name", ["head.json", "head.safetensors"])
def test_a_missing_half_is_named(name, tmp_path):
    write(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(StoredHeadError, match=rf"{name} is missing; .* Save the head anew"):
        StoredHead.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"config": {"kind"', "head.json is not JSON"),
        (b"\xff\xfe\x00", "head.json is not JSON"),
        (b'{"config": {"kind": "similarity", "scale": NaN}}', "head.json is not JSON: NaN is no number in JSON"),
        (b"[" * 200_000, "head.json is not JSON"),
        (b"[1]", "head.json must have `config` and `sha256`"),
        (b'{"config": {}}', "head.json must have `config` and `sha256`"),
        (b'{"config": {}, "sha256": {}}', "head.json must have `config` and `sha256`"),
        (b'{"config": [], "sha256": {"head.safetensors": ""}}', r"head.json: config must be an object, not \[\]"),
    ],
)
def test_a_broken_head_json(content, message, tmp_path):
    write(tmp_path)
    (tmp_path / "head.json").write_bytes(content)
    with pytest.raises(StoredHeadError, match=rf"(?s){message}.* Save the head anew, or take both its files away"):
        StoredHead.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "ranking"}, "kind is 'ranking'; known are classification, regression, pairs, similarity"),
        ({"kind": None}, "kind is None"),
        ({"kind": ["pairs"]}, "kind is"),
        ({"dimension": 2.0}, "dimension must be a whole number of 1 or more, not 2.0"),
        ({"dimension": 0}, "dimension must be a whole number of 1 or more, not 0"),
        ({"dimension": True}, "dimension must be .* not True"),
        ({"labels": "abc"}, "labels must be a list of names, not 'abc'"),
    ],
)
def test_a_config_that_is_none(change, message, tmp_path):
    write(tmp_path, {**CONFIG, **change})
    with pytest.raises(StoredHeadError, match=rf"head.json: {message}.* Save the head anew"):
        StoredHead.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"linear.weight": torch.zeros(3, 4)}, r"linear.weight has the shape \(3, 4\); its config asks for \(3, 2\)"),
        ({"linear.bias": torch.zeros(2)}, r"linear.bias has the shape \(2,\); its config asks for \(3,\)"),
        ({"linear.bias": torch.zeros(3).half()}, "linear.bias has the type torch.float16"),
        (
            {"linear.bias": torch.tensor([0.0, torch.inf, torch.nan])},
            r"linear.bias has 2 value\(s\) that are not finite",
        ),
        ({"more": torch.zeros(1)}, r"has the tensors \[linear.bias, linear.weight\]; \[.*more\] came"),
    ],
)
def test_tensors_that_do_not_fit(change, message, tmp_path):
    write(tmp_path, tensors={**TENSORS, **change})
    with pytest.raises(StoredHeadError, match=rf"head.safetensors: .*{message}.* Save the head anew"):
        StoredHead.load(tmp_path)


def test_tensors_that_are_missing(tmp_path):
    write(tmp_path, tensors={"linear.weight": TENSORS["linear.weight"]})
    with pytest.raises(StoredHeadError, match=r"\[linear.bias, linear.weight\]; \[linear.weight\] came"):
        StoredHead.load(tmp_path)


def test_regression_has_one_output_and_pairs_have_no_tensors():
    StoredHead(
        {"kind": "regression", "dimension": 2}, {"linear.weight": torch.ones(1, 2), "linear.bias": torch.ones(1)}
    )
    with pytest.raises(StoredHeadError, match=r"asks for \(1, 2\)"):
        StoredHead({"kind": "regression", "dimension": 2}, TENSORS)
    with pytest.raises(
        StoredHeadError, match=r"A pairs head has the tensors \[\]; \[linear.bias, linear.weight\] came"
    ):
        StoredHead({"kind": "pairs"}, TENSORS)


def test_a_pickle_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    write(tmp_path, content=pickle.dumps(Trap()))
    with pytest.raises(StoredHeadError, match=r"head\.safetensors is not a safetensors file"):
        StoredHead.load(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_a_config_that_json_cannot_hold_leaves_the_old_head(tmp_path):
    StoredHead(CONFIG, TENSORS).save(tmp_path)
    for value in (float("nan"), object()):
        with pytest.raises((ValueError, TypeError)):
            StoredHead({**CONFIG, "scale": value}, TENSORS).save(tmp_path)
    assert StoredHead.load(tmp_path).config == CONFIG
