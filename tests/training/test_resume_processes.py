"""Two processes go on from the same checkpoint."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, T5
from tests.training.small_trainer import make_rows
from tests.training.test_sampler_processes import join_world, launch

pytestmark = pytest.mark.slow


def resume(rank: int, world: int, port: int, folder: str) -> None:
    """Prepare as train.py does, train to the end, and write down where this process began and what it came to."""
    join_world(rank, world, port)
    from accelerate import PartialState

    from instructor_st.data import TrainingData
    from instructor_st.training import TrainArguments

    prepare = runpy.run_path(str(REPOSITORY / "training_scripts" / "train.py"))["prepare"]
    options = json.loads(Path(folder, "options.json").read_text())
    args = TrainArguments(
        output_dir=f"{folder}/out", per_device_train_batch_size=2, precision="float32", disable_tqdm=True,
        num_train_epochs=2, save_strategy="steps", save_steps=2, dropout=0.0, **options,
    )  # fmt: skip
    data = TrainingData({task: make_rows(task) for task in ("one", "two")}, held_out={})
    run = prepare(args, data, state=PartialState(), base=T5)
    steps = []
    compute = run.trainer.training_step
    run.trainer.training_step = lambda *inputs: (steps.append(run.trainer.state.global_step), compute(*inputs))[1]
    run.trainer.train(resume_from_checkpoint=run.resume_point)
    record = {
        "from": run.resume_point and Path(run.resume_point).name,
        "steps": steps,
        "weights": {name: float(each.detach().double().sum()) for name, each in run.model.named_parameters()},
    }
    Path(folder, f"{world}_{rank}.json").write_text(json.dumps(record))


@pytest.mark.parametrize("named", [True, False])
def test_both_processes_go_on_from_the_checkpoint(tmp_path, named):
    (tmp_path / "options.json").write_text("{}")
    whole = launch(resume, 2, tmp_path)
    assert [record["from"] for record in whole] == [None, None]
    assert [record["steps"] for record in whole] == [list(range(8))] * 2
    # Writing the last checkpoint was interrupted: the first process takes it away.
    (tmp_path / "out" / "checkpoint-8" / "model.safetensors").unlink()
    options = {"resume": True}
    if named:
        options = {"resume_from_checkpoint": str(tmp_path / "out" / "checkpoint-6")}
    (tmp_path / "options.json").write_text(json.dumps(options))
    resumed = launch(resume, 2, tmp_path)
    assert [record["from"] for record in resumed] == ["checkpoint-6"] * 2
    assert [record["steps"] for record in resumed] == [[6, 7]] * 2
    for record in resumed:
        assert record["weights"] == pytest.approx(whole[0]["weights"], abs=1e-4)
