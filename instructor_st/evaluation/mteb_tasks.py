"""Own data as mteb tasks, held in memory, so that mteb's protocols and scores are used as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.task_metadata import TaskMetadata

from instructor_st.evaluation.own_data import DataKind, DataSet
from instructor_st.evaluation.own_data_queries import JudgedQueries, read_judged_queries
from instructor_st.evaluation.own_data_rows import (
    ClassTexts,
    JudgedPairs,
    ScoredPairs,
    read_class_texts,
    read_judged_pairs,
    read_scored_pairs,
)

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

__all__ = ["MTEB_TYPES", "SPLIT", "TaskData", "build_mteb_task", "read_task_data"]

TaskData = ScoredPairs | JudgedPairs | ClassTexts | JudgedQueries

SPLIT = "test"
"""The split that the tasks evaluate."""

MTEB_TYPES: Mapping[DataKind, str] = {
    "sts": "STS",
    "classification": "Classification",
    "clustering": "Clustering",
    "pair_classification": "PairClassification",
    "retrieval": "Retrieval",
}
"""mteb's task type of each kind that mteb has."""

_MAIN_SCORES = {
    "STS": "cosine_spearman",
    "Classification": "accuracy",
    "Clustering": "v_measure",
    "PairClassification": "max_ap",
    "Retrieval": "ndcg_at_10",
}
# mteb's tasks are seeded with it; seed 0 here must give mteb's own figures.
_MTEB_SEED = 42


class _InMemory:
    """A task whose metadata and data are given instead of written into a class and fetched."""

    def __init__(self, metadata: TaskMetadata, dataset: Any, *, seed: int) -> None:
        self.metadata = metadata
        super().__init__(seed=seed)  # type: ignore[call-arg]
        self.dataset = dataset
        self.data_loaded = True


class _Classification(_InMemory, AbsTaskClassification):
    """Logistic regression on 8 texts a class, 10 times: mteb's defaults."""


class _Clustering(_InMemory, AbsTaskClustering):
    """Mini-batch k-means on documents drawn with repeats, as many as there are (16,384 at most), 10 times."""

    max_fraction_of_documents_to_embed = None


class _PairClassification(_InMemory, AbsTaskPairClassification):
    """Average precision by similarity, the best of mteb's similarity functions."""


class _Retrieval(_InMemory, AbsTaskRetrieval):
    """Search of the whole corpus."""


class _STS(_InMemory, AbsTaskSTS):
    """Spearman's correlation of cosine similarity and score, which their scale does not change."""


def read_task_data(data_set: DataSet, *, limit: int | None = None, seed: int = 0) -> TaskData:
    """Read a data set of a kind that mteb has.

    Args:
        data_set: The data set.
        limit: Evaluate at most so many rows, for retrieval queries.
        seed: Of the draw.

    Returns:
        Its rows.

    Raises:
        ValueError: If mteb does not have its kind, or its files are at fault.
    """
    if data_set.fault:
        raise ValueError(data_set.fault)
    if data_set.kind == "sts":
        return read_scored_pairs(data_set, limit=limit, seed=seed)
    if data_set.kind == "pair_classification":
        return read_judged_pairs(data_set, limit=limit, seed=seed)
    if data_set.kind in ("classification", "clustering"):
        return read_class_texts(data_set, limit=limit, seed=seed)
    if data_set.kind == "retrieval":
        return read_judged_queries(data_set, limit=limit, seed=seed)
    raise ValueError(f"{data_set.name}: mteb has no task type for {data_set.kind}; it has {', '.join(MTEB_TYPES)}.")


def build_mteb_task(name: str, data: TaskData, *, seed: int = 0) -> AbsTask:
    """Make an mteb task of rows; it is evaluated on split `test`, without the Hub.

    A task draws from its own generator, so that a second evaluation of the same task object may draw otherwise: build
    one for each evaluation.

    Args:
        name: The task's name.
        data: The rows.
        seed: Of mteb's draws; 0 is mteb's own seed.

    Returns:
        The task.
    """
    number = _MTEB_SEED + seed
    rows: dict[str, list[Any]]
    if isinstance(data, ScoredPairs):
        rows = {"sentence1": list(data.first), "sentence2": list(data.second), "score": list(data.scores)}
        return _STS(_describe(name, "STS", data), _hold(rows), seed=number)
    if isinstance(data, JudgedPairs):
        rows = {"sentence1": list(data.first), "sentence2": list(data.second), "labels": list(data.labels)}
        return _PairClassification(_describe(name, "PairClassification", data), _hold(rows), seed=number)
    if isinstance(data, JudgedQueries):
        return _Retrieval(_describe(name, "Retrieval", data), {"default": {SPLIT: _split_queries(data)}}, seed=number)
    numbers = {label: place for place, label in enumerate(sorted({*data.labels, *data.train_labels}))}
    labels = [numbers[label] for label in data.labels]
    if not data.train_texts:
        task = _Clustering(
            _describe(name, "Clustering", data), _hold({"sentences": list(data.texts), "labels": labels}), seed=number
        )
        task.max_documents_per_cluster = min(task.max_documents_per_cluster, len(labels))
        return task
    held = _hold({"text": list(data.texts), "label": labels})
    train_labels = [numbers[label] for label in data.train_labels]
    held["train"] = Dataset.from_dict({"text": list(data.train_texts), "label": train_labels})
    return _Classification(_describe(name, "Classification", data), held, seed=number)


def _hold(rows: Mapping[str, list[Any]]) -> DatasetDict:
    return DatasetDict({SPLIT: Dataset.from_dict(dict(rows))})


def _split_queries(data: JudgedQueries) -> dict[str, Any]:
    documents = [{"id": key, "title": each.title, "text": each.text} for key, each in data.corpus.items()]
    return {
        "queries": Dataset.from_list([{"id": key, "text": text} for key, text in data.queries.items()]),
        "corpus": Dataset.from_list(documents),
        "relevant_docs": {key: dict(found) for key, found in data.judgements.items()},
        "top_ranked": None,
    }


def _describe(name: str, task_type: str, data: TaskData) -> TaskMetadata:
    # The data's own fingerprint: another version of the files is another revision of the data set.
    shown = "\n".join(f"{key}={value!r}" for key, value in sorted(vars(data).items()))
    return TaskMetadata(
        name=name,
        description=f"Own data set {name}.",
        dataset={"path": f"local/{name}", "revision": hashlib.sha256(shown.encode()).hexdigest()[:12]},
        type=cast(Any, task_type),
        category="t2c" if task_type in ("Classification", "Clustering") else "t2t",
        modalities=["text"],
        eval_splits=[SPLIT],
        # mteb wants one; nothing depends on it.
        eval_langs=["eng-Latn"],
        main_score=_MAIN_SCORES[task_type],
    )
