from __future__ import annotations

import faiss
import numpy as np

from instructor_st.data.mining.mine_task import MiningOptions
from instructor_st.data.mining.search import SearchedQuery, search_negatives
from instructor_st.pairs import InstructedText


def test_classes_beyond_one_search_and_faiss_agree_with_a_plain_computation(monkeypatch):
    """150 classes of 3 texts make three searches; the vectors are random."""
    generator = np.random.default_rng(0)
    documents = generator.normal(size=(450, 16)).astype(np.float32)
    queries = generator.normal(size=(450, 16)).astype(np.float32)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    labels = [frozenset([f"class {place % 150:03}"]) for place in range(450)]
    labels[0] |= {"class 007"}
    # A query of the last class of one search and the first of the next, and a text of the former that is like it.
    labels[363] |= {"class 064"}
    documents[63] = queries[363]
    scores = queries @ documents.T
    for place in range(450):
        ruled_out = [other for other in range(450) if labels[place] & labels[other]]
        scores[place, ruled_out] = -np.inf
    expected = np.argsort(-scores, axis=1)[:, 2:7].tolist()
    asked = [SearchedQuery(InstructedText("", str(n)), (n,), labels[n]) for n in range(450)]
    options = MiningOptions(num_negatives=5, range_min=2, range_max=20, relative_margin=None)
    searched = []
    index = faiss.IndexFlatIP
    monkeypatch.setattr(faiss, "IndexFlatIP", lambda dimension: searched.append(dimension) or index(dimension))
    for use_faiss in (False, True):
        found = search_negatives(
            asked,
            queries,
            documents,
            candidates=[str(n) for n in range(450)],
            labels=labels,
            options=options,
            use_faiss=use_faiss,
        )
        assert [list(places) for places in found.places] == expected
    assert searched == [16 + 64, 16 + 64, 16 + 23]  # a column a class, and 063 is in two searches
