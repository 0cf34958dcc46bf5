"""A report of results: Markdown tables with plots beside them, good for a model card as it is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from instructor_st.evaluation.condition_table import format_condition_table
from instructor_st.evaluation.instruction_map import Projection
from instructor_st.evaluation.plots import (
    plot_categories,
    plot_ladder,
    plot_paraphrase_spread,
    plot_two_instructions,
    render,
)
from instructor_st.evaluation.report_tables import format_category_table, format_failures, format_results_table
from instructor_st.evaluation.result_grid import (
    LADDER,
    RIGHT,
    SIDES,
    ResultGrid,
    build_grid,
    find_paraphrase,
    has_value,
)
from instructor_st.evaluation.result_labels import escape_markdown, shorten_names
from instructor_st.evaluation.results import Result
from instructor_st.evaluation.robustness_tables import format_ladder_table, format_spread_table
from instructor_st.evaluation.table_cells import PairedDifference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "PairedDifference",
    "Report",
    "TwoInstructions",
    "format_category_table",
    "format_condition_table",
    "format_failures",
    "format_ladder_table",
    "format_results_table",
    "format_spread_table",
    "write_report",
]

# More columns than this with intervals are wider than a model card's page.
_WIDE = 4
_OWN_SECTIONS = ("robustness", "following", "held_out")


@dataclass(frozen=True, eq=False, kw_only=True)
class TwoInstructions:
    """The same texts embedded under two instructions; what `plot_two_instructions` takes.

    Attributes:
        vectors_a: Embeddings under the one instruction, `(texts, dimension)`.
        vectors_b: Embeddings of the same texts under the other one.
        labels_a: What the one instruction asks about, a label a text.
        labels_b: What the other one asks about.
        instruction_a: The one instruction.
        instruction_b: The other one.
        aspect_a: What `labels_a` are, such as `topic`.
        aspect_b: What `labels_b` are.
        projection: `tsne` or `pca`.
        seed: Of the projection.
    """

    vectors_a: npt.ArrayLike
    vectors_b: npt.ArrayLike
    labels_a: Sequence[str]
    labels_b: Sequence[str]
    instruction_a: str
    instruction_b: str
    aspect_a: str = "label a"
    aspect_b: str = "label b"
    projection: Projection = "tsne"
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        path: The Markdown file.
        pictures: The PNG files that it shows and the SVG files of the same plots, beside it.
    """

    path: Path
    pictures: tuple[Path, ...]


@dataclass
class _Draft:
    """A report in memory: sections of Markdown and figures by file name."""

    parts: list[str]
    figures: dict[str, Figure]
    with_plots: bool

    def add(self, *texts: str) -> None:
        self.parts += [text for text in texts if text]

    def show(self, name: str, alternative: str, caption: str, figure: Figure) -> None:
        self.figures[name] = figure
        self.add(f"![{escape_markdown(alternative)}]({name}.png)", caption)


def write_report(
    results: Iterable[Result],
    folder: str | Path,
    *,
    title: str,
    vectors: TwoInstructions | None = None,
    names: Mapping[str, str] | None = None,
    differences: Sequence[PairedDifference] = (),
    plots: bool = True,
) -> Report:
    """Write results as `report.md` with tables, plots (PNG, and SVG beside) and how it was measured.

    Everything is drawn before anything is written, each file is written under a temporary name, and the report takes
    its place last: what fails leaves the folder as it was. The same results give the same bytes.

    Args:
        results: Of any suites, models and conditions; each suite gets what fits it.
        folder: Where the files go; it is made if need be.
        title: The report's heading.
        vectors: The same texts under two instructions, for a map.
        names: Names to be shown for models.
        differences: Paired differences between columns, for the bold in the table of results.
        plots: Whether there are plots; without them matplotlib is not needed.

    Returns:
        The files.

    Raises:
        ImportError: If plots are wanted and matplotlib is not installed.
        ValueError: If there is no result, or there are two different values for one place.
    """
    given = list(results)
    grid = build_grid(given, every_metric=True)
    draft = _Draft([f"# {escape_markdown(title)}"], {}, plots)
    main = [each for each in given if each.suite not in _OWN_SECTIONS]
    _add_results(draft, main, names, differences)
    held_out = [each for each in given if each.suite == "held_out"]
    if held_out:
        draft.add("## Held-out rows", format_results_table(held_out, names=names, every_metric=True))
    _add_robustness(draft, given, names)
    _add_following(draft, [each for each in given if each.suite == "following"], names, vectors)
    draft.add("## How it was measured", _describe(given, grid, names))
    folder = Path(folder)
    files: dict[Path, bytes] = {}
    for name, figure in draft.figures.items():
        files[folder / f"{name}.png"] = render(figure, "png")
        files[folder / f"{name}.svg"] = render(figure, "svg")
    pictures = tuple(files)
    files[folder / "report.md"] = ("\n\n".join(draft.parts) + "\n").encode()
    _write_files(files)
    return Report(folder / "report.md", pictures)


