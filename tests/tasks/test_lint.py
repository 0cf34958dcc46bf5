"""Every rule of GUIDELINES.md has its function, passes a sound record and finds a broken one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from instructor_st.tasks import TaskMetadata, get_tasks, load_catalog
from instructor_st.tasks.catalog_counts import README_NAME, are_counts_current, find_sharing_groups
from instructor_st.tasks.catalog_files import format_catalog_file
from instructor_st.tasks.exemptions import apply_exemptions, read_exemptions
from instructor_st.tasks.lint import RULES, lint_files, lint_tasks
from instructor_st.tasks.metadata import Example, PairConstruction, Review, ReviewEvent, Side, Source
from instructor_st.tasks.registry import CATALOG_FOLDER, list_catalog_files
from tests.conftest import REPOSITORY

GUIDELINES = REPOSITORY / "instructor_st" / "tasks" / "GUIDELINES.md"

# It may only shrink: take out what you mend, and add nothing.
EXEMPTED: set[tuple[str, int]] = set()


def build(record, **changes):
    """Change fields, `side__field` for those of a part."""
    for key, value in changes.items():
        *parts, last = key.split("__")
        target = record
        for part in parts:
            target = target[int(part) if part.isdigit() else part]
        target[int(last) if last.isdigit() else last] = value
    return TaskMetadata.model_validate({**record, "family": "riddles"})


def lint(task, *others):
    catalog = {each.name: each for each in (task, *others)}
    return lint_tasks([task], catalog, path=Path("riddles.yaml"))


def test_a_sound_record_has_no_finding(task):
    assert lint(task) == []


def test_guidelines_and_lint_have_the_same_numbers():
    numbers = re.findall(r"^## (\d+)\. ", GUIDELINES.read_text(encoding="utf-8"), re.M)
    assert [int(number) for number in numbers] == list(RULES) == list(range(1, 21))
    for number, rule in RULES.items():
        assert rule.__doc__.startswith(f"Rule {number}: ")


def test_every_guideline_has_a_good_and_a_bad_example_and_evidence():
    _, *sections = re.split(r"^## \d+\. .*$", GUIDELINES.read_text(encoding="utf-8").split("# Review")[0], flags=re.M)
    for section in sections:
        lines = [line for line in section.splitlines() if line.startswith("- ")][-3:]
        assert [line.split(":")[0] for line in lines] == ["- Good", "- Bad", "- Evidence"], section


def test_rule_1_lists_the_fields():
    section = re.search(r"^## 1\. .*?(?=^## 2)", GUIDELINES.read_text(encoding="utf-8"), re.M | re.S).group()
    parts = (TaskMetadata, Source, Side, PairConstruction, Example, Review, ReviewEvent)
    fields = {name for part in parts for name in part.model_fields} - {"family"}
    assert fields == set(re.findall(r"`([a-z_]+)`", section.split("- Good")[0]))


def read_examples(number):
    section = re.search(rf"^## {number}\. .*?(?=^#)", GUIDELINES.read_text(encoding="utf-8"), re.M | re.S).group()
    return [re.search(rf"^- {kind}: `(.*?)`", section, re.M).group(1) for kind in ("Good", "Bad")]


def rewrite(record, instruction):
    """Give the queries an instruction, with the text type and the objective that it names."""
    match = re.fullmatch(r"Represent the (?:(?:general|biomedical) )?(.*?) for (.*?)[:;] ?", instruction)
    text_type, objective = match.groups() if match else ("riddle", "finding what solves it")
    for part in ("query",):
        record[part] |= {"instruction": instruction, "text_type": text_type, "objective": objective}
    record["wrong_instruction"] = f"Represent the {text_type} for dating it to a century: "
    return TaskMetadata.model_validate({**record, "family": "riddles"})


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 13])
def test_the_guidelines_own_examples(record, number):
    good, bad = read_examples(number)
    assert number not in {finding.rule for finding in lint(rewrite(record, good))}
    assert number in {finding.rule for finding in lint(rewrite(record, bad))}


DETAILED = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen: "

BROKEN = [
    (1, {"pairs__rule": " A riddle."}, "pairs.rule is blank or begins"),
    (1, {"examples__0__query": "\n"}, "example 1, query is blank"),
    (1, {"source": {"collection": "super_natural_instructions", "id": "task001_x", "split": "train"}}, "category"),
    (2, {"license": "other"}, "needs license_note"),
    (2, {"pairs__kind": "labelled"}, "need labels"),
    (2, {"pairs__kind": "triplet"}, "need columns for negative"),
    (2, {"pairs__columns": {"query": "a", "positive": "b", "score": "c"}}, "have no column score"),
    (2, {"type": "sts"}, "go together"),
    (3, {"query__instruction": "Represent a riddle for finding the thing that solves it: "}, "must read"),
    (3, {"query__objective": "finding something else"}, "must read"),
    (3, {"document__text_type": "object"}, "document.instruction must read"),
    (4, {"query__paraphrases__0__tag": "riddle:"}, "must end with a colon and one space"),
    (4, {"query__paraphrases__0__tag": "riddle:  "}, "must end with a colon and one space"),
    (4, {"query__paraphrases__0__tag": "riddle.: "}, "must end with a colon and one space"),
    (4, {"wrong_instruction": "Represent the riddle for grouping: by country: "}, "wrong_instruction has a colon"),
    (4, {"document__paraphrases__1__short": "Represent (what) is meant: "}, "bracket"),
    (4, {"document__paraphrases__1__short": "Represent what is  meant: "}, "double space"),
    (4, {"query__paraphrases__0__tag": "énigme: "}, "outside ASCII"),
    (5, {"query__text_type": "text"}, "could be anything"),
    (5, {"query__text_type": "long and winding riddle of old"}, "one to five words"),
    (6, {"query__objective": ""}, "query.objective is missing"),
    (6, {"query__objective": "the task"}, "says nothing"),
    (6, {"query__objective": "find the solution"}, "verb in -ing"),
    (6, {"query__objective": "finding " + "x " * 16}, "17 words"),
    (7, {"query__instruction": "Represent the old funny short long riddle for finding the thing that solves it: "}, "more"),
    (8, {"document": "query"}, "the sides have one instruction"),
    (9, {"labels": {"thing": "a thing"}}, "names the label 'thing'"),
    (9, {"labels": {"x": "one"}, "examples__0__label": "y"}, "not in labels: y"),
    (9, {"labels": {"x": "one"}, "pairs__kind": "labelled"}, "4 examples have no label"),
    (9, {"labels": {"x": "one", "y": "two"}, "pairs__kind": "labelled"}, "show 0 of 2 labels; show 2"),
    (10, {"query__instruction": "Represent the riddle: "}, "has 3 words"),
    (10, {"query__paraphrases__0__tag": "a riddle that somebody asked: "}, r"\(tag\) has 5 words; 1 to 4"),
    (10, {"query__paraphrases__3__detailed": DETAILED}, "15 words; 16 to 70"),
    (11, {"query__paraphrases": [{"tag": "riddle: "}]}, "1 paraphrases; five"),
    (11, {"query__paraphrases__1": {"tag": "puzzle: "}}, "no paraphrase of level short"),
    (11, {"document__paraphrases__4": {"full": "Represent an object, animal or idea some puzzle may be about: "}}, "nearly one"),
    (12, {"wrong_instruction": "Represent the riddle: "}, "with an objective"),
    (12, {"wrong_instruction": "Represent the poem for grouping by country: "}, "keep the text type 'riddle'"),
    (12, {"wrong_instruction": "Represent the riddle for finding a thing that solves it: "}, "nearly a right one"),
    (13, {"query__paraphrases__0__tag": "your riddle: "}, "speaks to the reader"),
    (13, {"query__paraphrases__0__tag": "riddle for BERT: "}, "names a model"),
    (13, {"query__paraphrases__0__tag": "Classify the riddle: "}, "asks for output"),
    (13, {"query__paraphrases__0__tag": "best riddle: "}, "praises"),
    (13, {"query__paraphrases__0__tag": "riddle corpus: "}, "part of a data set"),
    (13, {"source__id": "somebody/riddles2", "query__paraphrases__0__tag": "riddles2: "}, "names the data set"),
    (15, {"examples": slice(3)}, "3 examples; at least four"),
    (15, {"examples__0__why": "It is."}, "4 to 60 words"),
    (15, {"examples__0__why": "It is\nnot a door."}, "one line"),
    (16, {"examples__3__held_out": False}, "0 examples are held out"),
    (16, {"examples__0__held_out": True}, "2 examples are held out"),
    (17, {"examples__0__negative": "A piano!"}, "nearly the positive"),
    (17, {"examples__0__positive": "What has keys and opens no door"}, "the positive is nearly the query"),
    (18, {"source__id": "riddles of somebody"}, "no data set id"),
    (18, {"license": "unknown"}, "unverified or has a license_note"),
    (18, {"source": {"collection": "super_natural_instructions", "id": "riddles", "category": "x"}}, "no task name"),
    (19, {"review": {"state": "draft"}}, "begins with the event 'wrote'"),
    (19, {"review__state": "accepted"}, "by the history it is 'draft'"),
    (19, {"review__history__0__by": "ada@example.org"}, "mail address"),
    (19, {"review__history__0__version": 2}, "the history has a later one"),
    (20, {"shares_texts_with": ["nobody"]}, "no other task"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "changes", "message"), BROKEN)
def test_each_rule_finds_its_fault(record, rule, changes, message):
    for key, value in changes.items():
        if isinstance(value, slice):
            changes = {**changes, key: record[key][value]}
    if changes.get("document") == "query":
        changes = {"document": record["query"]}
    findings = [finding for finding in lint(build(record, **changes)) if finding.rule == rule]
    assert any(re.search(message, finding.message) for finding in findings), [str(finding) for finding in findings]


def test_the_templates_own_words_are_no_labels(record):
    assert 9 not in {finding.rule for finding in lint(build(record, labels={"for": "a preposition", "riddle": "one"}))}


def test_lengths_that_give_an_answer_away(record):
    for example in record["examples"]:
        example["negative"] = example["positive"] + " and a long list of other things"
    assert "gives it away" in lint(build(record))[0].message


def test_examples_of_one_length(record):
    for example in record["examples"]:
        example["query"] = f"{example['query']:?<60}"
    assert [finding.rule for finding in lint(build(record))] == [15]


def test_the_same_instructions_or_texts_in_two_tasks(task):
    other = task.model_copy(update={"name": "other_riddles"})
    findings = lint(task, other)
    assert {finding.rule for finding in findings} == {14, 16}
    assert "other_riddles has the same instructions" in findings[0].message
    assert "does not share texts: 'What has keys and opens no door?'" in findings[1].message


def test_a_text_almost_alike_in_another_task(task):
    example = task.examples[0].model_copy(update={"query": "what has KEYS, and opens no doors"})
    side = task.query.model_copy(update={"instruction": "Represent the riddle for dating it: "})
    other = task.model_copy(update={"name": "other", "query": side, "examples": (example,)})
    (finding,) = lint(task, other)
    assert finding.rule == 16
    assert "other has this text or one like it" in finding.message


def share(task, *, swap):
    examples = tuple(
        example.model_copy(update={"positive": example.negative, "negative": example.positive}) if swap else example
        for example in task.examples
    )
    side = task.query.model_copy(
        update={
            "instruction": "Represent the riddle for finding what it fools with: ",
            "objective": "finding what it fools with",
        }
    )
    return (
        task.model_copy(update={"shares_texts_with": ("decoys",)}),
        task.model_copy(
            update={"name": "decoys", "query": side, "examples": examples, "shares_texts_with": ("riddle_answers",)}
        ),
    )


def test_tasks_over_the_same_texts(task):
    mine, theirs = share(task, swap=True)
    assert lint(mine, theirs) == []
    mine, theirs = share(task, swap=False)
    (finding,) = lint(mine, theirs)
    assert (finding.rule, "the same right answer" in finding.message) == (20, True)
    mine, theirs = share(task, swap=True)
    (finding,) = lint(mine, theirs.model_copy(update={"shares_texts_with": ()}))
    assert "does not name riddle_answers in turn" in finding.message
    mine, theirs = share(task, swap=True)
    (finding,) = lint(mine, theirs.model_copy(update={"examples": theirs.examples[:1]}))
    assert "shares 1 query texts" in finding.message


def test_a_held_out_text_that_another_task_trains_on(task):
    mine, theirs = share(task, swap=True)
    open_to_all = tuple(example.model_copy(update={"held_out": False}) for example in theirs.examples)
    (finding,) = lint(mine, theirs.model_copy(update={"examples": open_to_all}))
    assert finding.rule == 16
    assert "a held-out text is trained on in decoys: 'What goes up" in finding.message


def test_nobody_judges_their_own_work(record):
    record["review"]["history"].append(
        {"date": "2026-01-03", "by": "ada", "kind": "person", "action": "judged", "version": 1}
        | {"verdict": "accept", "clarity": 5, "fitness": 5}
    )
    (finding,) = lint(build(record))
    assert (finding.rule, finding.message) == (19, "ada wrote the task and cannot judge it.")


def test_files(catalog_folder, task):
    broken = catalog_folder / "broken.yaml"
    broken.write_text("about: x\ntasks:\n  - name: x\n    colour: red\n", encoding="utf-8")
    findings = lint_files(sorted(catalog_folder.glob("*.yaml")))
    assert str(findings[0]).startswith(f"{broken}:-: rule 1: {broken}:")
    # The three tasks of the fixture are copies of one another.
    assert {finding.rule for finding in findings[1:]} == {14, 16}
    assert {finding.task for finding in findings[1:]} == {"other_riddles", "riddle_answers", "second_riddles"}


def test_a_file_that_is_not_in_the_canonical_form(tmp_path, task):
    path = tmp_path / "riddles.yaml"
    path.write_text(format_catalog_file("x", [task]).replace("about: x", "about:   x"), encoding="utf-8")
    (finding,) = lint_files([path])
    assert (finding.rule, finding.task) == (0, "-")


def test_given_files_are_held_against_the_rest(tmp_path, task):
    path = tmp_path / "mine.yaml"
    path.write_text(format_catalog_file("x", [task]), encoding="utf-8")
    assert lint_files([path]) == []
    rules = {finding.rule for finding in lint_files([path], others={task.name: task})}
    assert rules == {1}


def test_exemptions(tmp_path, record):
    findings = lint(build(record, license="unknown"))
    assert read_exemptions(tmp_path) == []
    path = tmp_path / "lint_exemptions.yaml"
    path.write_text("- {task: riddle_answers, rule: 18, reason: asked}\n- {task: x, rule: 3, reason: old}\n")
    (left,) = apply_exemptions(findings, read_exemptions(tmp_path), folder=tmp_path)
    assert (left.path, left.task, left.rule, "not needed any more" in left.message) == (path, "x", 3, True)
    assert apply_exemptions(findings, read_exemptions(tmp_path)) == []
    path.write_text("- {task: riddle_answers, rule: 99, reason: asked}\n")
    with pytest.raises(ValueError, match="entry 1 must have task, rule"):
        read_exemptions(tmp_path)
    path.write_text("- {task: x, rule: 3, reason: a}\n- {task: x, rule: 3, reason: b}\n")
    with pytest.raises(ValueError, match="entry 2 repeats x, rule 3"):
        read_exemptions(tmp_path)


def test_the_catalog_is_clean_but_for_a_list_that_only_shrinks():
    exemptions = read_exemptions()
    assert {(exemption.task, exemption.rule) for exemption in exemptions} <= EXEMPTED
    findings = lint_files(list_catalog_files())
    assert apply_exemptions(findings, exemptions, folder=CATALOG_FOLDER) == []


def test_the_catalog_is_what_it_is_meant_to_be():
    tasks = get_tasks()
    drawn = [task for task in tasks if task.source.collection == "super_natural_instructions"]
    assert len(load_catalog()) == len(tasks) == 330
    assert len(drawn) == len({task.source.id for task in drawn}) == 300
    assert len({task.source.category for task in drawn}) == 59
    assert len({task.domain for task in tasks}) >= 30
    assert len({task.type for task in tasks}) == 18
    assert len(find_sharing_groups(tasks)) >= 20
    assert all(len(task.examples) >= 5 for task in tasks)


def test_every_task_was_read_by_another_than_its_writer():
    for task in get_tasks():
        judges = {event.by for event in task.review.history if event.action == "judged"}
        assert judges - set(task.authors), task.name
        assert task.review.state in ("reviewed", "accepted"), task.name


def test_the_readme_of_the_catalog_has_the_counts_of_its_files():
    assert (CATALOG_FOLDER / README_NAME).exists()
    assert are_counts_current()
