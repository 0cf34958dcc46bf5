from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from instructor_st.data import Row, build_train_dataset
from instructor_st.data.augmentation.augment_rows import augment_rows, count_repeats, normalize_text
from instructor_st.data.embedding_cache import Scorer
from instructor_st.pairs import InstructedText

QUERY, DOCUMENT = "Represent the question: ", "Represent the answer: "


def make_row(query="how old is the cat", positive="it is 3 years old", *, negatives=(), label=None, task="t") -> Row:
    texts = tuple(InstructedText(DOCUMENT, text) for text in negatives)
    return Row(InstructedText(QUERY, query), InstructedText(DOCUMENT, positive), texts, task, label)


def record(candidates: dict[str, list[str]]):
    """A generator that answers from a dict, and the texts that it was asked."""
    asked: list[list[str]] = []

    def generate(texts: list[str]) -> list[list[str]]:
        asked.append(texts)
        return [candidates.get(text, []) for text in texts]

    return generate, asked


def score(angles: dict[str, float]) -> Scorer:
    """Vectors in the plane, in degrees, of different lengths; a text without an angle stands at 0."""

    def embed(texts: list[str]) -> np.ndarray:
        degrees = np.radians([angles.get(text, 0.0) for text in texts])
        return np.stack([np.cos(degrees), np.sin(degrees)], axis=1) * np.arange(2, len(texts) + 2)[:, None]

    return Scorer(embed=embed, identity="angles")


def augment(rows, candidates, **options):
    report: Counter[str] = Counter()
    options = {"scorer": None, "report": report, **options}
    return list(augment_rows(rows, record(candidates)[0], **options)), report


def reject(candidate: str, row: Row | None = None, **options) -> str | None:
    """Why the query's candidate is rejected, or None."""
    row = row or make_row()
    options = {"sides": ("query",), **options}
    new, report = augment([row], {row.query.text: [candidate]}, **options)
    reasons = [
        name.removeprefix("rejected: ") for name, count in report.items() if count and name.startswith("rejected")
    ]
    assert len(new) + len(reasons) == 1
    assert report["candidates"] == 1
    return reasons[0] if reasons else None


def test_one_text_is_replaced_and_all_else_stays():
    row = make_row(negatives=("a dog", "a bird"), label="age", task="cats")
    candidates = {
        "how old is the cat": ["what age is the cat", "the cat's age"],
        "it is 3 years old": ["3 years old", "it has 3 years"],
    }
    new, report = augment([row], candidates)
    assert new == [
        make_row("what age is the cat", negatives=("a dog", "a bird"), label="age", task="cats"),
        make_row(positive="3 years old", negatives=("a dog", "a bird"), label="age", task="cats"),
    ]
    assert report == Counter(
        {
            "rows": 1,
            "new rows": 2,
            "new rows: query replaced": 1,
            "new rows: positive replaced": 1,
            "candidates": 4,
            "not needed: the row has its new rows": 2,
        }
    )
    new, _ = augment([row], candidates, num_augments=9, include_originals=True)
    assert [(each.query.text, each.positive.text) for each in new] == [
        ("how old is the cat", "it is 3 years old"),
        ("what age is the cat", "it is 3 years old"),
        ("how old is the cat", "3 years old"),
        ("the cat's age", "it is 3 years old"),
        ("how old is the cat", "it has 3 years"),
    ]
    new, report = augment([row], candidates, sides=("positive",), num_augments=1)
    assert new == [make_row(positive="3 years old", negatives=("a dog", "a bird"), label="age", task="cats")]
    assert report["candidates"] == 2


def test_one_side_gives_all_if_the_other_has_none():
    new, report = augment(
        [make_row(), make_row("b", "c")], {"how old is the cat": ["what age is the cat", "cat's age"]}
    )
    assert [each.query.text for each in new] == ["what age is the cat", "cat's age"]
    assert report["rows"] == 2
    assert report["rows without a new row"] == 1
    assert report["texts without a candidate"] == 3


def test_new_rows_are_not_negatives_of_their_original():
    """Without a label the trainer joins rows that share a text."""
    rows = [make_row(), make_row("where is the dog", "in the house")]
    candidates = {"how old is the cat": ["cat's age please"], "it is 3 years old": ["aged 3 years"]}
    new, _ = augment(rows, candidates, include_originals=True)
    assert len(new) == 4
    assert build_train_dataset({"t": new})["t"]["label"] == [0, 0, 0, 1]


