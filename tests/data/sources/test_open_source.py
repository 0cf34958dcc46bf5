from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from instructor_st.data.sources import json_walk
from instructor_st.data.sources.hub_data import HubDataError
from instructor_st.data.sources.open_source import open_source
from instructor_st.data.sources.packed_files import UnreadableFileError
from instructor_st.data.sources.specs import (
    FileSource,
    HubSource,
    MediSource,
    NaturalInstructionsSource,
    RegistrySource,
)
from instructor_st.tasks import get_task
from tests.data.sources.reading import read_all
from tests.loopback_hub import serve_hub

MEDI = [
    {"query": ["iq: ", f"q{n}"], "pos": ["id: ", f"p{n}"], "neg": ["id: ", f"n{n}"], "task_id": n % 2} for n in range(4)
]
SNI = {
    "URL": [float("nan")],
    "Definition": ["Say yes or no.", "Be short."],
    "Positive Examples": [{"input": "Instances", "output": "]}"}],
    "Instances": [
        {"id": "task1-a", "input": "one?", "output": ["yes", "Yes."]},
        {"input": "two?", "output": ["no"]},
    ],
}


def write_task(folder, document, name="task1_yes_no"):
    (folder / "tasks").mkdir(exist_ok=True)
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    (folder / "tasks" / f"{name}.json").write_bytes(content)
    return NaturalInstructionsSource(natural_instructions=folder, task=name)


