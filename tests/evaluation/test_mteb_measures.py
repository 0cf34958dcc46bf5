from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytrec_eval
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sklearn.metrics import average_precision_score, v_measure_score

from instructor_st import INSTRUCTOR
from instructor_st.evaluation import mteb_measures
from instructor_st.evaluation.embedder import InstructedEmbedder
from instructor_st.evaluation.measurement import Measurement
from instructor_st.evaluation.mteb_measures import measure_data_set
from instructor_st.evaluation.mteb_tasks import build_mteb_task, read_task_data
from instructor_st.evaluation.own_data import DataSet, find_data_sets
from instructor_st.evaluation.own_data_rows import ClassTexts, JudgedPairs, ScoredPairs
from instructor_st.evaluation.task_instructions import NO_INSTRUCTION, TaskInstruction
from tests.conftest import MINILM

WORDS = {
    "sport": ["goal", "match", "team", "cup", "race", "coach"],
    "money": ["bank", "loan", "price", "share", "tax", "debt"],
    "food": ["soup", "bread", "rice", "apple", "salt", "oven"],
}


def write(folder: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_texts(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts that mix two topics, so that no score is perfect."""
    draws, rows = random.Random(seed), []
    for place in range(count):
        label, other = draws.sample(list(WORDS), 2)
        words = draws.choices(WORDS[label], k=2) + draws.choices(WORDS[other], k=1)
        rows.append({"text": f"{' '.join(words)} {place}", "label": label})
    return rows


@pytest.fixture(scope="module")
def data_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DataSet]:
    folder = tmp_path_factory.mktemp("data")
    texts, others = make_texts(60), make_texts(60, 1)
    pairs = [
        {"a": first["text"], "b": second["text"], "label": int(first["label"] == second["label"])}
        for first, second in zip(texts, others, strict=True)
    ]
    write(folder, "pairs", pairs)
    write(folder, "sim", [{"a": row["a"], "b": row["b"], "score": row["label"] + i % 3} for i, row in enumerate(pairs)])
    write(folder, "topics", [{**row, "split": "test"} for row in texts] + [{**row, "split": "train"} for row in others])
    write(folder, "cl_topics", texts)
    write(folder, "web.corpus", [{"_id": f"d{i}", "title": "", "text": row["text"]} for i, row in enumerate(texts)])
    write(folder, "web.queries", [{"_id": f"q{i}", "text": row["text"]} for i, row in enumerate(others[:20])])
    write(
        folder,
        "web.qrels",
        [
            {"query-id": f"q{i}", "corpus-id": f"d{j}", "score": 1 + j % 2}
            for i, query in enumerate(others[:20])
            for j, row in enumerate(texts)
            if row["label"] == query["label"]
        ],
    )
    return {each.name: each for each in find_data_sets(folder)}


@pytest.fixture(scope="module")
def embedder() -> InstructedEmbedder:
    return InstructedEmbedder(SentenceTransformer(MINILM, device="cpu"))


@pytest.mark.parametrize(
    ("name", "metric", "rows"),
    [
        ("sim", "cosine_spearman", 60),
        ("pairs", "max_ap", 60),
        ("topics", "accuracy", 60),
        ("cl_topics", "v_measure", 60),
        ("web", "ndcg_at_10", 20),
    ],
)
def test_value_is_mtebs_main_score(
    data_sets: dict[str, DataSet], embedder: InstructedEmbedder, name: str, metric: str, rows: int
) -> None:
    found = measure_data_set(embedder, data_sets[name], NO_INSTRUCTION)
    assert (found.name, found.rows) == (metric, rows)
    assert 0.05 < found.value < 0.99
    # mteb rounds retrieval's scores to five decimals.
    value = round(found.value, 5) if name == "web" else found.value
    assert value == pytest.approx(found.others["main_score"], abs=1e-6)


def measure(embedder: InstructedEmbedder, data_set: DataSet) -> tuple[Measurement, Any, np.ndarray]:
    rows = np.random.default_rng(1).integers(0, 60, 60)
    return measure_data_set(embedder, data_set, NO_INSTRUCTION), read_task_data(data_set), rows


def test_spearman_on_a_sample(data_sets: dict[str, DataSet], embedder: InstructedEmbedder) -> None:
    found, data, rows = measure(embedder, data_sets["sim"])
    assert isinstance(data, ScoredPairs)
    cosines = (embedder.embed(data.first) * embedder.embed(data.second)).sum(axis=1)
    assert found.metric(rows) == pytest.approx(spearmanr(cosines[rows], np.array(data.scores)[rows])[0], abs=1e-6)
    assert np.isnan(found.metric(np.array([3, 3, 3])))


def test_average_precision_on_a_sample(data_sets: dict[str, DataSet], embedder: InstructedEmbedder) -> None:
    found, data, rows = measure(embedder, data_sets["pairs"])
    assert isinstance(data, JudgedPairs)
    first, second, labels = embedder.embed(data.first)[rows], embedder.embed(data.second)[rows], np.array(data.labels)
    measures = [(first * second).sum(axis=1), -abs(first - second).sum(axis=1)]
    expected = max(average_precision_score(labels[rows], each) for each in measures)
    assert found.metric(rows) == pytest.approx(expected, abs=1e-6)
    assert np.isnan(found.metric(np.flatnonzero(labels == 0)))


def test_average_precision_with_ties() -> None:
    draws = np.random.default_rng(0)
    labels, scores = draws.integers(0, 2, 50), draws.integers(0, 4, 50).astype(float)
    names = ("similarity_scores", "cosine_scores", "dot_scores")
    predictions = {name: list(scores) for name in names}
    predictions |= {name: list(-scores) for name in ("manhattan_distances", "euclidean_distances")}
    metric = mteb_measures._build_average_precision(predictions, labels)
    for rows in (np.arange(50), draws.integers(0, 50, 50)):
        assert metric(rows) == pytest.approx(average_precision_score(labels[rows], scores[rows]), abs=1e-12)


def weigh_v_measure(labels: list[str], drawn: list[int], clusters: list[int], weights: np.ndarray) -> float:
    """The harmonic mean of homogeneity and completeness, entry by entry, a document counting as its weight says."""
    tables: list[dict[Any, float]] = [{}, {}, {}]
    for document, cluster in zip(drawn, clusters, strict=True):
        for table, key in zip(tables, (cluster, labels[document], (cluster, labels[document])), strict=True):
            table[key] = table.get(key, 0) + weights[document]
    h_cluster, h_class, h_both = (
        -sum(n / sum(table.values()) * np.log(n / sum(table.values())) for n in table.values()) for table in tables
    )
    homogeneity, completeness = 1 - (h_both - h_cluster) / h_class, 1 - (h_both - h_class) / h_cluster
    return 2 * homogeneity * completeness / (homogeneity + completeness)


def test_documents_of_a_clustering_count_by_what_they_change() -> None:
    labels = [str(i % 3) for i in range(20)]
    data = ClassTexts([f"t{i}" for i in range(20)], labels, [], [], {})
    draws = random.Random(42)
    drawn = [draws.choices(range(20), k=15) for _ in range(4)]
    clusters = [np.random.default_rng(place).integers(0, 3, 15).tolist() for place in range(4)]
    values = mteb_measures._score_documents(data, clusters, seed=42)

    def mean_v_measure(weights: np.ndarray) -> float:
        return float(np.mean([weigh_v_measure(labels, *each, weights) for each in zip(drawn, clusters, strict=True)]))

    whole = np.mean([v_measure_score([labels[i] for i in d], c) for d, c in zip(drawn, clusters, strict=True)])
    assert mean_v_measure(np.ones(20)) == pytest.approx(whole, abs=1e-12)
    assert values.mean() == pytest.approx(whole, abs=1e-12)
    for document in range(20):
        step = 1e-5 * np.eye(20)[document]
        slope = (mean_v_measure(1 + step) - mean_v_measure(1 - step)) / 2e-5
        assert values[document] == pytest.approx(whole + 20 * slope, abs=1e-6)


def test_interval_of_a_clustering_holds_its_value(data_sets: dict[str, DataSet], embedder: InstructedEmbedder) -> None:
    interval = measure_data_set(embedder, data_sets["cl_topics"], NO_INSTRUCTION).find_interval()
    assert interval.low < interval.value < interval.high


def test_retrieval_on_a_sample(data_sets: dict[str, DataSet], embedder: InstructedEmbedder) -> None:
    found, data, _ = measure(embedder, data_sets["web"])
    similarities = embedder.embed(list(data.queries.values())) @ embedder.embed(
        [document.text for document in data.corpus.values()]
    ).T.astype(float)
    results = {
        query: dict(zip(data.corpus, map(float, similarities[place]), strict=True))
        for place, query in enumerate(data.queries)
    }
    scores = pytrec_eval.RelevanceEvaluator(data.judgements, {"ndcg_cut.10"}).evaluate(results)
    values = np.array([scores[query]["ndcg_cut_10"] for query in data.queries])
    assert found.metric(np.array([3, 3, 7])) == pytest.approx(values[[3, 3, 7]].mean(), abs=1e-6)
    assert found.value == pytest.approx(values.mean(), abs=1e-6)


def test_accuracy_rows_are_test_texts(data_sets: dict[str, DataSet], embedder: InstructedEmbedder) -> None:
    found, _, _ = measure(embedder, data_sets["topics"])
    each = [found.metric(np.array([row])) for row in range(60)]
    assert np.mean(each) == pytest.approx(found.value, abs=1e-9)
    # Ten experiments: a text is right in a whole number of tenths.
    assert all(abs(10 * value - round(10 * value)) < 1e-9 for value in each)
    assert len(set(each)) > 2


def test_instruction_and_sides_reach_the_model(
    data_sets: dict[str, DataSet], prepend_model: INSTRUCTOR, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, encode = set(), prepend_model.encode

    def spy(inputs: Any, **options: Any) -> Any:
        seen.update((instruction, text.rsplit(" ", 1)[0] != "") for instruction, text in inputs)
        return encode(inputs, **options)

    monkeypatch.setattr(prepend_model, "encode", spy)
    embedder = InstructedEmbedder(prepend_model)
    measure_data_set(embedder, data_sets["web"], TaskInstruction("Q: ", "D: "))
    assert seen == {("Q: ", True), ("D: ", True)}
    assert embedder.texts == 80
    seen.clear()
    measure_data_set(embedder, data_sets["topics"], TaskInstruction("Q: ", "D: "))
    assert seen == {("Q: ", True)}


def test_limit_and_left_out(data_sets: dict[str, DataSet], embedder: InstructedEmbedder) -> None:
    found = measure_data_set(embedder, data_sets["sim"], NO_INSTRUCTION, limit=30, seed=3)
    assert found.rows == 30
    assert found.left_out == {"beyond the limit": 30}
    assert found.value == measure_data_set(embedder, data_sets["sim"], NO_INSTRUCTION, limit=30, seed=3).value


def test_clustering_repeats_itself_and_follows_the_seed(
    data_sets: dict[str, DataSet], embedder: InstructedEmbedder
) -> None:
    values = [measure_data_set(embedder, data_sets["cl_topics"], NO_INSTRUCTION, seed=seed).value for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_mteb_does_not_have_every_kind(tmp_path: Path, embedder: InstructedEmbedder) -> None:
    write(tmp_path, "prompts", [{"input": "x", "output": "y"}])
    write(tmp_path, "empty", [])
    empty, prompts = find_data_sets(tmp_path)
    with pytest.raises(ValueError, match="prompts: mteb has no task type for prompt_retrieval"):
        measure_data_set(embedder, prompts, NO_INSTRUCTION)
    with pytest.raises(ValueError, match=r"empty\.jsonl: no rows"):
        measure_data_set(embedder, empty, NO_INSTRUCTION)


def test_nan_and_constant_models_fail_clearly(data_sets: dict[str, DataSet]) -> None:
    model = SentenceTransformer(MINILM, device="cpu")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        measure_data_set(InstructedEmbedder(model), data_sets["topics"], NO_INSTRUCTION)

    class Constant(InstructedEmbedder):
        def embed(self, texts: Any, instructions: Any = "") -> Any:
            return np.ones((len(texts), 4), np.float32)

    with pytest.raises(ValueError, match="sim: cosine_spearman is nan; are all embeddings equal"):
        measure_data_set(Constant(model), data_sets["sim"], NO_INSTRUCTION)


def test_task_revision_follows_the_data(data_sets: dict[str, DataSet]) -> None:
    whole, part = (read_task_data(data_sets["sim"], limit=limit) for limit in (None, 20))
    tasks = [build_mteb_task("sim", data) for data in (whole, whole, part)]
    revisions = [task.metadata.dataset["revision"] for task in tasks]
    assert revisions[0] == revisions[1] != revisions[2]
    assert [task.metadata.type for task in tasks] == ["STS"] * 3
    assert tasks[0].seed == 42
