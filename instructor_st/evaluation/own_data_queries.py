"""Reading of own retrieval data in BEIR's layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from instructor_st.data.row_files import read_records
from instructor_st.evaluation.own_data import DataSet
from instructor_st.evaluation.own_data_rows import choose_split, draw, read_text

__all__ = ["Document", "JudgedQueries", "read_judged_queries"]

# Documents that a limited run searches for each query of its limit.
_DOCUMENTS_PER_QUERY = 10


@dataclass(frozen=True)
class Document:
    """A document's title, which may be empty, and its text."""

    title: str
    text: str


@dataclass(frozen=True, eq=False)
class JudgedQueries:
    """Queries, the documents to search, and which are relevant.

    Attributes:
        queries: By id; each has a relevant document.
        corpus: By id.
        judgements: By query id, then document id; above 0 is relevant.
        left_out: Queries, documents and judgements left out, counted by reason.
    """

    queries: Mapping[str, str]
    corpus: Mapping[str, Document]
    judgements: Mapping[str, Mapping[str, int]]
    left_out: Mapping[str, int]


def read_judged_queries(data_set: DataSet, *, limit: int | None = None, seed: int = 0) -> JudgedQueries:
    """Read a retrieval data set.

    With a limit so many queries are drawn, and the corpus is cut to the documents judged for them and others drawn at
    random, ten a query of the limit in all: searching is then easier than in the whole corpus.

    Args:
        data_set: The data set.
        limit: Evaluate at most so many queries.
        seed: Of the draws.

    Returns:
        The queries that have a relevant document, and the corpus.

    Raises:
        ValueError: If the data set has a fault, a file has no row, an id is there twice, a score is no whole number, or
            no judgement makes a known document relevant to a query.
    """
    if data_set.fault:
        raise ValueError(data_set.fault)
    left_out: Counter[str] = Counter()
    corpus = {
        key: Document(str(row.get("title") or ""), read_text(row, "text", where))
        for key, (where, row) in _read_by_id(data_set, "corpus").items()
    }
    rows = _read_by_id(data_set, "queries")
    blank = [key for key, document in corpus.items() if not (document.title + document.text).strip()]
    left_out.update({"blank document": len(blank)} if blank else {})
    corpus = {key: document for key, document in corpus.items() if key not in set(blank)}
    split = choose_split((row.get("split") for _, row in rows.values()), data_set)
    queries = {
        key: read_text(row, "text", where) for key, (where, row) in rows.items() if split in (None, row.get("split"))
    }
    if len(queries) < len(rows):
        left_out[f"query of another split than {split!r}"] = len(rows) - len(queries)
    judgements = _read_judgements(data_set, rows.keys(), queries, corpus, left_out)
    judged = [key for key, found in judgements.items() if any(score > 0 for score in found.values())]
    if len(judged) < len(queries):
        left_out["query without a relevant document"] = len(queries) - len(judged)
    if not judged:
        raise ValueError(
            f"{data_set.files['qrels']}: no judgement makes a document relevant to a query (score above 0)."
        )
    drawn = draw(judged, limit, f"{seed}/{data_set.name}")
    judgements = {key: judgements[key] for key in drawn}
    if len(drawn) < len(judged):
        left_out["query beyond the limit"] = len(judged) - len(drawn)
    if limit is not None:
        corpus = _cut_corpus(corpus, judgements, limit, f"{seed}/{data_set.name}/corpus", left_out)
    return JudgedQueries({key: queries[key] for key in drawn}, corpus, judgements, left_out)


def _read_by_id(data_set: DataSet, part: str) -> dict[str, tuple[str, dict[str, Any]]]:
    path = data_set.files[part]
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for where, row in read_records(path):
        key = _read_id(row, "_id", where)
        if key in found:
            raise ValueError(f"{where}: the id {key!r} is there twice, first at {found[key][0]}.")
        found[key] = where, row
    if not found:
        raise ValueError(f"{path}: no rows.")
    return found


def _read_id(row: Mapping[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(f"{where}: {column!r} must be a text or a whole number, not {value!r}.")
    return str(value)


def _read_judgements(
    data_set: DataSet, known: Any, queries: Mapping[str, str], corpus: Mapping[str, Any], left_out: Counter[str]
) -> dict[str, dict[str, int]]:
    path = data_set.files["qrels"]
    judgements: dict[str, dict[str, int]] = {}
    nowhere, count, first = 0, 0, ""
    for where, row in read_records(path):
        query, document = _read_id(row, "query-id", where), _read_id(row, "corpus-id", where)
        score, count = _read_score(row, where), count + 1
        if query not in known or document not in corpus:
            nowhere, first = nowhere + 1, first or f"{where}: {query!r}, {document!r}"
            left_out["judgement of no known " + ("query" if query not in known else "document")] += 1
        elif query in queries:
            found = judgements.setdefault(query, {})
            if found.get(document, score) != score:
                raise ValueError(f"{where}: {query!r} and {document!r} are judged {found[document]} and {score}.")
            found[document] = score
    if not count:
        raise ValueError(f"{path}: no rows.")
    if nowhere == count:
        raise ValueError(f"{first}: no such query or document, and so for all {count} judgements; compare the ids.")
    return judgements


def _read_score(row: Mapping[str, Any], where: str) -> int:
    value = row.get("score", 1)
    try:
        if float(value) != int(float(value)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{where}: 'score' must be a whole number, not {value!r}.") from None
    return int(float(value))


def _cut_corpus(
    corpus: dict[str, Document],
    judgements: Mapping[str, Mapping[str, int]],
    limit: int,
    key: str,
    left_out: Counter[str],
) -> dict[str, Document]:
    judged = {document for found in judgements.values() for document in found}
    others = [document for document in corpus if document not in judged]
    room = _DOCUMENTS_PER_QUERY * limit - len(judged)
    kept = judged | set(draw(others, room, key) if room > 0 else ())
    if len(kept) < len(corpus):
        left_out["document beyond the limit"] = len(corpus) - len(kept)
    return {document: text for document, text in corpus.items() if document in kept}
