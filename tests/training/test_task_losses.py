from __future__ import annotations

import math

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import (
    AnglELoss,
    BatchHardSoftMarginTripletLoss,
    CoSENTLoss,
    DistillKLDivLoss,
    MarginMSELoss,
)
from torch import nn

from instructor_st.training import (
    InstructionTrainer,
    LossSettings,
    MultitaskInstructionLoss,
    SupervisedContrastiveLoss,
    TaskLossSpec,
    TrainArguments,
    build_losses,
)
from instructor_st.training.task_losses import WeightedLoss, override_settings
from tests.training.naive_loss import assert_same_gradients, build_small_model, cosine, read_gradients

TEXTS = [["Class of: ", text] for text in ("red", "dark red", "blue", "blue sky", "crimson", "green")]
CLASSES = [0, 0, 1, 1, 0, 2]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_small_model(tmp_path_factory.mktemp("model"), "prepend")


def test_losses_by_task_and_their_settings(model):
    losses = build_losses(model, ["a", "b", "c"], labelled_tasks={"b"}, temperature=0.02)
    assert list(losses) == ["a", "b", "c"]
    assert losses["a"] is losses["c"]
    assert (
        losses["a"].get_config_dict().items()
        >= {
            "temperature": 0.02,
            "share_hard_negatives": True,
            "gather_across_devices": False,
        }.items()
    )
    assert losses["b"].share_hard_negatives is False
    assert "2212.09741" in losses["a"].citation


def test_a_mapping_of_rows_by_task_gives_the_names(model):
    losses = build_losses(model, {"a": ["row"], "b": ["row"]}, gather_across_devices=True)
    assert losses["a"] is losses["b"]
    assert losses["a"].gather_across_devices


def test_each_kind_of_rows_has_its_loss(model):
    kinds = {
        "pairs": (TaskLossSpec(), MultitaskInstructionLoss),
        "graded": (TaskLossSpec("graded"), CoSENTLoss),
        "angle": (TaskLossSpec("graded", overrides={"loss": "angle"}), AnglELoss),
        "classes": (TaskLossSpec("classes"), SupervisedContrastiveLoss),
        "hard": (TaskLossSpec("classes", overrides={"loss": "batch_hard_soft_margin"}), BatchHardSoftMarginTripletLoss),
        "scores": (TaskLossSpec("scores"), DistillKLDivLoss),
        "margins": (TaskLossSpec("scores", overrides={"loss": "margin_mse"}), MarginMSELoss),
    }
    losses = build_losses(
        model, {task: spec for task, (spec, _) in kinds.items()}, defaults=LossSettings(temperature=0.1)
    )
    for task, (_, expected) in kinds.items():
        assert type(losses[task]) is expected, task
    assert losses["graded"].scale == losses["angle"].scale == pytest.approx(10)
    assert losses["scores"].student_temperature == 0.1
    assert losses["scores"].teacher_temperature == 1.0
    assert losses["classes"].temperature == 0.1


def test_overrides_and_sharing(model):
    specs = {
        "a": TaskLossSpec(overrides={"temperature": 0.1}),
        "b": TaskLossSpec(),
        "c": TaskLossSpec(overrides={"temperature": 0.1, "loss": "contrastive"}),
        "own": TaskLossSpec(has_classes=True),
        "shared": TaskLossSpec(has_classes=True, overrides={"share_hard_negatives": True}),
        "g": TaskLossSpec("graded"),
        "h": TaskLossSpec("graded", overrides={"weight": 2}),
    }
    losses = build_losses(model, specs, defaults=LossSettings(objective="margin"))
    assert losses["a"] is losses["c"]
    assert losses["a"].temperature == 0.1
    assert losses["b"].temperature == 0.05
    assert losses["b"].settings.objective == "margin"
    assert losses["own"].share_hard_negatives is False
    assert losses["shared"] is losses["b"]
    assert isinstance(losses["h"], WeightedLoss)
    assert losses["h"].get_config_dict().items() >= {"loss": "CoSENTLoss", "weight": 2, "scale": 20.0}.items()
    assert "CoSENT" in losses["h"].citation or "cosent" in losses["h"].citation
    # However many losses there are, the model's parameters are registered once.
    assert len(list(nn.ModuleDict(losses).parameters())) == len(list(model.parameters()))


