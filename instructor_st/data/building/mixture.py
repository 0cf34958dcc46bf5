"""A mixture: the tasks to build training rows for, where their texts come from and how they are instructed (YAML)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, PlainSerializer, ValidationError, model_validator

from instructor_st.data.building.mteb_texts import MTEB_PREFIX
from instructor_st.data.sources.specs import Source, Spec
from instructor_st.tasks import get_task

__all__ = [
    "ROLES",
    "Mixture",
    "MixtureError",
    "RowKind",
    "SideInstructions",
    "TaskInstructions",
    "TaskSpec",
    "read_mixture",
]

RowKind = Literal[
    "classes", "duplicates", "pairs", "question_answer", "scored", "text_to_text", "title_body", "triplets"
]
"""How rows are made; `ROLES` has the columns that each kind reads."""

ROLES: Mapping[RowKind, tuple[tuple[str, ...], tuple[str, ...]]] = MappingProxyType(
    {
        "classes": (("text", "label"), ()),
        "duplicates": (("a", "b"), ("label",)),
        "pairs": (("query", "positive"), ("negative",)),
        "question_answer": (("question", "answer"), ("negative",)),
        "scored": (("a", "b", "score"), ()),
        "text_to_text": (("input", "output"), ()),
        "title_body": (("title", "body"), ()),
        "triplets": (("query", "positive", "negative"), ()),
    }
)
"""Roles that the columns of a kind must play, and roles that they may play."""

_PATH_FIELDS = ("files", "medi", "natural_instructions")
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=120)]
_Mapping = Annotated[
    Mapping[str, Any],
    AfterValidator(lambda value: MappingProxyType(dict(value))),
    PlainSerializer(lambda value: dict(value)),
]
# Not a path: it must stay as it is when paths are made absolute.
_MtebName = Annotated[str, Field(pattern=f"^{MTEB_PREFIX}")]
_Instruction = Annotated[str, Field(pattern=r"^(|.*\S: )$")]


class MixtureError(ValueError):
    """A mixture that cannot be read; the message names the file and the task."""


class SideInstructions(Spec):
    """The instruction of one side.

    Attributes:
        instruction: It ends with colon and space; blank for none.
        paraphrases: Other wordings.
    """

    instruction: _Instruction
    paraphrases: tuple[_Instruction, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _read_short_form(cls, values: Any) -> Any:
        return {"instruction": values} if isinstance(values, str) else values

    @property
    def wordings(self) -> tuple[str, ...]:
        """The instruction and its paraphrases."""
        return (self.instruction, *self.paraphrases)


class TaskInstructions(Spec):
    """The instructions of both sides.

    Attributes:
        query: Of the queries.
        document: Of the positives and negatives; by default the queries' (a symmetric task).
    """

    query: SideInstructions
    document: SideInstructions

    @model_validator(mode="before")
    @classmethod
    def _copy_symmetric_side(cls, values: Any) -> Any:
        if isinstance(values, dict) and "query" in values and values.get("document") is None:
            return {**values, "document": values["query"]}
        return values


class TaskSpec(Spec):
    """One task of a mixture.

    Attributes:
        name: The task's name in the rows.
        source: Where its records come from.
        kind: How rows are made of them.
        columns: The source's column of each role (see `ROLES`); a role that is not named is a column of its own name. A
            list of columns stands for their texts on lines of their own.
        remove: A regular expression by role; what it matches is taken out of the role's texts.
        where: Take only records whose column has this value, or one of these values.
        instructions: A task of the registry, or the instructions themselves.
        shares_texts: A name for the tasks over the same texts; their rows give each other instruction negatives.
        max_rows: Keep at most so many records, drawn by hash, before anything is scored.
        negatives: Hard negatives a row, where they are found and not given (`classes`, `text_to_text`, `scored`).
        answers: For `text_to_text`: pair inputs with their outputs, not with other inputs.
        positive_score: For `scored`: pairs with at least this score are positives.
        negative_score: For `scored`: pairs with at most this score are hard negatives.
        positive_labels: For `duplicates` with a label column: the labels that mean "duplicate".
        weight: How often a pass over the mixture sees the task's rows, 1 being the measure.
        loss: Settings of the task's loss that differ from the others' (`instructor_st.training.LossSettings`).
        license: As the source states it.
    """

    name: _Name
    source: Source
    kind: RowKind
    columns: _Mapping = Field(default_factory=lambda: MappingProxyType({}))
    remove: _Mapping = Field(default_factory=lambda: MappingProxyType({}))
    where: _Mapping = Field(default_factory=lambda: MappingProxyType({}))
    instructions: str | TaskInstructions
    shares_texts: _Name | None = None
    max_rows: Annotated[int, Field(ge=1)] = 2000
    negatives: Annotated[int, Field(ge=0, le=64)] = 1
    answers: bool = False
    positive_score: float | None = None
    negative_score: float | None = None
    positive_labels: tuple[str, ...] = ("1", "true", "yes", "duplicate")
    weight: Annotated[float, Field(gt=0)] = 1.0
    loss: _Mapping = Field(default_factory=lambda: MappingProxyType({}))
    license: str = "unknown"

    @model_validator(mode="after")
    def _check_kind(self) -> TaskSpec:
        needed, optional = ROLES[self.kind]
        if unknown := sorted({*self.columns, *self.remove} - {*needed, *optional}):
            raise ValueError(
                f"kind {self.kind!r} has no role {', '.join(unknown)}; its roles are {', '.join((*needed, *optional))}"
            )
        for role, columns in self.columns.items():
            names = [columns] if isinstance(columns, str) else columns
            if not names or not isinstance(names, (list, tuple)) or not all(isinstance(each, str) for each in names):
                raise ValueError(f"columns, {role}: a column's name or a list of names is expected, not {columns!r}")
        for role, pattern in self.remove.items():
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise ValueError(f"remove, {role}: {pattern!r} is no regular expression: {error}") from None
        if self.kind == "scored" and self.positive_score is None:
            raise ValueError("kind 'scored' needs positive_score, the score from which a pair counts as a positive")
        return self

    @property
    def sides(self) -> TaskInstructions:
        """The instructions themselves, looked up if they are a registry task's."""
        if isinstance(self.instructions, TaskInstructions):
            return self.instructions
        task = get_task(self.instructions)
        return TaskInstructions(
            query=SideInstructions(instruction=task.query.wordings[0], paraphrases=task.query.wordings[1:]),
            document=SideInstructions(instruction=task.document.wordings[0], paraphrases=task.document.wordings[1:]),
        )


