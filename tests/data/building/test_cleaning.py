from __future__ import annotations

import itertools
import json
import os
import random
import string
import subprocess
import sys
from collections import Counter

import pytest

from instructor_st.data.building.cleaning import clean_examples
from instructor_st.data.building.contamination import EvaluationTexts
from instructor_st.data.building.examples import ClassText, InputOutput, ScoredPair, TextPair
from instructor_st.data.building.near_duplicate_index import NearDuplicateIndex

CAT = "A cat sits on the window sill and looks at the birds."
DOG = "A dog sleeps under the kitchen table until the evening."
FOX = "A fox crosses the quiet road in the middle of the night."
GERMAN = "Der Zug nach Hamburg f\u00e4hrt heute leider erst um zehn Uhr ab."


def clean(*examples, **options):
    report = Counter()
    settings = {"max_characters": 20_000, "language": None, "near_duplicates": None, "forbidden": None, **options}
    return list(clean_examples(examples, **settings, report=report)), report


def random_text(seed, length):
    return "".join(random.Random(seed).choices(string.ascii_lowercase, k=length))


def change_end(text, count):
    """Change the last characters to others that stand nowhere else, and so as many shingles."""
    return text[:-count] + "".join(chr(0x4E00 + place) for place in range(count))


def test_good_examples_come_out_unchanged_and_in_order():
    examples = [
        TextPair(CAT, DOG, (FOX,), "animals", "f:1"),
        ClassText(CAT, "cat", "f:2"),
        InputOutput(CAT, "cat", "f:3"),
        ScoredPair(CAT, DOG, 2.5, "f:4"),
    ]
    forbidden = EvaluationTexts({"other": ["A text that stands nowhere else."]})
    assert clean(*examples, language="en", near_duplicates=0.9, forbidden=forbidden) == (examples, {})


@pytest.mark.parametrize(
    "example",
    [
        TextPair("", CAT),
        TextPair(CAT, " \n"),
        ClassText("\u00a0\u3000", "a"),
        InputOutput(CAT, ""),
        ScoredPair("", CAT, 1),
    ],
)
def test_blank_texts(example):
    assert clean(example) == ([], {"left out: blank text": 1})


def test_lone_surrogates():
    examples = [ClassText("broken \ud83d emoji", "a"), ClassText("whole \U0001f600 emoji", "a")]
    assert clean(*examples) == ([examples[1]], {"left out: text with a lone surrogate": 1})


def test_long_texts():
    examples = [TextPair("a" * 10, "b" * 11), TextPair("a" * 10, "b" * 10), TextPair("a", "b", ("c" * 11,))]
    assert clean(*examples, max_characters=10) == ([examples[1]], {"left out: text over 10 characters": 2})


def test_positive_that_is_the_query():
    examples = [TextPair("Caf\u00e9 au lait", "cafe\u0301  AU LAIT"), ScoredPair("A", "a ", 5.0), InputOutput(CAT, CAT)]
    assert clean(*examples) == ([examples[2]], {"left out: query and positive alike": 2})


def test_bad_negatives_are_removed_from_their_row():
    forbidden = EvaluationTexts({"other": [GERMAN], "test": [FOX]})
    negatives = ("good one", CAT.upper(), f" {DOG}", "\t", "Good  One", FOX.lower(), "half \udc00", "good two")
    kept, report = clean(TextPair(CAT, DOG, negatives, "c", "f:1"), forbidden=forbidden)
    assert kept == [TextPair(CAT, DOG, ("good one", "good two"), "c", "f:1")]
    assert report == {
        "negative left out: text of the query or the positive": 2,
        "negative left out: blank text": 1,
        "negative left out: twice in its row": 1,
        "negative left out: text of evaluation set test": 1,
        "negative left out: text with a lone surrogate": 1,
    }


def test_negatives_of_rows_left_out_are_not_counted():
    assert clean(TextPair("", DOG, ("",))) == ([], {"left out: blank text": 1})


