"""What importing costs and what it registers, each in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import MINILM


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)


@pytest.mark.parametrize("module", ["instructor_st", "instructor_st.tasks", "instructor_st.pairs"])
def test_import_loads_no_torch(module):
    heavy = "'torch', 'transformers', 'sentence_transformers', 'datasets', 'numpy'"
    done = run_python(f"import {module}, sys; print([name for name in ({heavy}) if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


@pytest.fixture(scope="module")
def saved_models(tmp_path_factory):
    from instructor_st import INSTRUCTOR

    folders = {}
    for architecture in ("prepend", "dual"):
        folders[architecture] = str(tmp_path_factory.mktemp("saved") / architecture)
        INSTRUCTOR.from_encoder(MINILM, architecture).save_pretrained(folders[architecture])
    return folders


@pytest.mark.parametrize("architecture", ["prepend", "dual"])
@pytest.mark.parametrize(
    "imports",
    [
        "import instructor_st\nfrom sentence_transformers import SentenceTransformer",
        "from sentence_transformers import SentenceTransformer\nimport instructor_st",
    ],
)
def test_plain_sentence_transformer_loads_our_models_in_either_order(saved_models, architecture, imports):
    code = f"""
{imports}
model = SentenceTransformer({saved_models[architecture]!r}, device="cpu")
print(type(model).__name__, type(model[0]).__module__, model.encode([["Represent: ", "a"], "b"]).shape)
"""
    done = run_python(code)
    assert done.stdout.strip().endswith("SentenceTransformer instructor_st.modules (2, 384)"), done.stderr


@pytest.mark.parametrize("architecture", ["prepend", "dual"])
def test_without_our_import_sentence_transformers_asks_for_the_flag(saved_models, architecture):
    done = run_python(
        f"from sentence_transformers import SentenceTransformer\nSentenceTransformer({saved_models[architecture]!r})"
    )
    assert done.returncode != 0
    assert "trust_remote_code=True" in done.stderr
    assert "instructor_st.modules." in done.stderr


def test_only_our_own_classes_are_registered():
    from sentence_transformers.base.model import BaseModel

    import instructor_st  # noqa: F401

    names = {"InstructionPrepend", "InstructionPooling", "DualEncoderConcat", "TunedDense"}
    expected = {f"{prefix}.{name}" for prefix in ("instructor_st.modules", "instructor_st_modules") for name in names}
    assert set(BaseModel._module_classes) == expected


def test_unknown_attribute_is_an_attribute_error():
    import instructor_st
    import instructor_st.modules

    for package in (instructor_st, instructor_st.modules):
        with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
            package.Nonsense  # noqa: B018
