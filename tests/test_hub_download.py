"""Loading by Hub id, over real HTTP from a Hub on the loopback address."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from instructor_st import INSTRUCTOR
from tests.conftest import MINILM, T5
from tests.loopback_hub import serve_hub

PAIRS = [["Represent the sentence: ", "a b c"], ["Represent the title for retrieval: ", "d"], ["", "e"]]


def run_with_hub(endpoint: str, cache: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    for architecture in ("prepend", "dual"):
        INSTRUCTOR.from_encoder(MINILM, architecture, device="cpu").save_pretrained(str(root / architecture))
    return {
        "acme/instructor-prepend": root / "prepend",
        "acme/instructor-dual": root / "dual",
        "hkunlp/instructor-tiny": Path(T5),
    }


@pytest.mark.parametrize(
    ("name", "loader"),
    [
        ("acme/instructor-prepend", "SentenceTransformer"),
        ("acme/instructor-dual", "SentenceTransformer"),
        ("hkunlp/instructor-tiny", "INSTRUCTOR"),
    ],
)
def test_hub_id_loads_without_a_flag_and_embeds_as_the_folder_does(repositories, tmp_path, name, loader):
    code = f"""
import json
import instructor_st
from instructor_st import INSTRUCTOR
from sentence_transformers import SentenceTransformer
model = {loader}({name!r}, device="cpu")
print(json.dumps(model.encode({PAIRS!r}).tolist()))
"""
    with serve_hub(repositories) as hub:
        done = run_with_hub(hub.endpoint, tmp_path, code)
        requests = list(hub.requests)
    assert done.returncode == 0, done.stderr[-2000:]
    local = INSTRUCTOR(str(repositories[name]), device="cpu").encode(PAIRS)
    np.testing.assert_array_equal(np.array(json.loads(done.stdout.splitlines()[-1]), dtype=np.float32), local)
    assert any(request.startswith("GET") and "/resolve/" in request for request in requests)
    assert not any(request.endswith(".py") for request in requests)


def test_hub_model_without_our_import_needs_the_flag(repositories, tmp_path):
    with serve_hub(repositories) as hub:
        done = run_with_hub(
            hub.endpoint,
            tmp_path,
            "from sentence_transformers import SentenceTransformer\nSentenceTransformer('acme/instructor-dual')",
        )
    assert done.returncode != 0
    assert "trust_remote_code=True" in done.stderr
