from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
import pytrec_eval
import torch
from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskMultilabelClassification,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.text.summarization import AbsTaskSummarization
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, v_measure_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import MultiLabelBinarizer

from instructor_st import INSTRUCTOR
from instructor_st.evaluation.mteb import InstructionEncoder, evaluate_mteb, fingerprint_model
from instructor_st.evaluation.task_instructions import TaskInstruction
from tests.conftest import MINILM

SPORT = ["The match ended in a draw.", "She scored two goals.", "The team won the cup.", "He ran a marathon."]
MONEY = ["The bank raised its rates.", "Shares fell on Monday.", "He paid back the loan.", "Prices rose again."]
FOOD = ["The soup needs salt.", "She baked fresh bread.", "Dinner was rice and beans.", "He peeled an apple."]
TEXTS = SPORT + MONEY + FOOD
LABELS = [0] * 4 + [1] * 4 + [2] * 4
QUERY, DOCUMENT = "Represent the sentence: ", "Represent the passage: "
BOTH = {"default": TaskInstruction(QUERY, DOCUMENT)}


class Spy:
    """Counts what a real model is asked to embed."""

    def __init__(self, model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model = model
        self.seen: set[tuple[str, str]] = set()
        self.encode = model.encode
        monkeypatch.setattr(model, "encode", self._encode)

    def _encode(self, inputs: list[list[str]], **options: Any) -> Any:
        self.seen |= {(instruction, text) for instruction, text in inputs}
        return self.encode(inputs, **options)

    def embed(self, texts: list[str], instruction: str = QUERY) -> np.ndarray:
        return self.encode([[instruction, text] for text in texts])


@pytest.fixture
def spy(prepend_model: INSTRUCTOR, monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(prepend_model, monkeypatch)


def make_task(base: type, task_type: str, main_score: str, dataset: Any, *, name: str = "Tiny", **settings: Any) -> Any:
    metadata = TaskMetadata(
        name=name,
        description="A task of a test.",
        dataset={"path": "local/tiny", "revision": "1"},
        type=task_type,
        category="t2t",
        eval_langs=["eng-Latn"],
        main_score=main_score,
    )
    task = type(name, (base,), {"metadata": metadata, **settings})()
    task.dataset, task.data_loaded = dataset, True
    return task


def make_split(**columns: Any) -> DatasetDict:
    return DatasetDict({"test": Dataset.from_dict(columns)})


def make_search(
    queries: list[dict[str, str]], corpus: list[dict[str, str]], relevant: Any, top_ranked: Any = None
) -> dict[str, Any]:
    data = {
        "queries": Dataset.from_list(queries),
        "corpus": Dataset.from_list(corpus),
        "relevant_docs": relevant,
        "top_ranked": top_ranked,
    }
    return {"default": {"test": data}}


def run(spy: Spy, task: Any, folder: Path, instructions: Any = BOTH) -> float:
    found = evaluate_mteb(spy.model, [task], instructions=instructions, cache_folder=folder, raise_error=True)
    return found.results[0].value


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first = first / np.linalg.norm(first, axis=1, keepdims=True)
    second = second / np.linalg.norm(second, axis=1, keepdims=True)
    return first.astype(float) @ second.astype(float).T


def pair(instruction: str, texts: list[str]) -> set[tuple[str, str]]:
    return {(instruction, text) for text in texts}


def test_sts(spy: Spy, tmp_path: Path) -> None:
    first, second, scores = TEXTS[:6], TEXTS[6:], [0.5, 3, 1, 5, 2, 4]
    task = make_task(AbsTaskSTS, "STS", "cosine_spearman", make_split(sentence1=first, sentence2=second, score=scores))
    value = run(spy, task, tmp_path)
    assert spy.seen == pair(QUERY, TEXTS)
    expected = spearmanr(np.diag(cosine(spy.embed(first), spy.embed(second))), scores).statistic
    assert value == pytest.approx(expected, abs=1e-6)


def test_pair_classification(spy: Spy, tmp_path: Path) -> None:
    first, second, labels = TEXTS[:6], TEXTS[6:], [0, 1, 0, 0, 1, 1]
    task = make_task(
        AbsTaskPairClassification, "PairClassification", "max_ap",
        make_split(sentence1=first, sentence2=second, labels=labels),
    )  # fmt: skip
    value = run(spy, task, tmp_path)
    assert spy.seen == pair(QUERY, TEXTS)
    a, b = spy.embed(first), spy.embed(second)
    measures = [np.diag(cosine(a, b)), (a * b).sum(axis=1), -np.linalg.norm(a - b, axis=1), -abs(a - b).sum(axis=1)]
    assert value == pytest.approx(max(average_precision_score(labels, each) for each in measures), abs=1e-6)


def make_classes() -> tuple[DatasetDict, list[str], list[int], list[str], list[int]]:
    train, test = TEXTS[0::4] + TEXTS[1::4], TEXTS[2::4] + TEXTS[3::4]
    data = make_split(text=test, label=[0, 1, 2] * 2)
    data["train"] = Dataset.from_dict({"text": train, "label": [0, 1, 2] * 2})
    return data, train, [0, 1, 2] * 2, test, [0, 1, 2] * 2


def test_classification(spy: Spy, tmp_path: Path) -> None:
    data, train, train_labels, test, test_labels = make_classes()
    value = run(spy, make_task(AbsTaskClassification, "Classification", "accuracy", data), tmp_path)
    assert spy.seen == pair(QUERY, TEXTS)
    # Fewer than 8 texts a class: every experiment learns from all.
    classifier = LogisticRegression(max_iter=100, random_state=42).fit(spy.embed(train), train_labels)
    assert value == pytest.approx(classifier.score(spy.embed(test), test_labels), abs=1e-6)


def test_multilabel_classification(spy: Spy, tmp_path: Path) -> None:
    many = [[label, 3] if place % 2 else [label] for place, label in enumerate([0, 1, 2] * 2)]
    data, train, _, test, _ = make_classes()
    data = make_split(text=test, label=many)
    data["train"] = Dataset.from_dict({"text": train, "label": many})
    value = run(spy, make_task(AbsTaskMultilabelClassification, "MultilabelClassification", "accuracy", data), tmp_path)
    assert spy.seen == pair(QUERY, TEXTS)
    binary = MultiLabelBinarizer().fit_transform(many)
    classifier = KNeighborsClassifier(n_neighbors=5).fit(spy.embed(train), binary)
    assert value == pytest.approx(classifier.score(spy.embed(test), binary), abs=1e-6)


def test_clustering(spy: Spy, tmp_path: Path) -> None:
    task = make_task(
        AbsTaskClustering, "Clustering", "v_measure", make_split(sentences=TEXTS, labels=LABELS),
        max_fraction_of_documents_to_embed=None, max_documents_per_cluster=30,
    )  # fmt: skip
    value = run(spy, task, tmp_path)
    assert spy.seen == pair(QUERY, TEXTS)
    vectors, draws = spy.embed(TEXTS), random.Random(42)
    scores = []
    for _ in range(10):
        rows = draws.choices(range(12), k=30)
        means = MiniBatchKMeans(n_clusters=3, batch_size=512, n_init=1, random_state=42)
        scores.append(v_measure_score(np.array(LABELS)[rows], means.fit_predict(vectors[rows])))
    assert value == pytest.approx(np.mean(scores), abs=1e-6)


def test_summarization_compares_machine_with_human_summaries(spy: Spy, tmp_path: Path) -> None:
    human, machine = [SPORT[:2], MONEY[:2]], [[SPORT[2], FOOD[0], MONEY[2]], [FOOD[1], MONEY[3], SPORT[3]]]
    relevance = [[5, 1, 2], [1, 4, 3]]
    task = make_task(
        AbsTaskSummarization, "Summarization", "cosine_spearman",
        make_split(text=["x", "y"], human_summaries=human, machine_summaries=machine, relevance=relevance),
        min_score=1, max_score=5,
    )  # fmt: skip
    value = run(spy, task, tmp_path)
    assert spy.seen == pair(QUERY, SPORT + MONEY + FOOD[:2])
    assert len(spy.seen) == 10
    best = [cosine(spy.embed(m), spy.embed(h)).max(axis=1) for m, h in zip(machine, human, strict=True)]
    expected = np.mean([spearmanr(b, r).statistic for b, r in zip(best, relevance, strict=True)])
    assert value == pytest.approx(expected, abs=1e-6)


CORPUS = [{"id": f"d{place}", "title": "", "text": text} for place, text in enumerate(TEXTS)]
CORPUS[0]["title"] = "Football"
CORPUS_TEXTS = [f"Football {TEXTS[0]}", *TEXTS[1:]]
QUERIES = [{"id": "q0", "text": "Who won the game?"}, {"id": "q1", "text": "What did they eat?"}]
RELEVANT = {"q0": {"d1": 1, "d2": 2}, "q1": {"d10": 1, "d4": 0}}


def score(similarities: np.ndarray, metric: str, candidates: Any = None) -> float:
    results = {
        query["id"]: {
            document["id"]: float(similarities[i, j])
            for j, document in enumerate(CORPUS)
            if candidates is None or document["id"] in candidates[query["id"]]
        }
        for i, query in enumerate(QUERIES)
    }
    found = pytrec_eval.RelevanceEvaluator(RELEVANT, {metric.replace("_cut_", "_cut.")}).evaluate(results)
    return float(np.mean([each[metric] for each in found.values()]))


def test_retrieval_gives_each_side_its_instruction_and_joins_titles(spy: Spy, tmp_path: Path) -> None:
    task = make_task(AbsTaskRetrieval, "Retrieval", "ndcg_at_10", make_search(QUERIES, CORPUS, RELEVANT))
    value = run(spy, task, tmp_path)
    texts = [query["text"] for query in QUERIES]
    assert spy.seen == pair(QUERY, texts) | pair(DOCUMENT, CORPUS_TEXTS)
    similarities = cosine(spy.embed(texts), spy.embed(CORPUS_TEXTS, DOCUMENT))
    # mteb rounds to five decimals.
    assert value == pytest.approx(round(score(similarities, "ndcg_cut_10"), 5), abs=1e-6)


def test_reranking(spy: Spy, tmp_path: Path) -> None:
    top = {"q0": ["d0", "d1", "d2", "d5"], "q1": ["d9", "d10", "d4"]}
    task = make_task(AbsTaskRetrieval, "Reranking", "map_at_1000", make_search(QUERIES, CORPUS, RELEVANT, top))
    value = run(spy, task, tmp_path)
    texts = [query["text"] for query in QUERIES]
    assert spy.seen == pair(QUERY, texts) | pair(DOCUMENT, CORPUS_TEXTS)
    similarities = cosine(spy.embed(texts), spy.embed(CORPUS_TEXTS, DOCUMENT))
    assert value == pytest.approx(round(score(similarities, "map_cut_1000", top), 5), abs=1e-6)


@pytest.mark.parametrize(
    ("query_instruction", "expected"),
    [
        (QUERY, ["Only about cups. ", "In one word: ", QUERY]),
        (
            "Represent the query ({instruction}): ",
            [
                "Represent the query (Only about cups.): ",
                "Represent the query (In one word): ",
                "Represent the query (): ",
            ],
        ),
        ("Represent the query {instruction}: ", [None, None, "Represent the query: "]),
    ],
    ids=["alone", "in its place", "blank"],
)
def test_a_data_sets_instruction_replaces_the_tasks(
    spy: Spy, tmp_path: Path, query_instruction: str, expected: list[str | None]
) -> None:
    owns = ["Only about cups. ", "In one word", " "]
    queries = [{"id": f"q{i}", "text": f"Question {i}?", "instruction": own} for i, own in enumerate(owns)]
    relevant = {"q0": {"d1": 1}, "q1": {"d10": 1}, "q2": {"d3": 1}}
    top = {"q0": ["d1", "d2"], "q1": ["d9", "d10"], "q2": ["d3", "d4"]}
    task = make_task(
        AbsTaskRetrieval, "InstructionReranking", "ndcg_at_10", make_search(queries, CORPUS, relevant, top)
    )
    run(spy, task, tmp_path, {"default": TaskInstruction(query_instruction, DOCUMENT)})
    for number, instruction in enumerate(expected):
        if instruction is not None:
            assert (instruction, f"Question {number}?") in spy.seen
    assert len(spy.seen) == 3 + 12
    assert pair(DOCUMENT, CORPUS_TEXTS) <= spy.seen


def make_sts(name: str = "Tiny", scores: tuple[float, ...] = (0.5, 3, 1, 5, 2, 4)) -> Any:
    data = make_split(sentence1=TEXTS[:6], sentence2=TEXTS[6:], score=list(scores))
    return make_task(AbsTaskSTS, "STS", "cosine_spearman", data, name=name)


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ({"default": TaskInstruction("a: "), "STS": TaskInstruction("b: "), "Tiny": TaskInstruction("c: ")}, "c: "),
        ({"default": TaskInstruction("a: "), "STS": TaskInstruction("b: ")}, "b: "),
        ({"default": TaskInstruction("a: "), "Retrieval": TaskInstruction("b: ")}, "a: "),
        ({"Other": TaskInstruction("a: ")}, ""),
    ],
)
def test_instructions_are_chosen_by_name_then_type(
    spy: Spy, tmp_path: Path, instructions: dict[str, TaskInstruction], expected: str
) -> None:
    run(spy, make_sts(), tmp_path, instructions)
    assert spy.seen == pair(expected, TEXTS)


