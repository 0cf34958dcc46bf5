from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import _create_minibatch
from sentence_transformers.base.losses.merged_forward import merge_feature_batches
from sentence_transformers.base.modules import Module, Transformer

from instructor_st import INSTRUCTOR
from instructor_st.modules import DenseDelta, DualEncoderConcat, StoredHead, TunedTask, TunedTasks, tuned_tasks
from tests.conftest import MINILM, T5

INSTRUCTION = "Represent the Science sentence: "
TEXTS = ["Parton energy loss in QCD matter", "red", "", "word " * 40]
BAD_NAMES = [
    "",
    "A",
    "my task",
    "my-task ",
    "-a",
    "a-",
    "a--b",
    "a-_b",
    "ä",
    "a/b",
    "../evil",
    "..",
    "a.b",
    "a\n",
    "a" * 65,
]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_task(name: str = "task", **options) -> TunedTask:
    return TunedTask(
        **{"name": name, "architecture": "dual", "instruction": "Find: ", "vectors": draw(1, 4), **options}
    )


def make_full_task() -> TunedTask:
    head = StoredHead({"kind": "regression", "dimension": 3}, {"linear.weight": draw(1, 3), "linear.bias": draw(1)})
    delta = DenseDelta({"linear": draw(3, 8, seed=1), "bias": draw(3, seed=2)})
    return make_task(
        "full-2",
        instruction="Represent the 水: ",
        dense_delta=delta,
        head=head,
        probe=draw(3, seed=3),
        notes={"ö": [1, {}]},
    )


def assert_same(task: TunedTask, other: TunedTask) -> None:
    assert (task.name, task.architecture, task.instruction) == (other.name, other.architecture, other.instruction)
    assert task.notes == other.notes
    assert torch.equal(task.vectors, other.vectors)
    assert task.vectors.dtype == other.vectors.dtype
    for one, two in ((task.dense_delta, other.dense_delta), (task.head, other.head)):
        assert (one is None) == (two is None)
        if one is not None:
            assert one.tensors.keys() == two.tensors.keys()
            assert all(torch.equal(tensor, two.tensors[name]) for name, tensor in one.tensors.items())
    assert (task.probe is None) == (other.probe is None)
    assert task.probe is None or torch.equal(task.probe, other.probe)


@pytest.mark.parametrize("name", ["a", "0", "support-tickets", "a_b-c2", "a" * 64])
def test_names(name):
    assert make_task(name).name == name


@pytest.mark.parametrize("name", [*BAD_NAMES, None, 5])
def test_names_that_could_be_instructions_or_no_folders_are_refused(name):
    with pytest.raises(ValueError, match="cannot name a tuned task"):
        make_task(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "triple"}, "'task': architecture must be"),
        ({"vectors": draw(2, 4)}, r"not \(2, 4\)"),
        ({"vectors": draw(4)}, r"not \(4,\)"),
        ({"vectors": draw(0, 4), "architecture": "prepend"}, r"not \(0, 4\)"),
        ({"vectors": draw(1, 2, 4), "architecture": "prepend"}, r"not \(1, 2, 4\)"),
        ({"architecture": "prepend", "dense_delta": DenseDelta({})}, "only a dual model has a tuned Dense"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_task(**options)


def test_its_size_and_its_head():
    task = make_full_task()
    assert task.num_bytes == 4 * (4 + 24 + 3)
    assert make_task(vectors=draw(5, 6).bfloat16(), architecture="prepend").num_bytes == 2 * 30
    assert task.without_head().head is None
    assert_same(task.without_head(), TunedTask(**{**task.__dict__, "head": None}))
    assert task.head is not None


def test_a_task_comes_back(tmp_path):
    task = make_full_task()
    assert task.save(str(tmp_path / "new" / "folder")) == tmp_path / "new" / "folder"
    assert_same(TunedTask.load(str(tmp_path / "new" / "folder")), task)
    assert "水" in (tmp_path / "new" / "folder" / "task.json").read_text(encoding="utf-8")
    plain = make_task("other", architecture="prepend", vectors=torch.nn.Parameter(draw(6, 3).bfloat16().T))
    plain.save(tmp_path / "new" / "folder")
    assert_same(TunedTask.load(tmp_path / "new" / "folder"), plain)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["task.json", "task.safetensors"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]


def test_factors_come_back(tmp_path):
    delta = DenseDelta({"linear": draw(30, 40)}).compress(2)
    loaded = TunedTask.load(make_task(dense_delta=delta).save(tmp_path / "task"))
    assert {name: tuple(each.shape) for name, each in loaded.dense_delta.tensors.items()} == {
        "linear_out": (30, 2),
        "linear_in": (2, 40),
    }
    assert (tmp_path / "task" / "task.safetensors").stat().st_size < 4 * (4 + 140) + 500


def test_another_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("secret")
    with pytest.raises(ValueError, match="exists and is no tuned task"):
        make_task().save(tmp_path / "mine")
    assert (tmp_path / "mine" / "diary.txt").read_text() == "secret"


def test_an_interrupted_save_leaves_the_old_task(tmp_path, monkeypatch):
    make_full_task().save(tmp_path / "task")

    def fail(*args: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tuned_tasks, "write_text", fail)
        with pytest.raises(OSError, match="No space"):
            make_task("full-2").save(tmp_path / "task")
    assert_same(TunedTask.load(tmp_path / "task"), make_full_task())
    make_task().save(tmp_path / "task")  # what the failure left does not matter
    assert [path.name for path in tmp_path.iterdir()] == ["task"]


@pytest.mark.parametrize("name", ["task.json", "task.safetensors"])
def test_a_missing_file_is_named(name, tmp_path):
    folder = make_task().save(tmp_path / "task")
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}: no such file"):
        TunedTask.load(folder)


