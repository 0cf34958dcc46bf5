"""Peak memory of reading a source, against the size of its file; a subprocess reads, so that nothing else is counted.

The kind `build` builds a mixture of one text-to-text task from JSON Lines: reading, the draw, cleaning, the bundled scoring
model, pair construction, shards.

python tests/benchmarks/stream_memory.py [--gigabytes 0.5] [--kinds jsonl csv jsonl.gz jsonl.zst parquet medi sni long-line build]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

KINDS = ("jsonl", "csv", "jsonl.gz", "jsonl.zst", "parquet", "medi", "sni", "long-line", "build")
TEXT = "A sentence of some words, with a letter like é and a number. " * 6
READER = """
import resource, sys
from pathlib import Path
from instructor_st.data.sources.specs import FileSource, MediSource, NaturalInstructionsSource
from instructor_st.data.sources.open_source import open_source

kind, path = sys.argv[1], Path(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if kind == "medi":
    source = MediSource(medi=path)
elif kind == "sni":
    source = NaturalInstructionsSource(natural_instructions=path.parent.parent, task=path.stem)
else:
    source = FileSource(files=path)
bad = []
if kind == "build":
    from instructor_st.data.building import Mixture, build_mixture
    task = {"name": "memory", "source": source, "kind": "text_to_text", "instructions": {"query": "Represent: "}}
    task["columns"] = {"input": "query", "output": "positive"}
    report = build_mixture(Mixture(name="memory", tasks=[task]), path.parent / "out", show_progress_bar=False)
    good = report.totals["records read"]
    assert report.results[0].train_rows > 1000
else:
    good = sum(1 for _ in open_source(source, on_bad=bad.append))
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, good, len(bad))
"""


def count_up(gigabytes: float) -> Iterator[int]:
    """Number the records of a file of about that size."""
    return iter(range(int(gigabytes * 1e9 / (2 * len(TEXT.encode()) + 60))))


def generate_lines(kind: str, gigabytes: float) -> Iterator[str]:
    """Make a text file of some kind, piece by piece."""
    if kind == "long-line":
        yield '{"query": "'
        for _ in range(int(gigabytes * 1000)):
            yield "x" * 1_000_000
        yield '"}\n{"query": "short"}\n'
    elif kind == "csv":
        yield "number,query,positive\n"
        for number in count_up(gigabytes):
            yield f'{number},"{TEXT}","{TEXT}"\n'
    elif kind in ("medi", "sni"):
        sides = {
            "query": ["Represent: ", TEXT],
            "pos": ["Represent: ", TEXT],
            "neg": ["Represent: ", "no"],
            "task_id": 1,
        }
        item = json.dumps(sides if kind == "medi" else {"id": "task1", "input": TEXT, "output": [TEXT]})
        yield "[" if kind == "medi" else '{"Definition": ["Do it."], "URL": [NaN], "Instances": ['
        yield item
        for _ in count_up(gigabytes):
            yield f",\n{item}"
        yield "]" if kind == "medi" else "]}"
    elif kind == "build":
        for number in count_up(gigabytes):
            # Texts that differ throughout, or all but one would be near duplicates.
            query, positive = (" ".join(f"{(number + 7) * word * side}" for word in range(1, 60)) for side in (3, 5))
            yield json.dumps({"query": query, "positive": positive}) + "\n"
    else:
        for number in count_up(gigabytes):
            yield json.dumps({"number": number, "query": TEXT, "positive": TEXT}, ensure_ascii=False) + "\n"


def write_file(kind: str, gigabytes: float, folder: Path) -> Path:
    """Write a file of some kind."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = {"medi": "medi-data.json", "sni": "tasks/task1.json", "long-line": "long.jsonl", "build": "build.jsonl"}.get(
        kind, f"rows.{kind}"
    )
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if kind == "parquet":
        # One row group, the worst case, and texts that differ, or the dictionary would be all there is.
        numbers = list(count_up(gigabytes))
        texts = [f"{number} {TEXT}" for number in numbers]
        pq.write_table(
            pa.table({"query": texts, "positive": texts[::-1]}),
            path,
            row_group_size=len(numbers),
            use_dictionary=False,
            compression="none",
        )
        return path
    compression = {"gz": "gzip", "zst": "zstd"}.get(kind.rsplit(".", 1)[-1])
    with pa.output_stream(str(path), compression=compression) as file:
        for piece in generate_lines(kind, gigabytes):
            file.write(piece.encode())
    return path


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=0.5)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    print("kind        file MB  records    bad  start MB  peak MB  records/s")
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as folder:
            # Written elsewhere: a process begins with the peak of the one that starts it.
            with multiprocessing.get_context("spawn").Pool(1) as writer:
                path = writer.apply(write_file, (kind, options.gigabytes, Path(folder)))
            start = time.perf_counter()
            run = subprocess.run(
                [sys.executable, "-c", READER, kind, str(path)], capture_output=True, text=True, check=True
            )
            seconds = time.perf_counter() - start
            before, peak, good, bad = map(int, run.stdout.split())
            size = path.stat().st_size / 1e6
            print(
                f"{kind:10} {size:8.0f} {good:8} {bad:6} {before / 1000:9.0f} {peak / 1000:8.0f} {good / seconds:10.0f}"
            )


if __name__ == "__main__":
    main()
