from __future__ import annotations

import json

import pytest

from instructor_st.training.checkpoints import (
    find_last_checkpoint,
    is_interrupted,
    is_whole,
    list_checkpoints,
    mark_whole,
    remove_broken_checkpoints,
    remove_mark,
)


def write_checkpoint(output, step, *, mark=True):
    folder = output / f"checkpoint-{step}"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"12345")
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "trainer_state.json").write_text("{}")
    if mark:
        mark_whole(folder)
    return folder


def test_mark_holds_the_sizes_of_all_files(tmp_path):
    folder = write_checkpoint(tmp_path, 1)
    assert json.loads((folder / "complete.json").read_text()) == {
        "bytes": {"1_Pooling/config.json": 2, "model.safetensors": 5, "trainer_state.json": 2}
    }
    assert is_whole(folder)
    assert is_whole(str(folder))
    mark_whole(folder)  # the mark itself is no file of the checkpoint
    assert is_whole(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b"1234"),  # cut off
        ("model.safetensors", b"123456"),
        ("model.safetensors", None),  # gone
        ("1_Pooling/config.json", b""),
        ("complete.json", None),
        ("complete.json", b'{"bytes": {'),
        ("complete.json", b"[]"),
        ("complete.json", b"{}"),
        ("complete.json", b'{"bytes": []}'),
        ("complete.json", b"\xff"),
    ],
)
def test_what_is_missing_cut_off_or_without_a_mark_is_not_whole(tmp_path, file, content):
    folder = write_checkpoint(tmp_path, 1)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    assert not is_whole(folder)


def test_a_file_that_was_added_later_does_no_harm(tmp_path):
    folder = write_checkpoint(tmp_path, 1)
    (folder / "notes.txt").write_text("a note")
    assert is_whole(folder)


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    for step in (100, 9, 20):
        write_checkpoint(tmp_path, step)
    for other in ("checkpoint-best", "final", "checkpoint-7.partial", "old-checkpoint-8"):
        (tmp_path / other).mkdir()
    (tmp_path / "checkpoint-500").write_text("a file")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-20", "checkpoint-100"]
    assert find_last_checkpoint(tmp_path) == tmp_path / "checkpoint-100"


def test_the_last_whole_checkpoint_is_not_the_last_one(tmp_path):
    assert find_last_checkpoint(tmp_path / "nothing") is None
    assert list_checkpoints(tmp_path / "nothing") == []
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, step, mark=step != 3)
    assert find_last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    (tmp_path / "checkpoint-2" / "model.safetensors").write_bytes(b"")
    assert find_last_checkpoint(str(tmp_path)) == tmp_path / "checkpoint-1"
    remove_mark(tmp_path / "checkpoint-1")
    assert find_last_checkpoint(tmp_path) is None


def test_broken_checkpoints_are_removed_and_those_of_others_left_alone(tmp_path):
    write_checkpoint(tmp_path, 1)
    write_checkpoint(tmp_path, 2, mark=False)  # as another program leaves it
    changed = write_checkpoint(tmp_path, 3)
    (changed / "model.safetensors").unlink()
    begun = write_checkpoint(tmp_path, 4, mark=False)
    (begun / "trainer_state.json").unlink()
    (tmp_path / "final").mkdir()
    assert [is_interrupted(path) for path in list_checkpoints(tmp_path)] == [False, False, True, True]
    assert remove_broken_checkpoints(tmp_path) == ["checkpoint-3", "checkpoint-4"]
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-1", "checkpoint-2", "final"}
    assert remove_broken_checkpoints(tmp_path) == []


def test_a_mark_is_taken_away_where_there_is_one(tmp_path):
    folder = write_checkpoint(tmp_path, 1)
    remove_mark(folder)
    remove_mark(folder)
    remove_mark(tmp_path / "nothing")
    assert not is_whole(folder)
    assert (folder / "model.safetensors").exists()