def test_a_stock_model_gets_the_instruction_as_prompt(tmp_path: Path) -> None:
    model = SentenceTransformer(MINILM, device="cpu", prompts={"query": "unwanted: "}, default_prompt_name="query")
    found = evaluate_mteb(model, [make_sts()], instructions=BOTH, cache_folder=tmp_path).results[0]
    first, second = (model.encode(each, prompt=QUERY) for each in (TEXTS[:6], TEXTS[6:]))
    expected = spearmanr(np.diag(cosine(first, second)), [0.5, 3, 1, 5, 2, 4]).statistic
    assert found.value == pytest.approx(expected, abs=1e-6)


def test_results_are_kept_by_model_and_instruction(spy: Spy, tmp_path: Path) -> None:
    def evaluate(instruction: str, name: str = "org/one") -> bool:
        spy.seen.clear()
        evaluate_mteb(
            spy.model,
            [make_sts()],
            instructions={"STS": TaskInstruction(instruction)},
            cache_folder=tmp_path,
            name=name,
        )
        return bool(spy.seen)

    assert evaluate("a: ")
    assert not evaluate("a: ")
    assert evaluate("b: ")
    assert evaluate("")
    assert evaluate("a: ", "org/two")
    assert not evaluate("a: ")
    assert not evaluate("b: ")
    assert not evaluate("")
    files = sorted(path.relative_to(tmp_path / "results") for path in tmp_path.rglob("Tiny.json"))
    assert len(files) == 4
    assert {file.parts[0] for file in files} == {"org__one", "org__two"}
    assert json.loads((tmp_path / "results" / files[0]).read_text())["task_name"] == "Tiny"


