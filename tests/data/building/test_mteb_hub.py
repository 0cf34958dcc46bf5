"""mteb's own tasks, loaded by mteb from a Hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.loopback_hub import serve_hub

CARD = "I am still waiting on my card?"
CAT = "A cat sits on the window sill."
DOG = "A dog sleeps under the kitchen table."
FOX = "A fox crosses the road at night."
BANKING_REVISION = "0fd18e25b25c072e09e0d92ab615fda904d66300"

RETRIEVAL = {
    "corpus": [{"_id": "d1", "title": "Cats", "text": "They sleep."}, {"_id": "d2", "title": "", "text": "No title."}],
    "queries": [{"_id": "q1", "text": "who sleeps?"}, {"_id": "q2", "text": "judged by nobody"}],
    "qrels": [{"query-id": "q1", "corpus-id": "d1", "score": 1}],
}
RETRIEVAL_TEXTS = {"Cats", "They sleep.", "Cats They sleep.", "No title.", "who sleeps?"}
# task -> (its repository, what that holds: files by `configuration/split` or, without configurations, by split; its texts)
TASKS = {
    "Banking77Classification": (
        "mteb/banking77",
        {
            "train": [{"text": "of training", "label": 0, "label_text": "a"}],
            "test": [{"text": CARD, "label": 1, "label_text": "b"}, {"text": DOG, "label": 0, "label_text": "a"}],
        },
        {CARD, DOG},
    ),
    # The first version holds all pairs in one row.
    "SprintDuplicateQuestions": (
        "mteb/sprintduplicatequestions-pairclassification",
        {
            "validation": [{"sent1": ["v1"], "sent2": ["v2"], "labels": [1]}],
            "test": [{"sent1": ["a1", "b1"], "sent2": ["a2", "b2"], "labels": [1, 0]}],
        },
        {"a1", "b1", "a2", "b2"},
    ),
    "STSBenchmark": (
        "mteb/stsbenchmark-sts",
        {
            "train": [{"sentence1": "t1", "sentence2": "t2", "score": 1.0}],
            "test": [{"sentence1": CAT, "sentence2": FOX, "score": 2.5}, {"sentence1": "c", "sentence2": "d", "score": 0.0}],
        },
        {CAT, FOX, "c", "d"},
    ),
    "SciFact": (
        "mteb/scifact",
        {
            "corpus/corpus": RETRIEVAL["corpus"],
            "queries/queries": RETRIEVAL["queries"],
            "default/train": [{"query-id": "q2", "corpus-id": "d2", "score": 1}],
            "default/test": RETRIEVAL["qrels"],
        },
        RETRIEVAL_TEXTS,
    ),
    "AskUbuntuDupQuestions": (
        "mteb/AskUbuntuDupQuestions",
        {
            "corpus/test": RETRIEVAL["corpus"],
            "queries/test": RETRIEVAL["queries"],
            "qrels/test": RETRIEVAL["qrels"],
            "top_ranked/test": [{"query-id": "q1", "corpus-ids": ["d1", "d2"]}],
        },
        RETRIEVAL_TEXTS,
    ),
    "Core17InstructionRetrieval": (
        "mteb/Core17InstructionRetrieval",
        {
            "corpus/test": RETRIEVAL["corpus"],
            "queries/test": RETRIEVAL["queries"],
            "default/test": RETRIEVAL["qrels"],
            "instruction/test": [{"query-id": "q1", "instruction": "Birds do not count."}],
        },
        RETRIEVAL_TEXTS | {"Birds do not count.", "who sleeps? Birds do not count."},
    ),
    # Of the older tasks that keep corpus and queries apart.
    "LitSearchRetrieval": (
        "princeton-nlp/LitSearch",
        {
            "query/full": [{"query": "papers on cats?", "corpusids": [7]}],
            "corpus_clean/full": [{"corpusid": 7, "title": "On cats", "abstract": "We study them."}],
        },
        {"papers on cats?", "On cats", "We study them.", "On cats We study them."},
    ),
    "ArxivClusteringS2S": (
        "mteb/arxiv-clustering-s2s",
        {"test": [{"sentences": ["s1", "s2"], "labels": ["cs", "math"]}, {"sentences": ["s3"], "labels": ["cs"]}]},
        {"s1", "s2", "s3"},
    ),
    # All its subsets are in one, told apart by a column.
    "BUCC.v2": (
        "mteb/bucc-bitext-mining",
        {
            "test": [
                {"sentence1": f"{lang} 1", "sentence2": f"{lang} 2", "lang": lang}
                for lang in ("de-en", "fr-en", "ru-en", "zh-en")
            ]
        },
        {f"{lang} {side}" for lang in ("de-en", "fr-en", "ru-en", "zh-en") for side in (1, 2)},
    ),
    "CataloniaTweetClassification": (
        "mteb/CataloniaTweetClassification",
        {
            f"{subset}/{split}": [{"text": f"{subset} {split}", "label": 0}]
            for subset in ("spanish", "catalan")
            for split in ("train", "validation", "test")
        },
        {"spanish validation", "spanish test", "catalan validation", "catalan test"},
    ),
    "CrossLingualSemanticDiscriminationWMT19": (
        "mteb/CrossLingualSemanticDiscriminationWMT19",
        {
            f"{subset}-{part}/test": rows
            for subset in ("deu-fra", "fra-deu")
            for part, rows in {
                "corpus": [{"_id": "d1", "title": "", "text": f"passage {subset}"}],
                "queries": [{"_id": "q1", "text": f"query {subset}"}],
                "qrels": RETRIEVAL["qrels"],
            }.items()
        },
        {f"{part} {subset}" for part in ("passage", "query") for subset in ("deu-fra", "fra-deu")},
    ),
    # Its subsets are pairs of columns of one data set.
    "IN22ConvBitextMining": (
        "mteb/IN22ConvBitextMining",
        {"test": [{"eng_Latn": "hello", "hin_Deva": "namaste"}, {"eng_Latn": "yes", "hin_Deva": "haan"}]},
        {"hello", "namaste", "yes", "haan"},
    ),
    "SummEval": (
        "mteb/summeval",
        {
            "test": [
                {"text": "The news.", "human_summaries": ["h1", "h2"], "machine_summaries": ["m1"], "relevance": [3.5], "id": "n-1"}
            ]
        },
        {"The news.", "h1", "h2", "m1"},
    ),
}  # fmt: skip
READ = """
import json, sys
from instructor_st.data.building.mteb_texts import find_mteb_task, read_mteb_texts
found = {}
for name in json.loads(sys.argv[1]):
    try:
        found[name] = sorted(read_mteb_texts(find_mteb_task(f"mteb:{name}")))
    except ValueError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