def _add_results(
    draft: _Draft, results: Sequence[Result], names: Mapping[str, str] | None, differences: Sequence[PairedDifference]
) -> None:
    if not results:
        return
    grid = build_grid(results)
    is_wide = len(grid.columns) > _WIDE
    options: dict[str, Any] = {"names": names, "differences": differences}
    draft.add("## Results", format_results_table(results, **options, intervals=not is_wide))
    if is_wide:
        whole = format_results_table(results, **options)
        draft.add(f"<details><summary>The same with 95 % intervals</summary>\n\n{whole}\n\n</details>")
    if len(grid.categories) > 1:
        baseline = grid.columns[0] if len(grid.columns) > 1 else None
        table = format_category_table(results, baseline=baseline, names=names, intervals=not is_wide)
        draft.add("## By category", table)
    if draft.with_plots and grid.cells:
        draft.show(
            "categories",
            "Mean of each task category by model and condition, with 95 % intervals",
            "Unweighted means over a category's tasks (their number is in brackets), with 95 % intervals; hollow marks are "
            "without an instruction. A mean that lacks tasks is not drawn.",
            plot_categories(results, names=names),
        )


def _add_robustness(draft: _Draft, results: Sequence[Result], names: Mapping[str, str] | None) -> None:
    robustness = [each for each in results if each.suite == "robustness"]
    conditions = {each.condition for each in robustness}
    levels = conditions & {*LADDER[1:], *SIDES}
    paraphrases = {each for each in conditions if find_paraphrase(each) is not None}
    if levels:
        draft.add("## Levels of instruction", format_ladder_table(robustness, names=names))
        if draft.with_plots and any(has_value(each) for each in robustness if each.condition in LADDER):
            draft.show(
                "ladder",
                "Value of each task by level of instruction and model, with 95 % intervals",
                "From no instruction to a detailed one, and another task's instruction apart from these; 95 % intervals. "
                "Scales differ between tasks.",
                plot_ladder(robustness, names=names),
            )
    if paraphrases:
        draft.add("## Paraphrases", format_spread_table(robustness, names=names))
        if draft.with_plots and any(has_value(each) for each in robustness if each.condition in paraphrases):
            draft.show(
                "paraphrases",
                "Spread of each task's value over paraphrased instructions, by model",
                "A small mark is a paraphrase of the instruction, a large hollow one the instruction itself.",
                plot_paraphrase_spread(robustness, names=names),
            )
    # What neither table knows is shown all the same.
    known = {*LADDER, *SIDES} if levels else set()
    known |= {*paraphrases, "none", *RIGHT} if paraphrases else set()
    if others := [each for each in robustness if each.condition not in known]:
        draft.add("## Robustness under other conditions", format_condition_table(others, names=names))


def _add_following(
    draft: _Draft, results: Sequence[Result], names: Mapping[str, str] | None, vectors: TwoInstructions | None
) -> None:
    if results or (vectors is not None and draft.with_plots):
        draft.add("## Following the instruction")
    if results:
        draft.add(format_condition_table(results, names=names))
    if vectors is not None and draft.with_plots:
        draft.show(
            "two_instructions",
            f"The same texts under two instructions, coloured by {vectors.aspect_a} and by {vectors.aspect_b}",
            f"The same texts under two instructions (columns), coloured by {escape_markdown(vectors.aspect_a)} (upper row) "
            f"and by {escape_markdown(vectors.aspect_b)} (lower row). In the heavy frames the colour is what the "
            "instruction asks about.",
            plot_two_instructions(**{each.name: getattr(vectors, each.name) for each in fields(vectors)}),
        )


def _describe(results: Sequence[Result], grid: ResultGrid, names: Mapping[str, str] | None) -> str:
    """What readers need to judge the figures: rules, models, versions, what was left out, instructions."""
    lines = [
        "- Brackets hold 95 % bootstrap intervals over the task's rows; those of means are for these very tasks.",
        "- Bold is better than every other value of its row by more than chance: the paired difference's interval is above "
        "0, or, where that is not known, the two intervals lie apart.",
    ]
    shown = shorten_names(grid.models, names=names)
    for model in grid.models:
        own = [each for each in results if each.model == model]
        revisions = sorted({each.revision for each in own if each.revision})
        seeds = ", ".join(map(str, sorted({each.seed for each in own})))
        revision = f"revision {', '.join(revisions)}; " if revisions else ""
        lines.append(f"- {escape_markdown(shown[model])}: {revision}seed {seeds}.")
    versions = sorted({f"{name} {version}" for each in results for name, version in each.versions.items()})
    if versions:
        lines.append(f"- Versions: {', '.join(versions)}.")
    lines += _list_left_out(results, shown)
    return "\n".join([*lines, *_list_instructions(results)])


def _list_left_out(results: Sequence[Result], shown: Mapping[str, str]) -> list[str]:
    found: dict[str, None] = {}
    for each in results:
        for reason, count in dict(each.notes.get("left_out") or {}).items():
            label = f"{each.task} ({shown[each.model]}, {each.condition})"
            found[f"- Left out of {escape_markdown(label)}: {count} ({escape_markdown(str(reason))})."] = None
    return list(found)


def _list_instructions(results: Sequence[Result]) -> list[str]:
    rows: dict[str, None] = {}
    for each in results:
        document = each.instruction if each.document_instruction is None else each.document_instruction
        texts = (each.task, each.condition, each.instruction, "" if document == each.instruction else document)
        rows[f"| {' | '.join(map(escape_markdown, texts))} |"] = None
    head = ["", "<details><summary>The instructions</summary>", "", "| task | condition | instruction | of documents |"]
    return [*head, "|---|---|---|---|", *sorted(rows), "", "</details>"]


def _write_files(files: Mapping[Path, bytes]) -> None:
    """Write files; none takes its place before all have been written, and the last one is the last to do so."""
    partials = {path: path.with_name(f"{path.name}.partial") for path in files}
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            partials[path].write_bytes(content)
        for path, partial in partials.items():
            os.replace(partial, path)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
