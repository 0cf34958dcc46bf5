from __future__ import annotations

import copy
import json
import random

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense

from instructor_st import INSTRUCTOR
from instructor_st.data import LabelledTexts
from instructor_st.modules import TunedTask
from instructor_st.reinstruct import encode_text, reinstruct
from instructor_st.training import FinetuneSettings, finetune, predict
from instructor_st.training.tuning_rows import TuningRows
from instructor_st.training.tuning_scores import fit_head
from instructor_st.tuned_models import add_tuned_task, embed_probe, get_tuned_tasks
from tests.conftest import MINILM
from tests.training.toy_tasks import (
    INSTRUCTION,
    NEW_QUESTIONS,
    TEXTS,
    label_texts,
    make_answers,
    make_classes,
    tune,
)

PREPEND = {"max_epochs": 2, "folds": 1, "batch_size": 4, "learning_rate": 1e-2}
SHORT = {"max_epochs": 2, "folds": 2}


@pytest.fixture
def dual(dual_model) -> INSTRUCTOR:
    return copy.deepcopy(dual_model)


@pytest.fixture
def prepend(prepend_model) -> INSTRUCTOR:
    return copy.deepcopy(prepend_model)


def encode(model: SentenceTransformer, instruction: str, texts=TEXTS) -> np.ndarray:
    return model.encode([[instruction, text] for text in texts])


def force_curve(monkeypatch, *folds: list[float]) -> None:
    """Give every evaluation the next value of its fold's curve; one process takes the folds in turn."""
    values = iter([value for curve in folds for value in curve])
    monkeypatch.setattr(finetune, "score_vectors", lambda *_, **__: {"accuracy": next(values)})


def look_at(model: SentenceTransformer) -> dict[str, object]:
    """What finetuning must leave as it is, but for the weights."""
    return {
        "gradients": {name: each.requires_grad for name, each in model.named_parameters()},
        "modes": {name: each.training for name, each in model.named_modules()},
        "no gradient": all(each.grad is None for each in model.parameters()),
    }


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("dual", {}),
        ("dual", {"part": "lora", "max_epochs": 2}),
        ("dual", {"part": "encoder", "max_epochs": 2, "learning_rate": 1e-4}),
        ("prepend", PREPEND),
    ],
)
def test_the_model_stays_as_it_is(architecture, settings, request, monkeypatch):
    model = request.getfixturevalue(architecture)
    weights = {name: each.clone() for name, each in model.state_dict().items()}
    next(model.parameters()).requires_grad_(False)
    before = encode(model, INSTRUCTION)
    text_vectors = encode_text(model, TEXTS) if architecture == "dual" else None
    looks = look_at(model)
    # So that something is kept, whatever few passes gain.
    folds = settings.get("folds", 2)
    tried = 5 if not settings else 2
    force_curve(monkeypatch, *[[0.1 * place for place in range(tried)]] * folds)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    result = tune(model, make_classes(), **settings)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    assert result.report.epochs > 0
    assert look_at(model) == looks
    found = model.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], each) for name, each in weights.items())
    np.testing.assert_array_equal(encode(model, INSTRUCTION), before)
    if text_vectors is not None:
        np.testing.assert_array_equal(encode_text(model, TEXTS), text_vectors)
    assert np.abs(encode(model, "form") - before).max() > 1e-3


def test_a_model_in_training_stays_in_training(dual):
    dual.train()
    dual[0].text_encoder.eval()
    looks = look_at(dual)
    tune(dual, make_classes(), **SHORT)
    assert look_at(dual) == looks


