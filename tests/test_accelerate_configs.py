"""Accelerate's configuration files: those for CPUs are run, those for GPUs are read by accelerate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from tests.conftest import REPOSITORY, T5

FOLDER = REPOSITORY / "training_scripts" / "configs" / "accelerate"
PROCESSES = {"cpu": 1, "cpu_two_processes": 2, "fsdp": 4, "one_gpu": 1, "several_gpus": 4}


def test_each_file_is_read_and_says_whether_it_was_run():
    assert {path.stem for path in FOLDER.iterdir()} == set(PROCESSES)
    for name, processes in PROCESSES.items():
        path = FOLDER / f"{name}.yaml"
        text = path.read_text(encoding="utf-8")
        assert load_config_from_file(str(path)).num_processes == processes
        assert f"--config_file training_scripts/configs/accelerate/{name}.yaml training_scripts/train.py" in text
        assert ("Run: yes" in text) == name.startswith("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu", "cpu_two_processes"])
def test_files_for_cpus_are_run(name, tmp_path: Path):
    rows = [{"query": f"what is number {i}", "pos": f"it is {i} apples", "task": "counting"} for i in range(24)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(FOLDER / f"{name}.yaml")]
    command += [str(REPOSITORY / "training_scripts" / "train.py"), "--base", T5, "--data", str(tmp_path / "rows.jsonl")]
    command += ["--output_dir", str(tmp_path / "out"), "--num_train_epochs", "1", "--per_device_train_batch_size", "4"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    # 24 rows, of which a tenth is held out; four a process and step.
    steps = -(-22 // (4 * PROCESSES[name]))
    state = json.loads((tmp_path / "out" / f"checkpoint-{steps}" / "trainer_state.json").read_text())
    assert state["global_step"] == steps
