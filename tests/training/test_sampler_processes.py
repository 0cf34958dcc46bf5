"""Which rows real processes see: accelerate's loaders and transformers' loop, on 1, 2 and 3 gloo processes."""

from __future__ import annotations

import json
import socket
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from torch import multiprocessing, nn

pytestmark = pytest.mark.slow

SIZES = [70, 33, 2, 8]
OPTIONS = {"alpha": 0.5, "weights": (1.0, 1.0, 1.0, 2.0)}


def read_part(row: int) -> int:
    """Tell the task of a row of the joined data sets."""
    return next(place for place in range(len(SIZES)) if row < sum(SIZES[: place + 1]))


def build_parts() -> list:
    from datasets import Dataset

    return [
        Dataset.from_dict(
            {
                "id": [sum(SIZES[:place]) + row for row in range(size)],
                "query": [["i", f"query {place} {row}"] for row in range(size)],
                "positive": [["i", f"label {row % 9}"] for row in range(size)],
            }
        )
        for place, size in enumerate(SIZES)
    ]


def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    return {"id": torch.tensor([row["id"] for row in rows])}


def build_loader(options: dict, rows: int = 4):
    from torch.utils.data import BatchSampler, ConcatDataset, DataLoader

    from instructor_st.training import TaskBatchSampler

    parts = build_parts()
    joined = ConcatDataset(parts)
    inner = [BatchSampler(range(len(part)), rows, False) for part in parts]
    sampler = TaskBatchSampler(joined, inner, seed=7, **options)
    return DataLoader(joined, batch_sampler=sampler, collate_fn=collate), sampler


def join_world(rank: int, world: int, port: int) -> None:
    import os

    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true", OMP_NUM_THREADS="1",
    )  # fmt: skip
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=world)


def record_epochs(rank: int, world: int, port: int, folder: str) -> None:
    """Write down what a process sees in three epochs, whole and by weights."""
    join_world(rank, world, port)
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    record = {}
    for name, options in (("whole", {}), ("mixed", OPTIONS)):
        loader, sampler = build_loader(options)
        prepared = accelerator.prepare(loader)
        for epoch in range(3):
            prepared.set_epoch(epoch)
            plans = [(plan.rows_drawn, plan.batches, plan.distinct_rows_drawn) for plan in sampler.plan_epoch(epoch)]
            steps = [batch["id"].tolist() for batch in prepared]
            record[f"{name}/{epoch}"] = {"steps": steps, "length": len(prepared), "plans": plans}
    Path(folder, f"{world}_{rank}.json").write_text(json.dumps(record))
    accelerator.end_training()


class Counting(nn.Module):
    """The smallest model that transformers' loop trains."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, id: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.weight * id.float().mean()}


def train(rank: int, world: int, port: int, folder: str) -> None:
    """Run transformers' loop for three epochs, and again from a checkpoint in the middle of the third."""
    join_world(rank, world, port)
    from transformers import Trainer, TrainingArguments

    class RecordingTrainer(Trainer):
        def get_train_dataloader(self):
            return self.accelerator.prepare(build_loader(OPTIONS)[0])

        def training_step(self, model, inputs, *args):
            self.seen = [*getattr(self, "seen", []), inputs["id"].tolist()]
            return super().training_step(model, inputs, *args)

    def run(checkpoint: str | None, steps: int) -> list[list[int]]:
        args = TrainingArguments(
            output_dir=f"{folder}/{world}", num_train_epochs=3, save_strategy="steps", save_steps=steps, use_cpu=True,
            report_to="none", disable_tqdm=True, logging_strategy="no", remove_unused_columns=False,
        )  # fmt: skip
        trainer = RecordingTrainer(Counting(), args, train_dataset=build_parts()[0])
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer.seen

    epoch = len(build_loader(OPTIONS)[1]) // world
    middle = 2 * epoch + epoch // 2
    whole = run(None, middle)
    resumed = run(f"{folder}/{world}/checkpoint-{middle}", 10_000)
    assert len(whole) == 3 * epoch
    Path(folder, f"{world}_{rank}.json").write_text(json.dumps({"whole": whole, "resumed": resumed, "middle": middle}))
    if world > 1:
        torch.distributed.destroy_process_group()


def launch(work, world: int, folder: Path) -> list[dict]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A server imports the libraries once, and forks the processes from there.
    get_context("forkserver").set_forkserver_preload(["transformers.trainer", "datasets", "instructor_st.training"])
    arguments = (world, port, str(folder))
    multiprocessing.start_processes(work, args=arguments, nprocs=world, start_method="forkserver")
    return [json.loads((folder / f"{world}_{rank}.json").read_text()) for rank in range(world)]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_process_sees_its_part_of_the_same_task(world, tmp_path):
    records = launch(record_epochs, world, tmp_path)
    waited: set[int] = set()
    for key in records[0]:
        by_rank = [record[key] for record in records]
        assert all(part["length"] == len(part["steps"]) == by_rank[0]["length"] for part in by_rank)
        assert all(part["plans"] == by_rank[0]["plans"] for part in by_rank)
        seen, batches = Counter(), Counter()
        for parts in zip(*(part["steps"] for part in by_rank), strict=True):
            rows = [row for part in parts for row in part]
            assert len({len(part) for part in parts}) == 1
            assert len(rows) == len(set(rows)) <= 4 * world
            (task,) = {read_part(row) for row in rows}
            labels = [(row - sum(SIZES[:task])) % 9 for row in rows]
            assert len(labels) == len(set(labels))
            batches[task] += 1
            seen.update(rows)
        for task, (drawn, count, distinct) in enumerate(by_rank[0]["plans"]):
            mine = {row: times for row, times in seen.items() if read_part(row) == task}
            assert (sum(mine.values()), batches[task], len(mine)) == (drawn, count, distinct)
        if key.startswith("whole"):
            assert set(seen.values()) == {1}
            assert len(seen) == sum(size - size % world for size in SIZES if size >= world)
            missing = {row for row in set(range(sum(SIZES))) - set(seen) if SIZES[read_part(row)] >= world}
            assert not missing & waited
            waited = missing
        elif world == 1:
            # 113 rows by 70**.5, 33**.5, 2**.5 and twice 8**.5 are 44.6, 30.6, 7.5 and 30.2; whole batches of 3.9, 3.7, 2
            # and 4 rows.
            assert [count for _, count, _ in by_rank[0]["plans"]] == [11, 8, 4, 8]


@pytest.mark.parametrize("world", [1, 2])
def test_a_run_resumed_within_the_third_epoch_goes_on_exactly(world, tmp_path):
    records = launch(train, world, tmp_path)
    for record in records:
        assert record["resumed"] == record["whole"][record["middle"] :]
        assert len(record["resumed"]) > 5
    if world > 1:
        assert records[0]["whole"] != records[1]["whole"]