def test_forms_of_the_same_text_are_no_new_text():
    assert reject("What age is the cat?") is None
    assert reject(" \n") == "blank"
    assert reject("?!") == "blank"
    for candidate in (
        "how old is the cat",
        "How  old is\nthe CAT?",
        "how old is the \uff43\uff41\uff54 …",
        " how old is the cat! ",
    ):
        assert reject(candidate) == "same as the original", candidate
    row = make_row(negatives=("How old is the dog", "When was the cat born?"))
    assert reject("when was the cat born", row) == "same as a negative"
    assert reject("It is 3 years old.", row) == "same as the row's other text"
    assert reject("It is 3 years old.", row, forbidden={"it is 3 years old"}) == "same as the row's other text"
    assert reject("What age is the cat?", row, forbidden={"what age is the cat"}) == "forbidden"
    assert reject("What age is the dog?", row, forbidden={"what age is the cat"}) is None


def test_copies_of_a_candidate_count_once():
    candidates = ["what age is the cat", "What age is the cat?", "the cat's age", "too 4 good", "Too 4 good."]
    new, report = augment([make_row()], {"how old is the cat": candidates}, num_augments=5)
    assert [each.query.text for each in new] == ["what age is the cat", "the cat's age"]
    assert report["rejected: same as another candidate"] == 2
    assert report["rejected: numbers lost or changed"] == 1
    # Two rows may have the same candidate.
    new, _ = augment([make_row(), make_row(positive="3")], {"how old is the cat": ["what age is the cat"]})
    assert len(new) == 2


def test_white_space_around_a_candidate_goes():
    new, _ = augment([make_row()], {"how old is the cat": ["\n what age is the cat "]})
    assert new[0].query.text == "what age is the cat"


def test_lengths():
    # The original has 18 characters: 9 to 36 are allowed.
    assert len(make_row().query.text) == 18
    assert reject("x" + "yz" * 3 + "w") == "too short"
    assert reject("cat's age") is None
    assert reject("and now tell me please, the cat: age") is None
    assert reject("and now tell me please, the cats: age") == "too long"
    assert reject("cat's age", min_length_ratio=0.51) == "too short"
    assert reject("what age is the cat", max_length_ratio=1.05) == "too long"


def test_numbers_are_kept_as_they_are():
    row = make_row("from 3 to 12 May 2024, 3 days")
    assert reject("3 days, 3 May to 12 May 2024", row) is None
    assert reject("3 days, \uff13 May to 12 May 2024", row) is None
    assert reject("3 days, May to 12 May 2024", row) == "numbers lost or changed"
    assert reject("3 days, 3 May to 13 May 2024", row) == "numbers lost or changed"
    assert reject("3 days, 3 3 May to 12 May 2024", row) == "numbers lost or changed"
    assert reject("how old are the 2 cats") == "numbers lost or changed"


def test_broken_output():
    assert reject("cat cat cat is old how") == "repeats itself"
    assert reject("what age, what age, what age is") == "repeats itself"
    assert reject("what age, what age, the cat") is None
    assert reject("how ooooold is the cat") == "repeats itself"
    assert reject("how oooold is the cat") is None
    assert reject("the cat - - - - - - - age") == "repeats itself"
    assert reject("it's the cat's age...") is None
    # What the original repeats may be repeated, and no more.
    row = make_row("no no no, the caaaaat")
    assert reject("no, no, no, a caaaaaat", row) is None
    assert reject("no no no no the caaaaat", row) == "repeats itself"


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 1), ("a", 1), ("a b a b", 2), ("a b a", 1), ("x a b a b a b y", 3), ("A, a. a!", 3), ("a a b b b", 3)],
)
def test_count_repeats(text, count):
    assert count_repeats(text) == count


def test_a_run_of_twelve_words_is_seen():
    run = " ".join("abcdefghijkl")
    assert count_repeats(f"{run} {run} {run}") == 3
    assert count_repeats(f"m {run} m {run} m {run}") == 1


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("  The\tCAT? ", "the cat"),
        ("ﬁne…", "fine"),
        ("C#", "c#"),
        ("a.b", "a.b"),
        ("猫。", "猫"),
        ("Straße", "strasse"),
    ],
)
def test_normalize_text(text, form):
    assert normalize_text(text) == form