@pytest.mark.parametrize("place", ["tuner", "scores", "name"])
def test_a_fault_leaves_the_model_as_it_was(dual, place, monkeypatch):
    tune(dual, make_classes(), "earlier", **SHORT)
    earlier = get_tuned_tasks(dual)["earlier"]
    weights = {name: each.clone() for name, each in dual.state_dict().items()}
    dual[1].linear.weight.requires_grad_(False)
    dual.train()
    dual[0].text_encoder.eval()
    kinds, looks = [type(module) for module in dual], look_at(dual)
    if place == "scores":
        monkeypatch.setattr(finetune, "score_vectors", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tune(dual, make_classes(), **SHORT)
    elif place == "tuner":
        monkeypatch.setattr(finetune, "make_tuner", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tune(dual, make_classes(), "earlier", **SHORT)
    else:
        # The task's own name would do; that of its documents is too long.
        with pytest.raises(ValueError, match="x-document' cannot name a tuned task: at most 64"):
            tune(dual, make_answers(), "x" * 60, document_instruction="Represent the answer: ", **SHORT)
        with pytest.raises(ValueError, match="'My Task' cannot name a tuned task"):
            tune(dual, make_classes(), "My Task", **SHORT)
    assert look_at(dual) == looks
    assert [type(module) for module in dual] == kinds
    assert all(torch.equal(dual.state_dict()[name], each) for name, each in weights.items())
    assert dict(get_tuned_tasks(dual)) == {"earlier": earlier}


def test_a_second_tuning_of_the_name_replaces_the_first(dual):
    first = tune(dual, make_classes(), max_epochs=8).tasks[0]
    before = encode(dual, "form")
    second = tune(dual, make_classes(), max_epochs=8, seed=1).tasks[0]
    assert list(get_tuned_tasks(dual)) == ["form"]
    assert get_tuned_tasks(dual)["form"] is second is not first
    # The second one began with the model, not with the first one's change of it.
    assert np.abs(encode(dual, "form") - before).max() > 1e-4
    assert torch.equal(first.probe, second.probe)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [("dual", {}), ("dual", {"part": "lora", "max_epochs": 2}), ("prepend", {**PREPEND, "instruction": ""})],
)
def test_the_seed_decides_everything(architecture, settings, request, monkeypatch):
    model = request.getfixturevalue(architecture)
    found = []
    tried = 2 if settings else 5
    for number, seed in enumerate((3, 3, 4)):
        force_curve(monkeypatch, *[[0.1 * place for place in range(tried)]] * settings.get("folds", 2))
        torch.manual_seed(number)
        np.random.seed(number)
        task = tune(model, make_classes(), f"form-{number}", seed=seed, **settings).tasks[0]
        assert task.notes["settings"]["seed"] == seed
        found.append([task.vectors, *(task.dense_delta.tensors.values() if task.dense_delta else ())])
    assert all(torch.equal(*pair) for pair in zip(found[0], found[1], strict=True))
    assert not any(torch.equal(*pair) for pair in zip(found[0], found[2], strict=True))


@pytest.mark.parametrize("dense_rank", [None, 2])
def test_the_task_is_kept_as_it_was_judged(dual, dense_rank, tmp_path):
    untouched = copy.deepcopy(dual)
    probe = embed_probe(dual)
    result = tune(dual, make_classes(), dense_rank=dense_rank)
    (task,) = result.tasks
    assert result.report.verdict == "helps"
    assert get_tuned_tasks(dual)["form"] is task
    names = {"linear_out", "linear_in", "residual_out", "residual_in"} if dense_rank else {"linear", "residual"}
    assert task.dense_delta.tensors.keys() == names | {"bias"}
    assert torch.equal(task.probe, probe)
    stored = TunedTask.load(task.save(tmp_path / "form"))
    assert (stored.notes["kind"], stored.notes["left_out"]) == ("classes", {})
    assert stored.notes["settings"]["dense_rank"] == dense_rank
    assert stored.notes["report"] == json.loads(json.dumps(result.report.to_dict()))
    embedded = encode(dual, "form")
    # The head was fitted on these vectors, not on those of the whole change.
    data = TuningRows.from_labelled(make_classes())
    assert data.texts == TEXTS
    head = fit_head(data, [torch.as_tensor(embedded)]).state_dict()
    for name, tensor in task.head.tensors.items():
        torch.testing.assert_close(tensor, head[name], atol=1e-4, rtol=1e-3)
    dual.save_pretrained(str(tmp_path / "model"))
    np.testing.assert_allclose(encode(INSTRUCTOR(str(tmp_path / "model"), device="cpu"), "form"), embedded, atol=1e-6)
    np.testing.assert_allclose(reinstruct(dual, encode_text(dual, TEXTS), "form"), embedded, atol=1e-5)
    add_tuned_task(untouched, stored)
    np.testing.assert_allclose(encode(untouched, "form"), embedded, atol=1e-6)
    assert predict(untouched, NEW_QUESTIONS, task="form").labels == ["question"] * 2


def test_the_report_counts_what_was_done(dual, prepend):
    report = tune(dual, make_classes(), **SHORT).report
    assert (report.rows, report.folds, report.tried, report.chosen_elsewhere) == (24, 2, (0, 2), True)
    assert report.trained_parameters == 384 + 2 * 384 * 768 + 384
    assert report.seconds > report.text_seconds > 0
    assert tune(dual, make_classes(), max_epochs=1, folds=None).report.folds == 5
    report = tune(prepend, make_classes(), max_epochs=1, folds=None, prompt_length=3, keep_head=False).report
    assert (report.folds, report.tried, report.chosen_elsewhere) == (1, (0, 1), False)
    assert report.trained_parameters == 3 * 384


@pytest.mark.parametrize(
    ("curve", "epochs", "verdict"),
    [
        ([0.5, 0.5, 0.5, 0.5], 0, "does not help"),
        ([0.5, 0.4, 0.3, 0.2], 0, "does not help"),
        ([0.5, 0.9, 0.6, 0.6], 2, "helps"),
        ([0.5, 0.6, 0.7, 0.8], 9, "helps"),
    ],
)
@pytest.mark.parametrize("keep_head", [True, False])
def test_the_verdict_follows_the_figures_and_the_task_the_verdict(dual, curve, epochs, verdict, keep_head, monkeypatch):
    force_curve(monkeypatch, curve, curve)
    result = tune(dual, make_classes(), max_epochs=9, keep_head=keep_head)
    assert result.report.tried == (0, 2, 8, 9)
    assert (result.report.epochs, result.report.verdict) == (epochs, verdict)
    (change,) = result.report.changes
    assert (change.metric, change.before) == ("accuracy", 0.5)
    assert change.after == pytest.approx(max(curve))
    (task,) = result.tasks
    assert (task.head is not None) == keep_head
    assert (task.dense_delta is not None) == (epochs > 0)
    assert torch.equal(task.vectors, dual[0].embed_instruction(INSTRUCTION)) == (epochs == 0)
    difference = np.abs(encode(dual, "form") - encode(dual, INSTRUCTION)).max()
    assert (difference < 1e-6) if epochs == 0 else (difference > 1e-3)
    assert type(dual[1]) is not Dense if epochs else type(dual[1]) is Dense


def test_a_prepend_model_stops_when_it_gets_worse_and_keeps_its_instruction(prepend, monkeypatch):
    # Without a value for 16 passes: after the second that is worse there is no third.
    force_curve(monkeypatch, [0.5, 0.4, 0.3])
    result = tune(prepend, make_classes(), **{**PREPEND, "max_epochs": 16})
    assert (result.report.tried, result.report.epochs) == ((0, 2, 8), 0)
    embeddings = prepend[0].model.get_input_embeddings()
    ids = prepend.tokenizer(INSTRUCTION, add_special_tokens=False)["input_ids"]
    assert torch.equal(result.tasks[0].vectors, embeddings.weight[ids])
    np.testing.assert_allclose(encode(prepend, "form"), encode(prepend, INSTRUCTION), atol=1e-5)


def test_what_does_not_help_is_not_kept(dual, monkeypatch):
    # Over both folds 2 passes are best; each fold's own figures, at what the other chose, are 0.2 and 0.6.
    force_curve(monkeypatch, [0.5, 0.9, 0.2], [0.5, 0.6, 0.7])
    result = tune(dual, make_classes(), max_epochs=8)
    assert result.report.verdict == "does not help"
    assert result.report.epochs == 0
    assert result.tasks[0].dense_delta is None


@pytest.mark.slow
def test_labels_drawn_at_random_are_seldom_said_to_be_learned(dual):
    verdicts = []
    for seed in range(8):
        labels = random.Random(seed).sample(["heads", "tails"] * 12, 24)
        result = tune(dual, label_texts("classes", tuple(labels)), folds=5, learning_rate=None, batch_size=256)
        verdicts.append(result.report.verdict)
        assert (result.tasks[0].dense_delta is None) == (result.report.epochs == 0)
        if result.report.epochs == 0:
            assert verdicts[-1] == "does not help"
            assert torch.equal(result.tasks[0].vectors, dual[0].embed_instruction(INSTRUCTION))
    # A gain beyond one standard error comes by chance once in six times.
    assert verdicts.count("helps") <= 3
    assert verdicts.count("does not help") >= 4


@pytest.mark.parametrize("part", ["lora", "encoder"])
def test_an_encoder_is_a_way_to_find_a_vector(dual, part, monkeypatch):
    force_curve(monkeypatch, [0.1, 0.2], [0.1, 0.2])
    result = tune(dual, make_classes(), part=part, max_epochs=2, learning_rate=1e-3)
    (task,) = result.tasks
    assert task.vectors.shape == (1, 384)
    assert (task.vectors - dual[0].embed_instruction(INSTRUCTION)).abs().max() > 1e-3
    assert task.num_bytes == 4 * (384 + 2 * 384 * 768 + 384)
    assert not any("lora" in name for name, _ in dual.named_parameters())
    whole = sum(each.numel() for each in dual[0].instruction_encoder.parameters())
    if part == "encoder":
        assert result.report.trained_parameters == whole + 2 * 384 * 768 + 384
    else:
        assert 2 * 384 * 768 + 384 < result.report.trained_parameters < whole


def test_models_that_do_not_fit(dual, prepend):
    with pytest.raises(ValueError, match="begins with Transformer takes no instructions, hence no tuned tasks"):
        tune(SentenceTransformer(MINILM, device="cpu"), make_classes(), **SHORT)
    with pytest.raises(ValueError, match="part='lora': a prepend model has one encoder"):
        tune(prepend, make_classes(), part="lora", **SHORT)
    bare = SentenceTransformer(modules=[dual[0]], device="cpu")
    with pytest.raises(ValueError, match="no Dense behind the concatenation; say tune_dense=False"):
        tune(bare, make_classes(), **SHORT)
    fresh = INSTRUCTOR.from_encoder(MINILM, "dual", device="cpu")
    with pytest.raises(ValueError, match="takes no notice of the instruction"):
        tune(fresh, make_classes(), tune_dense=False, **SHORT)
    for model in (prepend, bare, fresh):
        assert not get_tuned_tasks(model)
        assert all(each.requires_grad for each in model.parameters())
    result = tune(bare, make_classes(), tune_dense=False, **SHORT)
    assert result.tasks[0].dense_delta is None
    assert tune(dual, make_classes(), tune_dense=False, learning_rate=0.1).tasks[0].dense_delta is None
    assert type(dual[1]) is Dense


def test_rows_that_cannot_be_learned_from_are_refused(dual):
    few = LabelledTexts("classes", TEXTS[:3], ((),) * 3, ("a", "b", "a"), {})
    with pytest.raises(ValueError, match="3 rows are too few"):
        tune(dual, few, **SHORT)
    with pytest.raises(ValueError, match="document_instruction is for rows with answers; these have classes"):
        tune(dual, make_classes(), document_instruction="Represent: ", **SHORT)
    assert not get_tuned_tasks(dual)


def test_without_settings_the_defaults_hold(dual, monkeypatch):
    force_curve(monkeypatch, *[[0.5] * 5] * 5)
    result = finetune.finetune_instructions(
        dual, make_classes(), name="form", instruction=INSTRUCTION, show_progress_bar=False
    )
    assert result.tasks[0].notes["settings"] == FinetuneSettings().to_dict()
    assert (result.report.folds, result.report.tried) == (5, (0, 2, 8, 16, 32))


def test_half_precision_models_are_tuned_too(prepend):
    half = prepend.bfloat16()
    task = tune(half, make_classes(), **PREPEND).tasks[0]
    assert task.vectors.dtype == torch.float32
    assert predict(half, NEW_QUESTIONS, task="form").labels == ["question"] * 2


def test_half_precision_dual_models_are_tuned_too(dual):
    tune(dual.bfloat16(), make_classes())
    assert predict(dual, NEW_QUESTIONS, task="form").labels == ["question"] * 2


@pytest.mark.parametrize("objective", ["contrastive", "cross_entropy"])
def test_a_model_that_cuts_its_embeddings_is_tuned_too(dual, objective):
    dual.truncate_dim = 128
    tune(dual, make_classes(), class_objective=objective)
    assert predict(dual, NEW_QUESTIONS, task="form").labels == ["question"] * 2
