from __future__ import annotations

import gzip
import hashlib
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instructor_st.data.building.build import build_mixture
from instructor_st.data.building.contamination import (
    EvaluationSet,
    EvaluationSource,
    EvaluationTexts,
    list_evaluation_sources,
    normalize_text,
)
from instructor_st.data.building.manifest import build_manifest, format_build_report
from instructor_st.data.building.mixture import Mixture

CARD = "I am still waiting on my card?"
CAT = "A cat sits on the window sill."
DOG = "A dog sleeps under the kitchen table."
FOX = "A fox crosses the road at night."
HEN = "A hen broods behind the old barn."


def write_lines(path, *records):
    lines = "".join(json.dumps(record) + "\n" for record in records)
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write(lines)
    else:
        path.write_text(lines, encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("  A\tb\n\nC\u00a0d ", "a b c d"),
        ("\uff26\uff4f\uff58 \ufb01n", "fox fin"),
        ("Stra\u00dfe", "strasse"),
        ("\u0390", "\u0390"),
        ("\u03aa\u0301", "\u0390"),
        ("20 \u2103", "20 \u00b0c"),
        (" \n\u3000", ""),
    ],
)
def test_normalised_form(text, normalized):
    assert normalize_text(text) == normalized


def test_same_text_in_other_writing_matches():
    texts = EvaluationTexts({"cards": [CARD]})
    assert "\u3000i am STILL\nwaiting  on my \uff43ard\uff1f" in texts
    assert "I am still waiting on my cards?" not in texts
    assert f"He said: {CARD}" not in texts


def test_twenty_characters_are_telling():
    texts = EvaluationTexts({"short": ["a" * 20, "b" * 19, f"  {'c' * 19} ", "thanks", " "]})
    assert ["a" * 20 in texts, "b" * 19 in texts, "c" * 19 in texts, "thanks" in texts] == [True, False, False, False]
    assert len(texts) == 1
    assert texts.too_short == 3


def test_a_text_of_two_sets_is_the_first_ones():
    texts = EvaluationTexts({"zoo": [CAT, DOG], "ark": [DOG.upper(), FOX]})
    assert [texts.find(text) for text in (CAT, DOG, FOX, HEN)] == ["zoo", "zoo", "ark", None]
    assert len(texts) == 3
    assert texts.count_matches([DOG, FOX, DOG.lower(), HEN, "Hi"]) == {"zoo": 2, "ark": 1}


def test_each_set_has_its_own_counts():
    texts = EvaluationTexts({"zoo": [CAT, DOG, f" {CAT.upper()}", "thanks"], "ark": [DOG, FOX, "Hi", " "], "none": []})
    assert texts.sets == (EvaluationSet("zoo", 2, 1), EvaluationSet("ark", 2, 1), EvaluationSet("none", 0, 0))
    assert (len(texts), texts.too_short) == (3, 2)


def test_every_row_form_is_read(tmp_path):
    write_lines(tmp_path / "classes.jsonl.gz", {"text": CARD, "label": "a label of more than twenty characters"})
    write_lines(tmp_path / "pairs.jsonl", {"a": CAT, "b": DOG, "score": 4.5}, {"a": {"text": FOX}, "b": None})
    (tmp_path / "cells.csv").write_text(
        'query,positive,negative_1\n"[""q: "", ""' + HEN + '""]",plain cell of a table,\n'
    )
    (tmp_path / "deep").mkdir()
    row = {"query": ["q: ", "The query of a row in a table"], "positive": ["d: ", "The positive of a row in a table"]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "deep" / "rows.parquet")
    texts = EvaluationTexts.read([tmp_path])
    assert texts.find(CARD) == "classes"
    assert {texts.find(text) for text in (CAT, DOG, FOX)} == {"pairs"}
    assert {texts.find(text) for text in (HEN, "plain cell of a table")} == {"cells"}
    assert {texts.find(row[side][1]) for side in row} == {"rows"}
    assert "a label of more than twenty characters" not in texts
    assert len(texts) == 8


def test_retrieval_and_references_without_ids_and_labels(tmp_path):
    write_lines(tmp_path / "cisi.corpus.jsonl", {"_id": "document number one of all", "title": CAT, "text": DOG})
    qrel = {"query-id": "query number one of all these", "corpus-id": "document number one of all", "score": 1}
    write_lines(tmp_path / "cisi.qrels.jsonl", qrel)
    captions = {"reference": [FOX, HEN], "candidate": CARD, "id": 3, "split": "the test split of this data set"}
    write_lines(tmp_path / "captions.jsonl", {**captions, "label_text": "a label of more than twenty characters"})
    texts = EvaluationTexts.read(
        [tmp_path / "cisi.corpus.jsonl", tmp_path / "cisi.qrels.jsonl", str(tmp_path / "captions.jsonl")]
    )
    assert [texts.find(text) for text in (CAT, DOG)] == ["cisi.corpus"] * 2
    assert [texts.find(text) for text in (FOX, HEN, CARD)] == ["captions"] * 3
    assert len(texts) == 5


def test_files_of_one_name_are_read_both(tmp_path):
    for folder, text in (("one", CAT), ("two", DOG)):
        (tmp_path / folder).mkdir()
        write_lines(tmp_path / folder / "test.jsonl", {"text": text})
    texts = EvaluationTexts.read([tmp_path / "one", tmp_path / "two"])
    assert [texts.find(CAT), texts.find(DOG)] == ["test", "test"]
    assert texts.sets == (EvaluationSet("test", 2, 0),)


