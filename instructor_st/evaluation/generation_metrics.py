"""How near a generated text is to the wanted one."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["compute_exact_match", "compute_rouge_l", "find_longest_common_subsequence"]

_WORD = re.compile(r"[^\W_]+")


def compute_rouge_l(candidate: str, reference: str) -> float:
    """Compute ROUGE-L, the F-measure of the longest common subsequence of words.

    With c and r words and a common subsequence of l: precision l / c, recall l / r, and their harmonic mean (Lin 2004,
    "ROUGE: A Package for Automatic Evaluation of Summaries", section 3, with beta = 1). Words are runs of letters and
    digits, in small letters; they are not stemmed.

    Args:
        candidate: The generated text.
        reference: The wanted text.

    Returns:
        0 to 1; 0 where either has no word, unless both have none.
    """
    first, second = (_WORD.findall(text.lower()) for text in (candidate, reference))
    if not first or not second:
        return float(first == second)
    common = find_longest_common_subsequence(first, second)
    return 2 * common / (len(first) + len(second))


def find_longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence.

    Args:
        first: Words.
        second: Words.

    Returns:
        Its length.
    """
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, 1):
            above = row[place]
            row[place] = diagonal + 1 if word == other else max(above, row[place - 1])
            diagonal = above
    return row[-1]


def compute_exact_match(candidate: str, reference: str) -> float:
    """Tell whether two texts are the same but for case, spaces at the ends and a full stop.

    Args:
        candidate: The generated text.
        reference: The wanted text.

    Returns:
        1 or 0.
    """
    first, second = (text.strip().rstrip(".").lower() for text in (candidate, reference))
    return float(first == second)
