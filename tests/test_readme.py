"""Every code block of the README is run, in its order, in one folder, against a Hub on the loopback address."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, T5
from tests.loopback_hub import serve_hub
from tests.toy_translation import get_translators

pytestmark = pytest.mark.slow

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
INSTALL = re.compile(r'pip install -c constraints\.txt -e "\.\[(\w+)\]"')


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    (folder / "training_scripts").symlink_to(REPOSITORY / "training_scripts")
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    forward, backward = get_translators(tmp_path_factory.getbasetemp())
    models = {
        "hkunlp/instructor-large": Path(T5),
        "Helsinki-NLP/opus-mt-en-de": forward,
        "Helsinki-NLP/opus-mt-de-en": backward,
    }
    with serve_hub(models) as hub:
        yield {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path_factory.mktemp("cache")),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }


def test_there_are_two_set_up_commands_with_known_extras():
    extras = INSTALL.findall(README)
    assert extras == ["starter", "test"]
    assert set(extras) <= set(metadata("instructor-st").get_all("Provides-Extra"))
    assert {language for language, _ in BLOCKS} == {"bash", "python"}


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(number, workplace, environment):
    language, code = BLOCKS[number]
    if language == "python":
        command = [sys.executable, "-c", code]
    else:
        # What is installed is what runs this test; the commands behind the installation are run.
        code = INSTALL.sub("true", code).replace("python -m pytest", "python -m pytest --version")
        command = [shutil.which("bash"), "-ec", code]
    done = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    for promised in re.findall(r"print\(.*\)  # (.+)$", code, flags=re.MULTILINE):
        assert promised in done.stdout
    for promised in re.findall(r"^# (Represent .+)$", code, flags=re.MULTILINE):
        assert promised in done.stdout