def test_meaning():
    # cos 31 degrees is 0.857, cos 32 is 0.848.
    scorer = score({"what age is the cat": 31, "how cold is the cat": 32, "how old the cat is": 1})
    assert reject("what age is the cat", scorer=scorer) is None
    assert reject("how cold is the cat", scorer=scorer) == "too far from the original"
    assert reject("how cold is the cat", scorer=scorer, min_similarity=0.84) is None
    assert reject("how old the cat is", scorer=scorer) is None
    assert reject("how old the cat is", scorer=scorer, max_similarity=0.99) == "too near to the original"
    assert reject("what age is the cat", scorer=scorer, max_similarity=0.99) is None
    assert reject("has 0 degrees, too", make_row("it has 0 degrees"), scorer=scorer) is None


def test_a_candidate_is_nearer_to_the_original_than_to_any_negative():
    row = make_row(negatives=("far", "near"))
    angles = {"far": 90, "near": 40, "what age is the cat": 19}
    assert reject("what age is the cat", row, scorer=score(angles)) is None
    angles["what age is the cat"] = 21
    assert reject("what age is the cat", row, scorer=score(angles)) == "nearer to a negative than to the original"
    # As near to a negative as to the original is not nearer: both stand at 0.
    assert (
        reject("what age is", make_row(negatives=("n",)), scorer=score({}))
        == "nearer to a negative than to the original"
    )


def test_many_rows_are_judged_each_by_their_own_texts():
    rows = [make_row(f"query {number}", f"positive {number}", negatives=("n",) * (number % 3)) for number in range(7)]
    candidates = {f"query {number}": [f"{number} asked", f"{number} bad"] for number in range(7)}
    candidates |= {f"positive {number}": [f"{number} answer"] for number in range(0, 7, 2)}
    angles = {"n": 120.0}
    for number in range(7):
        angles |= {
            f"query {number}": 10 * number,
            f"{number} asked": 10 * number + 20,
            f"{number} bad": 10 * number - 50,
        }
        angles |= {f"positive {number}": -20 * number, f"{number} answer": -20 * number}
    outcomes = []
    for chunk_size in (1, 3, 256):
        report: Counter[str] = Counter()
        generate, asked = record(candidates)
        outcomes.append(list(augment_rows(rows, generate, scorer=score(angles), chunk_size=chunk_size, report=report)))
        assert len(asked) == -(-7 // chunk_size)
        assert report["rejected: too far from the original"] == 7
        assert report["new rows"] == 11
    assert outcomes[0] == outcomes[1] == outcomes[2]
    queries = [row.query.text for row in outcomes[0]]
    assert queries == [
        *("0 asked", "query 0", "1 asked", "2 asked", "query 2", "3 asked", "4 asked", "query 4"),
        *("5 asked", "6 asked", "query 6"),
    ]
    assert [len(row.negatives) for row in outcomes[0]] == [0, 0, 1, 2, 2, 0, 1, 1, 2, 0, 0]


def test_a_text_is_generated_for_once_a_chunk():
    generate, asked = record({})
    assert list(augment_rows([make_row(), make_row(positive="how old is the cat")], generate, scorer=None)) == []
    assert asked == [["how old is the cat", "it is 3 years old"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_augments": 0}, "num_augments and chunk_size must be 1 or more, not 0 and 256"),
        ({"chunk_size": 0}, "not 2 and 0"),
        ({"sides": ()}, "sides must be query, positive or both"),
        ({"sides": ("query", "query")}, "sides must be"),
        ({"sides": ("negative",)}, r"not \['negative'\]"),
        ({"min_similarity": 0.9, "max_similarity": 0.8}, "in order, not 0.9, 0.8"),
        ({"min_similarity": -1.1}, "from -1 to 1"),
        ({"max_similarity": 1.1}, "from -1 to 1"),
        ({"min_length_ratio": 0}, "above 0"),
        ({"min_length_ratio": 3.0}, r"in order, not 3\.0, 2\.0"),
    ],
)
def test_options_out_of_range_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        augment_rows([], record({})[0], scorer=None, **options)