def break_record(folder: Path, **changes) -> None:
    record = json.loads((folder / "task.json").read_text())
    record = {key: value for key, value in {**record, **changes}.items() if value is not None}
    (folder / "task.json").write_text(json.dumps(record))


def break_tensors(folder: Path, **changes) -> None:
    tensors = {**load_file(folder / "task.safetensors"), **changes}
    save_file({key: value for key, value in tensors.items() if value is not None}, folder / "task.safetensors")


BROKEN = {
    "cut JSON": (lambda f: (f / "task.json").write_text('{"format": 1'), r"task.json: not JSON"),
    "no text": (lambda f: (f / "task.json").write_bytes(b"\xff\xfe\x00"), r"task.json: not JSON"),
    "a list": (lambda f: (f / "task.json").write_text("[1]"), r"task.json: not a tuned task of format 1"),
    "format": (lambda f: break_record(f, format=2), r"task.json: not a tuned task of format 1; a newer"),
    "no format": (lambda f: break_record(f, format=None), r"task.json: not a tuned task of format 1"),
    "no name": (lambda f: break_record(f, name=None), r"task.json: 'name' is missing"),
    "no instruction": (lambda f: break_record(f, instruction=None), r"task.json: 'instruction' is missing"),
    "evil name": (lambda f: break_record(f, name="../evil"), r"task: '../evil' cannot name a tuned task"),
    "architecture": (lambda f: break_record(f, architecture="triple"), r"task: .*architecture must be"),
    "no safetensors": (lambda f: (f / "task.safetensors").write_bytes(b"junk"), r"task.safetensors: not a safetensors"),
    "empty": (lambda f: (f / "task.safetensors").write_bytes(b""), r"task.safetensors: not a safetensors"),
    "cut": (
        lambda f: (f / "task.safetensors").write_bytes((f / "task.safetensors").read_bytes()[:-4]),
        r"task.safetensors: not a safetensors",
    ),
    "no vectors": (lambda f: break_tensors(f, vectors=None), r"task.safetensors: 'vectors' is missing"),
    "NaN": (lambda f: break_tensors(f, vectors=draw(1, 4) * torch.nan), r"task.safetensors: vectors not finite"),
    "infinite": (lambda f: break_tensors(f, probe=draw(2) / 0), r"task.safetensors: probe not finite"),
    "shape": (lambda f: break_tensors(f, vectors=draw(2, 4)), r"task: .*not \(2, 4\)"),
    "lone factor": (lambda f: break_tensors(f, **{"dense.linear_in": draw(1, 4)}), r"task: .*linear_out is missing"),
    "no such layer": (lambda f: break_tensors(f, **{"dense.norm": draw(4)}), r"task: A Dense has no norm"),
    "half a head": (lambda f: (f / "head.json").write_text("{}"), r"head.safetensors is missing"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_named(case, tmp_path):
    change, message = BROKEN[case]
    folder = make_task().save(tmp_path / "task")
    change(folder)
    with pytest.raises(ValueError, match=message):
        TunedTask.load(folder)


def test_a_models_tasks_are_a_mapping_in_the_order_of_their_coming():
    tasks = TunedTasks("dual", 4)
    first, second = make_task("zebra"), make_task("ant")
    tasks.add(first)
    tasks.add(second)
    assert (list(tasks), len(tasks), tasks["zebra"], "ant " in tasks) == (["zebra", "ant"], 2, first, False)
    newer = make_task("zebra", instruction="New: ")
    tasks.add(newer)
    assert list(tasks.values()) == [newer, second]
    assert tasks.remove("zebra") is newer
    assert list(tasks) == ["ant"]
    with pytest.raises(KeyError, match="no tuned task 'zebra'; there are: ant"):
        tasks.remove("zebra")
    tasks.remove("ant")
    with pytest.raises(KeyError, match="there are: none"):
        tasks.remove("ant")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (make_task(architecture="prepend"), "is for a prepend model with vectors of 4; this is a dual"),
        (make_task(vectors=draw(1, 5)), "is for a dual model with vectors of 5; .* with vectors of 4"),
    ],
)
def test_tasks_of_other_models_are_refused(task, message):
    tasks = TunedTasks("dual", 4)
    with pytest.raises(ValueError, match=message):
        tasks.add(task)
    assert not tasks


