"""`TaskBatchSampler` with texts, weights and resumed epochs, and what reaches it through the trainer's arguments."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import combinations

import pytest
from datasets import Dataset
from torch.utils.data import BatchSampler, ConcatDataset

from instructor_st.training import TaskBatchSampler, TrainArguments
from instructor_st.training import sampler as module
from instructor_st.training.sampler import make_task_batch_sampler
from instructor_st.training.task_schedule import TaskPlan


def make_sampler(
    sizes: list[int], *, processes: int = 1, rows: int = 4, epoch: int = 0, seed: int = 0, **options
) -> TaskBatchSampler:
    parts = [list(range(size)) for size in sizes]
    inner = [BatchSampler(part, batch_size=rows, drop_last=False) for part in parts]
    sampler = TaskBatchSampler(ConcatDataset(parts), inner, seed=seed, num_processes=processes, **options)
    sampler.set_epoch(epoch)
    return sampler


def join_parts(sampler: TaskBatchSampler) -> list[list[int]]:
    """Join what the processes get at each step."""
    parts = list(sampler)
    count = sampler.num_processes
    assert len(parts) == len(sampler)
    assert len(parts) % count == 0
    batches = [parts[place : place + count] for place in range(0, len(parts), count)]
    assert all(len({len(part) for part in batch}) == 1 for batch in batches)
    return [[row for part in batch for row in part] for batch in batches]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_no_text_twice_in_a_batch_of_all_processes(processes):
    texts = [(f"query {place}", f"label {place % 11}", f"label {(place * 3 + 1) % 11}") for place in range(60)]
    names = ("query", "positive", "negative_1")
    columns = {
        name: [[f"instruction {row}", cell[place]] for row, cell in enumerate(texts)]
        for place, name in enumerate(names)
    }
    part = Dataset.from_dict({**columns, "label": [0] * 60})
    inner = [BatchSampler(range(60), 4, False)]

    def make(**options) -> TaskBatchSampler:
        return TaskBatchSampler(ConcatDataset([part]), inner, num_processes=processes, **options)

    def count_sharing(sampler: TaskBatchSampler) -> int:
        return sum(
            any(set(texts[a]) & set(texts[b]) for a, b in combinations(batch, 2)) for batch in join_parts(sampler)
        )

    assert count_sharing(make()) == 0
    assert make().plan_epoch(0)[0].sharing_batches == 0
    assert count_sharing(make(allow_duplicates=True)) > 0
    assert sorted(row for batch in join_parts(make()) for row in batch) == list(range(60))


def test_small_batches_are_reported(monkeypatch):
    messages = []
    monkeypatch.setattr(module.logger, "warning", messages.append)
    part = Dataset.from_dict({"query": [["", "hub"]] * 4 + [["", "a"], ["", "b"]]})
    free = Dataset.from_dict({"query": [["", "one"], ["", "two"]]})
    inner = [BatchSampler(range(6), 8, False), BatchSampler(range(2), 8, False)]
    sampler = TaskBatchSampler(ConcatDataset([part, free]), inner, num_processes=1)
    assert messages == []
    assert len(sampler) == 4 + 1
    assert messages == [
        "4 of 5 batches an epoch have less than half of their rows, to keep rows that share a text in different batches."
    ]
    len(TaskBatchSampler(ConcatDataset([part, free]), inner, num_processes=2))
    assert "4 of 4 batches" not in messages[-1]
    assert messages[-1].startswith("3 of 4 batches an epoch have one row a process")


def test_large_tasks_go_through_all_rows_before_any_comes_again():
    sizes = [400, 100]
    counts = Counter()
    for epoch in range(8):
        sampler = make_sampler(sizes, epoch=epoch, alpha=0.0)
        assert len(sampler) == 62 + 62  # 250 rows of each, in batches of four
        for batch in join_parts(sampler):
            assert len(set(batch)) == 4
            counts.update(batch)
            seen = [counts[row] for row in range(400)]
            assert max(seen) - min(seen) <= 1
    assert {counts[row] for row in range(400)} == {4, 5}  # 8 x 248 = 1984 rows drawn
    assert sum(counts[row] for row in range(400, 500)) == 8 * 248


def test_plan_says_what_is_drawn_and_what_is_not():
    sampler = make_sampler(
        [401, 9, 2, 50], processes=3, alpha=0.0, weights=[1, 1, 1, 0], tasks=["big", "small", "tiny", "unwanted"]
    )
    # 399 + 9 rows to draw: the cap of the small one is 36, the big one has 372 of 399 in 34 batches.
    plans = sampler.plan_epoch(0)
    batches = join_parts(sampler)
    big = [row for batch in batches for row in batch if row < 401]
    small = Counter(row for batch in batches for row in batch if row >= 401)
    assert plans[0] == TaskPlan(
        0,
        "big",
        401,
        rows_drawn=len(big),
        distinct_rows_drawn=len(set(big)),
        batches=32,
        waiting=2,
        later=399 - len(big),
    )
    assert 366 <= len(big) <= 378
    assert plans[1] == TaskPlan(1, "small", 9, rows_drawn=36, distinct_rows_drawn=9, batches=4)
    assert set(small.values()) == {4}
    assert plans[2] == TaskPlan(2, "tiny", 2, left_out=2, reason="fewer rows than there are processes (3)")
    assert plans[3] == TaskPlan(3, "unwanted", 50, left_out=50, reason="its weight is 0")
    for epoch in range(5):
        for plan in sampler.plan_epoch(epoch):
            assert plan.rows == plan.distinct_rows_drawn + plan.waiting + plan.later + plan.left_out
            assert plan.batches == plans[plan.place].batches


def test_a_part_of_a_task_is_never_rounded_to_nothing():
    (large, small) = make_sampler([1000, 8], weights=[1, 0.01]).plan_epoch(0)
    assert (small.batches, small.rows_drawn, small.later) == (1, 4, 4)
    assert large.distinct_rows_drawn == 1000


@pytest.mark.parametrize("processes", [1, 2])
def test_any_epoch_can_be_taken_up_anew(processes):
    options = {"processes": processes, "alpha": 0.3, "weights": [1, 2, 1]}
    going = make_sampler([70, 33, 8], **options)
    for epoch in range(4):
        going.set_epoch(epoch)
        assert list(going) == list(make_sampler([70, 33, 8], epoch=epoch, **options))


def test_the_factory_gives_what_the_arguments_accept(tmp_path):
    factory = make_task_batch_sampler(
        tasks=["a", "b"], weights={"b": 3}, alpha=0.5, max_repeats=2, allow_duplicates=True
    )
    args = TrainArguments(output_dir=str(tmp_path), multi_dataset_batch_sampler=factory)
    assert args.multi_dataset_batch_sampler is factory
    assert "multi_dataset_batch_sampler" not in args.to_dict()
    args.to_json_string()
    again = pickle.loads(pickle.dumps(factory))
    parts = [list(range(40)), list(range(10))]
    inner = [BatchSampler(part, 2, False) for part in parts]
    sampler = again(ConcatDataset(parts), batch_samplers=inner, generator=None, seed=5)
    assert isinstance(sampler, TaskBatchSampler)
    assert sampler.allow_duplicates
    # 50 rows by 40**.5 and 3 x 10**.5 are 20 and 30; the second's cap is 20, the first's 80.
    assert [(plan.task, plan.rows_drawn) for plan in sampler.plan_epoch()] == [("a", 30), ("b", 20)]


def test_factory_and_sampler_name_what_is_wrong():
    with pytest.raises(ValueError, match="weights by task need tasks"):
        make_task_batch_sampler(weights={"a": 1})
    with pytest.raises(ValueError, match=r"\['c'\], which are no data sets"):
        make_task_batch_sampler(tasks=["a"], weights={"c": 1})
    with pytest.raises(ValueError, match="alpha must be"):
        make_task_batch_sampler(alpha=-1)
    with pytest.raises(ValueError, match="weights has 3 entries for 2 data sets"):
        make_sampler([4, 4], weights=[1, 1, 1])
    with pytest.raises(ValueError, match="tasks has 1 entries for 2 data sets"):
        make_sampler([4, 4], tasks=["a"])


def test_a_copy_of_the_data_set_does_not_carry_the_sampler():
    sampler = make_sampler([4, 4])
    sampler.dataset.set_epoch(3)
    assert sampler.epoch == 3
    copy = pickle.loads(pickle.dumps(sampler.dataset))
    copy.set_epoch(1)
    assert sampler.epoch == 3
    assert list(copy) == list(sampler.dataset)