def test_sources_are_files_with_their_hashes_in_the_order_given(tmp_path):
    (tmp_path / "more").mkdir()
    files = [tmp_path / "dev.corpus.jsonl.gz", tmp_path / "more" / "a.jsonl", tmp_path / "more" / "b.jsonl"]
    for file, text in zip(files, (CAT, DOG, FOX), strict=True):
        write_lines(file, {"text": text})
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert list_evaluation_sources([tmp_path / "more", str(files[0])]) == [
        EvaluationSource("a", "a.jsonl", digests[1]),
        EvaluationSource("b", "b.jsonl", digests[2]),
        EvaluationSource("dev.corpus", "dev.corpus.jsonl.gz", digests[0]),
    ]
    with pytest.raises(ValueError, match=r"'gone' does not exist\. Texts are wanted"):
        list_evaluation_sources("gone")


def test_a_single_path_is_one_path(tmp_path):
    write_lines(tmp_path / "one.jsonl", {"text": CAT})
    assert CAT in EvaluationTexts.read(str(tmp_path))


def test_lone_surrogates_can_be_asked_about():
    texts = EvaluationTexts({"broken": ["half of an emoji \ud83d stands here"]})
    assert "half of an emoji \ud83d stands here" in texts
    assert "half of an emoji \ud83e stands here" not in texts


def test_what_is_no_file_of_texts(tmp_path):
    said = r"'Banking77Classification' does not exist\. Texts are wanted, .* mteb task: 'mteb:Banking77Classification'"
    with pytest.raises(ValueError, match=said):
        EvaluationTexts.read(["Banking77Classification"])
    with pytest.raises(FileNotFoundError, match="no row file"):
        EvaluationTexts.read([tmp_path])
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text"\n')
    with pytest.raises(ValueError, match=r"bad\.jsonl:2: not JSON"):
        EvaluationTexts.read([tmp_path])


def test_no_text_at_all():
    assert CAT not in EvaluationTexts({})
    assert CAT not in EvaluationTexts.read([])
    assert len(EvaluationTexts({"nothing": []})) == 0


def test_memory_is_small_and_all_texts_are_found():
    count = 50_000
    tracemalloc.start()
    try:
        texts = EvaluationTexts({"many": (f"this is the text of number {number}" for number in range(count))})
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(texts) == count
    assert held < 20 * count
    assert peak < 100 * count
    assert all(f"this is the text of number {number}" in texts for number in range(0, count, 7))
    assert not any(f"this is the text of number {number}" in texts for number in range(count, count + 5000))


def test_what_evaluation_sets_removed_stands_in_the_manifest_and_the_report(tmp_path):
    rows = [{"query": f"question {n}", "positive": f"answer {n}", "negative": ""} for n in range(5)]
    rows += [
        {"query": "cat?", "positive": CAT, "negative": ""},
        {"query": "dog?", "positive": "It is.", "negative": DOG},
    ]
    write_lines(tmp_path / "rows.jsonl", *rows)
    write_lines(tmp_path / "dev.jsonl", {"text": CAT}, {"text": DOG}, {"text": "Hi"})
    write_lines(tmp_path / "test.jsonl", {"text": FOX})
    sides = {"query": "Represent the question: ", "document": "Represent the answer: "}
    task = {"name": "t", "source": {"files": tmp_path / "rows.jsonl"}, "kind": "pairs", "instructions": sides}

    def build(*paths):
        mixture = Mixture.model_validate({"name": "m", "evaluation_texts": paths, "tasks": [task]})
        report = build_mixture(mixture, tmp_path / "out", show_progress_bar=False)
        return report, build_manifest(mixture, report)

    report, manifest = build(tmp_path / "dev.jsonl", tmp_path / "test.jsonl")
    assert manifest["evaluation_texts"] == ["dev.jsonl", "test.jsonl"]
    digests = [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("dev.jsonl", "test.jsonl")]
    counts = {"texts": 2, "texts_too_short": 1, "rows_left_out": 1, "negatives_left_out": 1}
    nothing = {"texts": 1, "texts_too_short": 0, "rows_left_out": 0, "negatives_left_out": 0}
    assert manifest["contamination"] == [
        {"evaluation_set": "dev", "sources": [{"name": "dev.jsonl", "version": digests[0]}], **counts},
        {"evaluation_set": "test", "sources": [{"name": "test.jsonl", "version": digests[1]}], **nothing},
    ]
    lines = format_build_report(manifest).splitlines()
    assert "| dev | 2 | 1 | 1 | 1 |" in lines
    assert "| test | 1 | 0 | 0 | 0 |" in lines
    assert "| left out: text of evaluation set dev | 1 |" in lines

    # The counts are the same where nothing had to be built, and other evaluation texts build anew.
    again, same = build(tmp_path / "dev.jsonl", tmp_path / "test.jsonl")
    assert (report.built, again.built, same) == (("t",), (), manifest)
    without, manifest = build()
    assert (without.built, manifest["contamination"], manifest["train_rows"]) == (("t",), [], 7)
    assert "No evaluation texts were given, so none were looked for." in format_build_report(manifest).splitlines()
