"""Each kind of rows is tuned and predicted; the tasks are such that the untuned model gets them wrong."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from instructor_st import INSTRUCTOR
from instructor_st.training import SupervisedContrastiveLoss, predict
from instructor_st.tuned_models import get_tuned_tasks
from tests.conftest import MINILM
from tests.training.toy_tasks import (
    INSTRUCTION,
    NEW_QUESTIONS,
    NEW_STATEMENTS,
    label_texts,
    make_answers,
    make_classes,
    make_label_sets,
    make_matches,
    make_scores,
    make_values,
    tune,
)

NEW = NEW_QUESTIONS + NEW_STATEMENTS
NEW_PAIRS = [(NEW_QUESTIONS[0], NEW_QUESTIONS[1]), (NEW_QUESTIONS[0], NEW_STATEMENTS[0])]
NEW_ANSWERS = [
    ("Will there be cheese?", "Someone once hated cheese."),
    ("Will there be cheese?", "There will be cheese."),
]
DOCUMENTS = "Represent the answer: "
SHORT = {"max_epochs": 2, "folds": 2}
PREPEND = {"folds": 1, "batch_size": 4, "learning_rate": 1e-2}


@pytest.fixture
def dual(dual_model) -> INSTRUCTOR:
    return copy.deepcopy(dual_model)


@pytest.fixture
def prepend(prepend_model) -> INSTRUCTOR:
    return copy.deepcopy(prepend_model)


def cosines(model: SentenceTransformer, names: tuple[str, str], pairs: list[tuple[str, str]]) -> list[float]:
    sides = [model.encode([[name, pair[side]] for pair in pairs]) for side, name in enumerate(names)]
    return [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(*sides, strict=True)]


def check_gain(result, *metrics: str, gain: float) -> None:
    report = result.report
    assert [change.metric for change in report.changes] == list(metrics)
    assert report.verdict == "helps"
    assert report.epochs in report.tried[1:]
    assert min(change.gain for change in report.changes) > gain


@pytest.mark.parametrize("class_objective", ["contrastive", "cross_entropy"])
def test_classes(dual, class_objective):
    result = tune(dual, make_classes(), class_objective=class_objective)
    check_gain(result, "centroid_accuracy", "logistic_accuracy", gain=0.1)
    found = predict(dual, NEW, task="form")
    assert found.labels == ["question", "question", "statement", "statement"]
    assert found.probabilities.shape == (4, 2)
    assert found.probabilities.argmax(dim=1).tolist() == [0, 0, 1, 1]
    assert predict(dual, ["Will there be salt?"], task="form").labels == ["question"]


def test_the_objectives_of_classes_differ(dual):
    tasks = [tune(dual, make_classes(), class_objective=each).tasks[0] for each in ("contrastive", "cross_entropy")]
    assert (tasks[0].vectors - tasks[1].vectors).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("settings", "taken"),
    [
        ({"balance_classes": False}, [9, 3]),
        ({"balance_classes": True}, [9, 9]),
        ({"balance_classes": True, "max_repeats": 2}, [9, 6]),
    ],
)
def test_rare_classes_are_repeated(dual, settings, taken, monkeypatch):
    batches = []
    compute = SupervisedContrastiveLoss.compute_loss_from_embeddings

    def count(self, embeddings, labels):
        batches.append(torch.bincount(labels, minlength=2).tolist())
        return compute(self, embeddings, labels)

    monkeypatch.setattr(SupervisedContrastiveLoss, "compute_loss_from_embeddings", count)
    rows = label_texts("classes", ("often",) * 18 + ("seldom",) * 6)
    tune(dual, rows, max_epochs=1, folds=2, batch_size=256, keep_head=False, **settings)
    # A fold learns from half of the rows.
    assert batches[0] == taken


def test_label_sets(dual):
    result = tune(dual, make_label_sets())
    check_gain(result, "label_ranking_precision", gain=0.03)
    found = predict(dual, NEW, task="form")
    assert found.labels == [["food", "question"], ["question"], ["food", "statement"], ["statement"]]
    assert found.probabilities.shape == (4, 3)


def test_values(dual):
    result = tune(dual, make_values())
    check_gain(result, "spearman", gain=0.05)
    scores = predict(dual, NEW, task="form").scores
    assert scores.shape == (4,)
    assert scores[:2].max() < 2.5 < 3.5 < scores[2:].min()


@pytest.mark.parametrize(("make_rows", "metric"), [(make_scores, "spearman"), (make_matches, "average_precision")])
def test_scores_and_matches(dual, make_rows, metric):
    written = cosines(dual, (INSTRUCTION, INSTRUCTION), NEW_PAIRS)
    assert written[0] < written[1]  # by the topic
    check_gain(tune(dual, make_rows()), metric, gain=0.3)
    scores = predict(dual, NEW_PAIRS, task="form").scores
    assert scores[0] > scores[1] + 0.2  # by the form
    assert scores.tolist() == pytest.approx(cosines(dual, ("form", "form"), NEW_PAIRS), abs=1e-5)


@pytest.mark.parametrize("document_instruction", [None, DOCUMENTS])
def test_answers(dual, document_instruction, tmp_path):
    before = cosines(dual, (INSTRUCTION, document_instruction or INSTRUCTION), NEW_ANSWERS)
    assert before[0] < before[1]
    result = tune(dual, make_answers(), document_instruction=document_instruction)
    check_gain(result, "accuracy", "mean_reciprocal_rank", gain=0.3)
    names = ["form"] if document_instruction is None else ["form", "form-document"]
    assert [task.name for task in result.tasks] == list(get_tuned_tasks(dual)) == names
    assert [task.instruction for task in result.tasks] == [INSTRUCTION, DOCUMENTS][: len(names)]
    assert [task.head is not None for task in result.tasks] == [True, False][: len(names)]
    expected = pytest.approx(cosines(dual, (names[0], names[-1]), NEW_ANSWERS), abs=1e-5)
    scores = predict(dual, NEW_ANSWERS, task="form").scores
    assert scores.tolist() == expected
    assert scores[0] > scores[1] + 0.1
    if document_instruction:
        assert scores.tolist() != pytest.approx(cosines(dual, ("form", "form"), NEW_ANSWERS), abs=1e-3)
    dual.save_pretrained(str(tmp_path))
    assert predict(INSTRUCTOR(str(tmp_path), device="cpu"), NEW_ANSWERS, task="form").scores.tolist() == expected


@pytest.mark.parametrize("make_rows", [make_classes, make_label_sets, make_values])
def test_a_prepend_model_learns_kinds_of_texts(prepend, make_rows):
    rows = make_rows()
    tune(prepend, rows, max_epochs=2, **PREPEND)
    found = predict(prepend, NEW, task="form")
    if rows.kind == "values":
        assert found.scores[:2].max() < 3 < found.scores[2:].min()
    else:
        wanted = ["question", "question", "statement", "statement"]
        assert [want in label for want, label in zip(wanted, found.labels, strict=True)] == [True] * 4


@pytest.mark.slow
@pytest.mark.parametrize("make_rows", [make_scores, make_matches])
def test_a_prepend_model_learns_kinds_of_pairs(prepend, make_rows):
    written = cosines(prepend, (INSTRUCTION, INSTRUCTION), NEW_PAIRS)
    result = tune(prepend, make_rows(), max_epochs=8, **PREPEND)
    assert result.report.verdict == "helps"
    scores = predict(prepend, NEW_PAIRS, task="form").scores.tolist()
    assert scores == pytest.approx(cosines(prepend, ("form", "form"), NEW_PAIRS), abs=1e-5)
    assert written[0] - written[1] < scores[0] - scores[1] - 0.1


def test_a_prepend_model_has_documents_of_their_own(prepend):
    result = tune(prepend, make_answers(), max_epochs=4, document_instruction=DOCUMENTS, **PREPEND)
    assert result.report.verdict == "helps"
    assert [task.name for task in result.tasks] == ["form", "form-document"]
    ids = [prepend.tokenizer(each, add_special_tokens=False)["input_ids"] for each in (INSTRUCTION, DOCUMENTS)]
    for task, tokens in zip(result.tasks, ids, strict=True):
        begun = prepend[0].model.get_input_embeddings().weight[tokens]
        assert task.vectors.shape == begun.shape
        assert ((task.vectors - begun).abs().max(dim=1).values > 1e-4).all()
    scores = predict(prepend, NEW_ANSWERS, task="form").scores
    assert scores[0] > scores[1]
    assert scores.tolist() == pytest.approx(cosines(prepend, ("form", "form-document"), NEW_ANSWERS), abs=1e-5)


@pytest.mark.parametrize("make_rows", [make_label_sets, make_values, make_scores, make_matches])
def test_only_answers_have_documents(dual, make_rows):
    kind = make_rows().kind
    with pytest.raises(ValueError, match=f"document_instruction is for rows with answers; these have {kind}"):
        tune(dual, make_rows(), document_instruction=DOCUMENTS, **SHORT)


def test_predicting_without_task_or_head(dual):
    with pytest.raises(KeyError, match="no tuned task 'form'; there are: none"):
        predict(dual, NEW, task="form")
    tune(dual, make_classes(), keep_head=False, **SHORT)
    with pytest.raises(ValueError, match="Tuned task 'form' has no head; tune it with keep_head=True"):
        predict(dual, NEW, task="form")
    with pytest.raises(KeyError, match="no tuned task 'sense'; there are: form"):
        predict(dual, NEW, task="sense")
    with pytest.raises(ValueError, match="takes no instructions"):
        predict(SentenceTransformer(MINILM, device="cpu"), NEW, task="form")


def test_predicting_few_at_once_or_none(dual):
    tune(dual, make_classes(), **SHORT)
    tune(dual, make_scores(), "pairs", **SHORT)
    whole, one = (predict(dual, NEW, task="form", batch_size=size) for size in (32, 1))
    torch.testing.assert_close(whole.probabilities, one.probabilities, atol=1e-5, rtol=0)
    none = predict(dual, [], task="form")
    assert (none.labels, none.probabilities.shape) == ([], (0, 2))
    assert predict(dual, [], task="pairs").scores.shape == (0,)


def test_pairs_are_no_texts(dual):
    tune(dual, make_classes(), **SHORT)
    with pytest.raises(ValueError, match=r"Input 1: this task predicts from a text, not from"):
        predict(dual, ["rain", ("rain", "snow")], task="form")


@pytest.mark.parametrize("inputs", [["rain", "snow"], [("rain", "snow", "hail")], [("rain",)]])
def test_what_is_no_pair_is_refused(dual, inputs):
    tune(dual, make_scores(), **SHORT)
    with pytest.raises(ValueError, match="pair"):
        predict(dual, inputs, task="form")


def test_a_new_tuning_forgets_the_documents_of_the_old_one(dual):
    tune(dual, make_answers(), document_instruction=DOCUMENTS)
    tune(dual, make_answers())
    scores = predict(dual, NEW_ANSWERS, task="form").scores.tolist()
    assert scores == pytest.approx(cosines(dual, ("form", "form"), NEW_ANSWERS), abs=1e-5)
