"""The paper's 70 evaluation tasks: 56 of MTEB, 3 of Billboard, 11 of prompt retrieval, with their instructions.

`suite_tasks.yaml` beside this file holds the records and names their sources.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from instructor_st.evaluation.task_instructions import TaskInstruction, find_instruction, read_instructions

__all__ = [
    "METRIC_LABELS",
    "SUITE_PATH",
    "SuiteFamily",
    "SuiteTask",
    "choose_suite_tasks",
    "format_suite",
    "load_suite",
    "read_suite_instructions",
]

SuiteFamily = Literal["mteb", "billboard", "prompt_retrieval"]

SUITE_PATH = Path(__file__).with_name("suite_tasks.yaml")
"""The records that come with the package."""

METRIC_LABELS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "cosine_spearman": "Spearman of cosines",
    "map_at_1000": "MAP",
    "max_ap": "average precision",
    "max_over_subqueries_map_at_1000": "MAP",
    "ndcg_at_10": "nDCG@10",
    "pearson": "Pearson",
    "rouge_l": "ROUGE-L",
    "v_measure": "V-measure",
}
"""The suite's metrics in words."""

_OVERALL = "default"


@dataclass(frozen=True)
class SuiteTask:
    """A task of the suite.

    Attributes:
        name: mteb's name, or `billboard_...` or `prompt_retrieval_...` as in the registry's vocabulary.
        family: The benchmark that it is of.
        category: mteb's task type; `TextEvaluation` for Billboard, `PromptRetrieval` for prompt retrieval.
        metric: mteb's name of its main score; `pearson` for Billboard, `rouge_l` for prompt retrieval.
        data: mteb's task name, or a Hub id, or in words where the data lie.
        query: The instruction of the queries, and of all texts where there is one side.
        document: That of the documents; `None` where they share the queries'.
        in_registry: The registry's task on the same data set, if it has one.
        note: Where the data moved or are gone, and where the paper differs.
    """

    name: str
    family: SuiteFamily
    category: str
    metric: str
    data: str
    query: str
    document: str | None = None
    in_registry: str | None = None
    note: str = ""

    @property
    def instruction(self) -> TaskInstruction:
        """Its instructions, in the form that evaluations take."""
        return TaskInstruction(self.query, self.document)


def load_suite(overrides: str | Path | None = None) -> tuple[SuiteTask, ...]:
    """Load the tasks.

    Args:
        overrides: A file of instructions as `read_instructions` reads it. A name there is a task's, a category's or
            `default`; the most special one wins. It replaces the instructions of both sides: without `document` the
            documents share the queries'.

    Returns:
        The 70 tasks: MTEB's by category, then Billboard's and prompt retrieval's.

    Raises:
        FileNotFoundError: If there is no such file of overrides.
        ValueError: If it has another form, or a name that is neither a task's nor a category's.
    """
    tasks = _read_tasks()
    if overrides is None:
        return tasks
    given = read_instructions(overrides)
    known = [*(task.name for task in tasks), *_list_distinct(task.category for task in tasks), _OVERALL]
    for name in given:
        _check_known(name, known, what="task or category", where=f"{overrides}: ")
    return tuple(_override(task, given) for task in tasks)


def choose_suite_tasks(
    names: str | Collection[str] | None = None,
    *,
    families: str | Collection[str] | None = None,
    categories: str | Collection[str] | None = None,
    tasks: Sequence[SuiteTask] | None = None,
) -> tuple[SuiteTask, ...]:
    """Choose the tasks that have one of the names, one of the families and one of the categories.

    Args:
        names: Task names; `None` means any.
        families: `mteb`, `billboard`, `prompt_retrieval`; `None` means any.
        categories: Such as `Retrieval`; `None` means any.
        tasks: What to choose from; by default all 70.

    Returns:
        The tasks, in the suite's order; without arguments all of them.

    Raises:
        ValueError: If a word is not of the suite; the message has the nearest one.
    """
    tasks = load_suite() if tasks is None else tasks
    chosen = list(tasks)
    limits = (("name", "task", names), ("family", "family", families), ("category", "category", categories))
    for field, what, wanted in limits:
        if wanted is None:
            continue
        words = [wanted] if isinstance(wanted, str) else list(wanted)
        known = _list_distinct(getattr(task, field) for task in tasks)
        for word in words:
            _check_known(word, known, what=what)
        chosen = [task for task in chosen if getattr(task, field) in words]
    return tuple(chosen)