def test_saving_takes_removed_tasks_away_and_nothing_else(tmp_path):
    tasks = TunedTasks("dual", 4)
    tasks.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
    tasks.add(make_task("one"))
    tasks.add(make_task("two"))
    tasks.save(tmp_path)
    (tmp_path / "tuned_tasks" / "mine").mkdir()
    (tmp_path / "tuned_tasks" / "README.md").write_text("mine")
    tasks.remove("one")
    tasks.save(tmp_path)
    assert sorted(path.name for path in (tmp_path / "tuned_tasks").iterdir()) == ["README.md", "mine", "two"]
    tasks.remove("two")
    tasks.save(tmp_path)
    assert sorted(path.name for path in (tmp_path / "tuned_tasks").iterdir()) == ["README.md", "mine"]


def test_tasks_are_loaded_in_the_order_asked_for(tmp_path):
    saved, loaded = TunedTasks("dual", 4), TunedTasks("dual", 4)
    for name in ("a", "b", "c"):
        saved.add(make_task(name, vectors=draw(1, 4, seed=ord(name))))
    saved.save(tmp_path)
    loaded.load(tmp_path / "tuned_tasks", ["c", "a"])
    assert list(loaded) == ["c", "a"]
    assert_same(loaded["c"], saved["c"])
    (tmp_path / "tuned_tasks" / "a").rename(tmp_path / "tuned_tasks" / "d")
    with pytest.raises(ValueError, match=r"d: the task's name is 'a'; rename the folder"):
        TunedTasks("dual", 4).load(tmp_path / "tuned_tasks", ["d"])
    with pytest.raises(FileNotFoundError, match=r"a.task\.json: no such file"):
        loaded.load_from_model(str(tmp_path), "", ["a"])


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_configuration_cannot_reach_other_folders(name, tmp_path, monkeypatch):
    make_task("evil").save(tmp_path / "evil")
    (tmp_path / "tuned_tasks").mkdir()
    with pytest.raises(ValueError, match="cannot name a tuned task"):
        TunedTasks("dual", 4).load(tmp_path / "tuned_tasks", [name])
    monkeypatch.setattr(Module, "load_dir_path", None)  # refused before anything is fetched
    with pytest.raises(ValueError, match="cannot name a tuned task"):
        TunedTasks("dual", 4).load_from_model(str(tmp_path), "", ["fine", name])
    TunedTasks("dual", 4).load_from_model(str(tmp_path), "", [])  # nothing is fetched for nothing


def test_a_missing_folder_of_tasks_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"names tuned tasks, but sub/tuned_tasks is missing"):
        TunedTasks("dual", 4).load_from_model(str(tmp_path), "sub", ["task"])


@pytest.fixture
def dual() -> DualEncoderConcat:
    return DualEncoderConcat(Transformer(MINILM), Transformer(T5), text_pooling="cls").eval()