def test_a_row_that_loses_all_negatives_stays():
    assert clean(TextPair(CAT, DOG, (CAT,)))[0] == [TextPair(CAT, DOG)]


@pytest.mark.parametrize(
    "example",
    [
        TextPair(CAT, FOX),
        TextPair(FOX, CAT),
        ClassText(FOX.upper(), "a"),
        InputOutput(FOX, "a"),
        ScoredPair(CAT, FOX, 1),
    ],
)
def test_texts_of_evaluation_sets(example):
    forbidden = EvaluationTexts({"test": [FOX, "short"]})
    short = ClassText("short", "a")
    assert clean(example, short, forbidden=forbidden) == ([short], {"left out: text of evaluation set test": 1})


def test_texts_of_several_evaluation_sets_count_for_the_first_texts_set():
    forbidden = EvaluationTexts({"zoo": [CAT], "ark": [FOX, CAT], "none": []})
    examples = [TextPair(FOX, CAT), TextPair(CAT, FOX), TextPair(DOG, CAT), TextPair("dog?", DOG, (CAT, FOX, "cat"))]
    kept, report = clean(*examples, forbidden=forbidden)
    assert kept == [TextPair("dog?", DOG, ("cat",))]
    assert report == {
        "left out: text of evaluation set ark": 1,
        "left out: text of evaluation set zoo": 2,
        "negative left out: text of evaluation set ark": 1,
        "negative left out: text of evaluation set zoo": 1,
    }


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (TextPair(CAT, DOG), TextPair(CAT.upper(), f" {DOG}"), True),
        (TextPair(CAT, DOG), TextPair(DOG, CAT), True),
        (TextPair(CAT, DOG), TextPair(CAT, FOX), False),
        (TextPair(CAT, DOG, ("a", "b")), TextPair(DOG, CAT, ("B", "a")), True),
        (TextPair(CAT, DOG, ("a",)), TextPair(CAT, DOG, ("b",)), False),
        (TextPair(CAT, DOG, label="X"), TextPair(CAT, DOG, label="x "), True),
        (TextPair(CAT, DOG, label="x"), TextPair(CAT, DOG), False),
        (InputOutput(CAT, DOG), InputOutput(CAT, DOG.lower()), True),
        (InputOutput(CAT, DOG), InputOutput(DOG, CAT), False),
        (InputOutput(CAT, "yes"), InputOutput(CAT, "no"), False),
        (ScoredPair(CAT, DOG, 3), ScoredPair(DOG, CAT, 3.0), True),
        (ClassText(CAT, "x"), ClassText(CAT.lower(), "X"), True),
        (ClassText("ab", "x"), ClassText("a b", "x"), False),
    ],
)
def test_exact_duplicates(first, second, same):
    expected = ([first], {"left out: exact duplicate": 1}) if same else ([first, second], {})
    assert clean(first, second) == expected


def test_contradictions_leave_the_first():
    texts = [ClassText(CAT, "cat"), ClassText(CAT, "dog"), ClassText(CAT, "cat"), ClassText(DOG, "dog")]
    assert clean(*texts) == (
        [texts[0], texts[3]],
        {"left out: text with another label before": 1, "left out: exact duplicate": 1},
    )
    pairs = [ScoredPair(CAT, DOG, 3.0), ScoredPair(DOG, CAT, 1.0)]
    assert clean(*pairs) == (pairs[:1], {"left out: pair with another score before": 1})


def test_wrong_language():
    english = ClassText("The train to Hamburg leaves only at ten o'clock today.", "a")
    assert clean(ClassText(GERMAN, "a"), english, language="en") == ([english], {"left out: not in language 'en'": 1})
    assert clean(ClassText(GERMAN, "a"), english, language="de")[0] == [ClassText(GERMAN, "a")]