def test_another_tasks_instruction_does_not_repeat_a_task(spy: Spy, tmp_path: Path) -> None:
    run(spy, make_sts(), tmp_path, {"Tiny": TaskInstruction("a: "), "Other": TaskInstruction("b: ")})
    spy.seen.clear()
    run(spy, make_sts(), tmp_path, {"Tiny": TaskInstruction("a: "), "Other": TaskInstruction("c: ")})
    assert not spy.seen


def test_predictions_go_to_a_folder_an_instruction(spy: Spy, tmp_path: Path) -> None:
    for instruction in ("a: ", "b: "):
        evaluate_mteb(
            spy.model, [make_sts()], instructions={"STS": TaskInstruction(instruction)}, cache_folder=tmp_path / "c",
            prediction_folder=tmp_path / "p",
        )  # fmt: skip
    files = list((tmp_path / "p").rglob("Tiny_predictions.json"))
    assert len(files) == 2
    first, second = (json.loads(file.read_text())["default"]["test"]["cosine_scores"] for file in files)
    assert first != pytest.approx(second, abs=1e-4)


def test_fingerprint_tells_weights_and_settings_apart() -> None:
    model = SentenceTransformer(MINILM, device="cpu")
    first = fingerprint_model(model)
    assert fingerprint_model(SentenceTransformer(MINILM, device="cpu")) == first
    model.truncate_dim = 10
    second = fingerprint_model(model)
    model.truncate_dim = None
    with torch.no_grad():
        next(model.parameters())[5, 5] += 0.25
    assert len({first, second, fingerprint_model(model)}) == 3