def read_suite_instructions(overrides: str | Path | None = None) -> dict[str, TaskInstruction]:
    """Read the tasks' instructions by name, as the evaluations take them.

    Args:
        overrides: As for `load_suite`.

    Returns:
        The instructions of the 70 tasks.

    Raises:
        FileNotFoundError: As for `load_suite`.
        ValueError: As for `load_suite`.
    """
    return {task.name: task.instruction for task in load_suite(overrides)}


def format_suite(tasks: Iterable[SuiteTask] | None = None) -> str:
    """Format tasks as a Markdown table.

    Args:
        tasks: The tasks; by default all 70.

    Returns:
        The table, with its last line ended.
    """
    titles = ("Task", "Category", "Metric", "Data", "Instruction", "In the registry", "Note")
    lines = [_format_row(titles), _format_row(["---"] * len(titles))]
    for task in load_suite() if tasks is None else tasks:
        sides = [task.query] if task.document is None else [task.query, task.document]
        cells = (
            task.name,
            task.category,
            METRIC_LABELS.get(task.metric, task.metric),
            "mteb" if task.family == "mteb" else task.data,
            "\n".join(f"`{side}`" if side else "none" for side in sides),
            f"`{task.in_registry}`" if task.in_registry else "",
            task.note,
        )
        lines.append(_format_row(cells))
    return "\n".join(lines) + "\n"


def _format_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"


def _override(task: SuiteTask, given: Mapping[str, TaskInstruction]) -> SuiteTask:
    found = find_instruction(given, task.name, task.category)
    return task if found is None else replace(task, query=found.query, document=found.document)


def _check_known(word: str, known: Sequence[str], *, what: str, where: str = "") -> None:
    if word in known:
        return
    # Without regard to case, so that `arguana` finds `ArguAna`.
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(str(word).casefold(), by_folded, n=1, cutoff=0)
    hint = f"the nearest is {by_folded[near[0]]!r}" if near else "there is none to choose from"
    raise ValueError(f"{where}the suite has no {what} {word!r}; {hint}.")


def _list_distinct(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


@cache
def _read_tasks() -> tuple[SuiteTask, ...]:
    records = yaml.safe_load(SUITE_PATH.read_text(encoding="utf-8"))
    tasks = tuple(_parse(record, f"{SUITE_PATH}: record {number}") for number, record in enumerate(records, 1))
    names = [task.name for task in tasks]
    if twice := [name for name in _list_distinct(names) if names.count(name) > 1]:
        raise ValueError(f"{SUITE_PATH}: {twice[0]} stands twice; take one record out.")
    return tasks


def _parse(record: dict[str, Any], where: str) -> SuiteTask:
    known = {field.name for field in fields(SuiteTask)}
    if unknown := sorted(record.keys() - known):
        raise ValueError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}.")
    if missing := sorted({"name", "family", "category", "metric", "query"} - record.keys()):
        raise ValueError(f"{where}: {missing[0]} is missing.")
    if record["family"] not in get_args(SuiteFamily):
        raise ValueError(f"{where}: family is {record['family']!r}; write one of {', '.join(get_args(SuiteFamily))}.")
    if record["family"] != "mteb" and "data" not in record:
        raise ValueError(f"{where}: data is missing; only mteb's tasks are found by their name.")
    return SuiteTask(**{"data": record["name"], **record})
