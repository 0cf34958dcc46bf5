"""The 70 tasks: names, metrics and categories against mteb, wording against the rules of the registry, overrides."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from instructor_st.evaluation import suite
from instructor_st.evaluation.suite import (
    METRIC_LABELS,
    SuiteTask,
    choose_suite_tasks,
    format_suite,
    load_suite,
    read_suite_instructions,
)
from instructor_st.evaluation.task_instructions import TaskInstruction
from instructor_st.tasks import Side, get_task, load_catalog
from instructor_st.tasks.vocabulary import EvaluationTask
from instructor_st.tasks.wording_rules import WORDING_RULES

TASKS = {task.name: task for task in load_suite()}
# Paraphrases (11) and wrong instructions (12) are the registry's; the suite has neither.
APPLICABLE_RULES = [number for number in WORDING_RULES if number not in (11, 12)]
# What the data sets call their classes; an instruction that names one makes texts that mention it look right.
LABELS = {
    "AmazonCounterfactualClassification": ("counterfactual", "not-counterfactual"),
    "AmazonPolarityClassification": ("positive", "negative"),
    "AmazonReviewsClassification": ("1 star", "2 stars", "3 stars", "4 stars", "5 stars"),
    "EmotionClassification": ("sadness", "joy", "love", "anger", "fear", "surprise"),
    "ImdbClassification": ("positive", "negative"),
    "ToxicConversationsClassification": ("toxic", "not toxic"),
    "TweetSentimentExtractionClassification": ("positive", "neutral", "negative"),
    "prompt_retrieval_civil_comments": ("positive", "negative"),
    "prompt_retrieval_mrpc": ("equivalent", "not equivalent"),
    "prompt_retrieval_rte": ("entailment", "not entailment", "True", "False"),
    "prompt_retrieval_sst5": ("very negative", "negative", "neutral", "positive", "very positive"),
}
# The registry's task asks the same of the same texts, so that a model should be told the same.
SHARED_WORDINGS = {
    "AmazonReviewsClassification",
    "BIOSSES",
    "EmotionClassification",
    "MSMARCO",
    "MassiveIntentClassification",
    "MassiveScenarioClassification",
    "NQ",
    "QuoraRetrieval",
    "STSBenchmark",
    "SciFact",
    "StackOverflowDupQuestions",
}


@pytest.fixture(scope="module")
def mteb_tasks() -> dict[str, Any]:
    mteb = pytest.importorskip("mteb")
    return {task.metadata.name: task for task in mteb.get_benchmark("MTEB(eng, v1)").tasks}


def split_instruction(instruction: str) -> Side:
    """Take an instruction apart as the rules want it: the last word before the first ` for ` is the text type."""
    subject, _, objective = instruction.removeprefix("Represent the ").removesuffix(": ").partition(" for ")
    return Side(text_type=subject.split()[-1], objective=objective, instruction=instruction, paraphrases=())


def as_registry_record(task: SuiteTask) -> Any:
    """What the wording rules read of a record of the registry."""
    query = split_instruction(task.query)
    return SimpleNamespace(
        query=query,
        document=query if task.document is None else split_instruction(task.document),
        symmetric=task.document is None,
        labels=dict.fromkeys(LABELS.get(task.name, ()), "a class"),
        examples=(),
        pairs=SimpleNamespace(kind="paired"),
        source=SimpleNamespace(id=task.data),
        wrong_instruction="Represent the text for nothing: ",
    )


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_counts_are_the_papers() -> None:
    assert Counter(task.family for task in load_suite()) == {"mteb": 56, "billboard": 3, "prompt_retrieval": 11}
    # The table of the MTEB paper (arXiv 2210.07316) for its English data sets.
    assert Counter(task.category for task in load_suite()) == {
        "Classification": 12,
        "Clustering": 11,
        "PairClassification": 3,
        "Reranking": 4,
        "Retrieval": 15,
        "STS": 10,
        "Summarization": 1,
        "TextEvaluation": 3,
        "PromptRetrieval": 11,
    }


def test_names_are_those_of_the_registrys_vocabulary() -> None:
    assert sorted(TASKS) == sorted(get_args(EvaluationTask))
    assert len(TASKS) == len(load_suite()) == 70


def test_mteb_names_are_the_benchmarks(mteb_tasks: dict[str, Any]) -> None:
    ours = choose_suite_tasks(families="mteb")
    assert sorted(task.name for task in ours) == sorted(mteb_tasks)
    assert all(task.data == task.name for task in ours)


def test_metrics_and_categories_are_mtebs(mteb_tasks: dict[str, Any]) -> None:
    theirs = {name: (task.metadata.main_score, task.metadata.type) for name, task in mteb_tasks.items()}
    assert {task.name: (task.metric, task.category) for task in choose_suite_tasks(families="mteb")} == theirs


def test_other_metrics_are_the_papers() -> None:
    assert {task.metric for task in choose_suite_tasks(families="billboard")} == {"pearson"}
    assert {task.metric for task in choose_suite_tasks(families="prompt_retrieval")} == {"rouge_l"}
    assert {task.metric for task in load_suite()} == METRIC_LABELS.keys()


def test_notes_name_successors_subsets_and_splits(mteb_tasks: dict[str, Any]) -> None:
    for name, task in mteb_tasks.items():
        note = TASKS[name].note
        successor = task.superseded_by
        assert (successor is None) == ("successor" not in note), name
        assert successor is None or re.search(rf"\b{re.escape(successor)}(?=[ ,;])", note), name
        subsets = [] if list(task.hf_subsets) == ["default"] else list(task.hf_subsets)
        assert re.findall(r"The subset (\S+) only\.", note) == subsets, name
        assert (list(task.eval_splits) == ["test"]) == ("The split" not in note), name
    assert mteb_tasks["MSMARCO"].eval_splits == ["dev"]
    assert "split dev" in TASKS["MSMARCO"].note
    assert f"over {len(mteb_tasks['CQADupstackRetrieval'].tasks)} forums" in TASKS["CQADupstackRetrieval"].note


def test_four_tasks_are_not_unseen() -> None:
    seen = {task.name for task in load_suite() if "not unseen" in task.note}
    assert seen == {"FEVER", "HotpotQA", "MSMARCO", "NQ"}


@pytest.mark.parametrize("number", APPLICABLE_RULES)
def test_instructions_keep_the_rules_of_wording(number: int) -> None:
    findings = [
        f"{name}: {message}"
        for name, task in TASKS.items()
        for message in WORDING_RULES[number](as_registry_record(task), {})
    ]
    assert findings == []


@pytest.mark.parametrize(
    ("number", "query", "document"),
    [
        (3, "Represent a tweet for finding its replies: ", None),
        (4, "Represent the tweet for finding its replies:", None),
        (5, "Represent the long text for finding its replies: ", None),
        (6, "Represent the tweet for the replies of it: ", None),
        (7, "Represent the various tweet for finding its replies: ", None),
        (8, "Represent the tweet for finding its replies: ", "Represent the tweet for finding its replies: "),
        (9, "Represent the tweet for finding tweets full of joy: ", None),
        (10, "Represent the tweet: ", None),
        (13, "Represent the tweet for finding the best replies: ", None),
    ],
)
def test_the_rules_as_applied_here_can_be_broken(number: int, query: str, document: str | None) -> None:
    task = SuiteTask("EmotionClassification", "mteb", "Classification", "accuracy", "-", query, document)
    assert list(WORDING_RULES[number](as_registry_record(task), {}))


def test_no_two_tasks_have_the_same_instructions() -> None:
    pairs = Counter((task.query, task.document) for task in load_suite())
    assert [pair for pair, count in pairs.items() if count > 1] == []
    registry = {(task.query.instruction, task.document.instruction) for task in load_catalog().values()}
    ours = {(task.query, task.document or task.query) for task in load_suite() if task.name not in SHARED_WORDINGS}
    assert ours & registry == set()


def test_both_sides_are_written_for_retrieval_of_unlike_texts() -> None:
    one_sided = {task.name for task in choose_suite_tasks(categories="Retrieval") if task.document is None}
    assert one_sided == {"QuoraRetrieval"}
    two_sided = {task.category for task in load_suite() if task.document is not None}
    assert two_sided == {"Retrieval", "Reranking"}


def test_registry_tasks_know_that_they_share_texts_with_the_suites() -> None:
    shared = {task.name: get_task(task.in_registry) for task in load_suite() if task.in_registry}
    assert shared.keys() >= SHARED_WORDINGS
    for name, record in shared.items():
        assert name in record.contaminates, name


@pytest.mark.parametrize("name", sorted(SHARED_WORDINGS))
def test_wording_is_the_registrys_where_the_task_is(name: str) -> None:
    record = get_task(str(TASKS[name].in_registry))
    document = None if record.symmetric else record.document.instruction
    if TASKS[name].category == "Classification":
        # Either side is a text with its class, so that the queries' serves for all.
        document = None
    assert (TASKS[name].query, TASKS[name].document) == (record.query.instruction, document)


def test_instruction_of_a_task() -> None:
    assert TASKS["NQ"].instruction == TaskInstruction(
        "Represent the factual question for finding the Wikipedia passage that contains its answer: ",
        "Represent the Wikipedia passage for matching with factual questions it can settle: ",
    )
    assert TASKS["BIOSSES"].instruction.choose("document") == TASKS["BIOSSES"].query


def test_overrides_by_task_category_and_default(tmp_path: Path) -> None:
    path = write(tmp_path / "own.yaml", "NQ: {query: 'q: ', document: 'd: '}\nRetrieval: 'r: '\ndefault: ''\n")
    found = read_suite_instructions(path)
    assert len(found) == 70
    assert found["NQ"] == TaskInstruction("q: ", "d: ")
    assert found["FEVER"] == TaskInstruction("r: ", None)
    assert found["SummEval"] == TaskInstruction("", None)
    assert {task.name: task.note for task in load_suite(path)} == {name: task.note for name, task in TASKS.items()}


def test_overrides_leave_the_others_as_they_are(tmp_path: Path) -> None:
    found = read_suite_instructions(write(tmp_path / "own.yaml", "ArguAna: 'a: '\n"))
    assert found.pop("ArguAna") == TaskInstruction("a: ", None)
    assert found == {name: task.instruction for name, task in TASKS.items() if name != "ArguAna"}
    assert load_suite()[0] is load_suite()[0]
    assert read_suite_instructions()["ArguAna"] == TASKS["ArguAna"].instruction


def test_an_override_of_an_unknown_name_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "own.yaml", "arguanna: 'a: '\n")
    with pytest.raises(ValueError, match=r"own\.yaml: the suite has no task or category 'arguanna'.*'ArguAna'"):
        load_suite(path)
    with pytest.raises(ValueError, match=r"no task or category 'Rerankin'.*'Reranking'"):
        load_suite(write(path, "Rerankin: 'a: '\n"))
    with pytest.raises(FileNotFoundError, match="absent"):
        load_suite(tmp_path / "absent.yaml")


def test_choosing_by_name_family_and_category() -> None:
    assert choose_suite_tasks() == load_suite()
    assert [task.name for task in choose_suite_tasks(["NQ", "ArguAna"])] == ["ArguAna", "NQ"]
    assert choose_suite_tasks("NQ") == (TASKS["NQ"],)
    assert len(choose_suite_tasks(families=["billboard", "prompt_retrieval"])) == 14
    assert len(choose_suite_tasks(families="mteb", categories=["STS", "Reranking"])) == 14
    assert choose_suite_tasks("NQ", categories="STS") == ()
    assert choose_suite_tasks([]) == ()
    assert choose_suite_tasks(categories="Retrieval", tasks=[TASKS["NQ"]]) == (TASKS["NQ"],)


def test_choosing_what_is_not_there() -> None:
    with pytest.raises(ValueError, match="no task 'nq'; the nearest is 'NQ'"):
        choose_suite_tasks(["nq"])
    with pytest.raises(ValueError, match="no family 'billbord'; the nearest is 'billboard'"):
        choose_suite_tasks(families="billbord")
    with pytest.raises(ValueError, match="no category 'retrieval'; the nearest is 'Retrieval'"):
        choose_suite_tasks(categories=["retrieval"])
    with pytest.raises(ValueError, match="no task 'NQ'; there is none"):
        choose_suite_tasks("NQ", tasks=[])


def test_table() -> None:
    lines = format_suite().splitlines()
    assert len(lines) == 2 + 70
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {8}
    row = next(line for line in lines if line.startswith("| NQ |"))
    assert row.split(" | ")[:4] == ["| NQ", "Retrieval", "nDCG@10", "mteb"]
    assert f"`{TASKS['NQ'].query}`<br>`{TASKS['NQ'].document}`" in row
    assert "`natural_questions`" in row


def test_table_of_tasks_with_marks_of_markdown() -> None:
    task = SuiteTask("a|b", "billboard", "c", "f1", "somewhere", "", note="two\nlines")
    assert format_suite([task]).splitlines()[-1] == "| a\\|b | c | f1 | somewhere | none |  | two<br>lines |"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{name: x, family: mteb, category: c, metric: m, query: q, colour: red}", "record 1: unknown field 'colour'"),
        ("{name: x, family: mteb, category: c, metric: m}", "record 1: query is missing"),
        ("{name: x, family: beir, category: c, metric: m, query: q}", "family is 'beir'; write one of mteb"),
        ("{name: x, family: billboard, category: c, metric: m, query: q}", "data is missing"),
        ("{name: x, family: mteb, category: c, metric: m, query: q}\n" * 2, "x stands twice"),
    ],
)
def test_broken_records(record: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"- {line}\n" for line in record.splitlines())
    monkeypatch.setattr(suite, "SUITE_PATH", write(tmp_path / "tasks.yaml", text))
    with pytest.raises(ValueError, match=message):
        suite._read_tasks.__wrapped__()
