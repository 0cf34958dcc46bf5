"""A built mixture that is mined and augmented: the manifest goes with it, and says what was done."""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from instructor_st.data import load_training_data, read_rows
from instructor_st.data.augmentation.folder import augment_folder, read_row_folder
from instructor_st.data.building.build import build_mixture
from instructor_st.data.building.manifest import format_training_data, write_manifest
from instructor_st.data.building.manifest_steps import ManifestStep, add_step, read_manifest
from instructor_st.data.building.mixture import Mixture
from instructor_st.data.embedding_cache import Scorer
from instructor_st.data.mining.folder import mine_folder, plan_mining, write_mining_report
from instructor_st.data.mining.mine_task import MiningOptions
from instructor_st.data.shards import hash_file

OPTIONS = MiningOptions(num_negatives=1, range_min=0, relative_margin=None)
WORDS = [
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jolly", "knoll", "larch",
    "maple", "north", "ocean", "pearl", "quart", "river", "stone", "trout", "umber", "vapor", "wheat", "yacht",
]  # fmt: skip


def point(text: str) -> list[float]:
    """Texts begin with their direction in degrees; a new one is a degree from its original."""
    angle = math.radians(float(text.split()[0]) + text.endswith("indeed"))
    return [math.cos(angle), math.sin(angle)]


class Compass:
    def encode(self, inputs, **_):
        return np.array([point(text) for _, text in inputs])


def add_word(texts: list[str]) -> list[list[str]]:
    return [[f"{text} indeed"] for text in texts]


SCORER = Scorer(embed=lambda texts: np.array([point(text) for text in texts]), identity="compass/1/abc")
IDENTITY = json.dumps({"kind": "back-translation", "forward": {"model": "en-de"}, "backward": {"model": "de-en"}})