def write_medi(folder, document):
    path = folder / "medi-data.json"
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return MediSource(medi=path)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "medi"])
def test_a_record_beyond_the_limit_takes_no_memory(tmp_path, kind):
    long = b'"' + b"x" * 40_000_000 + b'"'
    if kind == "jsonl":
        source = FileSource(files=tmp_path / "a.jsonl")
        source.files.write_bytes(b'{"text": ' + long + b'}\n{"text": "2"}\n')
    elif kind == "csv":
        source = FileSource(files=tmp_path / "a.csv")
        source.files.write_bytes(b"text\n" + long + b"\n2\n")
    else:
        source = write_medi(tmp_path, b"[[" + long + b"], " + json.dumps(MEDI[0]).encode() + b"]")
    del long
    tracemalloc.start()
    good, bad = read_all(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(good) == 1
    assert [reason.split(",")[0] for _, reason in bad] == ["longer than 1"]
    assert peak < 12_000_000


def test_medi_items(tmp_path):
    source = write_medi(tmp_path, MEDI)
    good, bad = read_all(source)
    assert bad == []
    assert good[1] == (
        "medi-data.json:item 2",
        {
            "query": "q1",
            "positive": "p1",
            "negative": "n1",
            "query_instruction": "iq: ",
            "document_instruction": "id: ",
            "task_id": 1,
        },
    )
    assert [values["query"] for _, values in good] == ["q0", "q1", "q2", "q3"]
    of_task = read_all(source.model_copy(update={"task_id": 0}))[0]
    assert [place for place, _ in of_task] == ["medi-data.json:item 1", "medi-data.json:item 3"]
    path = tmp_path / "packed.json.zst"
    path.write_bytes(zstandard.compress(json.dumps(MEDI).encode()))
    assert len(read_all(MediSource(medi=path))[0]) == 4


def test_a_bad_medi_item_costs_itself(tmp_path):
    first = json.dumps(MEDI[0]).encode()
    items = [
        (b'{"query": ["i", "q"]}', "no 'pos'"),
        (first.replace(b'"task_id"', b'"task_name"'), "no 'task_id'"),
        (first.replace(b'["iq: ", "q0"]', b'"q0"'), "'query' is not [instruction, text]"),
        (first.replace(b'"n0"', b'"n0", 1'), "'neg' is not [instruction, text]"),
        (first.replace(b'"p0"', b"null"), "'pos' is not [instruction, text]"),
        (first.replace(b'"task_id": 0', b'"task_id": true'), "'task_id' is no whole number"),
        (b'[{"task_id": 0}]', "a JSON object is expected, not list"),
        (first.replace(b"q0", b"\\ud800"), "a lone surrogate"),
        (first.replace(b"q0", b"\\u0000"), "a NUL character"),
        (first.replace(b"q0", b"\xff"), "not UTF-8"),
        (first.replace(b'"q0"', b'"q0" "x, ]}"'), "not JSON"),
        (first.replace(b'"q0"', b"qu, [0], {}"), "not JSON"),
        (first + b" " + first, "not JSON"),
        (b"", "not JSON"),
        (first.replace(b"q0", b"\\\\" * 600_000), "longer than 1,000,000 characters"),
    ]
    text = b"[" + b" ,\n ".join(part for item, _ in items for part in (item, first)) + b"]"
    good, bad = read_all(write_medi(tmp_path, text))
    assert bad == [(f"medi-data.json:item {2 * n + 1}", reason) for n, (_, reason) in enumerate(items)]
    assert [place for place, _ in good] == [f"medi-data.json:item {2 * n + 2}" for n in range(len(items))]
    # Five of them can be told to be of task 0.
    assert len(read_all(MediSource(medi=tmp_path / "medi-data.json", task_id=1))[1]) == len(items) - 5


def test_medi_files_that_are_not_whole(tmp_path):
    whole = json.dumps(MEDI[:2]).encode()
    for length in range(len(whole)):
        with pytest.raises(UnreadableFileError, match=r"medi-data\.json: the JSON ends in the middle") as caught:
            read_all(write_medi(tmp_path, whole[:length]))
        good = [whole.index(b"}, ") + 1, len(whole) - 1]
        last = {0: "none", 1: ":item 1", 2: ":item 2"}[sum(length >= place for place in good)]
        assert f"{last}. Is the file whole?" in str(caught.value)
    for document, message in (
        ({"data": MEDI}, r"has '\{' where '\[' is expected"),
        (whole + b"[]", r"ends, and yet '\[' follows.*item 2"),
    ):
        with pytest.raises(UnreadableFileError, match=message):
            read_all(write_medi(tmp_path, document))
    with pytest.raises(FileNotFoundError, match=r"no such file\. Download MEDI"):
        open_source(MediSource(medi=tmp_path / "nothing.json"))
    assert read_all(write_medi(tmp_path, b"\xef\xbb\xbf [ ] \n")) == ([], [])


@pytest.mark.parametrize("bytes_at_once", [1, 2, 3, 5, 7, 64])
def test_chunks_of_any_size_make_no_difference(tmp_path, monkeypatch, bytes_at_once):
    items = [*MEDI, 12.5, 'a \\ " é 😀', [], {}, [[1], {"a": "]"}], "long" * 60, -7, None]
    monkeypatch.setattr(json_walk, "_CHUNK_BYTES", bytes_at_once)
    text = json.dumps(items, ensure_ascii=False, indent=1).replace("-7", "-7 7")
    with open(write_medi(tmp_path, text.encode()).medi, "rb") as file:
        walk = json_walk.JsonWalk(file, max_characters=200)
        values = list(walk.walk_items())
        walk.finish()
    assert [value.value for value in values] == [*items[:-3], None, None, None]
    assert [value.fault for value in values] == [""] * 9 + ["longer than 200 characters", "not JSON", ""]


def test_instances_of_a_natural_instructions_task(tmp_path):
    good, bad = read_all(write_task(tmp_path, SNI))
    assert bad == []
    both = {"definition": "Say yes or no.\nBe short."}
    first = {"input": "one?", "id": "task1-a", **both}
    assert good == [
        ("task1_yes_no.json:instance 1", {**first, "output": "yes"}),
        ("task1_yes_no.json:instance 1", {**first, "output": "Yes."}),
        ("task1_yes_no.json:instance 2", {"input": "two?", "output": "no", "id": None, **both}),
    ]
    turned = dict(reversed(SNI.items())) | {"Definition": "Say yes or no.\nBe short."}
    assert read_all(write_task(tmp_path, turned)) == (good, [])


def test_a_bad_instance_costs_itself(tmp_path):
    instances = [
        {"output": ["x"]},
        {"input": "x"},
        {"input": 7, "output": ["x"]},
        {"input": "x", "output": "x"},
        {"input": "x", "output": []},
        {"input": "x", "output": ["x", 7]},
        "x",
        {"input": "\ud800", "output": ["x"]},
        {"input": "fine", "output": ["x"]},
    ]
    good, bad = read_all(write_task(tmp_path, {**SNI, "Instances": instances}))
    assert [reason for _, reason in bad] == [
        "no 'input'",
        "no 'output'",
        "'input' is no string",
        *["'output' is no list of strings"] * 3,
        "a JSON object is expected, not str",
        "a lone surrogate",
    ]
    assert [place for place, _ in good] == ["task1_yes_no.json:instance 9"]


def test_natural_instructions_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tasks: no such folder\. Get the tasks with `git clone"):
        open_source(NaturalInstructionsSource(natural_instructions=tmp_path, task="task1"))
    source = write_task(tmp_path, SNI)
    with pytest.raises(FileNotFoundError, match=r"no task 'task1_yes_no.json'; did you mean task1_yes_no\?"):
        open_source(source.model_copy(update={"task": "task1_yes_no.json"}))
    for key in ("Definition", "Instances"):
        with pytest.raises(UnreadableFileError, match=f"task1_yes_no.json: no '{key}' in it"):
            read_all(write_task(tmp_path, {name: value for name, value in SNI.items() if name != key}))
    with pytest.raises(UnreadableFileError, match="'Definition' is no list of strings"):
        read_all(write_task(tmp_path, {**SNI, "Definition": [1]}))
    with pytest.raises(UnreadableFileError, match=r"ends in the middle.* last good record is \S*:instance 2\."):
        read_all(write_task(tmp_path, json.dumps(SNI).encode()[:-2]))


def test_worked_examples_of_a_registry_task():
    task = get_task("agnews_section")
    good, bad = read_all(RegistrySource(registry=task.name))
    assert bad == []
    kept = [(n, example) for n, example in enumerate(task.examples, 1) if not example.held_out]
    assert len(kept) == len(task.examples) - 1
    assert good == [
        (
            f"{task.name}:example {n}",
            {"query": each.query, "positive": each.positive, "negative": each.negative, "label": each.label},
        )
        for n, each in kept
    ]
    with pytest.raises(KeyError, match=r"No task 'agnews_sectoin' in the registry\. Did you mean agnews_section"):
        open_source(RegistrySource(registry="agnews_sectoin"))


HUB_CODE = """
import json
from instructor_st.data.sources.specs import HubSource
from instructor_st.data.sources.open_source import open_source

def read(**fields):
    bad = []
    try:
        good = [[record.where, dict(record.values)] for record in open_source(HubSource(**fields), on_bad=bad.append)]
        return good, [[record.where, record.reason] for record in bad]
    except Exception as error:
        return type(error).__name__, str(error)

print(json.dumps([
    read(hub="acme/data"),
    read(hub="acme/data", streaming=False),
    read(hub="acme/data", config="small", split="test", revision="v1"),
    read(hub="acme/data", split="dev"),
    read(hub="acme/data", config="large"),
    read(hub="acme/nothing"),
]))
"""


@pytest.mark.slow
def test_hub_data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    card = {
        "configs": [
            {"config_name": "all", "default": True, "data_files": "all.jsonl"},
            {"config_name": "small", "data_files": [{"split": "test", "path": "small.jsonl"}]},
        ]
    }
    (folder / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n")
    (folder / "all.jsonl").write_text(
        '{"text": "1", "label": 0}\n{"text": "\\u0000", "label": 1}\n{"text": "3", "label": 1}\n'
    )
    (folder / "small.jsonl").write_text('{"text": "4"}\n')
    with serve_hub({"acme/data": folder}) as hub:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }
        run = subprocess.run(
            [sys.executable, "-c", HUB_CODE], capture_output=True, text=True, env=environment, timeout=300
        )
        assert run.returncode == 0, run.stderr
        streamed, downloaded, small, no_split, no_config, nothing = json.loads(run.stdout)
    rows = [["acme/data/train:1", {"text": "1", "label": 0}], ["acme/data/train:3", {"text": "3", "label": 1}]]
    assert streamed == downloaded == [rows, [["acme/data/train:2", "a NUL character"]]]
    assert small == [[["acme/data/small/test:1", {"text": "4"}]], []]
    assert any("/resolve/v1/" in request for request in hub.requests)
    assert no_split[0] == "HubDataError"
    assert "split 'dev': it cannot be read" in no_split[1]
    assert no_config[0] == "HubDataError"
    assert "configuration 'large'" in no_config[1]
    assert nothing[0] == "FileNotFoundError"
    assert "Hub data set 'acme/nothing': not there, or not to be reached" in nothing[1]


def test_a_hub_row_that_is_not_utf8_costs_itself(tmp_path):
    texts = pa.array([b"one", b"\xff", b"three"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "train.parquet")
    good, bad = read_all(HubSource(hub=str(tmp_path)))
    assert [values for _, values in good] == [{"text": "one"}, {"text": "three"}]
    assert bad == [("train:2", "not UTF-8")]


def test_a_hub_data_set_that_breaks_off(tmp_path):
    rows = "".join(json.dumps({"text": str(n)}) + "\n" for n in range(300))
    (tmp_path / "train-1.jsonl").write_text(rows)
    (tmp_path / "train-2.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(HubDataError, match=r"train: reading fails .* last good record is \S*/train:\d+\."):
        read_all(HubSource(hub=str(tmp_path)))
