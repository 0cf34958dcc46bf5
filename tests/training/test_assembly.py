from __future__ import annotations

import math

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.losses import (
    BatchHardSoftMarginTripletLoss,
    CoSENTLoss,
    DistillKLDivLoss,
    MatryoshkaLoss,
)
from sentence_transformers.sentence_transformer.modules import Pooling

from instructor_st import INSTRUCTOR, DualEncoderConcat
from instructor_st.data import TrainingData, load_training_data
from instructor_st.data.schema import parse_training_row
from instructor_st.data.task_settings import TaskSettings
from instructor_st.modules import InstructionPrepend
from instructor_st.training import (
    CheckpointError,
    MultitaskInstructionLoss,
    SupervisedContrastiveLoss,
    TrainArguments,
    build_trainer,
    find_resume_point,
    format_mixture_table,
    load_trained_model,
    plan_training,
)
from instructor_st.training.assembly import build_loss_settings, name_task
from instructor_st.training.task_schedule import TaskPlan
from tests.conftest import T5
from tests.training.small_trainer import WORDS, make_rows
from tests.training.test_checkpoints import write_checkpoint


def make_arguments(folder, **options) -> TrainArguments:
    defaults = {
        "per_device_train_batch_size": 4, "precision": "float32", "use_cpu": True, "disable_tqdm": True,
        "save_strategy": "no", "num_train_epochs": 1,
    }  # fmt: skip
    return TrainArguments(output_dir=str(folder), **{**defaults, **options})


def make_mixture() -> TrainingData:
    """A dozen rows of each kind; the pairs of one task have one negative or two."""
    records = {
        "graded": [
            {"a": ["G: ", word], "b": ["G: ", f"{word} or {WORDS[i // 2]}"], "score": i / 11}
            for i, word in enumerate(WORDS)
        ],
        "classes": [{"input": ["C: ", word], "label": str(i % 3)} for i, word in enumerate(WORDS)],
        "scores": [
            {"query": ["S: ", word], "positive": f"{word} yes", "negative_1": f"no {i}", "scores": [1 - i / 50, 0.2]}
            for i, word in enumerate(WORDS)
        ],
    }
    rows = {kind: [parse_training_row(each, "here", task=kind) for each in made] for kind, made in records.items()}
    pairs = [
        {"query": ["P: ", f"{word} here"], "positive": f"{word} there", "negative_1": f"far {word}"} for word in WORDS
    ]
    pairs[8:] = [{**pair, "negative_2": f"other {pair['negative_1']}"} for pair in pairs[8:]]
    parsed = [parse_training_row(pair, "here", task="pairs") for pair in pairs]
    return TrainingData(
        {"pairs (1 negatives)": parsed[:8], "pairs (2 negatives)": parsed[8:], **rows}, held_out={}
    )  # fmt: skip


@pytest.fixture(scope="module")
def model() -> INSTRUCTOR:
    return INSTRUCTOR(T5, device="cpu")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("encoder"))
    SentenceTransformer(modules=[Transformer(T5), Pooling(128)], device="cpu").save_pretrained(folder)
    return folder


def build_pairs(model, folder, *, task_settings=None, tasks=("one", "two"), **options):
    data = TrainingData({task: make_rows(task) for task in tasks}, held_out={})
    return build_trainer(model, data, args=make_arguments(folder, **options), task_settings=task_settings)


def test_a_model_is_trained_further_and_an_encoder_built_upon(encoder, tmp_path):
    built = load_trained_model(encoder, make_arguments(tmp_path, architecture="dual"))
    assert isinstance(built[0], DualEncoderConcat)
    built.save_pretrained(str(tmp_path / "dual"))
    again = load_trained_model(str(tmp_path / "dual"), make_arguments(tmp_path, architecture="prepend"))
    assert isinstance(again, INSTRUCTOR)
    assert isinstance(again[0], DualEncoderConcat)
    assert isinstance(load_trained_model(encoder, make_arguments(tmp_path))[0], InstructionPrepend)