def build(tmp_path: Path, held_out_share: float = 0.2) -> Path:
    """Two tasks of 24 and 12 pairs, by build_data.py's own functions."""
    raw = tmp_path / "raw"
    raw.mkdir()
    tasks = []
    for name, count in (("long", 24), ("short", 12)):
        lines = [
            {"query": f"{7 * n} {WORDS[n]} {name}?", "positive": f"{7 * n + 1} {WORDS[-n]} {name}!"}
            for n in range(count)
        ]
        (raw / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        instructions = {"query": f"{name} question: ", "document": f"{name} answer: "}
        source = {"files": raw / f"{name}.jsonl"}
        tasks.append({"name": name, "source": source, "kind": "pairs", "license": "mit", "instructions": instructions})
    settings = {"name": "tiny", "seed": 3, "near_duplicates": None, "held_out_share": held_out_share}
    mixture = Mixture.model_validate({**settings, "tasks": tasks})
    write_manifest(mixture, build_mixture(mixture, tmp_path / "built", show_progress_bar=False), tmp_path / "built")
    return tmp_path / "built"


def mine(data: Path, output: Path, options: MiningOptions = OPTIONS) -> dict | None:
    plan = plan_mining(data, output, identity="compass/", options=options)
    counts = mine_folder(plan, Compass(), show_progress_bar=False)
    write_mining_report(plan, counts, model="some/model", cross_encoder="some/judge")
    return read_manifest(output)


def augment(data: Path, output: Path, **options) -> dict | None:
    options = {"num_augments": 1, "scorer": SCORER, "sides": ("query",), **options}
    rows = read_row_folder(data)
    augment_folder(rows, output, generator=add_word, identity=IDENTITY, show_progress_bar=False, **options)
    return read_manifest(output)


def count_on_disk(folder: Path) -> dict[str, int]:
    return {f"{path.parent.name}/{path.name}": len(list(read_rows(path))) for path in folder.rglob("*.parquet")}


def assert_true(manifest: dict, folder: Path) -> None:
    """Every number and hash is that of the files, and no file is left out."""
    on_disk = count_on_disk(folder)
    assert {name for task in manifest["tasks"] for name in task["shards"]} == on_disk.keys()
    for task in manifest["tasks"]:
        assert task["train_rows"] == on_disk.get(f"train/{task['name']}.parquet", 0)
        assert task["held_out_rows"] == on_disk.get(f"held_out/{task['name']}.parquet", 0)
        assert all(hash_file(folder / name) == digest for name, digest in task["shards"].items())
    for part in ("train", "held_out"):
        rows = sum(count for name, count in on_disk.items() if name.startswith(f"{part}/"))
        assert manifest[f"{part}_rows"] == rows


def test_build_mine_augment(tmp_path):
    built = build(tmp_path)
    before = read_manifest(built)
    assert "steps" not in before
    assert_true(before, built)
    rows = {task["name"]: task["train_rows"] for task in before["tasks"]}
    total = sum(rows.values())
    # Some rows are held out of each task; what follows has to tell the two parts apart.
    assert 0 < before["held_out_rows"] == 36 - total

    mined = mine(built, tmp_path / "mined")
    assert_true(mined, tmp_path / "mined")
    (step,) = mined["steps"]
    assert step == {
        "step": "mine_negatives",
        "models": {"model": "some/model", "cross_encoder": "some/judge"},
        "options": json.loads((tmp_path / "mined" / "mining_report.json").read_text())["options"],
        "counts": {"candidates": total, "negatives mined": total, "rows": total},
        "rows_in": total,
        "fingerprint": "compass/",
        "rows_out": total,
        "instructor_st": version("instructor-st"),
    }
    assert step["options"]["num_negatives"] == 1

    augmented = augment(tmp_path / "mined", tmp_path / "augmented")
    assert_true(augmented, tmp_path / "augmented")
    assert augmented["steps"][0] == step
    second = augmented["steps"][1]
    assert (second["step"], second["rows_in"], second["rows_out"]) == ("augment", total, 2 * total)
    assert second["models"] == {"forward": "en-de", "backward": "de-en", "scorer": "compass/1/abc"}
    assert second["options"] == {"num_augments": 1, "sides": ["query"], "only_new": False}
    assert second["generator"] == json.loads(IDENTITY)
    assert second["counts"]["new rows"] == total
    assert {task["name"]: task["train_rows"] for task in augmented["tasks"]} == {
        name: 2 * n for name, n in rows.items()
    }
    assert len(augmented["steps"]) == 2
    # All that the steps do not touch is the build's.
    changed = {"train_rows", "held_out_rows", "tasks", "steps"}
    assert {name: augmented[name] for name in augmented if name not in changed} == {
        name: before[name] for name in before if name not in changed
    }
    for old, new in zip(before["tasks"], augmented["tasks"], strict=True):
        assert {**old, "train_rows": 0, "shards": 0} == {**new, "train_rows": 0, "shards": 0}
    text = (tmp_path / "augmented" / "manifest.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert "birch" not in text
    assert sum(map(len, load_training_data(tmp_path / "augmented").train.values())) == 2 * total


def test_the_section_of_a_model_card_names_the_steps(tmp_path):
    built = build(tmp_path)
    mine(built, tmp_path / "mined")
    manifest = augment(tmp_path / "mined", tmp_path / "augmented")
    text = format_training_data(manifest)
    total = manifest["steps"][0]["rows_in"]
    assert text.startswith(f"{2 * total} rows of 2 tasks (mixture `tiny`, seed 3).\n")
    assert f"| long | long.jsonl (files) | mit | {manifest['tasks'][0]['train_rows']} |" in text
    lines = text.split("After they were built, in this order:\n\n")[1].splitlines()
    assert len(lines) == 2
    start = f"- mine_negatives with model `some/model`, cross_encoder `some/judge`: {total} rows became {total}; "
    assert lines[0].startswith(f"{start}num_negatives 1, range_min 0, range_max 100, ")
    assert "None" not in lines[0]
    start = "- augment with forward `en-de`, backward `de-en`, scorer `compass/1/abc`: "
    assert lines[1] == f"{start}{total} rows became {2 * total}; num_augments 1, sides ['query'], only_new False."
    card = (tmp_path / "augmented" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert text in card
    # What the build left out is the build's to say.
    assert (tmp_path / "augmented" / "report.md").read_bytes() == (built / "report.md").read_bytes()
    assert "After they were built" not in format_training_data(read_manifest(built))


def test_a_second_run_leaves_the_same_bytes(tmp_path):
    built, output = build(tmp_path), tmp_path / "out"
    for run in (mine, augment):
        run(built, output / run.__name__)
        before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
        run(built, output / run.__name__)
        assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_without_a_manifest_none_is_invented(tmp_path):
    built = build(tmp_path)
    for run in (mine, augment):
        output = tmp_path / run.__name__
        assert run(built, output) is not None
        moved = (built / "manifest.json").rename(tmp_path / "moved.json")
        # That of an earlier run, of data that had one, does not stay either.
        assert run(built, output) is None
        assert not any((output / name).exists() for name in ("manifest.json", "README.md", "report.md"))
        assert run(built, tmp_path / f"new {run.__name__}") is None
        moved.rename(built / "manifest.json")


def test_a_manifest_of_something_else_is_an_error(tmp_path):
    built = build(tmp_path)
    good = (built / "manifest.json").read_text(encoding="utf-8")
    for text in ("{", "[]", '{"start_url": "/"}', good.replace('"shards"', '"shreds"'), good.replace('"seed"', '"sd"')):
        (built / "manifest.json").write_text(text, encoding="utf-8")
        for run in (mine, augment):
            with pytest.raises(ValueError, match=r"manifest\.json is no manifest of a built mixture.*or move it away"):
                run(built, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_new_rows_have_no_held_out_part(tmp_path):
    manifest = augment(build(tmp_path), tmp_path / "out", only_new=True)
    assert_true(manifest, tmp_path / "out")
    assert (manifest["held_out_rows"], [task["held_out_rows"] for task in manifest["tasks"]]) == (0, [0, 0])
    assert "held_out" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("run", [mine, augment])
def test_a_mixture_without_a_held_out_part_keeps_its_layout(tmp_path, run):
    built = build(tmp_path, held_out_share=0)
    assert not (built / "held_out").exists()
    assert_true(run(built, tmp_path / "out"), tmp_path / "out")


def test_what_the_manifest_does_not_vouch_for_is_named(tmp_path):
    built = build(tmp_path)
    before = read_manifest(built)
    (built / "train" / "long.parquet").unlink()
    lines = [{"query": ["", f"{n} {WORDS[n]}"], "positive": ["", f"{n + 50} {WORDS[-n]}"]} for n in range(5)]
    (built / "train" / "own.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (built / "held_out" / "note.txt").write_text("no rows")
    manifest = mine(built, tmp_path / "out")
    (step,) = manifest["steps"]
    assert step["changed_files"] == ["train/long.parquet", "train/own.jsonl"]
    assert step["other_tasks"] == {"own": 5}
    short = before["tasks"][1]["train_rows"]
    assert [task["train_rows"] for task in manifest["tasks"]] == [0, short]
    assert manifest["tasks"][0]["shards"].keys() == {"held_out/long.parquet"}
    assert (manifest["train_rows"], step["rows_in"], step["rows_out"]) == (short, short + 5, short + 5)
    line = format_training_data(manifest).splitlines()[-1]
    assert "; 2 file(s) of rows were not as they had been written: train/long.parquet, train/own.jsonl;" in line
    assert line.endswith("; tasks of unknown origin, not counted above: own (5 rows).")


def test_a_step_changes_nothing_in_the_manifest_that_it_is_given(tmp_path):
    built = build(tmp_path)
    before = read_manifest(built)
    step = ManifestStep("thin_out", models={}, options={}, counts={}, rows_in=before["train_rows"])
    shards = {task["name"]: built / "train" / f"{task['name']}.parquet" for task in before["tasks"]}
    after = add_step(before, step, data=built, output=built, shards=shards)
    assert before == read_manifest(built)
    assert {**after, "steps": 0} == {**before, "steps": 0}
    again = add_step(after, step, data=built, output=built, shards=shards)
    assert [each["step"] for each in again["steps"]] == ["thin_out", "thin_out"]
    assert len(after["steps"]) == 1
    rows = before["train_rows"]
    assert format_training_data(after).splitlines()[-1] == f"- thin_out: {rows} rows became {rows}."
