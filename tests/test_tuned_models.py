from __future__ import annotations

import copy
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from instructor_st import INSTRUCTOR
from instructor_st.data import build_train_dataset, parse_row
from instructor_st.modules import DenseDelta, DualEncoderConcat, StoredHead, TunedDense, TunedTask
from instructor_st.training import InstructionTrainer, MultitaskInstructionLoss, TrainArguments, build_losses
from instructor_st.tuned_models import PROBE, add_tuned_task, embed_probe, get_tuned_tasks, remove_tuned_task
from tests.conftest import T5
from tests.loopback_hub import serve_hub
from tests.test_hub_download import run_with_hub
from tests.training.small_trainer import make_trainer

TEXTS = ["Parton energy loss in QCD matter", "red", "", "word " * 40]
NAMES = ["first", "second", "first ", "Represent the title: ", ""]
INPUTS = [[name, text] for name in NAMES for text in TEXTS] + ["a bare string"]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build_dual(seed: int = 0) -> INSTRUCTOR:
    base = SentenceTransformer(modules=[Transformer(T5), Pooling(128), Normalize()], device="cpu")
    model = INSTRUCTOR.from_encoder(base, "dual", embedding_dimension=96, device="cpu")
    torch.nn.init.normal_(model[1].linear.weight, std=0.1, generator=torch.Generator().manual_seed(seed))
    return model


@pytest.fixture(params=["prepend", "dual"])
def model(request) -> INSTRUCTOR:
    return INSTRUCTOR(T5, device="cpu") if request.param == "prepend" else build_dual()


def make_tasks(model: SentenceTransformer) -> list[TunedTask]:
    head = StoredHead({"kind": "regression", "dimension": 3}, {"linear.weight": draw(1, 3), "linear.bias": draw(1)})
    if not isinstance(model[0], DualEncoderConcat):
        return [
            TunedTask("first", "prepend", "Find: ", draw(5, 128), head=head),
            TunedTask("second", "prepend", "", draw(1, 128, seed=1)),
        ]
    delta = DenseDelta({"linear": 0.1 * draw(96, 256, seed=2), "residual": 0.1 * draw(96, 256, seed=3)}).compress(3)
    return [
        TunedTask("first", "dual", "Find: ", draw(1, 128), delta, head),
        TunedTask("second", "dual", "", draw(1, 128, seed=1)),
    ]


def add_tasks(model: SentenceTransformer) -> None:
    for task in make_tasks(model):
        add_tuned_task(model, task)


def test_adding_and_removing(model, tmp_path):
    before = model.encode(INPUTS)
    for task, place in zip(make_tasks(model), ("by path", "by object"), strict=True):
        probe = embed_probe(model)
        added = add_tuned_task(model, task.save(tmp_path / task.name) if place == "by path" else task)
        assert get_tuned_tasks(model)[task.name] is added
        assert torch.equal(added.vectors, task.vectors)
        assert torch.equal(added.probe, probe)
    assert list(get_tuned_tasks(model)) == ["first", "second"]
    tuned = model.encode(INPUTS)
    for rows in (slice(0, 4), slice(4, 8)):
        assert np.abs(tuned - before)[rows].max(axis=1).min() > 1e-4
    np.testing.assert_allclose(tuned[8:], before[8:], atol=1e-6)
    np.testing.assert_array_equal(model.encode(TEXTS, prompt="first"), model.encode(INPUTS[:4]))
    newer = add_tuned_task(model, replace(added, vectors=-added.vectors))
    assert remove_tuned_task(model, "second") is newer
    remove_tuned_task(model, "first")
    np.testing.assert_allclose(model.encode(INPUTS), before, atol=1e-6)
    with pytest.raises(KeyError, match="no tuned task 'first'; there are: none"):
        remove_tuned_task(model, "first")
    with pytest.raises(FileNotFoundError, match=r"task\.json: no such file"):
        add_tuned_task(model, tmp_path / "nowhere")


