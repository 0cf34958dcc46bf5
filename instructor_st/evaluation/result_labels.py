"""How models, tasks, metrics and numbers are written in tables and plots."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

__all__ = ["escape_markdown", "format_duration", "format_metric", "format_number", "shorten_names", "wrap_label"]

_METRICS = {
    "accuracy": "accuracy",
    "ap": "average precision",
    "cosine_ap": "average precision",
    "cosine_pearson": "Pearson correlation",
    "cosine_spearman": "Spearman correlation",
    "f1": "F1",
    "main_score": "main score",
    "map": "MAP",
    "map_at_1000": "MAP@1000",
    "max_ap": "maximal AP",
    "mean_reciprocal_rank": "mean reciprocal rank",
    "mrr": "MRR",
    "mrr_at_10": "MRR@10",
    "ndcg_at_10": "nDCG@10",
    "p-MRR": "p-MRR",
    "pearson": "Pearson correlation",
    "rouge_l": "ROUGE-L",
    "spearman": "Spearman correlation",
    "v_measure": "V-measure",
}
# Folders of a training run, whose names say nothing of the model.
_STAGE = re.compile(r"final|best|last|model|checkpoint-\d+")


def shorten_names(models: Sequence[str], *, names: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give models names to be shown: as few of a path's last parts as tell them apart, `final` and the like never alone.

    Args:
        models: Names or folders.
        names: Names that the user wants.

    Returns:
        The name of each model.

    Raises:
        ValueError: If two models are to be shown by the same name.
    """
    parts = {model: [part for part in re.split(r"[\\/]+", model) if part] or [model] for model in models}
    found: dict[str, str] = {}
    for model in models:
        for count in range(1, len(parts[model]) + 1):
            tail = parts[model][-count:]
            unlike = all(other == model or each[-count:] != tail for other, each in parts.items())
            if unlike and not _STAGE.fullmatch(tail[0]):
                break
        found[model] = "/".join(tail)
    found |= {model: name for model, name in (names or {}).items() if model in found}
    for model, name in found.items():
        if same := [other for other in found if other != model and found[other] == name]:
            raise ValueError(f"The models {model!r} and {same[0]!r} are both to be shown as {name!r}; name them apart.")
    return found


def format_number(value: float, *, signed: bool = False) -> str:
    """Write a value with three decimals, or one from 10 on (`0.812`, `-0.004`, `27.3`)."""
    digits = 3 if abs(value) < 10 else 1
    # Rounding first, and adding zero, so that nothing is written as -0.000.
    return f"{round(value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"


def format_duration(seconds: float) -> str:
    """Write a time (`4.2 s`, `42 s`, `3 min 5 s`, `1 h 12 min`)."""
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    whole = math.floor(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_metric(metric: str) -> str:
    """Write a metric's name out (`ndcg_at_10` is `nDCG@10`)."""
    return _METRICS.get(metric, re.sub(r"_at_(\d+)$", r"@\1", metric).replace("_", " "))


def escape_markdown(text: str) -> str:
    """Escape what Markdown would take for its own in a table's cell; line breaks become spaces."""
    text = re.sub(r"([\\|*`\[\]])", r"\\\1", " ".join(text.split())).replace("<", "&lt;")
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def wrap_label(text: str, width: int) -> str:
    """Break a label into lines, after spaces, `_`, `-`, `/` and before capitals; a longer piece is cut.

    Args:
        text: The label.
        width: The most characters in a line.

    Returns:
        The lines, joined by line feeds; no character but spaces at the ends of lines is lost.
    """
    pieces = re.findall(r"[^\s_/-]*[\s_/-]+|[^\s_/-]+", " ".join(text.split()))
    lines = [""]
    for piece in pieces:
        if len((lines[-1] + piece).rstrip()) <= width:
            lines[-1] += piece
            continue
        # A word is broken only if it does not fit into a line of its own.
        parts = [piece] if len(piece.rstrip()) <= width else _cut(piece, width)
        lines += parts
    return "\n".join(stripped for line in lines if (stripped := line.strip()))


def _cut(piece: str, width: int) -> list[str]:
    """Cut a long word before capitals where that fits, else anywhere."""
    lines = [""]
    for part in re.split(r"(?<=[a-z0-9])(?=[A-Z])", piece):
        if len((lines[-1] + part).rstrip()) <= width:
            lines[-1] += part
        else:
            lines += [part[start : start + width] for start in range(0, len(part), width)]
    return lines