def write_repository(folder, splits):
    """A file a split, and a card that says which belong to which configuration."""
    configurations = {}
    for place, rows in splits.items():
        file = folder / f"{place}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        configuration, _, split = place.rpartition("/")
        configurations.setdefault(configuration, []).append({"split": split, "path": f"{place}.jsonl"})
    named = [{"config_name": name or "default", "data_files": files} for name, files in configurations.items()]
    (folder / "README.md").write_text(f"---\n{json.dumps({'configs': named})}\n---\n")
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    pytest.importorskip("mteb")
    folder = tmp_path_factory.mktemp("hub")
    repositories = {
        repository: write_repository(folder / repository, splits) for repository, splits, _ in TASKS.values()
    }
    with serve_hub(repositories) as hub:
        yield hub


def run_with_hub(hub, folder, *arguments):
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def found(hub, tmp_path_factory):
    names = json.dumps([*TASKS, "STS12"])
    done = run_with_hub(hub, tmp_path_factory.mktemp("read"), "-c", READ, names)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_texts_of_mtebs_tasks(found, task):
    assert isinstance(found[task], list), found[task]
    assert set(found[task]) == TASKS[task][2]
    # Each text of these stands in one row.
    assert len(found[task]) == len(TASKS[task][2])


@pytest.mark.slow
def test_the_revision_that_mteb_names_is_asked_for(found, hub):
    assert any(BANKING_REVISION in request for request in hub.requests)


@pytest.mark.slow
def test_a_data_set_that_is_not_there(found):
    assert (
        "the mteb task 'STS12' cannot be loaded from mteb/sts12-sts at a0d554a64d88156834ff5ae9920b964011b16384"
        in (found["STS12"])
    )


@pytest.mark.slow
def test_a_mixture_built_without_texts_of_mtebs_tasks(hub, tmp_path):
    rows = [{"query": f"question number {n}", "positive": f"answer number {n}", "negative": ""} for n in range(20)]
    rows += [
        {"query": CARD.upper(), "positive": "Wait a little longer.", "negative": ""},
        {"query": "Which animal is on the window sill?", "positive": CAT, "negative": ""},
        {"query": "Which animal is a cat?", "positive": "It sits there.", "negative": FOX},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "dev.jsonl").write_text(json.dumps({"text": "A text that stands nowhere else."}) + "\n")
    sides = {"query": "Represent the question: ", "document": "Represent the answer: "}
    task = {"name": "animals", "source": {"files": "rows.jsonl"}, "kind": "pairs", "instructions": sides}
    given = ["mteb:STSBenchmark", "dev.jsonl"]
    mixture = {"name": "zoo", "near_duplicates": None, "evaluation_texts": given, "tasks": [task]}
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump(mixture))
    script = str(REPOSITORY / "training_scripts" / "build_data.py")
    arguments = [script, str(tmp_path / "mixture.yaml"), "--output", str(tmp_path / "out")]
    arguments += ["--evaluation-texts", "mteb:Banking77Classification"]
    done = run_with_hub(hub, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "were there already" not in done.stdout
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["evaluation_texts"] == ["dev.jsonl", "mteb:Banking77Classification", "mteb:STSBenchmark"]
    keys = ("evaluation_set", "texts", "texts_too_short", "rows_left_out", "negatives_left_out")
    assert [tuple(each[key] for key in keys) for each in manifest["contamination"]] == [
        ("STSBenchmark", 2, 2, 1, 1),
        ("dev", 1, 0, 0, 0),
        ("Banking77Classification", 2, 0, 1, 0),
    ]
    assert manifest["contamination"][2]["sources"] == [{"name": "mteb/banking77", "version": BANKING_REVISION}]
    assert manifest["train_rows"] + manifest["held_out_rows"] == 21
    assert "| STSBenchmark | 2 | 2 | 1 | 1 |" in (tmp_path / "out" / "report.md").read_text()
    again = run_with_hub(hub, tmp_path, *arguments)
    assert "1 tasks were there already." in again.stdout
    plan = run_with_hub(hub, tmp_path, *arguments, "--dry-run")
    assert f"evaluation set Banking77Classification: mteb/banking77 at {BANKING_REVISION}" in plan.stdout
    wrong = run_with_hub(hub, tmp_path, *arguments[:-1], "mteb:Banking77")
    assert wrong.returncode == 1
    assert (
        "build_data.py: Evaluation texts: mteb has no task 'Banking77'; near names are Banking77Classification"
        in wrong.stderr
    )
    assert "Traceback" not in wrong.stderr