def test_a_task_changes_the_dense_for_its_own_texts(model):
    if not isinstance(model[0], DualEncoderConcat):
        assert all(task.dense_delta is None for task in make_tasks(model))
        return
    first, second = make_tasks(model)
    add_tuned_task(model, second)
    assert type(model[1]) is Dense  # no need of another
    weight = model[1].linear.weight
    add_tuned_task(model, first)
    assert type(model[1]) is TunedDense
    assert model[1].linear.weight is weight
    with torch.no_grad():
        halves = model[0](model.preprocess([["", text] for text in TEXTS]))["sentence_embedding"][:, 128:]
        inputs = [torch.cat([task.vectors.expand(4, -1), halves], dim=1) for task in (first, second)]
        hidden = [first.dense_delta.apply(model[1], inputs[0]), model[1]({"sentence_embedding": inputs[1]})]
        vectors = torch.cat([hidden[0], hidden[1]["sentence_embedding"]])
    np.testing.assert_allclose(model.encode(INPUTS[:8]), torch.nn.functional.normalize(vectors), atol=1e-5)


def test_only_models_with_instructions_have_tasks():
    plain = SentenceTransformer(modules=[Transformer(T5), Pooling(128)], device="cpu")
    task = TunedTask("first", "prepend", "", draw(5, 128))
    for call in (get_tuned_tasks, embed_probe, lambda m: add_tuned_task(m, task), lambda m: remove_tuned_task(m, "a")):
        with pytest.raises(ValueError, match="begins with Transformer takes no instructions"):
            call(plain)


def test_the_probe_is_the_plain_texts_whole_embedding(model):
    expected = model.encode([["", PROBE]])[0]
    with model.truncate_embeddings(16):
        probe = embed_probe(model)
        add_tuned_task(model, replace(make_tasks(model)[0], probe=torch.tensor(expected)))
    assert (probe.dtype, probe.device.type) == (torch.float32, "cpu")
    np.testing.assert_allclose(probe, expected, atol=1e-6)
    add_tasks(model)
    np.testing.assert_allclose(embed_probe(model), expected, atol=1e-6)  # tasks do not move it


def test_another_model_is_refused_and_left_as_it_was(model):
    tasks = [replace(task, probe=embed_probe(model)) for task in make_tasks(model)]
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(
                0.3 * parameter.std() * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
            )
    kinds = [type(module) for module in other]
    for task in tasks:
        with pytest.raises(ValueError, match=rf"{task.name!r} was tuned for another model: .* cosine [-0-9.]+ \("):
            add_tuned_task(other, task)
    assert not get_tuned_tasks(other)
    assert [type(module) for module in other] == kinds
    with pytest.raises(ValueError, match="another model"):
        add_tuned_task(model, replace(tasks[0], probe=draw(5)))


def test_the_same_model_in_half_precision_is_accepted(model):
    tasks = [replace(task, probe=embed_probe(model)) for task in make_tasks(model)]
    half = copy.deepcopy(model).bfloat16()
    for task in tasks:
        assert add_tuned_task(half, task) is task
        add_tuned_task(model, task)
    ours, whole = half.encode(INPUTS), model.encode(INPUTS)
    cosines = (ours * whole).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(whole, axis=1)
    assert cosines.min() > 0.99


def test_tasks_of_other_sizes_and_architectures_are_refused(model):
    is_dual = isinstance(model[0], DualEncoderConcat)
    ours, theirs = ("dual", "prepend") if is_dual else ("prepend", "dual")
    with pytest.raises(ValueError, match=f"is for a {theirs} model with vectors of 128; this is a {ours} model"):
        add_tuned_task(model, TunedTask("first", theirs, "", draw(1, 128)))
    with pytest.raises(ValueError, match=f"is for a {ours} model with vectors of 100; .* with vectors of 128"):
        add_tuned_task(model, TunedTask("first", ours, "", draw(1, 100)))
    delta = DenseDelta({"linear": draw(96, 250)})
    message = r"linear is \(96, 250\), this model's Dense 96 x 256" if is_dual else "Dense|for a dual model"
    with pytest.raises(ValueError, match=message):
        add_tuned_task(model, TunedTask("first", "dual", "", draw(1, 128), delta))
    assert not get_tuned_tasks(model)
    if is_dual:
        task = TunedTask("first", "dual", "", draw(1, 128), delta)
        with pytest.raises(ValueError, match="changes the Dense, and this model has none"):
            add_tuned_task(SentenceTransformer(modules=[model[0]], device="cpu"), task)
        with pytest.raises(ValueError, match="needs a Dense behind the concatenation, not Normalize"):
            add_tuned_task(SentenceTransformer(modules=[model[0], Normalize()], device="cpu"), task)