@pytest.mark.parametrize("architecture", ["prepend", "dual"])
def test_settings_reach_the_model(encoder, tmp_path, architecture):
    plain = load_trained_model(encoder, make_arguments(tmp_path, architecture=architecture))
    assert all(each.requires_grad for each in plain.parameters())
    dropouts = [each.p for each in plain.modules() if isinstance(each, torch.nn.Dropout)]
    assert max(dropouts) > 0
    args = make_arguments(
        tmp_path, architecture=architecture, max_seq_length=17, dropout=0.0, lora_rank=2, lora_alpha=6,
        lora_dropout=0.25, freeze=["*.q.lora_A.*"],
    )  # fmt: skip
    model = load_trained_model(encoder, args)
    assert model.max_seq_length == 17
    assert model.max_seq_length != plain.max_seq_length
    named = dict(model.named_parameters())
    lora = {name: each for name, each in named.items() if "lora_" in name}
    assert {each.shape[0] for name, each in lora.items() if "lora_A" in name} == {2}
    # `freeze` comes last, so that it can name the adapters too.
    assert all(each.requires_grad is (".q.lora_A." not in name) for name, each in lora.items())
    assert any(".q.lora_A." in name for name in lora)
    scales = {each.scaling["default"] for each in model.modules() if hasattr(each, "lora_A")}
    assert scales == {6 / 2}
    own = {each.p for name, each in model.named_modules() if isinstance(each, torch.nn.Dropout) and "lora" not in name}
    assert own == {0.0}
    assert {each.lora_dropout["default"].p for each in model.modules() if hasattr(each, "lora_A")} == {0.25}


def test_weights_come_from_the_manifest_and_from_the_settings(model, tmp_path):
    manifest = {"one": TaskSettings(weight=0.5), "two": TaskSettings(weight=3), "elsewhere": TaskSettings(weight=9)}
    trainer = build_pairs(model, tmp_path, task_settings=manifest, task_weights={"one": 2}, max_repeats=9)
    # 16 rows an epoch, shared 2 to 3, that is 6.4 and 9.6: in batches of 4 (and one at least) 2 each.
    assert trainer.args.multi_dataset_batch_sampler.keywords["weights"] == (2.0, 3.0)
    assert [plan.rows_drawn for plan in plan_training(trainer)] == [8, 8]
    trainer = build_pairs(model, tmp_path, task_settings=manifest, task_weights={"one": 21})
    assert trainer.args.multi_dataset_batch_sampler.keywords["weights"] == (21.0, 3.0)
    assert [plan.rows_drawn for plan in plan_training(trainer)] == [16, 4]  # 14 and 2
    trainer = build_pairs(model, tmp_path, task_weights={"one": 0})
    assert [plan.rows_drawn for plan in plan_training(trainer)] == [0, 8]
    assert plan_training(trainer)[0].reason == "its weight is 0"


def test_loss_settings_come_from_the_manifest_and_from_the_settings(model, tmp_path):
    manifest = {
        "one": TaskSettings(loss={"temperature": 0.2, "weight": 0.5}),
        "two": TaskSettings(loss={"margin": 0.9}),
    }
    losses = build_pairs(
        model, tmp_path, task_settings=manifest, temperature=0.07, loss_settings={"mask_same_text": False},
        task_loss_settings={"one": {"temperature": 0.3, "in_batch_negatives": False}}, tasks=("one", "two", "three"),
    ).loss  # fmt: skip
    read = {task: loss.settings for task, loss in losses.items()}
    # settings for the task, then the manifest's, then those for all tasks
    assert (read["one"].temperature, read["one"].weight, read["one"].in_batch_negatives) == (0.3, 0.5, False)
    assert (read["two"].temperature, read["two"].margin, read["two"].in_batch_negatives) == (0.07, 0.9, True)
    assert (read["three"].temperature, read["three"].margin, read["three"].weight) == (0.07, 0.2, 1.0)
    assert {each.mask_same_text for each in read.values()} == {False}
    assert losses["two"] is not losses["three"]