def test_an_instructions_own_vector_is_that_instruction(dual):
    with torch.no_grad():
        vector = dual.embed_instruction(INSTRUCTION)
        dual.tuned_tasks.add(make_task("science", vectors=vector))
        dual.tuned_tasks.add(make_task("other", vectors=-vector))
        names = ["science", INSTRUCTION, "other", "Science", "science ", ""]
        inputs = [[name, text] for name in names for text in TEXTS] + ["bare"]
        features = dual.preprocess(inputs)
        out = dual(features)["sentence_embedding"]
        own = dual.embed_instruction("science")
    assert torch.equal(own, vector)
    assert features["tuned_task"].tolist() == [[1]] * 4 + [[0]] * 4 + [[2]] * 4 + [[0]] * 13
    torch.testing.assert_close(out[:4], out[4:8], atol=1e-5, rtol=0)
    torch.testing.assert_close(out[8:12, :128], -out[:4, :128], atol=1e-5, rtol=0)
    for start in (12, 16, 20):  # names that are not quite the task's are instructions
        assert (out[start : start + 4, :128] - out[:4, :128]).abs().max() > 1e-3
        torch.testing.assert_close(out[start : start + 4, 128:], out[:4, 128:], atol=1e-5, rtol=0)
    dual.tuned_tasks.remove("science")
    dual.tuned_tasks.remove("other")
    assert "tuned_task" not in dual.preprocess(inputs)
    with torch.no_grad():
        torch.testing.assert_close(
            dual(dual.preprocess(inputs[12:]))["sentence_embedding"], out[12:], atol=1e-5, rtol=0
        )


def test_minibatches_and_merged_columns_keep_tasks_with_their_rows(dual):
    delta = DenseDelta({"bias": draw(3)})
    dual.tuned_tasks.add(make_task("one", vectors=draw(1, 128), dense_delta=delta))
    dual.tuned_tasks.add(make_task("two", vectors=draw(1, 128, seed=1)))
    inputs = [["two", "a"], ["x: ", "word " * 20], ["one", "b"], ["", "c"], ["one", "d"]]
    with torch.no_grad():
        features = dual.preprocess(inputs)
        before = {key: value.clone() for key, value in features.items() if isinstance(value, torch.Tensor)}
        out = dual(features)
        whole = out["sentence_embedding"].clone()
        assert [(rows.tolist(), found) for rows, found in out["dense_deltas"]] == [([2, 4], delta)]
        assert all(torch.equal(features[key], value) for key, value in before.items())
        # Of features that were embedded before, too: stale outputs are in them then.
        for source in (dual.preprocess(inputs), features):
            parts = [dual(_create_minibatch(source, at, at + 2)) for at in (0, 2, 4)]
            found = torch.cat([part["sentence_embedding"] for part in parts])
            torch.testing.assert_close(found, whole, atol=1e-5, rtol=0)
            assert [[rows.tolist() for rows, _ in part["dense_deltas"]] for part in parts] == [[], [[0]], [[0]]]
        merged = merge_feature_batches([dual.preprocess(inputs[:2]), dual.preprocess(inputs[1:3])])
        assert merged is not None
        out = dual(merged)
    torch.testing.assert_close(out["sentence_embedding"], whole[[0, 1, 1, 2]], atol=1e-5, rtol=0)
    assert [rows.tolist() for rows, _ in out["dense_deltas"]] == [[3]]


def test_remembered_instructions_and_tasks_keep_apart(dual_model):
    model = copy.deepcopy(dual_model)
    model[0].tuned_tasks.add(make_task("one", vectors=draw(1, 384)))
    inputs = [["one", "a"], ["", "b"], ["one", "b"], ["x: ", "c"]]
    together = INSTRUCTOR.encode(model, inputs, batch_size=1)
    plain = SentenceTransformer(modules=list(model), device="cpu").encode(inputs)
    torch.testing.assert_close(torch.tensor(together), torch.tensor(plain), atol=1e-5, rtol=0)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_of_a_module_have_tasks_of_their_own(duplicate, dual):
    dual.tuned_tasks.add(make_full_task_of(dual))
    twin = duplicate(dual)
    assert_same(twin.tuned_tasks["full-2"], dual.tuned_tasks["full-2"])
    with torch.no_grad():
        one, two = (each(each.preprocess([["full-2", "a"]])) for each in (dual, twin))
    assert torch.equal(one["sentence_embedding"], two["sentence_embedding"])
    twin.tuned_tasks.remove("full-2")
    assert list(dual.tuned_tasks) == ["full-2"]


def make_full_task_of(dual: DualEncoderConcat) -> TunedTask:
    return TunedTask(**{**make_full_task().__dict__, "vectors": draw(1, dual.tuned_tasks.dimension)})