def assert_same_tasks(model: SentenceTransformer, other: SentenceTransformer) -> None:
    ours, theirs = get_tuned_tasks(model), get_tuned_tasks(other)
    assert list(ours) == list(theirs)
    for name, task in ours.items():
        assert torch.equal(task.vectors, theirs[name].vectors)
        assert torch.equal(task.probe, theirs[name].probe)
        assert (task.head is None) == (theirs[name].head is None)
        assert (task.dense_delta is None) == (theirs[name].dense_delta is None)
        assert task.instruction == theirs[name].instruction
    np.testing.assert_allclose(model.encode(INPUTS), other.encode(INPUTS), atol=1e-6)


@pytest.mark.parametrize("loader", [SentenceTransformer, INSTRUCTOR])
def test_a_saved_model_keeps_its_tasks_and_loses_the_removed_ones(model, loader, tmp_path):
    model.save_pretrained(str(tmp_path))
    names = [path.name for path in tmp_path.glob("*.json") if "tuned_tasks" in path.read_text()]
    assert not names
    assert not (tmp_path / "tuned_tasks").exists()
    add_tasks(model)
    for order in (["first", "second"], ["second", "first"], ["first"], []):
        for name in list(get_tuned_tasks(model)):
            task = remove_tuned_task(model, name)
            (tmp_path / "kept").mkdir(exist_ok=True)
            task.save(tmp_path / "kept" / name)
        for name in order:
            add_tuned_task(model, tmp_path / "kept" / name)
        model.save_pretrained(str(tmp_path / "model"))
        folders = tmp_path / "model" / "tuned_tasks"
        assert sorted(path.name for path in folders.iterdir()) == sorted(order)
        loaded = loader(str(tmp_path / "model"), device="cpu")
        assert list(get_tuned_tasks(loaded)) == order
        assert_same_tasks(loaded, model)
    loaded = loader(str(tmp_path / "model"), device="cpu")
    assert "tuned_tasks" not in json.dumps(loaded[0].get_config_dict())


def test_a_loaded_model_is_saved_into_its_own_folder(model, tmp_path):
    add_tasks(model)
    model.save_pretrained(str(tmp_path))
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    remove_tuned_task(loaded, "second")
    loaded.save_pretrained(str(tmp_path))
    again = INSTRUCTOR(str(tmp_path), device="cpu")
    assert_same_tasks(again, loaded)
    assert list(get_tuned_tasks(again)) == ["first"]


def test_shared_encoders_keep_tasks(tmp_path):
    base = SentenceTransformer(modules=[Transformer(T5), Pooling(128)], device="cpu")
    model = INSTRUCTOR.from_encoder(base, "dual", share_encoders=True, embedding_dimension=96, device="cpu")
    add_tasks(model)
    model.save_pretrained(str(tmp_path))
    assert_same_tasks(SentenceTransformer(str(tmp_path), device="cpu"), model)


@pytest.mark.parametrize("name", ["../evil", "/etc", "a b", "missing"])
def test_a_configuration_that_names_what_is_not_there(model, name, tmp_path):
    add_tasks(model)
    model.save_pretrained(str(tmp_path / "model"))
    shutil.copytree(tmp_path / "model" / "tuned_tasks" / "second", tmp_path / "model" / "evil")
    (path,) = (path for path in (tmp_path / "model").glob("*.json") if "tuned_tasks" in path.read_text())
    config = json.loads(path.read_text())
    assert config["tuned_tasks"] == ["first", "second"]
    path.write_text(json.dumps({**config, "tuned_tasks": ["first", name]}))
    error, message = (FileNotFoundError, "missing.task.json") if name == "missing" else (ValueError, "cannot name")
    with pytest.raises(error, match=message):
        SentenceTransformer(str(tmp_path / "model"), device="cpu")
    path.write_text(json.dumps(config))
    shutil.rmtree(tmp_path / "model" / "tuned_tasks")
    with pytest.raises(FileNotFoundError, match="names tuned tasks, but tuned_tasks is missing"):
        SentenceTransformer(str(tmp_path / "model"), device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["SentenceTransformer", "INSTRUCTOR"])
