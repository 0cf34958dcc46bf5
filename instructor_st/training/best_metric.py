"""Which model is the best: settings of a training run that leave that without an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping

from transformers import TrainingArguments

__all__ = ["BestMetricError", "check_best_metric", "check_evaluations"]

_PREFIX = "eval_"


class BestMetricError(ValueError):
    """A best model that cannot be told; the message names the setting, its value and the possible ones."""


def check_evaluations(args: TrainingArguments, *, has_evaluator: bool = True) -> None:
    """Refuse to look for a best model where nothing is evaluated, and to evaluate where there is nothing to do it with.

    transformers keeps the last model then (or none, with `save_strategy="best"`), without a word.

    Args:
        args: The settings.
        has_evaluator: Whether there is something to evaluate with.

    Raises:
        BestMetricError: If it is so.
    """
    wants_best = _name_what_wants_best(args)
    if wants_best and args.eval_strategy == "no":
        raise BestMetricError(
            f"{wants_best} needs evaluations to tell the best model, and eval_strategy is no; set it to steps or epoch."
        )
    if args.eval_strategy != "no" and not has_evaluator:
        raise BestMetricError(
            f"eval_strategy is {getattr(args.eval_strategy, 'value', args.eval_strategy)}, and there are no held-out rows "
            "to evaluate with. Hold some out (held_out_share, max_held_out_per_task, or a folder held_out beside train), or "
            "set eval_strategy to no" + (f" and leave {wants_best} out." if wants_best else ".")
        )


def check_best_metric(args: TrainingArguments, metrics: Mapping[str, float], *, needs_value: bool = False) -> None:
    """Refuse a `metric_for_best_model` that the evaluations do not give.

    Args:
        args: The settings.
        metrics: What an evaluation gives, by name, with the prefix `eval_` or without.
        needs_value: Refuse one that is NaN, too: nothing is better than that.

    Raises:
        BestMetricError: If it is not among them.
    """
    if args.metric_for_best_model is None or args.eval_strategy == "no":
        return
    values = {_add_prefix(name): value for name, value in metrics.items()}
    wanted = _add_prefix(args.metric_for_best_model)
    usable = [name for name, value in values.items() if not (needs_value and _is_nan(value))]
    if wanted in usable:
        return
    fault = "is NaN for these held-out rows (accuracy needs hard negatives)" if wanted in values else "is not evaluated"
    raise BestMetricError(f"metric_for_best_model: {wanted!r} {fault}; there are {', '.join(usable) or 'none'}.")


def _name_what_wants_best(args: TrainingArguments) -> str:
    if args.load_best_model_at_end:
        return "load_best_model_at_end"
    return "save_strategy best" if args.save_strategy == "best" else ""


def _add_prefix(name: str) -> str:
    return name if name.startswith(_PREFIX) else f"{_PREFIX}{name}"


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
