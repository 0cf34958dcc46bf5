"""A mixture built from raw files: rows, counts, and what a second run does."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from instructor_st.data import load_training_data, read_rows
from instructor_st.data.building.build import build_mixture
from instructor_st.data.building.manifest import build_manifest, format_training_data, write_manifest
from instructor_st.data.building.mixture import Mixture
from instructor_st.data.embedding_cache import Scorer
from instructor_st.data.sources.records import BadRecordError

THINGS = ["kettle", "ladder", "violin", "anchor", "candle", "saddle", "trowel", "basket", "hammer", "mirror"]
COLOURS = {"red": 0.0, "green": 1.0, "blue": 2.0}
SIZES = {"small": 0.0, "large": 1.0}


def write_lines(path: Path, records: list) -> Path:
    path.write_text("".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records))
    return path


def describe(size: str, colour: str, thing: str) -> str:
    return f"There is a {size} {colour} {thing} in the window of the shop across the street."


@pytest.fixture
def scorer() -> Scorer:
    """Sees the thing above all, the colour a little, the size hardly."""

    def embed(texts):
        vectors = np.zeros((len(texts), len(THINGS) + len(COLOURS) + len(SIZES)), dtype=np.float32)
        for row, text in enumerate(texts):
            for place, word in enumerate([*THINGS, *COLOURS, *SIZES]):
                weight = 1.0 if word in THINGS else 0.5 if word in COLOURS else 0.1
                vectors[row, place] = weight * (f" {word} " in text)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)

    return Scorer(embed=embed, identity="words")


@pytest.fixture
def sources(tmp_path) -> Path:
    """Descriptions with their colour and with their size, and riddles with faults."""
    folder = tmp_path / "raw"
    folder.mkdir()
    texts = [(size, colour, thing) for thing in THINGS for colour in COLOURS for size in SIZES]
    write_lines(folder / "colours.jsonl", [{"text": describe(*text), "label": text[1]} for text in texts])
    write_lines(folder / "sizes.jsonl", [{"text": describe(*text), "label": text[0]} for text in texts])
    riddles = [
        {"query": f"What is number {n} of the riddles?", "positive": f"Answer {n}, which is long."} for n in range(60)
    ]
    faults = ["{broken", '["no object"]', {"query": "no answer"}, {"query": " ", "positive": "blank"}, riddles[3]]
    with gzip.open(folder / "riddles.jsonl.gz", "wt") as file:
        file.writelines(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in [*riddles, *faults])
    return folder


def instructions(what: str) -> dict:
    query = {"instruction": f"Represent the description for finding the same {what}: ", "paraphrases": [f"{what}: "]}
    return {"query": query}


@pytest.fixture
def mixture(sources) -> Mixture:
    window = {"kind": "classes", "shares_texts": "window"}
    return Mixture.model_validate(
        {
            "name": "shop",
            "held_out_share": 0.1,
            "near_duplicates": None,
            "tasks": [
                {"name": "colour", "source": {"files": sources / "colours.jsonl"}, "instructions": instructions("colour")} | window,
                {"name": "riddles", "source": {"files": sources / "riddles.jsonl.gz"}, "kind": "pairs", "license": "mit",
                 "instructions": {"query": "Represent the riddle: ", "document": "Represent the answer: "}},
                {"name": "size", "source": {"files": sources / "sizes.jsonl"}, "instructions": instructions("size")} | window,
            ],
        }
    )  # fmt: skip


def build(mixture, output, scorer, **options):
    return build_mixture(mixture, output, scorer=scorer, show_progress_bar=False, **options)


def read(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".build" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_rows_and_counts(mixture, scorer, tmp_path):
    output = tmp_path / "out"
    report = build(mixture, output, scorer)
    by_task = {result.task: result for result in report.results}
    assert list(by_task) == ["colour", "riddles", "size"]
    riddles = by_task["riddles"]
    assert riddles.counts["records read"] == 63
    # A line that is no JSON, one that is no object, one without a column; then a blank query and a copy.
    assert sum(count for what, count in riddles.counts.items() if what.startswith("bad record")) == 3
    assert [line.split(": ")[0].rsplit(":", 1)[1] for line in riddles.bad_records] == ["61", "62", "63"]
    assert riddles.counts["left out: blank text"] == 1
    assert riddles.counts["left out: exact duplicate"] == 1
    assert riddles.train_rows + riddles.held_out_rows == 60
    data = load_training_data(output)
    assert {task: len(rows) for task, rows in data.train.items()} == {
        task: result.train_rows for task, result in by_task.items()
    }
    row = data.train["riddles"][0]
    assert (row.query.instruction, row.positive.instruction) == ("Represent the riddle: ", "Represent the answer: ")
    assert "held-out rows whose query is trained on too" not in data.report


def test_classes_are_paired_and_give_each_other_instruction_negatives(mixture, scorer, tmp_path):
    build(mixture, tmp_path / "out", scorer)
    rows = {task: list(read_rows(tmp_path / "out" / "train" / f"{task}.parquet")) for task in ("colour", "size")}
    for task, words in (("colour", COLOURS), ("size", SIZES)):
        other = SIZES if task == "colour" else COLOURS
        for row in rows[task]:
            words_of = [[word for word in words if f" {word} " in text.text] for text in row.texts]
            others_of = [[word for word in other if f" {word} " in text.text] for text in row.texts]
            assert words_of[0] == words_of[1] == [row.label]
            assert all(found != words_of[0] for found in words_of[2:])
            # The hard negative would be right under the other task's instruction.
            assert others_of[0] == others_of[2]
            assert {text.instruction for text in row.texts} <= set(mixture.tasks[0].sides.query.wordings) | set(
                mixture.tasks[2].sides.query.wordings
            )


def test_a_second_run_keeps_what_is_there_and_changes_no_byte(mixture, scorer, tmp_path):
    output = tmp_path / "out"
    write_manifest(mixture, build(mixture, output, scorer), output)
    first = read(output)
    report = build(mixture, output, scorer)
    write_manifest(mixture, report, output)
    assert (report.built, len(report.kept)) == ((), 3)
    assert read(output) == first
    elsewhere = tmp_path / "elsewhere"
    write_manifest(mixture, build(mixture, elsewhere, scorer), elsewhere)
    assert read(elsewhere) == first


def test_only_what_changed_is_built_anew(mixture, scorer, tmp_path, sources):
    output = tmp_path / "out"
    build(mixture, output, scorer)
    with gzip.open(sources / "riddles.jsonl.gz", "at") as file:
        file.write(json.dumps({"query": "What is new?", "positive": "This riddle."}) + "\n")
    assert build(mixture, output, scorer).built == ("riddles",)
    # A damaged shard is noticed; tasks that share texts are built together.
    (output / "train" / "size.parquet").write_bytes(b"")
    assert set(build(mixture, output, scorer).built) == {"colour", "size"}
    seeded = mixture.model_copy(update={"seed": 1})
    assert len(build(seeded, output, scorer).built) == 3
    fewer = seeded.model_copy(update={"tasks": seeded.tasks[:1]})
    build(fewer, output, scorer)
    assert sorted(path.name for path in (output / "train").iterdir()) == ["colour.parquet"]


def test_strict_stops_at_the_first_bad_record(mixture, scorer, tmp_path):
    with pytest.raises(BadRecordError, match=r"riddles\.jsonl\.gz:61: "):
        build(mixture, tmp_path / "out", scorer, strict=True)


def test_a_task_without_rows_is_an_error(mixture, scorer, tmp_path):
    nothing = mixture.tasks[1].model_copy(update={"where": {"lang": "fr"}})
    with pytest.raises(ValueError, match=r"Task 'riddles' has no training row\. Counts: .*not selected by 'where'"):
        build(mixture.model_copy(update={"tasks": (nothing,)}), tmp_path / "out", scorer)


def test_the_manifest_has_names_counts_hashes_and_no_texts(mixture, scorer, tmp_path):
    output = tmp_path / "out"
    report = build(mixture, output, scorer)
    write_manifest(mixture, report, output)
    text = (output / "manifest.json").read_text(encoding="utf-8")
    manifest = json.loads(text)
    assert manifest == json.loads(json.dumps(build_manifest(mixture, report)))
    assert str(tmp_path) not in text
    assert "kettle" not in text
    assert "Answer 3" not in text
    riddles = manifest["tasks"][1]
    assert riddles["files"][0]["name"] == "riddles.jsonl.gz"
    assert len(riddles["files"][0]["sha256"]) == len(riddles["shards"]["train/riddles.parquet"]) == 64
    assert manifest["train_rows"] == sum(task["train_rows"] for task in manifest["tasks"])
    assert f"| riddles | riddles.jsonl.gz (files) | mit | {riddles['train_rows']} |" in format_training_data(manifest)
    card = (output / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "path: train/*.parquet" in card
    assert "| riddles | pairs | 63 |" in (output / "report.md").read_text(encoding="utf-8")
