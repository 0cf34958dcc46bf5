from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, ConcatDataset

from instructor_st.training import TaskBatchSampler

SIZES = [70, 33, 1, 8]


def make_sampler(processes: int = 1, rows: int = 16, seed: int = 0, sizes: list[int] = SIZES) -> TaskBatchSampler:
    parts = [list(range(size)) for size in sizes]
    inner = [BatchSampler(part, batch_size=rows, drop_last=False) for part in parts]
    return TaskBatchSampler(ConcatDataset(parts), inner, seed=seed, num_processes=processes)


def find_tasks(batch: list[int], sizes: list[int] = SIZES) -> set[int]:
    ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    return {next(place for place, end in enumerate(ends) if row < end) for row in batch}


def test_one_process_sees_every_row_once_in_batches_of_one_task():
    sampler = make_sampler()
    batches = list(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(sum(SIZES)))
    assert all(len(find_tasks(batch)) == 1 for batch in batches)
    assert len(batches) == len(sampler) == 5 + 3 + 1 + 1
    sizes = Counter(len(batch) for batch in batches)
    assert sizes == {14: 5, 11: 3, 1: 1, 8: 1}  # as equal as they can be, none above 16


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_batches_of_one_task_in_equal_parts(processes):
    sampler = make_sampler(processes, rows=8)
    shards = [
        list(BatchSamplerShard(sampler, processes, rank, split_batches=False, even_batches=False))
        for rank in range(processes)
    ]
    assert len({len(shard) for shard in shards}) == 1
    assert len(shards[0]) * processes == len(sampler)
    seen = []
    for parts in zip(*shards, strict=True):
        assert len({len(part) for part in parts}) == 1
        assert len(parts[0]) <= 8
        assert len(find_tasks([row for part in parts for row in part])) == 1
        seen += [row for part in parts for row in part]
    assert len(seen) == len(set(seen)) == sum(size - size % processes for size in SIZES)


def test_rows_that_wait_come_first_in_the_next_epoch():
    sampler = make_sampler(processes=4, rows=4, sizes=[11])
    epochs = []
    for epoch in range(6):
        sampler.set_epoch(epoch)
        epochs.append({row for batch in sampler for row in batch})
        assert len(epochs[-1]) == 8
    for before, after in pairwise(epochs):
        assert set(range(11)) - before <= after


def test_waiting_rows_are_reported(monkeypatch):
    from instructor_st.training import sampler as module

    messages = []
    monkeypatch.setattr(module.logger, "warning", messages.append)
    make_sampler(processes=2)
    assert messages == [
        "1 row(s) a pass do not divide by 2 processes; they wait and come first in the next epoch.",
        "1 data set(s) have fewer rows than there are processes (2) and are left out, 1 row(s) in all.",
    ]
    make_sampler(processes=1)
    assert len(messages) == 2


def test_order_depends_on_seed_and_epoch_alone():
    first = list(make_sampler(seed=3))
    assert first == list(make_sampler(seed=3))
    assert first != list(make_sampler(seed=4))
    later = make_sampler(seed=3)
    later.set_epoch(1)
    assert first != list(later)
    assert sorted(map(len, first)) == sorted(map(len, later))


def test_two_processes_see_the_batches_of_one_process_with_the_doubled_size():
    sizes = [64, 48]
    one = list(make_sampler(1, rows=16, sizes=sizes))
    two = list(make_sampler(2, rows=8, sizes=sizes))
    assert [sorted(batch) for batch in one] == [sorted(a + b) for a, b in zip(two[0::2], two[1::2], strict=True)]