def test_meta_has_name_revision_and_similarity() -> None:
    model = SentenceTransformer(MINILM, device="cpu", similarity_fn_name="euclidean")
    meta = InstructionEncoder(model, instructions={}, revision="r1").mteb_model_meta
    assert (meta.revision, meta.embed_dim, meta.use_instructions) == ("r1", 384, False)
    assert meta.name is not None
    assert meta.name.startswith("local/")
    assert meta.similarity_fn_name is not None
    assert meta.similarity_fn_name.value == "euclidean"
    encoder = InstructionEncoder(model, instructions=BOTH, name="org/model", revision="r1")
    assert encoder.mteb_model_meta.name == "org/model"
    assert encoder.mteb_model_meta.use_instructions
    first, second = np.array([[3.0, 4.0], [1.0, 0.0]], np.float32), np.array([[0.0, 0.0], [1.0, 2.0]], np.float32)
    assert encoder.similarity_pairwise(first, second).tolist() == pytest.approx([-5, -2])
    assert encoder.similarity(first, second).tolist()[0] == pytest.approx([-5, -math.sqrt(8)])


def test_one_failing_task_leaves_the_others(spy: Spy, tmp_path: Path) -> None:
    broken = make_task(AbsTaskSTS, "STS", "cosine_spearman", make_split(sentence1=["a"], score=[1.0]), name="Broken")
    constant = make_sts("Constant", (1, 1, 1, 1, 1, 1))
    found = evaluate_mteb(
        spy.model, [broken, constant, "NoSuchTaskAtAll", make_sts()], instructions=BOTH, cache_folder=tmp_path
    )
    assert [result.task for result in found.results] == ["Tiny"]
    assert found.failed.keys() == {"Broken", "Constant", "NoSuchTaskAtAll"}
    assert "nan" in found.failed["Constant"]
    assert "NoSuchTaskAtAll" in found.failed["NoSuchTaskAtAll"]
    with pytest.raises(ValueError, match="nan"):
        evaluate_mteb(spy.model, [constant], instructions=BOTH, cache_folder=tmp_path / "x", raise_error=True)


def test_a_model_that_gives_nan_is_one_clear_failure(tmp_path: Path) -> None:
    model = SentenceTransformer(MINILM, device="cpu")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    found = evaluate_mteb(model, [make_sts()], instructions=BOTH, cache_folder=tmp_path)
    assert not found.results
    assert "not finite" in found.failed["Tiny"]


def test_result_says_what_was_measured(spy: Spy, tmp_path: Path) -> None:
    found = evaluate_mteb(
        spy.model, [make_sts()], instructions=BOTH, cache_folder=tmp_path, name="org/m", revision="r", condition="full"
    ).results[0]
    assert (found.model, found.revision, found.suite, found.task) == ("org/m", "r", "mteb", "Tiny")
    assert (found.category, found.metric, found.condition) == ("STS", "cosine_spearman", "full")
    assert (found.instruction, found.document_instruction, found.seed) == (QUERY, DOCUMENT, 42)
    assert found.versions["mteb"] == mteb.__version__
    assert found.texts_per_second
    assert found.texts_per_second > 0