def test_a_default_loss_counts_for_its_own_kind(model):
    specs = {"graded": TaskLossSpec("graded"), "pairs": TaskLossSpec()}
    losses = build_losses(model, specs, defaults=LossSettings(loss="angle"))
    assert isinstance(losses["graded"], AnglELoss)
    assert isinstance(losses["pairs"], MultitaskInstructionLoss)


def test_the_guide_goes_to_the_tasks_with_a_margin(model, t5_model):
    specs = {"with": TaskLossSpec(overrides={"false_negative_margin": 0.1}), "without": TaskLossSpec()}
    losses = build_losses(model, specs, guide=t5_model)
    assert losses["with"].guide is not None
    assert losses["without"].guide is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            TaskLossSpec(overrides={"temprature": 1}),
            r"Task 'qa': 'temprature' is no setting .*allowed: loss, objective, temp",
        ),
        (
            TaskLossSpec(overrides={"temperature": "1e-2"}),
            r"Task 'qa': temperature must be above 0, not '1e-2'.*Allowed keys: loss",
        ),
        (
            TaskLossSpec("graded", overrides={"margin": 0.1}),
            r"'margin' is no setting of its loss \(cosent\); allowed: loss, temperature, weight",
        ),
        (
            TaskLossSpec("graded", overrides={"loss": "contrastive"}),
            r"loss 'contrastive' is none for rows of the kind 'graded'; allowed: cosent, angle",
        ),
        (
            TaskLossSpec("scores", overrides={"loss": "margin_mse", "temperature": 1.0}),
            r"'temperature' is no setting of its loss \(margin_mse\)",
        ),
        (TaskLossSpec("scores", overrides={"teacher_temperature": 0}), "teacher_temperature must be above 0, not 0"),
        (TaskLossSpec("triples"), "of the kind 'triples'; allowed: pairs, graded, classes, scores"),
    ],
)
def test_bad_specs_name_task_key_and_allowed_keys(model, spec, message):
    with pytest.raises(ValueError, match=message) as error:
        build_losses(model, {"qa": spec})
    assert "Task 'qa'" in str(error.value)
    with pytest.raises(ValueError, match="loss must be one of 'contrastive'"):
        LossSettings(loss="mnrl")


def test_overriding_leaves_the_defaults_alone():
    defaults = LossSettings()
    settings = override_settings(defaults, TaskLossSpec(overrides={"weight": 3}), task="a")
    assert settings.weight == 3
    assert defaults == LossSettings()


def naive_classes(vectors, labels, temperature):
    """Khosla et al. 2020, equation 2, in loops; the accuracy with it."""
    total, hits, size = 0.0 * vectors.sum(), 0, len(vectors)
    for i in range(size):
        others = [a for a in range(size) if a != i]
        scores = {a: cosine(vectors[i], vectors[a]) / temperature for a in others}
        fellows = [a for a in others if labels[a] == labels[i]]
        norm = torch.logsumexp(torch.stack(list(scores.values())), 0)
        if fellows:
            total = total - sum(scores[p] - norm for p in fellows) / len(fellows)
        hits += labels[max(others, key=lambda a: scores[a].item())] == labels[i]
    return total / size, hits / size


@pytest.mark.parametrize("mini_batch", [{}, {"mini_batch_size": 4}, {"mini_batch_num_tokens": 20}])
def test_supervised_contrast_equals_the_naive_loop(model, mini_batch):
    loss = SupervisedContrastiveLoss(model, temperature=0.2, weight=1.5, **mini_batch)
    value = loss([model.preprocess(TEXTS)], torch.tensor(CLASSES))
    value.backward()
    found = read_gradients(model)
    vectors = model(model.preprocess(TEXTS))["sentence_embedding"]
    expected, accuracy = naive_classes(vectors, CLASSES, 0.2)
    (1.5 * expected).backward()
    assert value.item() == pytest.approx(1.5 * expected.item(), abs=1e-8)
    assert loss.last_accuracy.item() == pytest.approx(accuracy)
    assert_same_gradients(found, read_gradients(model))


