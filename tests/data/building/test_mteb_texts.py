"""Names of mteb's tasks, and tasks as users write them; `test_mteb_hub.py` has mteb's own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from instructor_st.data.building import build_mixture
from instructor_st.data.building.contamination import EvaluationSource, EvaluationTexts, list_evaluation_sources
from instructor_st.data.building.mixture import Mixture
from instructor_st.data.building.mteb_texts import (
    MtebDataset,
    find_mteb_task,
    is_mteb_name,
    list_mteb_datasets,
    read_mteb_texts,
)

CAT = "A cat sits on the window sill."
DOG = "A dog sleeps under the kitchen table."
FOX = "A fox crosses the road at night."
BANKING_REVISION = "0fd18e25b25c072e09e0d92ab615fda904d66300"


def test_names_and_paths_are_told_apart(tmp_path):
    given = ["mteb:SciFact", "data/mteb:x", "MTEB:SciFact", tmp_path / "mteb:x"]
    assert [is_mteb_name(each) for each in given] == [True, False, False, False]


def test_mteb_is_imported_when_it_is_needed():
    code = "import sys, instructor_st.data.building.mixture, instructor_st.data.building.build; print('mteb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_without_mteb_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(ImportError, match=r'mteb: pip install "instructor-st\[eval\]"'):
        EvaluationTexts.read(["mteb:SciFact"])


def test_unknown_names(tmp_path):
    pytest.importorskip("mteb")
    near = r"mteb has no task 'banking77Clasification'; near names are Banking77Classification"
    with pytest.raises(ValueError, match=near):
        EvaluationTexts.read([tmp_path, "mteb:banking77Clasification"][1:])
    for name in ("mteb:", "mteb:###"):
        with pytest.raises(ValueError, match=r"mteb has no task '(###)?'; mteb\.get_tasks\(\) lists all"):
            list_evaluation_sources([name])


def test_data_sets_of_tasks(tmp_path):
    pytest.importorskip("mteb")
    (tmp_path / "dev.jsonl").write_text('{"text": "a"}\n')
    (dev, task) = list_evaluation_sources([tmp_path, "mteb:Banking77Classification"])
    assert (dev.evaluation_set, dev.name, len(dev.version)) == ("dev", "dev.jsonl", 64)
    assert task == EvaluationSource("Banking77Classification", "mteb/banking77", BANKING_REVISION)
    parts = list_mteb_datasets(find_mteb_task("CQADupstackRetrieval"))
    assert len(parts) == 12
    assert parts[0] == MtebDataset("mteb/CQADupstackAndroidRetrieval", parts[0].revision)
    assert len({part.path for part in parts}) == 12


@pytest.fixture
def make_task(monkeypatch):
    """Makes a task as users write their own, and enters it where mteb looks names up."""
    mteb = pytest.importorskip("mteb")
    from mteb.abstasks.classification import AbsTaskClassification
    from mteb.abstasks.task_metadata import TaskMetadata

    registry = sys.modules["mteb.get_tasks"]._TASKS_REGISTRY
    assert registry["SciFact"] is type(mteb.get_task("SciFact"))

    def make(name, data, *, revision="1", splits=("test",), **attributes):
        metadata = TaskMetadata(
            name=name,
            dataset={"path": "acme/own", "revision": revision},
            description="A task of our own.",
            type="Classification",
            eval_langs=["eng-Latn"],
            eval_splits=list(splits),
            main_score="accuracy",
        )

        def load_data(self, num_proc=None, **_):
            self.dataset = data
            self.data_loaded = True

        own = type("Own", (AbsTaskClassification,), {"metadata": metadata, "load_data": load_data, **attributes})
        monkeypatch.setitem(registry, name, own)
        return find_mteb_task(f"mteb:{name}")

    return make


def test_declared_labels_are_no_texts_and_declared_inputs_are(make_task):
    from datasets import ClassLabel, Dataset, Features, Image, Value

    rows = {
        "task": ["wash the dishes"],
        "topic": ["the topic of it"],
        "note": ["of interest"],
        "picture": [None],
        "kind": [0],
    }
    kinds = {"picture": Image(), "kind": ClassLabel(names=["a kind of its own"])}
    features = Features({name: kinds.get(name, Value("string")) for name in rows})
    data = {"train": Dataset.from_dict({"note": ["never"]}), "test": Dataset.from_dict(rows, features)}
    task = make_task("Own", data, input_column_name="task", label_column_name="topic")
    assert set(read_mteb_texts(task)) == {"wash the dishes", "of interest"}
    assert (task.data_loaded, task.dataset) == (False, None)


def test_many_rows_come_whole_and_in_order(make_task):
    from datasets import Dataset

    texts = [f"text number {number}" for number in range(2500)]
    rows = {"text": [[text, f"{text} more"] for text in texts], "label": [0] * 2500}
    # In numpy's format a list of texts is an array.
    data = {"test": Dataset.from_dict(rows).with_format("numpy")}
    assert list(read_mteb_texts(make_task("Own", data))) == [each for two in rows["text"] for each in two]


def test_all_evaluation_splits_and_nothing_else(make_task):
    from datasets import Dataset

    data = {split: Dataset.from_dict({"text": [f"of {split}"]}) for split in ("train", "dev", "test")}
    assert list(read_mteb_texts(make_task("Own", data, splits=["dev", "test"]))) == ["of dev", "of test"]
    with pytest.raises(ValueError, match="'Own' is evaluated on its split 'devtest', which its data set has not"):
        list(read_mteb_texts(make_task("Own", data, splits=["test", "devtest"])))


def test_a_task_without_texts(make_task):
    from datasets import Dataset

    with pytest.raises(ValueError, match="'Own' has no text to evaluate on"):
        EvaluationTexts.read([f"mteb:{make_task('Own', {'test': Dataset.from_dict({'label': [1]})}).metadata.name}"])


def test_an_aggregate_has_the_texts_of_its_tasks(make_task, monkeypatch):
    from datasets import Dataset
    from mteb.abstasks.aggregate_task_metadata import AggregateTaskMetadata
    from mteb.abstasks.aggregated_task import AbsTaskAggregate

    parts = [make_task(name, {"test": Dataset.from_dict({"text": [text]})}) for name, text in (("A", CAT), ("B", DOG))]
    metadata = AggregateTaskMetadata(
        name="Both",
        description="Both.",
        tasks=parts,
        main_score="accuracy",
        type="Classification",
        eval_splits=["test"],
    )
    both = type("Both", (AbsTaskAggregate,), {"metadata": metadata})
    monkeypatch.setitem(sys.modules["mteb.get_tasks"]._TASKS_REGISTRY, "Both", both)
    texts = EvaluationTexts.read("mteb:Both")
    assert [texts.find(text) for text in (CAT, DOG, FOX)] == ["Both", "Both", None]
    assert [(each.name, each.texts) for each in texts.sets] == [("Both", 2)]
    assert list_evaluation_sources("mteb:Both") == [EvaluationSource("Both", "acme/own", "1")] * 2


def test_a_task_and_a_file_of_one_name_are_one_set(make_task, tmp_path):
    from datasets import Dataset

    make_task("Own", {"test": Dataset.from_dict({"text": [CAT]})})
    (tmp_path / "Own.jsonl").write_text(json.dumps({"text": DOG}) + "\n")
    texts = EvaluationTexts.read(["mteb:Own", tmp_path / "Own.jsonl"])
    assert [texts.find(CAT), texts.find(DOG)] == ["Own", "Own"]
    assert len(texts.sets) == 1


def test_another_revision_builds_anew(make_task, tmp_path):
    from datasets import Dataset

    rows = [{"query": f"question {n}", "positive": f"answer {n}"} for n in range(5)] + [
        {"query": "cat?", "positive": CAT}
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sides = {"query": "Question: ", "document": "Answer: "}
    task = {"name": "t", "source": {"files": tmp_path / "rows.jsonl"}, "kind": "pairs", "instructions": sides}
    mixture = Mixture.model_validate({"name": "m", "evaluation_texts": ["mteb:Own"], "tasks": [task]})
    built = []
    for revision in ("1", "1", "2"):
        make_task("Own", {"test": Dataset.from_dict({"text": [CAT]})}, revision=revision)
        report = build_mixture(mixture, tmp_path / "out", show_progress_bar=False)
        built.append(report.built)
        assert report.totals["left out: text of evaluation set Own"] == 1
    assert built == [("t",), (), ("t",)]
