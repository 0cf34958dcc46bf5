"""What the mining of hard negatives can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

__all__ = ["FAISS_CORPUS_SIZE", "MiningOptions"]

FAISS_CORPUS_SIZE = 20_000
"""With more candidates than this a task is searched with FAISS, where it is installed and nothing else is said."""


def _option(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class MiningOptions:
    """How hard negatives are chosen; the names and rules are those of `mine_hard_negatives`.

    Candidates are ranked by their similarity to the query. Those that a margin or a score limit refuses are taken out,
    the first `range_min` of the others are passed over (they may be right answers that nobody marked), and the
    negatives come from what is left up to rank `range_max`.

    Attributes:
        num_negatives: Negatives that each row shall have, present ones included.
        range_min: How many of the most similar candidates to pass over.
        range_max: How many of the most similar candidates to look at.
        relative_margin: Refuse candidates less than this share of the positive's similarity below it.
        absolute_margin: Refuse candidates less than this below the positive's similarity.
        max_score: Refuse candidates more similar than this.
        min_score: Refuse candidates less similar than this.
        sampling_strategy: `top` takes the most similar ones, `random` draws.
        faiss: Whether to search with FAISS; by default where it is installed and a task has over 20,000 candidates.
        batch_size: Texts that are embedded at once.
        seed: Of the draws.
        keep_existing: Whether the negatives that a row has stay, before the new ones; otherwise they are replaced.
        drop_incomplete: Whether to leave out rows that end up with fewer negatives than wanted.
    """

    num_negatives: int = _option(5, "Negatives that each row shall have, present ones included.")
    range_min: int = _option(10, "How many of the most similar candidates to pass over.")
    range_max: int = _option(100, "How many of the most similar candidates to look at.")
    relative_margin: float | None = _option(
        0.05, "Refuse candidates less than this share of the positive's similarity below it."
    )
    absolute_margin: float | None = _option(None, "Refuse candidates less than this below the positive's similarity.")
    max_score: float | None = _option(None, "Refuse candidates more similar than this.")
    min_score: float | None = _option(None, "Refuse candidates less similar than this.")
    sampling_strategy: Literal["top", "random"] = _option("top", "top takes the most similar ones, random draws.")
    faiss: bool | None = _option(
        None, "Search with FAISS; if not given, where it is installed and a task has over 20,000 candidates."
    )
    batch_size: int = _option(32, "Texts that are embedded at once.")
    seed: int = _option(0, "Of the draws.")
    keep_existing: bool = _option(True, "Keep the negatives that a row has, before the new ones.")
    drop_incomplete: bool = _option(False, "Leave out rows that end up with fewer negatives than wanted.")

    def __post_init__(self) -> None:
        for name, least in (("num_negatives", 1), ("range_min", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}.")
        if self.range_max - self.range_min < self.num_negatives:
            raise ValueError(
                f"range_min={self.range_min} and range_max={self.range_max} leave {self.range_max - self.range_min} "
                f"candidates a query, and num_negatives={self.num_negatives}. Raise range_max or lower range_min."
            )
        for name in ("relative_margin", "absolute_margin"):
            if (margin := getattr(self, name)) is not None and margin < 0:
                raise ValueError(f"{name} must be 0 or more, not {margin}; leave it out for no margin.")
        if self.min_score is not None and self.max_score is not None and self.min_score > self.max_score:
            raise ValueError(f"min_score={self.min_score} is above max_score={self.max_score}.")
        if self.sampling_strategy not in ("top", "random"):
            raise ValueError(f"sampling_strategy must be 'top' or 'random', not {self.sampling_strategy!r}.")

    @property
    def has_limits(self) -> bool:
        """Whether a margin or a score limit can refuse a candidate."""
        limits = (self.relative_margin, self.absolute_margin, self.max_score, self.min_score)
        return any(limit is not None for limit in limits)

    def refuses(self, score: float, positive_score: float) -> bool:
        """Say whether a margin or a score limit refuses a candidate.

        Args:
            score: The candidate's score.
            positive_score: The positive's score; the lowest of several.

        Returns:
            Whether the candidate is out.
        """
        return (
            (self.absolute_margin is not None and score + self.absolute_margin > positive_score)
            or (
                self.relative_margin is not None and score > positive_score - abs(positive_score) * self.relative_margin
            )
            or (self.max_score is not None and score > self.max_score)
            or (self.min_score is not None and score < self.min_score)
        )

    def uses_faiss(self, candidates: int) -> bool:
        """Say whether a task is searched with FAISS.

        Args:
            candidates: How many candidates the task has.

        Returns:
            Whether it is.

        Raises:
            ImportError: If FAISS is asked for and not installed.
        """
        is_installed = find_spec("faiss") is not None
        if self.faiss and not is_installed:
            raise ImportError('FAISS is not installed: pip install "instructor-st[mining]", or leave faiss out.')
        return is_installed and candidates > FAISS_CORPUS_SIZE if self.faiss is None else self.faiss