def test_supervised_contrast_by_hand():
    """Texts 0 and 1 are equal and of one class, text 2 is orthogonal and alone."""
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    loss = SupervisedContrastiveLoss(None, temperature=1.0)
    value = loss.compute_loss_from_embeddings([vectors], torch.tensor([4, 4, 9]))
    assert value.item() == pytest.approx(-2 / 3 * math.log(math.e / (math.e + 1)), abs=1e-6)
    assert loss.last_accuracy.item() == pytest.approx(2 / 3)
    assert loss.get_config_dict()["temperature"] == 1.0
    assert "2004.11362" in loss.citation
    with pytest.raises(ValueError, match="need an integer column `label`"):
        loss.compute_loss_from_embeddings([vectors])
    with pytest.raises(ValueError, match="have one text column; 2 came"):
        loss.compute_loss_from_embeddings([vectors, vectors], torch.tensor([4, 4, 9]))
    with pytest.raises(ValueError, match="temperature must be above 0"):
        SupervisedContrastiveLoss(None, temperature=0.0)


def test_weight_multiplies_value_and_gradient(model):
    plain, weighted = CoSENTLoss(model), WeightedLoss(CoSENTLoss(model), 2.5)
    scores, gradients, values = torch.tensor([0.1, 0.9, 0.5]), [], []
    for loss in (plain, weighted):
        value = loss([model.preprocess(TEXTS[:3]), model.preprocess(TEXTS[3:])], scores)
        value.backward()
        values.append(value.item())
        gradients.append(read_gradients(model))
    assert values[1] == pytest.approx(2.5 * values[0])
    assert_same_gradients(gradients[1], {name: 2.5 * gradient for name, gradient in gradients[0].items()})


def test_the_trainer_trains_a_task_of_each_kind(tmp_path):
    from datasets import Dataset, DatasetDict

    model = build_small_model(tmp_path / "base", "prepend").float()
    others = TEXTS[1:] + TEXTS[:1]
    data = {
        "pairs": {"query": TEXTS, "positive": others, "negative_1": TEXTS[2:] + TEXTS[:2], "label": list(range(6))},
        "graded": {"a": TEXTS, "b": others, "score": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]},
        "classes": {"text": TEXTS, "label": CLASSES},
        "scores": {"query": TEXTS, "positive": others, "negative_1": TEXTS[3:] + TEXTS[:3], "score": [[1.0, 0.2]] * 6},
        "margins": {"query": TEXTS, "positive": others, "negative_1": TEXTS[3:] + TEXTS[:3], "score": [[1.0, 0.2]] * 6},
    }
    specs = {
        "pairs": TaskLossSpec(overrides={"mini_batch_size": 2}),
        "graded": TaskLossSpec("graded", overrides={"weight": 0.5}),
        "classes": TaskLossSpec("classes"),
        "scores": TaskLossSpec("scores"),
        "margins": TaskLossSpec("scores", overrides={"loss": "margin_mse"}),
    }
    losses = build_losses(model, specs)
    args = TrainArguments(
        output_dir=str(tmp_path / "run"),
        per_device_train_batch_size=6,
        precision="float32",
        num_train_epochs=1,
        use_cpu=True,
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train = DatasetDict({task: Dataset.from_dict(columns) for task, columns in data.items()})
    trainer = InstructionTrainer(model=model, args=args, train_dataset=train, loss=losses)
    trainer.train()
    assert trainer.state.global_step >= len(data)
    assert all(math.isfinite(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry)
    changed = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert len(changed) > 10
    assert losses["pairs"].last_accuracy is not None
    assert losses["classes"].last_accuracy is not None
