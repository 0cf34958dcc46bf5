"""The manifest of a built mixture, and what is made of it: a report, a card for the Hub, a section of a model card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from instructor_st.atomic_files import write_texts
from instructor_st.data.building.build import BuildReport, TaskResult
from instructor_st.data.building.contamination import MIN_CHARACTERS
from instructor_st.data.building.mixture import Mixture, TaskSpec
from instructor_st.data.sources.specs import (
    FileSource,
    HubSource,
    MediSource,
    NaturalInstructionsSource,
    RegistrySource,
    Source,
)

__all__ = [
    "MANIFEST_NAME",
    "build_manifest",
    "format_build_report",
    "format_data_card",
    "format_training_data",
    "write_manifest",
]

MANIFEST_NAME = "manifest.json"
"""The file beside the shards that says what they were made of."""


def build_manifest(mixture: Mixture, report: BuildReport) -> dict[str, Any]:
    """Say what a built mixture is made of: no texts, no paths of the machine, no times.

    Args:
        mixture: The mixture.
        report: What became of it.

    Returns:
        The manifest, which JSON can hold.
    """
    specs = {task.name: task for task in mixture.tasks}
    return {
        "name": mixture.name,
        "seed": mixture.seed,
        "instructor_st": version("instructor-st"),
        "settings": mixture.model_dump(mode="json", exclude={"name", "seed", "tasks", "evaluation_texts"}),
        "evaluation_texts": sorted(text if isinstance(text, str) else text.name for text in mixture.evaluation_texts),
        "contamination": _describe_contamination(report),
        "train_rows": sum(result.train_rows for result in report.results),
        "held_out_rows": sum(result.held_out_rows for result in report.results),
        "counts": dict(sorted(report.totals.items())),
        "tasks": [_describe_task(specs[result.task], result) for result in report.results],
    }


def write_manifest(mixture: Mixture, report: BuildReport, output: str | Path) -> list[Path]:
    """Write `manifest.json`, `report.md`, `README.md` (the data set's card) and `bad_records.txt` beside the shards.

    Args:
        mixture: The mixture.
        report: What became of it.
        output: The folder of the shards.

    Returns:
        The files.
    """
    manifest = build_manifest(mixture, report)
    output = Path(output)
    bad = [f"{result.task}\t{line}" for result in report.results for line in result.bad_records]
    texts = {
        output / MANIFEST_NAME: json.dumps(manifest, indent=1, ensure_ascii=False) + "\n",
        output / "report.md": format_build_report(manifest),
        output / "README.md": format_data_card(manifest),
        output / "bad_records.txt": "".join(f"{line}\n" for line in bad),
    }
    write_texts(texts)
    return list(texts)


def format_build_report(manifest: Mapping[str, Any]) -> str:
    """Format what was read, left out and written.

    Args:
        manifest: As `build_manifest` gives it.

    Returns:
        Markdown: totals, counts by reason, a line an evaluation set, a line a task.
    """
    lines = [
        f"# {manifest['name']}",
        "",
        f"{len(manifest['tasks'])} tasks, {manifest['train_rows']} training rows, {manifest['held_out_rows']} held out.",
        "",
        "| what | records |",
        "|---|---:|",
        *(f"| {what} | {count} |" for what, count in manifest["counts"].items()),
        "",
        *_format_contamination(manifest["contamination"]),
        "",
        "| task | kind | read | training rows | held out | left out, by reason |",
        "|---|---|---:|---:|---:|---|",
    ]
    for task in manifest["tasks"]:
        counts = Counter(task["counts"])
        reasons = "; ".join(
            f"{what.removeprefix('left out: ')} {count}"
            for what, count in sorted(counts.items())
            if what.startswith(("left out", "bad record"))
        )
        cells = (task["name"], task["kind"], counts["records read"], task["train_rows"], task["held_out_rows"], reasons)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def format_training_data(manifest: Mapping[str, Any]) -> str:
    """Format a model card's section on its training data: names, counts and licences, no texts.

    Args:
        manifest: As `build_manifest` or `add_step` gives it.

    Returns:
        Markdown.
    """
    lines = [
        f"{manifest['train_rows']} rows of {len(manifest['tasks'])} tasks (mixture `{manifest['name']}`, seed "
        f"{manifest['seed']}).",
        "",
        "| task | source | licence, as stated there | rows |",
        "|---|---|---|---:|",
    ]
    for task in manifest["tasks"]:
        lines.append(f"| {task['name']} | {_name_source(task['source'])} | {task['license']} | {task['train_rows']} |")
    if steps := manifest.get("steps"):
        lines += ["", "After they were built, in this order:", "", *map(_format_step, steps)]
    return "\n".join(lines) + "\n"


def format_data_card(manifest: Mapping[str, Any]) -> str:
    """Format the data set's card for the Hub.

    Args:
        manifest: As `build_manifest` gives it.

    Returns:
        Markdown with the Hub's metadata at its head.
    """
    from huggingface_hub import DatasetCardData

    splits = [{"split": "train", "path": "train/*.parquet"}]
    if manifest["held_out_rows"]:
        splits.append({"split": "held_out", "path": "held_out/*.parquet"})
    data = DatasetCardData(
        pretty_name=manifest["name"],
        license="other",
        license_name="as-the-sources",
        task_categories=["sentence-similarity", "feature-extraction"],
        tags=["sentence-transformers", "instructor-st", "instruction-tuning"],
        size_categories=[_name_size(manifest["train_rows"])],
        configs=[{"config_name": "default", "data_files": splits}],
    )
    return f"""---
{data.to_yaml()}
---

# {manifest["name"]}

Rows for training an instruction-following text embedder: a query, a positive and hard negatives, each `[instruction, text]`, and the
name of the task. Built with [instructor-st](https://pypi.org/project/instructor-st/) {manifest["instructor_st"]}; `{MANIFEST_NAME}` has the
sources' revisions and hashes, the settings and the counts, `report.md` what was left out and why.

The texts are their sources', under their sources' licences: look at them before you publish this data set.

{format_training_data(manifest)}"""


def _describe_contamination(report: BuildReport) -> list[dict[str, Any]]:
    """Each evaluation set that was looked for, also where it removed nothing."""
    totals = report.totals
    return [
        {
            "evaluation_set": each.name,
            "sources": [
                {"name": source.name, "version": source.version}
                for source in report.evaluation_sources
                if source.evaluation_set == each.name
            ],
            "texts": each.texts,
            "texts_too_short": each.too_short,
            "rows_left_out": totals[f"left out: text of evaluation set {each.name}"],
            "negatives_left_out": totals[f"negative left out: text of evaluation set {each.name}"],
        }
        for each in report.evaluation_sets
    ]


def _format_contamination(sets: Sequence[Mapping[str, Any]]) -> list[str]:
    if not sets:
        return ["No evaluation texts were given, so none were looked for."]
    columns = ("evaluation_set", "texts", "texts_too_short", "rows_left_out", "negatives_left_out")
    return [
        f"Texts of evaluation sets that were looked for, those of at least {MIN_CHARACTERS} characters; a text of several sets "
        "is counted for the first.",
        "",
        "| evaluation set | texts | too short to tell | rows left out | negatives left out |",
        "|---|---:|---:|---:|---:|",
        *(f"| {' | '.join(str(each[column]) for column in columns)} |" for each in sets),
    ]


def _describe_task(task: TaskSpec, result: TaskResult) -> dict[str, Any]:
    return {
        "name": task.name,
        "kind": task.kind,
        "license": task.license,
        "weight": task.weight,
        "loss": dict(task.loss),
        "source": _describe_source(task.source),
        "files": [{"name": file.name, "bytes": file.bytes, "sha256": file.sha256} for file in result.files],
        "instructions": task.sides.model_dump(mode="json"),
        "shares_texts": task.shares_texts,
        "train_rows": result.train_rows,
        "held_out_rows": result.held_out_rows,
        "counts": dict(result.counts),
        "shards": dict(result.shards),
    }


def _describe_source(source: Source) -> dict[str, Any]:
    """A source without the folders of this machine."""
    match source:
        case FileSource():
            return {"files": source.files.name}
        case MediSource():
            return {"medi": source.medi.name, "task_id": source.task_id}
        case NaturalInstructionsSource():
            return {"natural_instructions": source.task}
        case HubSource():
            return source.model_dump(mode="json", exclude={"streaming"})
        case RegistrySource():
            return {"registry": source.registry}


def _name_source(source: Mapping[str, Any]) -> str:
    if "hub" in source:
        return f"[{source['hub']}](https://huggingface.co/datasets/{source['hub']})"
    (kind, name), *_ = source.items()
    return f"{name} ({kind.replace('_', ' ')})"


def _format_step(step: Mapping[str, Any]) -> str:
    """One line on what was done to the rows."""
    models = ", ".join(f"{role} `{name}`" for role, name in step["models"].items())
    options = ", ".join(f"{name} {value}" for name, value in step["options"].items() if value is not None)
    parts = [f"{step['rows_in']} rows became {step['rows_out']}", options]
    if changed := step.get("changed_files"):
        parts.append(f"{len(changed)} file(s) of rows were not as they had been written: {', '.join(changed)}")
    if others := step.get("other_tasks"):
        told = ", ".join(f"{task} ({rows} rows)" for task, rows in others.items())
        parts.append(f"tasks of unknown origin, not counted above: {told}")
    return f"- {step['step']}{f' with {models}' if models else ''}: {'; '.join(filter(None, parts))}."


def _name_size(rows: int) -> str:
    """The Hub's words for sizes."""
    bounds = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for bound, name in bounds if rows < bound), "1M<n<10M")
