"""Small tasks for instruction finetuning. The form of a text decides, and a plain encoder goes by its topic."""

from __future__ import annotations

from sentence_transformers import SentenceTransformer

from instructor_st.data import LabelledTexts
from instructor_st.training import FinetuneResult, FinetuneSettings, finetune_instructions

SUBJECTS = ("rain", "snow", "fog", "storms", "hail", "bread", "soup", "pasta", "fish", "salt", "pears", "a cold wind")
QUESTIONS = tuple(f"{('Will there be', 'Do you like')[n % 2]} {each}?" for n, each in enumerate(SUBJECTS))
STATEMENTS = tuple(f"{('There will be', 'I like')[n % 2]} {each}." for n, each in enumerate(SUBJECTS))
TEXTS = tuple(text for pair in zip(QUESTIONS, STATEMENTS, strict=True) for text in pair)
NEW_QUESTIONS = ("Is there any cheese left?", "Has the sun come out?")
NEW_STATEMENTS = ("There is some cheese left.", "The sun has come out.")
INSTRUCTION = "Represent the sentence: "
# Enough for these tasks to be learned, and no more.
QUICK = {"max_epochs": 32, "batch_size": 8, "learning_rate": 1e-3, "folds": 2}


def label_texts(kind: str, labels: tuple) -> LabelledTexts:
    return LabelledTexts(kind, TEXTS, ((),) * len(TEXTS), labels, {})


def make_classes() -> LabelledTexts:
    return label_texts("classes", ("question", "statement") * len(SUBJECTS))


def make_label_sets() -> LabelledTexts:
    """The form, and food where it is."""
    foods = [("food",) if 5 <= SUBJECTS.index(subject) < 11 else () for subject in SUBJECTS for _ in range(2)]
    return label_texts("label_sets", tuple((("question", "statement")[n % 2], *food) for n, food in enumerate(foods)))


def make_values() -> LabelledTexts:
    """About 1 for a question, about 5 for a statement."""
    return label_texts("values", tuple((1.0, 5.0)[n % 2] + n / 100 for n in range(len(TEXTS))))


def make_pairs(kind: str, high: float) -> LabelledTexts:
    """Two texts of one form about different things, and of different forms about the same thing, which count 0."""
    count = len(SUBJECTS)
    rows = [(side[n], side[(n + 1) % count], high) for side in (QUESTIONS, STATEMENTS) for n in range(count)]
    rows += [(QUESTIONS[n], STATEMENTS[n], 0.0) for n in range(count)]
    rows += [(STATEMENTS[n], QUESTIONS[n], 0.0) for n in range(count)]
    firsts, seconds, numbers = zip(*rows, strict=True)
    return LabelledTexts(kind, firsts, tuple((each,) for each in seconds), numbers, {})


def make_scores() -> LabelledTexts:
    return make_pairs("scores", 5.0)


def make_matches() -> LabelledTexts:
    return make_pairs("matches", 1.0)


def make_answers() -> LabelledTexts:
    """What fits the words better is the negative."""
    queries = tuple(f"Will there be {each}?" for each in SUBJECTS)
    documents = tuple((f"Someone once hated {each}.", f"There will be {each}.") for each in SUBJECTS)
    return LabelledTexts("answers", queries, documents, (), {})


def tune(
    model: SentenceTransformer,
    rows: LabelledTexts,
    name: str = "form",
    *,
    document_instruction: str | None = None,
    instruction: str = INSTRUCTION,
    **settings,
) -> FinetuneResult:
    return finetune_instructions(
        model,
        rows,
        name=name,
        instruction=instruction,
        document_instruction=document_instruction,
        settings=FinetuneSettings(**{**QUICK, **settings}),
        show_progress_bar=False,
    )
