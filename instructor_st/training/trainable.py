"""What of a model is trained: frozen parameters, and LoRA in place of whole weight matrices."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["TrainableParameters", "add_lora", "count_parameters", "freeze_parameters", "has_lora", "merge_lora"]


@dataclass(frozen=True)
class TrainableParameters:
    """Numbers of a model's parameters.

    Attributes:
        trained: Those that training changes.
        total: All.
    """

    trained: int
    total: int


def count_parameters(model: nn.Module) -> TrainableParameters:
    """Count a model's parameters.

    Args:
        model: The model.

    Returns:
        How many are trained, and how many there are.
    """
    numbers = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return TrainableParameters(sum(n for n, trained in numbers if trained), sum(n for n, _ in numbers))


def freeze_parameters(model: nn.Module, patterns: Iterable[str]) -> None:
    """Keep parameters as they are in training.

    Args:
        model: The model, changed in place.
        patterns: Shell patterns of parameter names (`*embeddings*`, `0.text_encoder.*`); `model.named_parameters()` lists
            the names.

    Raises:
        ValueError: If a pattern matches no parameter, or nothing is left to train.
    """
    named = list(model.named_parameters())
    for pattern in patterns:
        matched = [parameter for name, parameter in named if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            examples = ", ".join(name for name, _ in named[:3])
            raise ValueError(f"No parameter matches {pattern!r}. Names look like {examples}.")
        for parameter in matched:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for _, parameter in named):
        raise ValueError("All parameters are frozen; nothing is left to train.")


def add_lora(
    model: nn.Module, rank: int, *, alpha: int | None = None, dropout: float = 0.0, targets: Iterable[str] | None = None
) -> None:
    """Freeze every backbone of a model and put low-rank adapters beside its linear layers (LoRA, arXiv 2106.09685).

    Other modules, such as a dual model's `Dense`, are trained as before.

    Args:
        model: The model, changed in place.
        rank: The rank of the adapters.
        alpha: Their scale times the rank; twice the rank by default.
        dropout: The probability of their dropout.
        targets: Endings of the names of the layers; by default all linear layers of the encoder.

    Raises:
        ImportError: If peft is not installed.
        ValueError: If the rank is below 1, or a model has no backbone of transformers.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise ImportError('LoRA needs peft: pip install "instructor-st[peft]".') from None
    if rank < 1:
        raise ValueError(f"The rank must be 1 or more, not {rank}.")
    backbones = _find_backbones(model)
    if not backbones:
        raise ValueError("The model has no backbone of transformers to put adapters into.")
    for backbone in backbones:
        backbone.add_adapter(
            LoraConfig(
                r=rank,
                lora_alpha=alpha if alpha is not None else 2 * rank,
                lora_dropout=dropout,
                target_modules=list(targets) if targets is not None else "all-linear",
            )
        )


def has_lora(model: nn.Module) -> bool:
    """Tell whether a model has adapters.

    Args:
        model: The model.

    Returns:
        Whether any of its backbones has.
    """
    return any(getattr(backbone, "_hf_peft_config_loaded", False) for backbone in _find_backbones(model))


def merge_lora(model: nn.Module) -> None:
    """Add the adapters to the weights that they stand beside, and take them away: the model is an ordinary one again.

    Args:
        model: The model, changed in place; one without adapters stays as it is.
    """
    for backbone in _find_backbones(model):
        if not getattr(backbone, "_hf_peft_config_loaded", False):
            continue
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [(name, layer) for name, layer in backbone.named_modules() if isinstance(layer, BaseTunerLayer)]
        for name, layer in layers:
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, layer.get_base_layer())
        backbone._hf_peft_config_loaded = False
        del backbone.peft_config
        backbone.requires_grad_(True)


def _find_backbones(model: nn.Module) -> list[PreTrainedModel]:
    """The outermost transformers models, each once."""
    from transformers import PreTrainedModel

    found: list[PreTrainedModel] = []

    def visit(module: nn.Module) -> None:
        if isinstance(module, PreTrainedModel):
            if all(module is not other for other in found):
                found.append(module)
            return
        for child in module.children():
            visit(child)

    visit(model)
    return found
