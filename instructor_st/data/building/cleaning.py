"""Examples cleaned: blank, over-long, trivial, repeated, foreign and forbidden ones are left out and counted."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar, cast

from instructor_st.data.building.contamination import EvaluationTexts, normalize_text
from instructor_st.data.building.examples import ClassText, Example, InputOutput, ScoredPair, TextPair
from instructor_st.data.building.near_duplicate_index import NearDuplicateIndex

__all__ = ["clean_examples"]

ExampleT = TypeVar("ExampleT", bound=Example)

_MIN_LANGUAGE_CHARACTERS = 20
_MAX_LANGUAGE_CHARACTERS = 2000
# Terse English of 20 to 40 characters is often taken for another language (16 of 100 texts); this loses 3 of 100, and
# keeps 2 of 100 that are foreign.
_MIN_PROBABILITY = 0.05
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def clean_examples(
    examples: Iterable[ExampleT],
    *,
    max_characters: int,
    language: str | None,
    near_duplicates: float | None,
    forbidden: EvaluationTexts | None,
    report: Counter[str],
) -> Iterator[ExampleT]:
    """Leave out the examples that must not be trained on; the order stays, and one at a time is held.

    Texts are compared after `normalize_text`. Each example left out is counted once, under the first of these reasons:

    - `left out: blank text`, `left out: text with a lone surrogate` (it has no UTF-8, so that no tokenizer and no file
      takes it), `left out: text over N characters`: any of its texts, though a hard negative that is blank or has a lone
      surrogate is only removed from its row;
    - `left out: query and positive alike`: also the two texts of a scored pair, but not an input that is its own output;
    - `left out: text of evaluation set NAME`: any of its texts but hard negatives, which are only removed; the set is that
      of the first such text;
    - `left out: not in language 'en'`: by py3langid on the longest text that is no hard negative. Texts below 20 characters
      are always kept, since nothing can be told from them, and so are texts whose language is in doubt;
    - `left out: exact duplicate`: all texts and the label are an earlier example's. The order of the texts of a pair does
      not matter, that of input and output does;
    - `left out: text with another label before`: the first label stands, since without a reason to trust one more than the
      other this keeps the class text, and what is kept does not depend on what comes later in a stream;
    - `left out: pair with another score before`: likewise;
    - `left out: near duplicate`: query and positive (a pair's texts, input and output, the class text) are both near an
      earlier kept example's, see `NearDuplicateIndex`. Labels, scores and hard negatives do not matter here.

    Hard negatives are removed, and counted as `negative left out: ...`, if they are blank, have a lone surrogate, equal
    the query or the positive or another one of the row, or are of an evaluation set. A row that loses all stays a pair.

    Args:
        examples: The examples.
        max_characters: The longest text.
        language: The language to keep (ISO 639-1), or nothing for all.
        near_duplicates: From which similarity on an example is a near duplicate, or nothing to keep them.
        forbidden: The texts of evaluation sets.
        report: Receives the counts.

    Returns:
        The kept examples, as they are read.

    Raises:
        ImportError: If py3langid or datasketch is needed and not installed.
        ValueError: If the language is unknown or `near_duplicates` is out of range.
    """
    checks = [
        _find_unusable_text(max_characters),
        _find_alike_texts,
        _find_evaluation_text(forbidden),
        _find_other_language(language),
    ]
    seen = _SeenExamples(near_duplicates)
    return _clean(examples, checks, seen, forbidden, report)


_Check = Callable[[Example], str | None]
"""Says why an example is left out, or nothing."""


def _clean(
    examples: Iterable[ExampleT],
    checks: Iterable[_Check],
    seen: _SeenExamples,
    forbidden: EvaluationTexts | None,
    report: Counter[str],
) -> Iterator[ExampleT]:
    for example in examples:
        negatives_left_out: Counter[str] = Counter()
        if isinstance(example, TextPair) and example.negatives:
            example = cast("ExampleT", _remove_negatives(example, forbidden, negatives_left_out))
        reason = next((reason for check in (*checks, seen.add) if (reason := check(example))), None)
        if reason:
            report[f"left out: {reason}"] += 1
        else:
            report.update(negatives_left_out)
            yield example


def _remove_negatives(pair: TextPair, forbidden: EvaluationTexts | None, removed: Counter[str]) -> TextPair:
    taken = {normalize_text(pair.query), normalize_text(pair.positive)}
    own = frozenset(taken)
    kept = []
    for negative in pair.negatives:
        normalized = normalize_text(negative)
        if reason := _find_bad_text(negative):
            removed[f"negative left out: {reason}"] += 1
        elif normalized in own:
            removed["negative left out: text of the query or the positive"] += 1
        elif normalized in taken:
            removed["negative left out: twice in its row"] += 1
        elif forbidden is not None and (name := forbidden.find(negative)) is not None:
            removed[f"negative left out: text of evaluation set {name}"] += 1
        else:
            taken.add(normalized)
            kept.append(negative)
    return replace(pair, negatives=tuple(kept))


def _find_bad_text(text: str) -> str | None:
    if not text.strip():
        return "blank text"
    if _LONE_SURROGATE.search(text):
        return "text with a lone surrogate"
    return None


def _find_unusable_text(max_characters: int) -> _Check:
    def check(example: Example) -> str | None:
        for text in example.texts:
            if reason := _find_bad_text(text):
                return reason
        if any(len(text) > max_characters for text in example.texts):
            return f"text over {max_characters} characters"
        return None

    return check


def _find_alike_texts(example: Example) -> str | None:
    # Inputs are paired with each other, not with their outputs, so a copied input does no harm.
    if isinstance(example, (TextPair, ScoredPair)):
        first, second = _normalize_own_texts(example)
        return "query and positive alike" if first == second else None
    return None


def _find_evaluation_text(forbidden: EvaluationTexts | None) -> _Check:
    def check(example: Example) -> str | None:
        if forbidden is None:
            return None
        names = (name for text in example.texts if (name := forbidden.find(text)) is not None)
        return next((f"text of evaluation set {name}" for name in names), None)

    return check


def _find_other_language(language: str | None) -> _Check:
    if language is None:
        return lambda example: None
    identifier = _load_language_identifier()
    known = sorted(identifier.labels)
    if language not in known:
        raise ValueError(f"Language {language!r} is unknown to py3langid. Known are {', '.join(known)}.")

    def check(example: Example) -> str | None:
        text = max(_own_texts(example), key=len)
        # The beginning tells as much as the whole of a long text, and takes less time.
        if len(text) < _MIN_LANGUAGE_CHARACTERS or _measure(text[:_MAX_LANGUAGE_CHARACTERS]) >= _MIN_PROBABILITY:
            return None
        return f"not in language {language!r}"

    def _measure(text: str) -> float:
        return float(dict(identifier.rank(text))[language])

    return check


def _load_language_identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ImportError('Telling languages needs py3langid: pip install "instructor-st[data]".') from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


class _SeenExamples:
    """Remembers the kept examples by their hashes, and their sketches for near duplicates."""

    def __init__(self, near_duplicates: float | None):
        kinds = (TextPair, ClassText, InputOutput, ScoredPair)
        self._near: dict[type, NearDuplicateIndex] = (
            {} if near_duplicates is None else {kind: NearDuplicateIndex(near_duplicates) for kind in kinds}
        )
        self._verdicts: dict[int, int] = {}

    def add(self, example: Example) -> str | None:
        """Remember an example, or say why an earlier one makes it superfluous."""
        texts, verdict = _identify(example)
        identity, verdict_hash = _hash(texts), _hash(verdict)
        if identity in self._verdicts:
            if self._verdicts[identity] == verdict_hash:
                return "exact duplicate"
            return (
                f"{'text with another label' if isinstance(example, ClassText) else 'pair with another score'} before"
            )
        index = self._near.get(type(example))
        any_order = not isinstance(example, InputOutput)
        if index is not None and not index.add(*_normalize_own_texts(example), any_order=any_order):
            return "near duplicate"
        self._verdicts[identity] = verdict_hash
        return None


def _own_texts(example: Example) -> tuple[str, ...]:
    """What makes an example the one it is: its texts but for the hard negatives."""
    return (example.query, example.positive) if isinstance(example, TextPair) else example.texts


def _normalize_own_texts(example: Example) -> tuple[str, ...]:
    return tuple(map(normalize_text, _own_texts(example)))


def _identify(example: Example) -> tuple[object, object]:
    """What two equal examples have in common, and what they must agree on not to contradict each other."""
    texts = _normalize_own_texts(example)
    if isinstance(example, ClassText):
        return texts, normalize_text(example.label)
    if isinstance(example, InputOutput):
        return texts, None
    if isinstance(example, ScoredPair):
        return sorted(texts), float(example.score)
    label = None if example.label is None else normalize_text(example.label)
    return (sorted(texts), sorted(map(normalize_text, example.negatives)), label), None


def _hash(value: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(value).encode(), digest_size=8).digest(), "little")
