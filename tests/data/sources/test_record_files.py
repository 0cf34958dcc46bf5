from __future__ import annotations

import gzip
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from instructor_st.data.sources.open_source import open_source
from instructor_st.data.sources.packed_files import UnreadableFileError
from instructor_st.data.sources.record_files import MAX_RECORD_BYTES, read_record_file
from instructor_st.data.sources.records import BadRecordError
from instructor_st.data.sources.specs import FileSource
from tests.data.sources.reading import read_all

PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
RECORDS = [{"text": "ä, b", "label": "x"}, {"text": "line\nbreak", "label": "y"}]


def encode_records(kind):
    if kind == "parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(RECORDS), sink)
        return sink.getvalue().to_pybytes()
    if kind == "csv":
        return '\ufefftext,label\n"ä, b",x\n"line\nbreak",y\n'.encode()
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS).encode()


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize(("kind", "lines"), [("jsonl", "12"), ("csv", "24"), ("parquet", "12")])
def test_every_kind_of_file_gives_the_same_records(tmp_path, kind, lines, packing):
    name = f"a.{kind}{packing}"
    (tmp_path / name).write_bytes(PACK[packing](encode_records(kind)))
    good, bad = read_all(FileSource(files=tmp_path / name))
    assert good == [(f"{name}:{line}", record) for line, record in zip(lines, RECORDS, strict=True)]
    assert bad == []


def test_a_folder_is_read_file_by_file(tmp_path):
    (tmp_path / "b.csv").write_text("text\n2\n")
    (tmp_path / "a.jsonl").write_text('{"text": "1"}\n')
    (tmp_path / "notes.md").write_text("no data")
    assert [values["text"] for _, values in read_all(FileSource(files=tmp_path))[0]] == ["1", "2"]