def test_language_of_the_longest_text():
    examples = [TextPair(GERMAN, "Hamburg train"), TextPair("Der Zug", CAT, (f"{GERMAN} {GERMAN}",))]
    assert clean(*examples, language="en")[0] == examples[1:]


def test_short_and_doubtful_texts_are_kept_whatever_their_language():
    short = ClassText("Gr\u00fc\u00dfe aus M\u00fcnchen!!", "a")
    long = ClassText("Gr\u00fc\u00dfe aus M\u00fcnchen!!!", "a")
    assert [len(short.text), len(long.text)] == [19, 20]
    # The identifier's first guess for this one is Norwegian.
    doubtful = ClassText("set timer for 5 minutes", "a")
    assert clean(short, long, doubtful, language="en") == ([short, doubtful], {"left out: not in language 'en'": 1})


def test_what_is_left_out_for_its_language_is_not_remembered():
    # In full-width letters the identifier does not know its English.
    wide = "".join(chr(ord(letter) + 0xFEE0) if letter.isalpha() else letter for letter in CAT)
    examples = [ClassText(wide, "a"), ClassText(CAT, "a"), ClassText(wide, "a")]
    kept, report = clean(*examples, language="en", near_duplicates=0.9)
    assert kept == [examples[1]]
    assert report == {"left out: not in language 'en'": 2}


def test_unknown_language_is_told_at_once():
    with pytest.raises(ValueError, match=r"Language 'english' is unknown to py3langid\. Known are .*, en, "):
        clean_examples([], max_characters=9, language="english", near_duplicates=None, forbidden=None, report=Counter())


@pytest.mark.parametrize(
    ("module", "option"), [("py3langid.langid", {"language": "en"}), ("datasketch", {"near_duplicates": 0.9})]
)
def test_missing_libraries_name_the_extra(monkeypatch, module, option):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "instructor-st\[data\]"'):
        clean(ClassText(CAT, "a"), **option)


def test_examples_are_streamed():
    numbers = iter(range(100))
    examples = (ClassText(f"text {number}", "a") for number in numbers)
    kept = clean_examples(
        examples, max_characters=99, language=None, near_duplicates=0.9, forbidden=None, report=Counter()
    )
    assert [example.text for example in itertools.islice(kept, 3)] == ["text 0", "text 1", "text 2"]
    assert next(numbers) == 3


def test_near_duplicates_leave_the_first():
    # 300 characters have 296 shingles; one other character at the end changes one of them: 295 / 297 = 0.993.
    text = random_text(1, 300)
    examples = [ClassText(text, "a"), ClassText(change_end(text, 1).upper(), "b"), ClassText(random_text(2, 300), "a")]
    assert clean(*examples, near_duplicates=0.9) == ([examples[0], examples[2]], {"left out: near duplicate": 1})
    assert clean(*examples, near_duplicates=None) == (examples, {})


def test_near_duplicates_need_both_sides_to_be_near():
    passage, other = random_text(1, 2000), random_text(2, 2000)
    first = TextPair("who wrote the book?", passage)
    nearly = TextPair("Who wrote  the book?", change_end(passage, 1))
    turned = TextPair(change_end(passage, 1), "who wrote the book?")
    another = TextPair("when did she die?", passage)
    elsewhere = TextPair("who wrote the book?", other)
    kept, report = clean(first, nearly, turned, another, elsewhere, near_duplicates=0.9)
    assert kept == [first, another, elsewhere]
    assert report == {"left out: near duplicate": 2}


def test_near_duplicates_of_inputs_and_outputs_keep_their_order():
    first, second = random_text(1, 300), random_text(2, 300)
    examples = [InputOutput(first, second), InputOutput(second, change_end(first, 1))]
    assert clean(*examples, near_duplicates=0.9)[0] == examples


def test_hard_negatives_do_not_make_a_row_another_one():
    examples = [TextPair(CAT, DOG, ("one",)), TextPair(CAT, DOG, ("two",))]
    assert clean(*examples, near_duplicates=0.9) == (examples[:1], {"left out: near duplicate": 1})


