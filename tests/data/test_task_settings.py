from __future__ import annotations

import json

import pytest

from instructor_st.data.task_settings import TaskSettings, read_task_settings


def write_manifest(folder, tasks):
    (folder / "manifest.json").write_text(json.dumps({"tasks": tasks}))


def test_weights_and_loss_settings_by_task(tmp_path):
    write_manifest(
        tmp_path,
        [
            {"name": "plain", "rows": 3},
            {"name": "heavy", "weight": 2, "loss": {"temperature": "2e-2", "margin": 0.1, "loss": "cosent"}},
            {"name": "v1.0", "weight": 0.5, "loss": None},
            {"name": "off", "weight": 0},
        ],
    )
    assert read_task_settings(tmp_path) == {
        "plain": TaskSettings(1.0, {}),
        "heavy": TaskSettings(2.0, {"temperature": 0.02, "margin": 0.1, "loss": "cosent"}),
        "v1_0": TaskSettings(0.5, {}),  # as the training data name it
        "off": TaskSettings(0.0, {}),
    }
    assert read_task_settings(str(tmp_path)) == read_task_settings(tmp_path)


def test_no_manifest_says_nothing(tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    assert read_task_settings(tmp_path) == {}
    assert read_task_settings(tmp_path / "rows.jsonl") == {}
    assert read_task_settings(tmp_path / "nothing") == {}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"tasks": null}',
        '{"tasks": {"a": 1}}',
        '{"tasks": [{"weight": 1}]}',
        '{"tasks": [{"name": "a", "weight": "much"}]}',
        '{"tasks": [{"name": "a", "weight": null}]}',
        '{"tasks": [{"name": "a", "loss": 3}]}',
        '{"tasks": [{"name": "a", "loss": [1]}]}',
    ],
)
def test_what_is_no_manifest_is_an_error_with_the_file(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(
        ValueError, match=r"manifest\.json is no manifest of a mixture \(.*\)\. Build the mixture again\."
    ):
        read_task_settings(tmp_path)