BAD_LINES = [
    (b'{"text": "broken"', "not JSON"),
    (b'["a list"]', "a JSON object is expected, not list"),
    (b"7", "a JSON object is expected, not int"),
    (b'{"text": "\xff"}', "not UTF-8"),
    (b'{"text": "cut \xc3"}', "not UTF-8"),
    (b'{"text": "raw \x00 byte"}', "not JSON"),
    (b'{"text": "\\u0000"}', "a NUL character"),
    (b'{"deep": [{"text": "\\ud83d"}]}', "a lone surrogate"),
    (b'{"text": "\\udc00"}', "a lone surrogate"),
    (b'{"text": "' + b"x" * MAX_RECORD_BYTES + b'"}', "longer than 1,000,000 bytes"),
    (b'{"deep": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "not JSON"),
    (b'{"number": ' + b"1" * 5000 + b"}", "not JSON"),
]


def test_a_bad_line_costs_itself(tmp_path):
    good = b'{"text": "\\ud83d\\ude00 fine"}'
    lines = [b"\xef\xbb\xbf" + good]
    for line, _ in BAD_LINES:
        lines += [line, good]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n\n")
    found, bad = read_all(FileSource(files=path))
    assert bad == [(f"a.jsonl:{2 * n}", reason) for n, (_, reason) in enumerate(BAD_LINES, 1)]
    assert found == [(f"a.jsonl:{2 * n + 1}", {"text": "😀 fine"}) for n in range(len(BAD_LINES) + 1)]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_record_may_be_as_long_as_the_limit(tmp_path, name, end):
    line = b'{"text": "' + b"x" * 88 + b'"}' if name == "a.jsonl" else b"x" * 100
    header = b"text\n" if name == "a.csv" else b""
    bad = []
    for extra, reasons in ((b"", []), (b" ", ["longer than 100 bytes"])):
        bad.clear()
        (tmp_path / name).write_bytes(header + line + extra + end)
        good = list(read_record_file(tmp_path / name, on_bad=bad.append, max_record_bytes=100))
        assert [record.reason for record in bad] == reasons
        assert len(good) + len(bad) == 1
    (tmp_path / name).write_bytes(header + (line + b"\r\n") * 2)
    good = list(read_record_file(tmp_path / name, max_record_bytes=100))
    first = len(header.splitlines()) + 1
    assert [record.where.rsplit(":", 1)[1] for record in good] == [str(first), str(first + 1)]


def test_a_bad_csv_record_costs_itself(tmp_path):
    lines = [
        b"text,label",
        b"good,1",
        b"one,two,three",
        b"one",
        b'"closed" and on,x',
        b'"not \xff UTF-8,',
        b'and its second line",x',
        b'"' + b"x" * MAX_RECORD_BYTES + b'",x',
        b'"' + b"x" * 700_000,
        b"x" * 700_000,
        b'good"" end",x',
        b"nul \x00,x",
        b"",
        b'5" pipe,2',
        b'"doubled "" quote",3',
    ]
    path = tmp_path / "a.csv"
    path.write_bytes(b"\r\n".join(lines))
    good, bad = read_all(FileSource(files=path))
    assert bad == [
        ("a.csv:3", "more cells than the header has"),
        ("a.csv:4", "fewer cells than the header has"),
        ("a.csv:5", "not CSV"),
        ("a.csv:7", "not UTF-8"),
        ("a.csv:8", "longer than 1,000,000 bytes"),
        ("a.csv:11", "longer than 1,000,000 bytes"),
        ("a.csv:12", "a NUL character" if sys.version_info >= (3, 11) else "not CSV"),
    ]
    assert good == [
        ("a.csv:2", {"text": "good", "label": "1"}),
        ("a.csv:14", {"text": '5" pipe', "label": "2"}),
        ("a.csv:15", {"text": 'doubled " quote', "label": "3"}),
    ]


def test_a_bad_parquet_row_costs_itself(tmp_path):
    texts = pa.array([b"one", b"\xff", b"nul \x00", b"four"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    good, bad = read_all(FileSource(files=tmp_path))
    assert bad == [("a.parquet:2", "not UTF-8"), ("a.parquet:3", "a NUL character")]
    assert good == [("a.parquet:1", {"text": "one"}), ("a.parquet:4", {"text": "four"})]


def test_without_a_listener_the_first_bad_record_ends_the_reading(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "1"}\n{"text": "\\u0000"}\n')
    records = open_source(FileSource(files=tmp_path))
    assert next(records).values == {"text": "1"}
    with pytest.raises(BadRecordError, match=r"a\.jsonl:2: a NUL character \(in column 'text'"):
        next(records)


def test_every_cut_of_a_last_line_is_noticed(tmp_path):
    path = tmp_path / "a.jsonl"
    whole = '{"a": [1.5e-3, -2, true, false, null, "é \\u00e9 \\" \\\\"], "b": {}}'.encode()
    for length in range(1, len(whole)):
        path.write_bytes(b'{"text": "1"}\n' + whole[:length])
        with pytest.raises(
            UnreadableFileError, match=r"a\.jsonl: line 2 is cut .* last good record is \S*a\.jsonl:1\."
        ):
            read_all(FileSource(files=path))
    for line in (b"not JSON", b'{"a": 1,}', b'{"a": "\xff"}', b'{"a": 1]', b"{'a': 1}"):
        path.write_bytes(b'{"text": "1"}\n' + line)
        assert [place for place, _ in read_all(FileSource(files=path))[1]] == ["a.jsonl:2"]


@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize("left", [0, 1, 0.5, 0.9, -1])
def test_a_cut_packed_file_is_noticed(tmp_path, packing, left):
    lines = b"".join(b'{"text": "%d"}\n' % (n * 1_000_003) for n in range(30_000))
    packed = PACK[packing](lines)
    cut = packed[: int(len(packed) * left) if isinstance(left, float) else left]
    (tmp_path / f"a.jsonl{packing}").write_bytes(cut)
    place = "none" if left in (0, 1) else rf"\S*a\.jsonl{packing}:\d+"
    with pytest.raises(UnreadableFileError, match=rf"a\.jsonl{packing}: .* last good record is {place}\."):
        read_all(FileSource(files=tmp_path))


def test_files_that_break_off_name_their_last_good_record(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n1,x\n2,"y\nz\n')
    with pytest.raises(UnreadableFileError, match=r"from line 3 on has a quote.* last good record is \S*a\.csv:2\."):
        read_all(FileSource(files=tmp_path / "a.csv"))
    (tmp_path / "b.csv").write_text("text,label,text\n1,x,2\n")
    with pytest.raises(UnreadableFileError, match=r"b\.csv: the header has 'text' twice"):
        read_all(FileSource(files=tmp_path / "b.csv"))
    (tmp_path / "c.csv").write_bytes(b"text,\xff\n1,x\n")
    with pytest.raises(UnreadableFileError, match=r"the header, \S*c\.csv:1: not UTF-8"):
        read_all(FileSource(files=tmp_path / "c.csv"))
    for packing, pack in PACK.items():
        path = tmp_path / f"d.parquet{packing}"
        path.write_bytes(pack(encode_records("parquet")[:-9]))
        with pytest.raises(UnreadableFileError, match=r"d\.parquet.*: cannot be read as Parquet"):
            read_all(FileSource(files=path))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"does not exist\. Check the path"):
        open_source(FileSource(files=tmp_path / "nothing"))
    with pytest.raises(
        FileNotFoundError, match=r"holds no row file; known are .jsonl, .csv, .parquet, plain, .gz or .zst"
    ):
        open_source(FileSource(files=tmp_path))
    with pytest.raises(FileNotFoundError, match=r"nothing\.jsonl: no such file"):
        read_record_file(tmp_path / "nothing.jsonl")
