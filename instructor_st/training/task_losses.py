r"""Which loss trains which task: chosen by the kind of its rows, with settings that a task may override.

- `pairs`: `MultitaskInstructionLoss`.
- `graded`: sentence-transformers' `CoSENTLoss`, or `AnglELoss`; their scale is one over the temperature.
- `classes`: `SupervisedContrastiveLoss`, rather than sentence-transformers' batch-hard triplet losses: it is a
  softmax over cosines with the temperature of the other tasks, so its gradients weigh alike in a mixture; it learns
  from all texts of a class, not from the hardest one, which in labels gathered from the web is often a wrong one;
  and it can gather and cache. `BatchHardSoftMarginTripletLoss` (on the cosine) is there for those who want it.
- `scores`: `DistillKLDivLoss` on the cosine with the temperature (its loss is scaled by :math:`\tau^2`, as there), or
  `MarginMSELoss` on the dot product, whose scores must be of the model's own range.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    AnglELoss,
    BatchHardSoftMarginTripletLoss,
    BatchHardTripletLossDistanceFunction,
    CoSENTLoss,
    DistillKLDivLoss,
    MarginMSELoss,
)
from sentence_transformers.util import pairwise_cos_sim
from torch import Tensor, nn

from instructor_st.training.loss import MultitaskInstructionLoss
from instructor_st.training.loss_settings import ContrastiveSettings
from instructor_st.training.supervised_contrastive import SupervisedContrastiveLoss

__all__ = ["LossSettings", "RowKind", "TaskLossSpec", "WeightedLoss", "build_losses", "override_settings"]

RowKind = Literal["pairs", "graded", "classes", "scores"]

# The first loss of a kind is its default.
_LOSSES: dict[str, tuple[str, ...]] = {
    "pairs": ("contrastive",),
    "graded": ("cosent", "angle"),
    "classes": ("supervised_contrastive", "batch_hard_soft_margin"),
    "scores": ("kl_divergence", "margin_mse"),
}
_FRAME = ("temperature", "weight", "gather_across_devices", "mini_batch_size", "mini_batch_num_tokens")
# What each loss reads; only that can be set for its tasks, and only that keeps two tasks from sharing a module.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "contrastive": tuple(each.name for each in fields(ContrastiveSettings)),
    "cosent": ("temperature", "weight"),
    "angle": ("temperature", "weight"),
    "supervised_contrastive": _FRAME,
    "batch_hard_soft_margin": ("weight",),
    "kl_divergence": ("temperature", "teacher_temperature", "weight"),
    "margin_mse": ("weight",),
}


@dataclass(frozen=True)
class LossSettings(ContrastiveSettings):
    """The settings of every task's loss.

    Attributes:
        loss: Which loss; `None`: the default of the kind of rows. Rows of `pairs` have `contrastive`; `graded` rows
            `cosent` or `angle`; `classes` `supervised_contrastive` or `batch_hard_soft_margin`; `scores`
            `kl_divergence` or `margin_mse`.
        teacher_temperature: What `kl_divergence` divides the teacher's scores by before their softmax, above 0.

    Raises:
        ValueError: If a value is not of its kind or out of range.
    """

    loss: str | None = None
    teacher_temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [name for kind in _LOSSES.values() for name in kind]
        if self.loss is not None and self.loss not in names:
            raise ValueError(f"loss must be one of {', '.join(map(repr, names))}, not {self.loss!r}.")
        value = self.teacher_temperature
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise ValueError(f"teacher_temperature must be above 0, not {value!r}.")


@dataclass(frozen=True)
class TaskLossSpec:
    """What `build_losses` needs to know of a task.

    Attributes:
        kind: Of its rows: `pairs` (query, positive, negative_1, ...), `graded` (a, b, score), `classes` (text, label) or
            `scores` (query, positive, negative_1, ..., a list of a teacher's scores).
        has_classes: Whether rows of `pairs` carry a class: then a row's hard negatives are its own by default.
        overrides: Fields of `LossSettings` that differ for this task, such as a mixture's YAML file gives them.
    """

    kind: RowKind = "pairs"
    has_classes: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)


class WeightedLoss(nn.Module):
    """Multiplies another loss, for those of sentence-transformers that have no weight of their own.

    Args:
        loss: The loss; it has a `model`.
        weight: The factor.
    """

    def __init__(self, loss: nn.Module, weight: float) -> None:
        super().__init__()
        # The trainer puts its wrapped model into whatever has this attribute, and into the loss inside.
        self.model = loss.model
        self.loss = loss
        self.weight = weight

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Compute the loss of a batch; the arguments are those of the loss inside.

        Args:
            sentence_features: The features of each column.
            labels: The labels.

        Returns:
            The loss, a scalar.
        """
        value: Tensor = self.loss(sentence_features, labels)
        return self.weight * value

    def get_config_dict(self) -> dict[str, Any]:
        """Return the loss's settings, for the model card."""
        read = getattr(self.loss, "get_config_dict", dict)
        return {"loss": type(self.loss).__name__, "weight": self.weight, **read()}

    @property
    def citation(self) -> str:
        """The BibTeX entry of the loss inside, for the model card."""
        return str(getattr(self.loss, "citation", ""))


def build_losses(
    model: SentenceTransformer,
    tasks: Iterable[str] | Mapping[str, TaskLossSpec],
    *,
    labelled_tasks: Collection[str] = (),
    defaults: LossSettings | None = None,
    temperature: float | None = None,
    gather_across_devices: bool | None = None,
    guide: SentenceTransformer | None = None,
) -> dict[str, nn.Module]:
    """Give every task its loss, by the kind of its rows; the module's documentation says which.

    Args:
        model: The model.
        tasks: The training data sets: their names, where all have rows of `pairs`, or what is to be known of each.
        labelled_tasks: Tasks whose rows of `pairs` carry a class, where only names are given.
        defaults: The settings of every task.
        temperature: Overrides the defaults'.
        gather_across_devices: Overrides the defaults'.
        guide: Scores for tasks that have a `false_negative_margin`.

    Returns:
        The losses by task; tasks with one loss and equal settings share one module.

    Raises:
        ValueError: If a task's overrides are not what its loss reads; the message names task, key and allowed keys.
    """
    changes: dict[str, Any] = {"temperature": temperature, "gather_across_devices": gather_across_devices}
    changes = {name: value for name, value in changes.items() if value is not None}
    defaults = replace(defaults or LossSettings(), **changes)
    shared: dict[tuple[Any, ...], nn.Module] = {}
    losses = {}
    for task, spec in _read_specs(tasks, labelled_tasks).items():
        settings = override_settings(defaults, spec, task=task)
        name = settings.loss or _LOSSES[spec.kind][0]
        read = {key: getattr(settings, key) for key in _SETTINGS[name]}
        key = (name, *read.values())
        losses[task] = shared[key] = shared.get(key) or _build_loss(model, name, read, guide)
    return losses


def override_settings(defaults: LossSettings, spec: TaskLossSpec, *, task: str) -> LossSettings:
    """Work out a task's settings: the defaults, what its rows ask for, what it overrides.

    Args:
        defaults: The settings of every task; their `loss` counts for tasks of its kind of rows only.
        spec: Of the task.
        task: Its name, for the errors.

    Returns:
        The settings.

    Raises:
        ValueError: If a key is none of the task's loss, or a value is out of range.
    """
    if spec.kind not in _LOSSES:
        raise ValueError(f"Task {task!r}: its rows are of the kind {spec.kind!r}; allowed: {', '.join(_LOSSES)}.")
    allowed_losses = _LOSSES[spec.kind]
    loss = spec.overrides.get("loss", defaults.loss if defaults.loss in allowed_losses else allowed_losses[0])
    if loss not in allowed_losses:
        raise ValueError(
            f"Task {task!r}: loss {loss!r} is none for rows of the kind {spec.kind!r}; "
            f"allowed: {', '.join(allowed_losses)}."
        )
    keys = ("loss", *_SETTINGS[loss])
    for key in spec.overrides:
        if key not in keys:
            raise ValueError(f"Task {task!r}: {key!r} is no setting of its loss ({loss}); allowed: {', '.join(keys)}.")
    values = {**asdict(defaults), "loss": loss}
    if spec.has_classes:
        values["share_hard_negatives"] = False
    try:
        return LossSettings(**{**values, **spec.overrides})
    except ValueError as error:
        raise ValueError(f"Task {task!r}: {error} Allowed keys: {', '.join(keys)}.") from error


def _read_specs(tasks: Iterable[Any], labelled_tasks: Collection[str]) -> dict[str, TaskLossSpec]:
    """Describe every task; a mapping of other things, such as rows by task, is one of names."""
    given = tasks if isinstance(tasks, Mapping) else {}
    specs = {}
    for task in tasks:
        spec = given.get(task)
        specs[task] = spec if isinstance(spec, TaskLossSpec) else TaskLossSpec(has_classes=task in labelled_tasks)
    return specs


def _build_loss(
    model: SentenceTransformer, name: str, settings: dict[str, Any], guide: SentenceTransformer | None
) -> nn.Module:
    if name == "contrastive":
        guided = guide if settings["false_negative_margin"] is not None else None
        return MultitaskInstructionLoss(model, guide=guided, **settings)
    if name == "supervised_contrastive":
        return SupervisedContrastiveLoss(model, **settings)
    loss = _build_stock_loss(model, name, settings)
    return loss if settings["weight"] == 1 else WeightedLoss(loss, settings["weight"])


def _build_stock_loss(model: SentenceTransformer, name: str, settings: dict[str, Any]) -> nn.Module:
    """Build a loss of sentence-transformers' own."""
    if name == "cosent":
        return CoSENTLoss(model, scale=1 / settings["temperature"])
    if name == "angle":
        return AnglELoss(model, scale=1 / settings["temperature"])
    if name == "batch_hard_soft_margin":
        distance = BatchHardTripletLossDistanceFunction.cosine_distance
        return BatchHardSoftMarginTripletLoss(model, distance_metric=distance)
    if name == "margin_mse":
        return MarginMSELoss(model)
    return DistillKLDivLoss(
        model,
        similarity_fct=pairwise_cos_sim,
        student_temperature=settings["temperature"],
        teacher_temperature=settings["teacher_temperature"],
    )
