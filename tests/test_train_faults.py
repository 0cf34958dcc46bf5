"""`training_scripts/train.py`, stopped as machines, disks and numbers stop it."""

from __future__ import annotations

import json
import os
import random
import resource
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from instructor_st.training import TrainArguments
from tests.conftest import REPOSITORY, T5

pytestmark = pytest.mark.slow

SCRIPT = str(REPOSITORY / "training_scripts" / "train.py")
WORDS = ["river", "engine", "garden", "letter", "winter", "bridge", "market", "doctor", "candle", "forest"]
STEPS_AN_EPOCH = 8
FILES = ["config.json", "model.safetensors", "optimizer.pt", "trainer_state.json", "complete.json"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of 40 and 24 rows: five and three batches of eight."""
    folder = tmp_path_factory.mktemp("data")
    for part, counts in (("train", (40, 24)), ("held_out", (4, 4))):
        (folder / part).mkdir()
        for task, count in zip(("alpha", "beta"), counts, strict=True):
            draw = random.Random(f"{part}/{task}")
            rows = []
            for number in range(count):
                words = " ".join(draw.sample(WORDS, 4))
                row = {"query": ["Represent the question: ", f"{words} {part} {number}?"]}
                row["positive"] = ["Represent the answer: ", f"{part} {number} {words}"]
                row["negative_1"] = ["Represent the answer: ", f"not {number} {draw.choice(WORDS)}"]
                rows.append(json.dumps(row))
            (folder / part / f"{task}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def list_arguments(data: Path, output: Path, *more: str, epochs: int = 8) -> list[str]:
    flags = {"base": T5, "data": data, "output_dir": output, "precision": "float32", "num_train_epochs": epochs}
    flags |= {"per_device_train_batch_size": 8, "save_strategy": "steps", "save_steps": 3, "disable_tqdm": "true"}
    listed = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    return [*listed, *(() if "--save_total_limit" in more else ("--save_total_limit", "2")), *more]


def start(
    log: Path, *arguments: str, processes: int = 1, prepare: Callable[[], None] | None = None
) -> subprocess.Popen:
    """Start a training, a core a process; what it prints goes to the log."""
    cores = sorted(os.sched_getaffinity(0))
    # Test workers side by side must not share one core.
    first = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % len(cores)
    cores = [*cores[first:], *cores[:first]][:processes]

    def set_limits() -> None:
        os.sched_setaffinity(0, cores)
        if prepare is not None:
            prepare()

    command = [sys.executable, SCRIPT, *arguments]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        several = ["--multi_gpu", "--num_processes", str(processes), "--main_process_port", port]
        command[1:1] = ["-m", "accelerate.commands.launch", *several]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment, preexec_fn=set_limits)


def run(log: Path, *arguments: str, processes: int = 1, prepare: Callable[[], None] | None = None) -> tuple[int, str]:
    """Run a training to its end; gives exit code and output."""
    code = start(log, *arguments, processes=processes, prepare=prepare).wait(timeout=600)
    return code, log.read_text()


def find_message(output: str) -> str:
    """The script's one line; no traceback beside it."""
    (line,) = (line for line in output.splitlines() if line.startswith("train.py: "))
    assert "Traceback" not in output
    assert output.rstrip().endswith(line)  # nothing of the message on further lines
    return line


def refuse(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Run the script in this process; it must end with one line."""
    monkeypatch.setattr(sys, "argv", [SCRIPT, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(SCRIPT, run_name="__main__")
    message = ended.value.code
    assert isinstance(message, str)  # which Python prints, and exits with 1
    assert message.startswith("train.py: ")
    assert "\n" not in message
    return message


def read_weights(output: Path) -> dict[str, bytes]:
    files = sorted((output / "final").rglob("*.safetensors"))
    assert len(files) == 2  # encoder and Dense
    return {
        f"{path.relative_to(output)}/{name}": tensor.numpy().tobytes()
        for path in files
        for name, tensor in load_file(path).items()
    }


def read_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def list_names(output: Path) -> list[str]:
    return sorted(path.name for path in output.iterdir())


@pytest.fixture(scope="module")
def calm(data, tmp_path_factory) -> Path:
    """A run that nothing disturbs, with all its checkpoints."""
    folder = tmp_path_factory.mktemp("calm")
    code, output = run(folder / "log", *list_arguments(data, folder / "out", "--save_total_limit", "100"))
    assert code == 0, output[-3000:]
    assert len(list((folder / "out").glob("checkpoint-*"))) == 22  # every third of 64 steps, and the last
    return folder / "out"


def copy_checkpoints(calm: Path, output: Path, *steps: int) -> None:
    for step in steps:
        shutil.copytree(calm / f"checkpoint-{step}", output / f"checkpoint-{step}")


def is_written_since(file: Path, moment: float) -> bool:
    with suppress(FileNotFoundError):
        return file.stat().st_mtime >= moment
    return False


def kill_at(process: subprocess.Popen, file: Path, delay: float) -> None:
    """Kill a process and its children soon after a file is there."""
    # An earlier run that was killed may have left a file of this name.
    started, limit = psutil.Process(process.pid).create_time(), time.monotonic() + 240
    while not is_written_since(file, started):
        assert process.poll() is None, f"It ended before it wrote {file}."
        assert time.monotonic() < limit
        time.sleep(0.001)
    time.sleep(delay)
    for each in [*psutil.Process(process.pid).children(recursive=True), process]:
        each.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_killed_ten_times_it_ends_with_the_same_weights(data, calm, tmp_path):
    draw, output, log = random.Random(3), tmp_path / "out", tmp_path / "log"
    arguments = list_arguments(data, output, "--resume")
    resumed, broken, last = [], 0, 0
    for number in range(10):
        file = output / f"checkpoint-{last + 3 * draw.randint(1, 2)}" / FILES[number % len(FILES)]
        process = start(log, *arguments)
        # At once: while a checkpoint is written. Later: in the steps after it, or while the next one is written.
        kill_at(process, file, draw.choice([0.0, draw.uniform(0, 0.15)]))
        checkpoints = {int(path.name[11:]): path for path in output.glob("checkpoint-*")}
        whole = [step for step, path in checkpoints.items() if (path / "complete.json").exists()]
        broken += len(checkpoints) > len(whole)
        assert (f"Going on from {output}/checkpoint-{last}." in log.read_text()) == (last > 0)
        assert max(whole, default=0) >= last
        last = max(whole, default=0)
        resumed.append(last)
    assert broken  # some were killed while they wrote
    assert any(step > STEPS_AN_EPOCH and step % STEPS_AN_EPOCH for step in resumed)
    code, text = run(log, *arguments)
    assert code == 0, text[-3000:]
    assert read_weights(output) == read_weights(calm)
    assert list_names(output) == ["checkpoint-63", "checkpoint-64", "final"]


def test_two_processes_killed_end_with_the_same_weights(data, tmp_path):
    weights = []
    for name in ("calm", "killed"):
        log, output = tmp_path / f"{name}.log", tmp_path / name
        # Three and two batches of sixteen an epoch: step 6 is the first of the second epoch.
        arguments = list_arguments(data, output, "--resume", epochs=2)
        if name == "killed":
            kill_at(start(log, *arguments, processes=2), output / "checkpoint-6" / "complete.json", 0.0)
        code, text = run(log, *arguments, processes=2)
        assert code == 0, text[-3000:]
        assert (f"Going on from {output}/checkpoint-6." in text) == (name == "killed")
        weights.append(read_weights(output))
    assert weights[0] == weights[1]


def test_broken_checkpoints_are_named_and_passed_over(data, calm, tmp_path):
    output = tmp_path / "out"
    copy_checkpoints(calm, output, 3, 12, 15, 18, 21)
    (output / "checkpoint-15" / "optimizer.pt").unlink()
    os.truncate(output / "checkpoint-18" / "model.safetensors", 1000)
    for name in ("complete.json", "trainer_state.json"):
        (output / "checkpoint-21" / name).unlink()
    code, text = run(tmp_path / "log", *list_arguments(data, output, "--resume"))
    assert code == 0, text[-3000:]
    assert f"Removed from {output}: checkpoint-15, checkpoint-18, checkpoint-21." in text
    assert f"Going on from {output}/checkpoint-12." in text  # in the middle of the second epoch
    assert read_weights(output) == read_weights(calm)


def test_an_earlier_run_is_neither_mixed_up_nor_deleted_unasked(data, calm, tmp_path, monkeypatch):
    output = tmp_path / "out"
    copy_checkpoints(calm, output, 3, 12)
    before = read_bytes(output)
    message = refuse(monkeypatch, *list_arguments(data, output))
    assert f"{output} has checkpoints of an earlier run, the last checkpoint-12. --resume" in message
    assert read_bytes(output) == before
    code, text = run(tmp_path / "log", *list_arguments(data, output, "--overwrite", "--max_steps", "4"))
    assert code == 0, text[-3000:]
    assert f"Removed from {output}: checkpoint-3, checkpoint-12." in text
    assert list_names(output) == ["checkpoint-3", "checkpoint-4", "final"]
    state = json.loads((output / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["max_steps"] == 4
    (output / "checkpoint-4" / "stray.bin").write_bytes(b"of the run before")
    flags = ["--resume_from_checkpoint", str(output / "checkpoint-3"), "--max_steps", "4"]
    code, text = run(tmp_path / "log", *list_arguments(data, output, *flags))
    assert code == 0, text[-3000:]
    assert "model.safetensors" in list_names(output / "checkpoint-4")
    assert "stray.bin" not in list_names(output / "checkpoint-4")  # written anew, not over the old one


def test_a_full_disk_leaves_the_last_whole_checkpoint(data, calm, tmp_path):
    output = tmp_path / "out"
    copy_checkpoints(calm, output, 57)
    before = read_bytes(output)
    sizes = {name: len(content) for name, content in before.items()}
    model, optimizer = (sizes[f"checkpoint-57/{name}"] for name in ("model.safetensors", "optimizer.pt"))
    for limit in (model - 4096, (model + optimizer) // 2):  # the model is not written; only the optimizer is not
        code, text = run(
            tmp_path / "log",
            *list_arguments(data, output, "--resume"),
            prepare=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
        assert code == 1
        message = find_message(text)
        assert f"{output}/checkpoint-60 could not be written: " in message
        assert "The last whole checkpoint is checkpoint-57." in message
        assert read_bytes(output) == before
        assert list_names(output) == ["checkpoint-57"]
    code, text = run(tmp_path / "log", *list_arguments(data, output, "--resume"))
    assert code == 0, text[-3000:]
    assert read_weights(output) == read_weights(calm)


def test_a_disk_that_fills_at_the_very_end_leaves_no_half_model(data, calm, tmp_path):
    output = tmp_path / "out"
    copy_checkpoints(calm, output, 64)
    before = read_bytes(output)
    code, text = run(
        tmp_path / "log",
        *list_arguments(data, output, "--resume"),
        prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)),
    )
    assert code == 1
    assert f"{output}/final could not be written: " in find_message(text)
    assert "The last whole checkpoint is checkpoint-64." in text
    assert read_bytes(output) == before


@pytest.mark.parametrize(
    ("rate", "message", "written"),
    [
        # The weights of the first step are still finite, and what is computed with them is not.
        (
            "1e30",
            r"The loss of task 'TASK' is not a finite number, seen at step 1. The last checkpoint before it is",
            1,
        ),
        # The first step's weights are not.
        ("1e39", "is not a finite number, seen at step 1. No checkpoint was written yet.", 0),
    ],
)
def test_numbers_that_are_none_are_not_saved(data, tmp_path, rate, message, written):
    output = tmp_path / "out"
    flags = ["--learning_rate", rate, "--warmup_steps", "0", "--max_grad_norm", "0", "--save_steps", "1"]
    code, text = run(tmp_path / "log", *list_arguments(data, output, *flags))
    assert code == 1
    line = find_message(text)
    assert any(message.replace("TASK", task) in line for task in ("alpha", "beta"))
    assert len(list(output.glob("checkpoint-*"))) == written
    for path in output.rglob("*.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(path).values())
    assert not (output / "final").exists()


def test_a_base_that_holds_a_nan_is_pointed_out(data, tmp_path, monkeypatch):
    shutil.copytree(T5, tmp_path / "base")
    file = tmp_path / "base" / "2_Dense" / "pytorch_model.bin"
    weights = torch.load(file, weights_only=True)
    weights["linear.weight"][0, 0] = float("nan")
    torch.save(weights, file)
    line = refuse(monkeypatch, *list_arguments(data, tmp_path / "out", "--base", str(tmp_path / "base")))
    assert "The loss of task '" in line
    assert "seen at step 0. No checkpoint was written yet." in line
    assert not (tmp_path / "out" / "final").exists()


def test_a_broken_file_stops_or_is_left_out_with_its_reason(data, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    broken = folder / "train" / "gamma.jsonl"
    broken.write_text((folder / "train" / "beta.jsonl").read_text() + '\n{"query": ["Represent", \n')
    line = refuse(monkeypatch, *list_arguments(folder, tmp_path / "out"))
    assert "gamma.jsonl:25: " in line
    code, text = run(
        tmp_path / "log", *list_arguments(folder, tmp_path / "out", "--skip_broken_files", "true", "--max_steps", "3")
    )
    assert code == 0, text[-3000:]
    assert "64 training rows and 8 held-out rows of 2 tasks." in text
    (reason,) = (line for line in text.splitlines() if "gamma.jsonl:25" in line)
    assert "left out" in reason
    assert (tmp_path / "out" / "final" / "modules.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--preset", "pepar"], "There is no preset 'pepar'; there are starter, paper, single-gpu."),
        (["--base", "/no/such/model"], "base: '/no/such/model' could not be loaded: "),
        (["--base", "no-such/model"], "base: 'no-such/model' could not be loaded: "),
        (["--freeze", "nothing*"], "No parameter matches 'nothing*'."),
        (["--lora_rank", "0"], "The rank must be 1 or more, not 0."),
        (["--resume", "--overwrite"], "resume and overwrite exclude each other."),
    ],
)
def test_wrong_settings_are_one_line(data, tmp_path, monkeypatch, flags, message):
    if "--lora_rank" in flags:
        pytest.importorskip("peft")
    assert message in refuse(monkeypatch, *list_arguments(data, tmp_path / "out", *flags))
    assert not list((tmp_path / "out").glob("*"))


def test_an_unknown_setting_of_a_file_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "run.yaml").write_text("learning_rte: 1e-4\n")
    line = refuse(monkeypatch, str(tmp_path / "run.yaml"))
    assert f"{tmp_path}/run.yaml: there is no setting 'learning_rte'. Did you mean learning_rate" in line


def test_the_best_model_is_chosen_by_what_the_evaluator_gives(tmp_path):
    flags = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}
    args = TrainArguments(output_dir=str(tmp_path), **flags)
    # transformers' own default, the evaluation loss, is none of it and would end the run at the first evaluation.
    assert (args.metric_for_best_model, args.greater_is_better) == ("eval_held_out_accuracy", True)


def test_matryoshka_in_mini_batches_gives_the_losses_of_whole_batches(data, tmp_path):
    losses = []
    for name, flags in (("whole", []), ("parts", ["--mini_batch_size", "3"])):
        output = tmp_path / name
        flags = [*flags, "--matryoshka_dims", "48", "24", "--dropout", "0", "--max_steps", "3", "--logging_steps", "1"]
        code, text = run(tmp_path / "log", *list_arguments(data, output, *flags))
        assert code == 0, text[-3000:]
        history = json.loads((output / "checkpoint-3" / "trainer_state.json").read_text())["log_history"]
        losses.append([entry["loss"] for entry in history if "loss" in entry])
    assert len(losses[0]) == 3
    # Both tasks share one loss, which is wrapped once.
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
