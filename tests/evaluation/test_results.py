from __future__ import annotations

import json
from dataclasses import replace

import pytest

from instructor_st.evaluation.results import Result, find_versions, read_results, write_results

RESULT = Result(
    model="m",
    suite="own",
    task="t",
    category="STS",
    condition="right",
    instruction="Represent é: ",
    metric="cosine_spearman",
    value=0.5,
    low=0.4,
    rows=9,
    notes={"left_out": {"blank": 1}},
)


def test_what_is_written_is_read(tmp_path):
    other = replace(RESULT, task="u", document_instruction="d: ")
    write_results([RESULT, other], tmp_path / "a" / "results.json")
    write_results([RESULT], tmp_path / "a" / "a.json")
    assert read_results(tmp_path / "a" / "results.json") == [RESULT, other]
    assert read_results(tmp_path / "a") == [RESULT, RESULT, other]
    assert read_results([tmp_path / "a" / "results.json", tmp_path / "a" / "a.json"]) == [RESULT, other, RESULT]
    assert "Represent é" in (tmp_path / "a" / "a.json").read_text(encoding="utf-8")
    assert RESULT.versions == find_versions()
    assert set(find_versions()) == {"instructor-st", "sentence-transformers", "transformers", "torch"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"model": "m"}, "wanted a list of results, not dict"),
        ([3], "result 0: wanted an object, not int"),
        ([{"model": "m", "colour": 1, "age": 2}], "result 0: unknown age, colour"),
        ([{"model": "m"}], "result 0: .*missing"),
    ],
)
def test_what_are_no_results(tmp_path, rows, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=message):
        read_results(path)


def test_no_file_no_json_and_an_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.json: no such file"):
        read_results(tmp_path / "gone.json")
    with pytest.raises(FileNotFoundError, match="no results"):
        read_results(tmp_path)
    (tmp_path / "bad.json").write_text("[")
    with pytest.raises(ValueError, match=r"bad\.json: not JSON"):
        read_results(tmp_path)
