"""The counts in a catalog's README: how many tasks of each type, domain, category, licence, and so on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from instructor_st.atomic_files import write_text
from instructor_st.tasks.metadata import CatalogError, TaskMetadata
from instructor_st.tasks.registry import CATALOG_FOLDER, load_catalog

__all__ = ["README_NAME", "are_counts_current", "build_readme", "find_sharing_groups", "format_counts", "write_counts"]

README_NAME = "README.md"
"""The file of a catalog that says what it holds."""

_BEGIN = "<!-- counts, written by `instructor-st tasks format`: begin -->"
_END = "<!-- counts: end -->"
_COLUMNS = 3


def format_counts(tasks: Iterable[TaskMetadata]) -> str:
    """Count tasks by what they are, where they come from and how far they have been checked.

    Args:
        tasks: The tasks.

    Returns:
        A line of totals and Markdown tables, the most frequent value first.
    """
    tasks = list(tasks)
    examples = sum(len(task.examples) for task in tasks)
    groups = find_sharing_groups(tasks)
    sharing = sum(map(len, groups))
    totals = (
        f"{len(tasks)} tasks in {len({task.family for task in tasks})} files, {examples} worked examples; "
        f"{len(groups)} groups of tasks share their texts ({sharing} tasks)."
    )
    tables = {
        "collection": (task.source.collection for task in tasks),
        "type": (task.type for task in tasks),
        "domain": (task.domain for task in tasks),
        "Super-NaturalInstructions category": (task.source.category for task in tasks if task.source.category),
        "licence": (task.license for task in tasks),
        "not verified": (field for task in tasks for field in task.unverified or ["nothing: all facts verified"]),
        "review state": (task.review.state for task in tasks),
        "readings by others": (_describe_readings(task) for task in tasks),
    }
    counts = {name: Counter(values) for name, values in tables.items()}
    return "\n\n".join([totals, *(_format_table(name, values) for name, values in counts.items() if values)])


def find_sharing_groups(tasks: Iterable[TaskMetadata]) -> list[tuple[str, ...]]:
    """Find the groups of tasks that share texts.

    Args:
        tasks: The tasks.

    Returns:
        The names of each group, sorted: tasks that name each other, directly or through others.
    """
    neighbours = {task.name: set(task.shares_texts_with) for task in tasks}
    groups = []
    while neighbours:
        name, waiting = neighbours.popitem()
        group = {name}
        while waiting:
            name = waiting.pop()
            group.add(name)
            waiting |= neighbours.pop(name, set()) - group
        if len(group) > 1:
            groups.append(tuple(sorted(group)))
    return sorted(groups)


def build_readme(folder: str | Path, tasks: Iterable[TaskMetadata]) -> str | None:
    """Put the counts of tasks into the README of a catalog folder, between its two markers.

    Args:
        folder: The folder.
        tasks: All tasks of the catalog.

    Returns:
        The README's text, or nothing if the folder has none.

    Raises:
        CatalogError: If the README lacks the markers.
    """
    path = Path(folder) / README_NAME
    if not path.exists():
        return None
    before, begin, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise CatalogError(f"{path}: the counts stand between the lines '{_BEGIN}' and '{_END}'; put them in.")
    return f"{before}{_BEGIN}\n\n{format_counts(tasks)}\n\n{_END}{after}"


def write_counts(folder: str | Path = CATALOG_FOLDER) -> bool:
    """Renew the counts in the README of a catalog folder.

    Args:
        folder: The folder. One without a README stays as it is.

    Returns:
        Whether the README changed.

    Raises:
        CatalogError: If the README lacks the markers, or a catalog file is broken.
    """
    path = Path(folder) / README_NAME
    text = build_readme(folder, load_catalog(folder).values())
    if text is None or text == path.read_text(encoding="utf-8"):
        return False
    write_text(path, text)
    return True


def are_counts_current(folder: str | Path = CATALOG_FOLDER) -> bool:
    """Whether the counts of a catalog folder's README, if it has one, are those of its files.

    Args:
        folder: The folder.

    Returns:
        Whether `write_counts` would change nothing.

    Raises:
        CatalogError: If the README lacks the markers, or a catalog file is broken.
    """
    text = build_readme(folder, load_catalog(folder).values())
    return text is None or text == (Path(folder) / README_NAME).read_text(encoding="utf-8")


def _describe_readings(task: TaskMetadata) -> str:
    """How often a task was judged, and whether somebody asked for a change."""
    verdicts = [event.verdict for event in task.review.history if event.action == "judged"]
    if not verdicts:
        return "not read yet"
    if all(verdict == "accept" for verdict in verdicts):
        return "accepted as written"
    return f"revised, {len(verdicts)} readings" if len(verdicts) > 1 else "sent back, due again"


def _format_table(name: str, counts: Mapping[str, int]) -> str:
    """A table of values and counts, several pairs a line where there are many."""
    rows = [f"{value} | {count}" for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    columns = _COLUMNS if len(rows) > 2 * _COLUMNS else 1
    height = -(-len(rows) // columns)
    parts: list[Sequence[str]] = [rows[start : start + height] for start in range(0, len(rows), height)]
    head = f"| {' | '.join([f'{name} | tasks'] * len(parts))} |"
    line = "|---|---:" * len(parts) + "|"
    return "\n".join([head, line, *(f"| {' | '.join(cells)} |" for cells in zip_longest(*parts, fillvalue=" | "))])
