"""The manifest of a built mixture, and what is made of it: a report, a card for the Hub, a section of a model card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from instructor_st.atomic_files import write_texts
from instructor_st.data.building.build import BuildReport, TaskResult
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
        "evaluation_texts": sorted(path.name for path in mixture.evaluation_texts),
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
        Markdown: totals, counts by reason, a line a task.
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
        manifest: As `build_manifest` gives it.

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


def _describe_task(task: TaskSpec, result: TaskResult) -> dict[str, Any]:
    return {
        "name": task.name,
        "kind": task.kind,
        "license": task.license,
        "weight": task.weight,
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


def _name_size(rows: int) -> str:
    """The Hub's words for sizes."""
    bounds = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for bound, name in bounds if rows < bound), "1M<n<10M")