def test_tasks_come_from_the_hub(model, loader, tmp_path):
    add_tasks(model)
    model.save_pretrained(str(tmp_path / "model"))
    code = f"""
import json
from instructor_st import INSTRUCTOR
from sentence_transformers import SentenceTransformer
model = {loader}("acme/tuned", device="cpu")
print(json.dumps([list(model[0].tuned_tasks), model.encode({INPUTS!r}).tolist()]))
"""
    with serve_hub({"acme/tuned": tmp_path / "model"}) as hub:
        done = run_with_hub(hub.endpoint, tmp_path / "cache", code)
        requests = list(hub.requests)
    assert done.returncode == 0, done.stderr[-2000:]
    names, vectors = json.loads(done.stdout.splitlines()[-1])
    assert names == ["first", "second"]
    np.testing.assert_allclose(np.array(vectors, dtype=np.float32), model.encode(INPUTS), atol=1e-6)
    assert any(each.endswith("tuned_tasks/first/task.safetensors") for each in requests)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_keep_the_tasks(model, duplicate):
    add_tasks(model)
    assert_same_tasks(duplicate(model), model)


@pytest.mark.slow
def test_several_processes_keep_the_tasks(model):
    add_tasks(model)
    found = model.encode(INPUTS, device=["cpu", "cpu"], chunk_size=11)
    np.testing.assert_allclose(found, model.encode(INPUTS), atol=1e-5)


def make_columns() -> list[list[list[str]]]:
    queries = [["first", "harbour gate"], ["second", "cell"], ["Find: ", "energy of an apple"], ["first", "paper"]]
    positives = [["second", "gates"], ["first", "cells " * 9], ["", "power"], ["Doc: ", "a sheet"]]
    negatives = [["first", "ship"], ["first", "atom"], ["Doc: ", "calm " * 5], ["second", "pen"]]
    return [queries, positives, negatives]


def compute(model: SentenceTransformer, **options) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    value = MultitaskInstructionLoss(model, **options)([model.preprocess(column) for column in make_columns()])
    value.backward()
    return value.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", [{"mini_batch_size": 1}, {"mini_batch_size": 3}, {"mini_batch_num_tokens": 12}])
def test_the_loss_in_minibatches_is_the_loss(model, options):
    add_tasks(model)
    model.eval()
    plain, gradients = compute(model)
    cached, cached_gradients = compute(model, **options)
    assert cached == pytest.approx(plain, abs=1e-4)
    assert cached_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(cached_gradients[name], gradient, atol=1e-4, rtol=1e-3, msg=name)
    vectors = [model(model.preprocess(column))["sentence_embedding"] for column in make_columns()]
    by_row = [[model.encode([row], convert_to_tensor=True)[0] for row in column] for column in make_columns()]
    for column, rows in zip(vectors, by_row, strict=True):
        torch.testing.assert_close(column, torch.stack(rows), atol=1e-5, rtol=0)


def test_the_loss_feels_the_tasks(model):
    add_tasks(model)
    model.eval()
    with_tasks, _ = compute(model)
    for name in list(get_tuned_tasks(model)):
        remove_tuned_task(model, name)
    assert abs(compute(model)[0] - with_tasks) > 1e-3


def test_a_model_with_tasks_can_be_trained(model, tmp_path):
    add_tasks(model)
    vectors = {name: task.vectors.clone() for name, task in get_tuned_tasks(model).items()}
    columns = ("query", "positive", "negative_1")
    batch = [dict(zip(columns, row, strict=True)) for row in zip(*make_columns(), strict=True)]
    rows = {"one": [parse_row(row, "here", task="one") for row in batch]}
    args = TrainArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        precision="float32",
        learning_rate=1e-2,
        use_cpu=True,
        disable_tqdm=True,
        max_steps=2,
        save_strategy="steps",
        save_steps=2,
    )
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer = InstructionTrainer(
        model=model, args=args, train_dataset=build_train_dataset(rows), loss=build_losses(model, rows)
    )
    trainer.train()
    changed = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert len(changed) > len(before) / 2
    assert all(torch.equal(task.vectors, vectors[name]) for name, task in get_tuned_tasks(model).items())
    loaded = SentenceTransformer(str(Path(tmp_path, "checkpoint-2")), device="cpu")
    assert_same_tasks(loaded, model)
    # The model is another one now, so the tasks, which were tuned for the old one, do not fit it any more.
    with pytest.raises(ValueError, match="another model"):
        add_tuned_task(model, get_tuned_tasks(model)["first"])


def test_tasks_that_no_row_names_do_not_disturb_training(tmp_path):
    losses = []
    for is_tuned in (False, True):
        torch.manual_seed(0)
        model = INSTRUCTOR(T5, device="cpu")
        if is_tuned:
            add_tasks(model)
        trainer = make_trainer(model, tmp_path / str(is_tuned), max_steps=2, save_strategy="no")
        losses.append(trainer.train().training_loss)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