def count_found(threshold, changed, *, texts=200):
    """Of 200 texts of 196 shingles, count how many are found again after their end has changed."""
    index = NearDuplicateIndex(threshold)
    originals = [random_text(seed, 200) for seed in range(texts)]
    assert all(index.add(text) for text in originals)
    return sum(not index.add(change_end(text, changed)) for text in originals)


def test_index_finds_what_is_near_and_nothing_else():
    # One shingle changed of 196: similarity 195 / 197 = 0.99. Five more: 191 / 201 = 0.95. 28: 168 / 224 = 0.75, of which
    # the hashing alone would give a quarter.
    assert count_found(0.9, 1) == 200
    assert count_found(0.9, 5) >= 190
    assert count_found(0.9, 28) == 0
    assert count_found(0.6, 28) == 200
    # Similarity 98 / 294 = 0.33.
    assert count_found(0.6, 98) == 0


def test_shingles_have_five_characters():
    # Three letters changed far from each other are 15 shingles of 196: 181 / 211 = 0.86. Were shingles of nine characters,
    # 27 of 192 would make it 0.75.
    index = NearDuplicateIndex(0.75)
    originals = [random_text(seed, 200) for seed in range(100)]
    assert all(index.add(text) for text in originals)
    changed = [text[:50] + "#" + text[51:100] + "#" + text[101:150] + "#" + text[151:] for text in originals]
    assert sum(not index.add(text) for text in changed) >= 95


def test_threshold_of_one_takes_equal_shingles_only():
    index = NearDuplicateIndex(1.0)
    text = random_text(1, 200)
    assert [index.add(text), index.add(text), index.add(change_end(text, 60)), len(index)] == [True, False, True, 2]


def test_what_is_near_is_not_remembered():
    text = random_text(1, 300)
    second = change_end(text, 70)
    third = random_text(2, 70).upper() + second[70:]
    # Of 296 shingles 70 and once more 70 are changed: 226 / 366 = 0.62 from each to the next, 156 / 436 = 0.36 across.
    index = NearDuplicateIndex(0.5)
    assert [index.add(text), index.add(second), index.add(third)] == [True, False, True]
    assert len(index) == 2
    index = NearDuplicateIndex(0.5)
    assert [index.add(second), index.add(third)] == [True, False]


def test_short_texts_are_their_own_shingle():
    index = NearDuplicateIndex(0.5)
    texts = ["a", "b", "ab", "ba", "abc", "abcd", "abcde", "\U0001f600", "\U0001f601", ""]
    assert all(index.add(text) for text in texts)
    assert not any(index.add(text) for text in texts)


def test_many_texts_are_remembered():
    index = NearDuplicateIndex(0.9)
    texts = [random_text(seed, 40) for seed in range(2500)]
    assert all(index.add(text) for text in texts)
    assert not any(index.add(text) for text in texts)


def test_wrong_use_of_the_index():
    for threshold in (0, 1.1, -1):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            NearDuplicateIndex(threshold)
    index = NearDuplicateIndex(0.9)
    index.add("a", "b")
    with pytest.raises(ValueError, match="1 texts, where earlier ones came as 2"):
        index.add("a")


def test_answers_do_not_depend_on_the_process():
    # 186 / 206 = 0.903 stands so near the threshold that the estimate goes either way.
    texts = [each for seed in range(60) for text in [random_text(seed, 200)] for each in (text, change_end(text, 10))]
    index = NearDuplicateIndex(0.9)
    here = [index.add(text) for text in texts]
    assert 70 < sum(here) < 110
    script = (
        "import json, sys\n"
        "from instructor_st.data.building.near_duplicate_index import NearDuplicateIndex\n"
        "index = NearDuplicateIndex(0.9)\n"
        "print(json.dumps([index.add(text) for text in json.load(sys.stdin)]))\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(there.stdout) == here