def test_loss_settings_of_all_tasks(tmp_path):
    args = make_arguments(
        tmp_path, temperature=0.07, mini_batch_size=3, mini_batch_num_tokens=50, loss_settings={"margin": 0.4}
    )
    settings = build_loss_settings(args, gather_across_devices=True)
    assert (settings.temperature, settings.margin, settings.gather_across_devices) == (0.07, 0.4, True)
    assert (settings.mini_batch_size, settings.mini_batch_num_tokens) == (3, 50)
    args.loss_settings["temperature"] = 0.5
    assert build_loss_settings(args, gather_across_devices=False).temperature == 0.5
    args.loss_settings["temperatur"] = 0.5
    with pytest.raises(ValueError, match=r"loss_settings: there is no setting 'temperatur'; there are .*temperature"):
        build_loss_settings(args, gather_across_devices=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task_weights": {"three": 1}}, "task_weights: there is no task 'three' in the data"),
        ({"task_loss_settings": {"three": {}}}, "task_loss_settings: there is no task 'three' in the data"),
        ({"task_weights": {"one": "much"}}, "task_weights: a number is expected for 'one', not 'much'"),
        ({"task_weights": {"one": -1}}, "weights must be 0 or more"),
        ({"task_loss_settings": {"one": 3}}, "task_loss_settings: a mapping of settings is expected for 'one', not 3"),
        ({"task_loss_settings": {"one": {"margins": 3}}}, "Task 'one': 'margins' is no setting of its loss"),
        ({"loss_settings": {"temperature": 0}}, "temperature must be above 0, not 0"),
        ({"task_alpha": -1}, "alpha must be 0 or more"),
        ({"matryoshka_dims": [32, 4096]}, r"matryoshka_dims must be from 1 to 96, .* not \[32, 4096\]"),
        ({"matryoshka_dims": [0]}, r"matryoshka_dims must be from 1"),
        ({"guide": "some/model"}, "guide: no task has a false_negative_margin"),
    ],
)
def test_settings_that_do_not_fit_are_named(model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        build_pairs(model, tmp_path, **options)


def test_each_kind_gets_its_loss_and_parts_of_a_task_its_settings(model, tmp_path):
    manifest = {"pairs": TaskSettings(weight=3, loss={"temperature": 0.3})}
    args = make_arguments(tmp_path, task_loss_settings={"classes": {"loss": "batch_hard_soft_margin"}})
    trainer = build_trainer(model, make_mixture(), args=args, task_settings=manifest)
    parts = [trainer.loss["pairs (1 negatives)"], trainer.loss["pairs (2 negatives)"]]
    assert parts[0] is parts[1]
    assert (type(parts[0]), parts[0].temperature) == (MultitaskInstructionLoss, 0.3)
    assert isinstance(trainer.loss["graded"], CoSENTLoss)
    assert isinstance(trainer.loss["classes"], BatchHardSoftMarginTripletLoss)
    assert isinstance(trainer.loss["scores"], DistillKLDivLoss)
    assert trainer.args.multi_dataset_batch_sampler.keywords["weights"] == (3.0, 3.0, 1.0, 1.0, 1.0)
    assert [name_task(name) for name in trainer.loss] == ["pairs", "pairs", "graded", "classes", "scores"]
    assert name_task("a (b) (12 negatives)") == "a (b)"


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
def test_the_parts_of_a_task_are_seen_as_often_as_the_whole_would_be(model, tmp_path, alpha):
    args = make_arguments(tmp_path, task_alpha=alpha, task_weights={"pairs": 3})
    trainer = build_trainer(model, make_mixture(), args=args)
    weights = trainer.args.multi_dataset_batch_sampler.keywords["weights"]
    masses = [weight * size**alpha for weight, size in zip(weights, (8, 4, 12, 12, 12), strict=True)]
    # 12 rows of weight 3, of which 8 and 4 are apart
    assert masses == pytest.approx([3 * 12**alpha * 8 / 12, 3 * 12**alpha * 4 / 12, 12**alpha, 12**alpha, 12**alpha])


def test_classes_of_pairs_keep_hard_negatives_to_themselves(model, tmp_path):
    record = {"query": "q", "positive": "p", "negative_1": "n", "label": "c"}
    rows = [parse_training_row({**record, "query": f"q{i}"}, "here", task="t") for i in range(4)]
    data = TrainingData({"labelled": rows, "plain": make_rows("plain")}, held_out={})
    losses = build_trainer(model, data, args=make_arguments(tmp_path)).loss
    assert (losses["labelled"].share_hard_negatives, losses["plain"].share_hard_negatives) == (False, True)


def test_several_processes_share_a_batch(model, tmp_path):
    data = TrainingData({"one": make_rows("one")}, held_out={})
    for processes in (1, 2):
        loss = build_trainer(model, data, args=make_arguments(tmp_path), num_processes=processes).loss["one"]
        assert loss.settings.gather_across_devices is (processes == 2)


def test_matryoshka_trains_the_named_dimensions_beside_the_whole(tmp_path):
    model = INSTRUCTOR(T5, device="cpu")
    trainer = build_pairs(model, tmp_path, matryoshka_dims=[16, 48], logging_steps=1, dropout=0.0)
    assert {type(loss) for loss in trainer.loss.values()} == {MatryoshkaLoss}
    assert trainer.loss["one"] is trainer.loss["two"]  # as their losses are one
    model.eval()
    columns = [[list(row.texts[place]) for row in make_rows("one")] for place in range(3)]
    vectors = [model.encode(column, convert_to_tensor=True) for column in columns]
    inner = MultitaskInstructionLoss(model)
    expected = sum(
        inner.compute_loss_from_embeddings([column[:, :size] for column in vectors]).item() for size in (96, 48, 16)
    )
    features = [model.preprocess(column) for column in columns]
    assert trainer.loss["one"](features, torch.arange(8)).item() == pytest.approx(expected, rel=1e-4)
    trainer.train()
    assert any(name.startswith("accuracy/") for name in trainer.state.log_history[0])


def test_nothing_to_resume_is_a_beginning(tmp_path):
    assert find_resume_point(make_arguments(tmp_path / "new")) == (None, [])
    assert find_resume_point(make_arguments(tmp_path / "new", resume=True)) == (None, [])
    assert find_resume_point(make_arguments(tmp_path / "new", overwrite=True)) == (None, [])


def test_resume_goes_on_from_the_last_whole_checkpoint(tmp_path):
    for step in (2, 10, 30):
        write_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-30" / "model.safetensors").write_bytes(b"")
    write_checkpoint(tmp_path, 40, mark=False)  # another program's
    args = make_arguments(tmp_path, resume=True)
    assert find_resume_point(args) == (str(tmp_path / "checkpoint-10"), ["checkpoint-30"])
    assert find_resume_point(args) == (str(tmp_path / "checkpoint-10"), [])
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-10", "checkpoint-40"}


def test_checkpoints_in_the_way_are_an_error_or_deleted(tmp_path):
    for step in (2, 10):
        write_checkpoint(tmp_path, step, mark=step == 2)
    (tmp_path / "final").mkdir()
    with pytest.raises(CheckpointError, match=r"earlier run, the last checkpoint-10\. --resume goes on .*--overwrite"):
        find_resume_point(make_arguments(tmp_path))
    assert len(list(tmp_path.iterdir())) == 3
    removed = find_resume_point(make_arguments(tmp_path, overwrite=True))
    assert removed == (None, ["checkpoint-2", "checkpoint-10"])
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_a_named_checkpoint_is_checked(tmp_path):
    output, other = tmp_path / "out", tmp_path / "other"
    write_checkpoint(output, 3)
    for folder in (write_checkpoint(output, 2), write_checkpoint(other, 5, mark=False)):
        args = make_arguments(output, resume_from_checkpoint=str(folder), resume=True)
        assert find_resume_point(args) == (str(folder), [])
    (output / "checkpoint-2" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint-2 was not written to its end.* The last .* is checkpoint-3"):
        find_resume_point(make_arguments(output, resume_from_checkpoint=str(output / "checkpoint-2")))
    with pytest.raises(CheckpointError, match=r"nothing is no folder\. There is no whole one in .*other"):
        find_resume_point(make_arguments(other, resume_from_checkpoint=str(tmp_path / "nothing")))
    assert (output / "checkpoint-2").exists()


def test_plan_is_that_of_the_first_epoch(model, tmp_path):
    plans = plan_training(build_pairs(model, tmp_path))
    assert [(plan.task, plan.rows, plan.rows_drawn, plan.batches) for plan in plans] == [
        ("one", 8, 8, 2),
        ("two", 8, 8, 2),
    ]


def test_mixture_table():
    plans = [
        TaskPlan(0, "small", 3, rows_drawn=2, distinct_rows_drawn=2, batches=1, waiting=1),
        TaskPlan(1, "large", 90, rows_drawn=40, distinct_rows_drawn=40, batches=10, later=49, waiting=1),
        TaskPlan(2, "often", 8, rows_drawn=16, distinct_rows_drawn=8, batches=4),
        TaskPlan(3, "off", 5, left_out=5, reason="its weight is 0"),
    ]
    head = ["| task | rows | drawn an epoch | batches | not drawn |", "|---|---:|---:|---:|---|"]
    rows = [
        "| large | 90 | 40 | 10 | 1 wait; 49 later |",
        "| often | 8 | 16 | 4 |  |",
        "| small | 3 | 2 | 1 | 1 wait |",
        "| off | 5 | 0 | 0 | 5: its weight is 0 |",
    ]
    assert format_mixture_table(plans).splitlines() == [*head, *rows, "| all 4 | 106 | 58 | 15 | 56 |"]
    assert format_mixture_table(plans, max_tasks=2).splitlines() == [
        *head,
        *rows[:2],
        "| and 2 more | 8 | 2 | 1 | 6 |",
        "| all 4 | 106 | 58 | 15 | 56 |",
    ]
    assert format_mixture_table(plans[2:3]).splitlines()[-1] == "| all 1 | 8 | 16 | 4 |  |"


@pytest.mark.parametrize(
    "options", [{}, {"mini_batch_size": 3}, {"matryoshka_dims": [32]}, {"gradient_accumulation_steps": 2}]
)
def test_a_mixture_of_all_kinds_is_trained_end_to_end(tmp_path, options):
    torch.manual_seed(0)
    model = INSTRUCTOR(T5, device="cpu")
    before = {name: each.clone() for name, each in model.state_dict().items()}
    args = make_arguments(tmp_path, num_train_epochs=2, logging_steps=2, learning_rate=1e-3, **options)
    trainer = build_trainer(model, make_mixture(), args=args)
    assert [plan.rows_drawn for plan in plan_training(trainer)] == [8, 4, 12, 12, 12]
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    logged = {name: value for entry in entries for name, value in entry.items() if "/" in name}
    tasks = ["pairs (1 negatives)", "pairs (2 negatives)", "graded", "classes", "scores"]
    assert {name for name in logged if name.startswith("loss/")} == {f"loss/{task}" for task in tasks}
    assert {name for name in logged if name.startswith("accuracy/")} == {
        f"accuracy/{task}" for task in tasks if task not in {"graded", "scores"}
    }
    assert all(math.isfinite(value) for entry in entries for value in entry.values())
    assert all(0 <= value <= 1 for name, value in logged.items() if name.startswith("accuracy/"))
    assert any(not torch.equal(before[name], each) for name, each in model.state_dict().items())
    losses = {name: loss.loss if isinstance(loss, MatryoshkaLoss) else loss for name, loss in trainer.loss.items()}
    assert [type(loss) for loss in losses.values()] == [
        *[MultitaskInstructionLoss] * 2, CoSENTLoss, SupervisedContrastiveLoss, DistillKLDivLoss
    ]  # fmt: skip


def test_a_folder_with_several_kinds_is_read_and_trained(tmp_path):
    lines = {
        "pairs.jsonl": '{"query": "q%d", "positive": "p%d"}',
        "graded.jsonl": '{"a": "a%d", "b": "b%d", "score": 0.5}',
        "classes.jsonl": '{"input": "t%d", "label": "c%d"}',
    }
    for name, line in lines.items():
        (tmp_path / name).write_text("\n".join(line % (i, i % 2) for i in range(6)))
    data = load_training_data(tmp_path, held_out_share=0, query_instruction="Represent: ")
    trainer = build_trainer(INSTRUCTOR(T5, device="cpu"), data, args=make_arguments(tmp_path / "out", logging_steps=1))
    trainer.train()
    names = {name for entry in trainer.state.log_history for name in entry}
    assert {"loss/pairs", "loss/graded", "loss/classes"} <= names
