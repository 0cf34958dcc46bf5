"""Changes of a catalog folder: several files, all of them or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from instructor_st.atomic_files import write_texts
from instructor_st.tasks.catalog_counts import README_NAME, build_readme
from instructor_st.tasks.catalog_files import check_comments, format_catalog_file, read_catalog_file
from instructor_st.tasks.metadata import TaskMetadata
from instructor_st.tasks.registry import load_catalog, write_index

__all__ = ["replace_tasks"]


def replace_tasks(folder: str | Path, tasks: Sequence[TaskMetadata]) -> list[Path]:
    """Put changed tasks in the place of those of the same name, and renew the index and the counts of the README.

    Args:
        folder: The catalog.
        tasks: The changed tasks.

    Returns:
        The families that changed.

    Raises:
        CatalogError: If a family cannot be read, or has comments that would be lost, or the README has no place for
            the counts. No file has changed then.
        KeyError: If a task is not in its family's file.
    """
    changed = {(task.family, task.name): task for task in tasks}
    texts: dict[Path, str] = {}
    for family in sorted({task.family for task in tasks}):
        file = read_catalog_file(Path(folder) / f"{family}.yaml")
        check_comments(file.path)
        names = {task.name for task in file.tasks}
        if unknown := [name for stem, name in changed if stem == family and name not in names]:
            raise KeyError(f"{file.path} has no task {unknown[0]!r}.")
        texts[file.path] = format_catalog_file(
            file.about, (changed.get((family, task.name), task) for task in file.tasks)
        )
    families = list(texts)
    readme = build_readme(folder, {**load_catalog(folder), **{task.name: task for task in tasks}}.values())
    if readme is not None:
        texts[Path(folder) / README_NAME] = readme
    write_texts(texts)
    write_index(folder)
    return families
