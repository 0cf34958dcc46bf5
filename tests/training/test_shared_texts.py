from __future__ import annotations

import pytest
from datasets import Dataset

from instructor_st.training.shared_texts import find_shared_texts


def list_shared(dataset: Dataset, **options) -> list[set[int]]:
    return [{number for number in row if number >= 0} for row in find_shared_texts(dataset, **options).tolist()]


def test_texts_count_whatever_their_instruction_and_column():
    rows = Dataset.from_dict(
        {
            "query": [["i", "a"], ["j", "b"], ["i", "c"], ["i", "d"]],
            "positive": [["i", "x"], ["i", "a"], ["a", "y"], ["i", "d"]],
            "negative_1": [["k", "z"], ["k", "w"], ["k", "x"], ["k", "D"]],
            "label": [1, 1, 1, 1],
            "score": [0.5, 0.5, 0.5, 0.5],
        }
    )
    assert find_shared_texts(rows).shape == (4, 3)
    first, second, third, fourth = list_shared(rows)
    assert len(first) == 2  # "a" with the second row, "x" with the third; not the instruction "a" of the third
    assert second | third == first
    assert len(second) == len(third) == 1
    assert fourth == set()  # "d" twice in one row, and "D" is another text


@pytest.mark.parametrize(
    "cells",
    [
        ["a", "b", "a", "", None, None, ""],
        [("i", text) if text is not None else None for text in ["a", "b", "a", "", None, None, ""]],
        [{"instruction": str(place), "text": text} for place, text in enumerate(["a", "b", "a", "", None, None, ""])],
    ],
)
def test_forms_of_cells_and_missing_ones(cells):
    shared = list_shared(Dataset.from_dict({"text": cells}))
    assert shared[0] == shared[2] != shared[3] == shared[6]
    assert [len(row) for row in shared] == [1, 0, 1, 1, 0, 0, 1]


def test_chosen_rows_are_read_and_a_transform_is_not_applied():
    rows = Dataset.from_dict({"query": [["i", text] for text in "abcb"], "label": ["same"] * 4})
    rows.set_transform(lambda batch: {"query": ["same"] * len(batch["query"])})
    assert [bool(row) for row in list_shared(rows, ignored_columns=["label"])] == [False, True, False, True]
    assert [bool(row) for row in list_shared(rows.select([3, 0, 1]), ignored_columns=["label"])] == [True, False, True]
    assert all(list_shared(rows))  # labels of strings, if they are not said to be labels


def test_more_rows_than_are_read_at_once():
    rows = Dataset.from_dict({"text": [str(number % 10_001) for number in range(20_000)]})
    assert [place for place, row in enumerate(list_shared(rows)) if not row] == [9999, 10_000]


def test_other_columns_and_other_lists():
    rows = Dataset.from_dict({"tokens": [[1, 2], [1, 2]], "label": [1, 1]})
    assert find_shared_texts(rows).shape == (2, 0)
    three = Dataset.from_dict({"query": [["i", "a"], ["i", "a", "b"]]})
    with pytest.raises(ValueError, match=r"'query' has a list of 3 strings.*allow_duplicates=True"):
        find_shared_texts(three)
