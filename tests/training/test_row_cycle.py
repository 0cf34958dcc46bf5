from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest

from instructor_st.training.distinct_batches import count_sharing_batches, separate_shared_texts
from instructor_st.training.row_cycle import RowCycle


def number_texts(rows: list[set[str]]) -> np.ndarray:
    """Number every text, shared or not, which is allowed too."""
    names = sorted(set().union(*rows))
    width = max(map(len, rows))
    return np.array([[names.index(text) for text in sorted(row)] + [-1] * (width - len(row)) for row in rows])


def find_sharing(batches: list[np.ndarray], rows: list[set[str]]) -> int:
    """Count batches that share a text, pair by pair."""
    return sum(any(rows[a] & rows[b] for a, b in combinations(batch.tolist(), 2)) for batch in batches)


def make_cycle(rows: list[set[str]], processes: int = 1, size: int = 4, seed: str = "0") -> RowCycle:
    return RowCycle(len(rows), number_texts(rows), rows_per_process=size, num_processes=processes, seed=seed)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("pool", [15, 40, 400])
def test_no_text_twice_in_a_batch_and_every_row_once_a_cycle(processes, pool):
    draw = random.Random(pool)
    rows = [{str(draw.randrange(pool)) for _ in range(3)} for _ in range(101)]
    cycle = make_cycle(rows, processes)
    seen = []
    for number in range(6):
        batches = cycle.draw(number)
        assert len(batches) == cycle.batches_per_cycle
        assert {len(batch) % processes for batch in batches} == {0}
        assert max(map(len, batches)) - min(map(len, batches)) in (0, processes)
        assert max(map(len, batches)) <= 4 * processes
        drawn = [row for batch in batches for row in batch.tolist()]
        assert sorted(drawn + cycle.find_waiting(number)) == list(range(101))
        assert find_sharing(batches, rows) == cycle.count_sharing(batches) == 0
        seen.append(drawn)
    assert len({tuple(drawn) for drawn in seen}) == 6


def test_batches_stay_full_where_texts_can_be_kept_apart():
    rows = [{f"label {place % 4}", f"query {place}"} for place in range(64)]
    cycle = make_cycle(rows, size=4)
    assert cycle.batches_per_cycle == 16  # each holds every label once
    for number in range(4):
        assert find_sharing(cycle.draw(number), rows) == 0


def test_batches_get_small_where_texts_repeat():
    rows = [{"hub"} if place < 6 else {str(place)} for place in range(12)]
    cycle = make_cycle(rows, size=4)
    assert [len(batch) for batch in cycle.draw(0)] == [2] * 6  # six rows hold one text: six batches
    assert cycle.keeps_texts_apart
    alone = make_cycle([{"hub"}] * 5)
    assert [len(batch) for batch in alone.draw(0)] == [1] * 5


def test_one_row_a_process_may_share_where_nothing_else_is_left():
    rows = [{"hub"}] * 8 + [{"a"}, {"b"}]
    cycle = make_cycle(rows, processes=2)
    batches = cycle.draw(3)
    assert [len(batch) for batch in batches] == [2] * 5
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(10))
    assert find_sharing(batches, rows) == cycle.count_sharing(batches) == 3  # two hubs can be matched with others
    assert not cycle.keeps_texts_apart


@pytest.mark.parametrize(("rows", "processes"), [(11, 4), (4, 3), (13, 8), (7, 2)])
def test_all_rows_wait_alike_and_none_twice_running(rows, processes):
    cycle = RowCycle(rows, rows_per_process=2, num_processes=processes, seed="0")
    waits = np.zeros(rows)
    for number in range(rows):
        waiting = cycle.find_waiting(number)
        waits[waiting] += 1
        assert len(waiting) == rows % processes
        following = cycle.draw(number + 1)
        assert set(waiting) <= set(following[0].tolist())
        assert not set(waiting) & {row for batch in cycle.draw(number) for row in batch.tolist()}
    assert set(waits) == {rows % processes}


def test_a_proven_order_serves_where_shuffles_fail(monkeypatch):
    from instructor_st.training import row_cycle as module

    rows = [{f"label {place % 5}", f"query {place}"} for place in range(21)]
    cycle = make_cycle(rows, processes=2, size=2)
    count = cycle.batches_per_cycle
    calls = []

    def separate(order, ends, **options) -> bool:
        calls.append(1)
        return len(calls) % 5 == 0 and separate_shared_texts(order, ends, **options)

    monkeypatch.setattr(module, "separate_shared_texts", separate)
    for number in range(1, 6):
        batches = cycle.draw(number)
        assert len(calls) == 5 * number
        assert len(batches) == count
        drawn = [row for batch in batches for row in batch.tolist()]
        assert sorted(drawn + cycle.find_waiting(number)) == list(range(21))
        assert find_sharing(batches, rows) == 0


def test_counting_and_separating_agree_with_a_naive_loop():
    draw = random.Random(1)
    solved = 0
    for trial in range(200):
        rows = [{str(draw.randrange(12)) for _ in range(2)} for _ in range(12)]
        order = np.array(draw.sample(range(12), 12))
        texts, ends = number_texts(rows), [4, 8, 10, 12]
        before = order.copy()
        assert count_sharing_batches(np.split(order, ends[:-1]), texts) == find_sharing(
            np.split(order, ends[:-1]), rows
        )
        done = separate_shared_texts(order, ends, texts=texts, generator=random.Random(trial))
        assert sorted(order.tolist()) == list(range(12))
        assert done == (find_sharing(np.split(order, ends[:-1]), rows) == 0)
        if find_sharing(np.split(before, ends[:-1]), rows) == 0:
            np.testing.assert_array_equal(order, before)  # nothing is moved without need
        solved += done
    assert 20 < solved < 200  # some cannot be solved, many can