class Mixture(Spec):
    """All of a mixture.

    Attributes:
        name: Its name.
        seed: Of every draw.
        tasks: The tasks.
        scoring_model: A sentence-transformers model that scores pairs; by default the bundled one.
        paraphrase_share: The share of rows whose instructions are paraphrases, drawn by hash.
        held_out_share: The share of query texts to hold out, by hash.
        max_held_out: At most so many held-out rows a task.
        max_characters: Texts longer than this leave their row out.
        language: Keep rows in this language (ISO 639-1) only; by default all.
        near_duplicates: Rows whose texts are this similar (estimated Jaccard of 5-character shingles) to an earlier
            row's are left out; `None` keeps them.
        evaluation_texts: Files and folders whose texts must not be trained on, and names of mteb's tasks whose test texts
            must not be (`mteb:Banking77Classification`).
        instruction_negatives: Whether tasks that share texts give each other hard negatives.
    """

    name: _Name
    seed: int = 0
    tasks: Annotated[tuple[TaskSpec, ...], Field(min_length=1)]
    scoring_model: str | None = None
    paraphrase_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.02
    max_held_out: Annotated[int, Field(ge=0)] = 50
    max_characters: Annotated[int, Field(ge=1)] = 20_000
    language: str | None = None
    near_duplicates: Annotated[float, Field(gt=0, le=1)] | None = 0.9
    evaluation_texts: tuple[_MtebName | Path, ...] = ()
    instruction_negatives: bool = True

    @model_validator(mode="after")
    def _check_names(self) -> Mixture:
        seen: set[str] = set()
        for task in self.tasks:
            if task.name.lower() in seen:
                raise ValueError(f"two tasks are named {task.name!r} (file names may not tell case apart)")
            seen.add(task.name.lower())
        return self


def read_mixture(path: str | Path) -> Mixture:
    """Read a mixture file.

    Args:
        path: A YAML file. Relative paths in it are relative to its folder; `${NAME}` in a path is an environment variable.

    Returns:
        The mixture, with absolute paths.

    Raises:
        MixtureError: If it is no YAML, a field is missing, unknown or of the wrong form, an environment variable is not
            set, or a task of the registry is unknown.
    """
    path = Path(path)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MixtureError(f"{path}: no such mixture file.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MixtureError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(document, dict):
        raise MixtureError(f"{path}: a mixture is a mapping with 'name' and 'tasks'.")
    try:
        mixture = Mixture.model_validate(document)
    except ValidationError as error:
        raise MixtureError(_describe(error, path, document)) from None
    tasks = tuple(task.model_copy(update={"source": _resolve(task.source, path)}) for task in mixture.tasks)
    for task in tasks:
        try:
            _ = task.sides
        except KeyError as error:
            raise MixtureError(f"{path}: task {task.name!r}, instructions: {error.args[0]}") from None
    evaluation_texts = tuple(
        text if isinstance(text, str) else _resolve_path(text, path) for text in mixture.evaluation_texts
    )
    return mixture.model_copy(update={"tasks": tasks, "evaluation_texts": evaluation_texts})


def _resolve(source: Source, path: Path) -> Source:
    fields = type(source).model_fields
    changes = {name: _resolve_path(getattr(source, name), path) for name in _PATH_FIELDS if name in fields}
    return source.model_copy(update=changes) if changes else source


def _resolve_path(value: Path, path: Path) -> Path:
    expanded = os.path.expandvars(value.as_posix())
    if missing := re.search(r"\$\{(\w+)\}", expanded):
        raise MixtureError(f"{path}: the environment variable {missing.group(1)} of {value} is not set.")
    return (path.parent / expanded).resolve()


def _describe(error: ValidationError, path: Path, document: Mapping[str, Any]) -> str:
    """Name the task and the field of the first fault."""
    errors = error.errors()
    head = errors[0]["loc"][:3]
    # Where a field may be one of several things, pydantic tells of each; the deepest is what was meant.
    first = max((each for each in errors if each["loc"][:3] == head), key=lambda each: len(each["loc"]))
    place = [str(part) for part in first["loc"] if part not in ("str", "constrained-str", "TaskInstructions")]
    if len(place) > 1 and place[0] == "tasks":
        task = document["tasks"][int(place[1])]
        name = task.get("name", place[1]) if isinstance(task, dict) else place[1]
        if "source" in place:
            kinds = "files; medi; natural_instructions and task; hub; registry"
            return f"{path}: task {name!r}, source: it must have the fields of one kind ({kinds})."
        place = [f"task {name!r}", *place[2:]]
    return f"{path}: {', '.join(place)}: {first['msg']}."
