from __future__ import annotations

import sqlite3

import pytest

from instructor_st.data.augmentation.generation_cache import CachedGenerator


class Recorder:
    """Answers each text with itself in upper case and its batch, and notes what it was asked; may fail."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.asked: list[list[str]] = []
        self.fail_at = fail_at

    def __call__(self, texts: list[str]) -> list[list[str]]:
        if self.fail_at == len(self.asked):
            raise KeyboardInterrupt
        self.asked.append(texts)
        return [[text.upper(), "+".join(texts)] for text in texts]


def test_texts_are_generated_once_in_batches_of_like_length(tmp_path):
    recorder = Recorder()
    with CachedGenerator(recorder, tmp_path / "new" / "cache.sqlite", identity="a", batch_size=2) as cached:
        assert cached(["b", "dddd", "a", "ccc", "b"]) == [
            ["B", "a+b"],
            ["DDDD", "dddd+ccc"],
            ["A", "a+b"],
            ["CCC", "dddd+ccc"],
            ["B", "a+b"],
        ]
        assert recorder.asked == [["dddd", "ccc"], ["a", "b"]]
        assert (cached.generated, cached.found) == (4, 0)
        assert cached(["a", "ee"]) == [["A", "a+b"], ["EE", "ee"]]
        assert cached(["ccc"]) == [["CCC", "dddd+ccc"]]
        assert (cached.generated, cached.found) == (5, 2)
        assert cached([]) == []
    assert recorder.asked == [["dddd", "ccc"], ["a", "b"], ["ee"]]


def test_a_stopped_run_goes_on_with_the_batch_it_was_at(tmp_path):
    texts = ["1", "22", "333", "4444", "55555"]
    undisturbed = Recorder()
    with CachedGenerator(undisturbed, tmp_path / "a", identity="x", batch_size=2) as cached:
        expected = cached(texts)
    first, second = Recorder(fail_at=1), Recorder()
    with CachedGenerator(first, tmp_path / "b", identity="x", batch_size=2) as cached, pytest.raises(KeyboardInterrupt):
        cached(texts)
    with CachedGenerator(second, tmp_path / "b", identity="x", batch_size=2) as cached:
        assert cached.count_known([*texts, "1"]) == 2
        assert cached(texts) == expected
        assert (cached.generated, cached.found) == (3, 2)
    assert first.asked == [["55555", "4444"]]
    assert first.asked + second.asked == undisturbed.asked


def test_a_batch_is_written_whole_or_not_at_all(tmp_path):
    class HalfBroken(Recorder):
        def __call__(self, texts: list[str]) -> list[list[str]]:
            return [["fine"], [object()]]

    with CachedGenerator(HalfBroken(), tmp_path / "c", identity="x") as cached:
        with pytest.raises(TypeError, match="not JSON serializable"):
            cached(["a", "b"])
        assert cached.count_known(["a", "b"]) == 0


def test_what_another_process_wrote_stays(tmp_path):
    with CachedGenerator(lambda texts: [["first"]] * len(texts), tmp_path / "c", identity="x") as other:

        def generate(texts: list[str]) -> list[list[str]]:
            other(texts)
            return [["second"]] * len(texts)

        with CachedGenerator(generate, tmp_path / "c", identity="x") as cached:
            assert cached(["a"]) == [["first"]]


def test_generators_share_a_file_and_nothing_else(tmp_path):
    for identity, answer in (("a", "one"), ("b", "two"), ("a", "three")):
        with CachedGenerator(
            lambda texts, answer=answer: [[answer]] * len(texts), tmp_path / "c", identity=identity
        ) as c:
            assert c(["text"]) == [["two" if identity == "b" else "one"]]


def test_many_and_odd_texts_are_found_again(tmp_path):
    texts = [*(f"text {number}" for number in range(1200)), "", "\ud800", "ü\n\0'"]
    with CachedGenerator(Recorder(), tmp_path / "c", identity="x", batch_size=1203) as cached:
        answers = cached(texts)
        assert cached(texts) == answers
        assert (cached.generated, cached.found) == (1203, 1203)
        assert answers[-1][0] == "Ü\n\0'"


def test_looking_writes_nothing(tmp_path):
    with CachedGenerator(Recorder(), tmp_path / "c", identity="x") as cached:
        before = (tmp_path / "c").read_bytes()
        assert cached.count_known(["a"]) == 0
    with CachedGenerator(Recorder(), tmp_path / "c", identity="y"):
        pass
    assert (tmp_path / "c").read_bytes() == before


def test_errors(tmp_path):
    (tmp_path / "text").write_text("this is a text file, not a database of any kind")
    with pytest.raises(ValueError, match=r"text is not a cache of candidates \(file is not a database\)"):
        CachedGenerator(Recorder(), tmp_path / "text", identity="x")
    with pytest.raises(ValueError, match="batch_size must be 1 or more, not 0"):
        CachedGenerator(Recorder(), tmp_path / "c", identity="x", batch_size=0)
    with (
        CachedGenerator(lambda _: [["a"]], tmp_path / "c", identity="x") as cached,
        pytest.raises(ValueError, match="given 2 texts and answered with 1 lists"),
    ):
        cached(["a", "b"])
    cached.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        cached(["a"])
