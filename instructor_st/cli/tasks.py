"""`instructor-st tasks list | show | lint | format`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

from instructor_st.tasks import TaskMetadata, get_task, get_tasks, load_catalog
from instructor_st.tasks.catalog_counts import README_NAME, are_counts_current, write_counts
from instructor_st.tasks.catalog_files import read_catalog_file, write_catalog_file
from instructor_st.tasks.exemptions import apply_exemptions, read_exemptions
from instructor_st.tasks.lint import Finding, lint_files
from instructor_st.tasks.registry import (
    CATALOG_FOLDER,
    INDEX_NAME,
    is_index_current,
    list_catalog_files,
    write_index,
)
from instructor_st.tasks.vocabulary import Collection, Domain, Language, ReviewState, TaskType

__all__ = ["add_catalog_option", "add_task_commands"]

Commands = Any  # argparse's class of sub-parsers is private.


def add_task_commands(commands: Commands) -> None:
    """Add `list`, `show`, `lint` and `format`.

    Args:
        commands: The sub-parsers of `instructor-st tasks`.
    """
    listing = commands.add_parser("list", help="list tasks")
    listing.set_defaults(run=_list)
    for name, words in (("type", TaskType), ("domain", Domain), ("language", Language)):
        listing.add_argument(f"--{name}", choices=get_args(words), metavar=name.upper())
    listing.add_argument("--collection", choices=get_args(Collection))
    listing.add_argument("--state", choices=get_args(ReviewState), help="of the review")
    listing.add_argument("--family", help="stem of the catalog file")
    listing.add_argument("--symmetric", action=argparse.BooleanOptionalAction, default=None)
    listing.add_argument("--json", action="store_true", help="one JSON object a line, all fields")
    add_catalog_option(listing)

    show = commands.add_parser("show", help="show a task with its instructions and examples")
    show.set_defaults(run=_show)
    show.add_argument("name")
    show.add_argument("--json", action="store_true")
    add_catalog_option(show)

    lint = commands.add_parser("lint", help="check catalog files against GUIDELINES.md; exit code 1 on findings")
    lint.set_defaults(run=_lint)
    lint.add_argument("files", nargs="*", type=Path, help="by default all files of the catalog")
    add_catalog_option(lint)

    form = commands.add_parser("format", help="rewrite catalog files canonically, the index and the counts")
    form.set_defaults(run=_format)
    form.add_argument("files", nargs="*", type=Path, help="by default all files of the catalog")
    form.add_argument("--check", action="store_true", help="change nothing; exit code 1 if something would change")
    add_catalog_option(form)


def add_catalog_option(parser: argparse.ArgumentParser) -> None:
    """Add `--catalog`.

    Args:
        parser: The command's parser.
    """
    parser.add_argument("--catalog", type=Path, default=CATALOG_FOLDER, help="a folder of catalog files")


def _list(arguments: argparse.Namespace) -> int:
    names = ("type", "domain", "language", "collection", "state", "family", "symmetric")
    wanted = {name: getattr(arguments, name) for name in names}
    tasks = get_tasks(**wanted, catalog=load_catalog(arguments.catalog))
    if arguments.json:
        for task in tasks:
            print(task.model_dump_json(exclude_defaults=True))
        return 0
    width = max((len(task.name) for task in tasks), default=0)
    for task in tasks:
        print(f"{task.name:{width}}  {task.type:22}  {task.query.instruction.rstrip()}")
    print(f"{len(tasks)} tasks", file=sys.stderr)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    task = get_task(arguments.name, catalog=load_catalog(arguments.catalog))
    print(task.model_dump_json(indent=1, exclude_defaults=True) if arguments.json else _describe(task))
    return 0


def _describe(task: TaskMetadata) -> str:
    source = " ".join(filter(None, (task.source.id, task.source.config, task.source.split)))
    doubts = f"; not verified: {', '.join(task.unverified)}" if task.unverified else ""
    lines = [
        f"{task.name} ({task.family}): {task.type}, {task.domain}, {task.genre}, {task.language}",
        f"source: {source}; licence {task.license}{doubts}",
        f"review: {task.review.state}, wording {task.review.version}, written by {', '.join(task.authors)}",
    ]
    if task.contaminates:
        lines.append(f"shares texts with the evaluation tasks {', '.join(task.contaminates)}")
    for name, side in (("query", task.query), ("document", task.document)):
        lines += ["", f"{name}: {side.instruction!r}"]
        lines += [f"  {item.detail:8}  {item.text!r}" for item in side.paraphrases]
        if task.symmetric:
            lines.append("  (both sides)")
            break
    lines += ["", f"wrong on purpose: {task.wrong_instruction!r}"]
    lines += [f"label {name}: {meaning}" for name, meaning in task.labels.items()]
    for example in task.examples[:3]:
        lines += ["", f"query     {example.query}", f"positive  {example.positive}", f"negative  {example.negative}"]
        lines.append(f"          ({example.why})")
    if len(task.examples) > 3:
        lines += ["", f"and {len(task.examples) - 3} more examples: --json shows all."]
    return "\n".join(lines)


def _lint(arguments: argparse.Namespace) -> int:
    files = arguments.files or list_catalog_files(arguments.catalog)
    # Given files are held against the rest of the catalog.
    others = load_catalog(arguments.catalog, without=files) if arguments.files else None
    findings = apply_exemptions(
        lint_files(files, others=others),
        read_exemptions(arguments.catalog),
        folder=None if arguments.files else arguments.catalog,
    )
    if not arguments.files and not is_index_current(arguments.catalog):
        message = "the index is not that of the files; run `instructor-st tasks format`."
        findings.append(Finding(arguments.catalog, "-", 0, message))
    # A broken file has no counts.
    if not arguments.files and not findings and not are_counts_current(arguments.catalog):
        message = f"the counts of {README_NAME} are not those of the files; run `instructor-st tasks format`."
        findings.append(Finding(arguments.catalog, "-", 0, message))
    for finding in findings:
        print(finding)
    print(f"{len(findings)} findings in {len(files)} files", file=sys.stderr)
    return 1 if findings else 0


def _format(arguments: argparse.Namespace) -> int:
    files = arguments.files or list_catalog_files(arguments.catalog)
    read = [read_catalog_file(path) for path in files]
    changed = [
        str(file.path)
        for file in read
        if write_catalog_file(file.path, file.about, tasks=file.tasks, dry_run=arguments.check)
    ]
    # A folder without an index gets one only as the catalog itself.
    folders = sorted(
        folder
        for folder in {path.parent for path in files}
        if (folder / INDEX_NAME).exists() or folder.resolve() == arguments.catalog.resolve()
    )
    changed += [
        str(folder / INDEX_NAME)
        for folder in folders
        if (not is_index_current(folder) if arguments.check else write_index(folder))
    ]
    changed += [
        str(folder / README_NAME)
        for folder in folders
        if (not are_counts_current(folder) if arguments.check else write_counts(folder))
    ]
    for name in changed:
        print(f"{'would change' if arguments.check else 'changed'}: {name}")
    return 1 if arguments.check and changed else 0
