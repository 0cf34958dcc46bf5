"""The training script's settings: a preset, a YAML or JSON file over it, flags over both."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from instructor_st.training.arguments import TrainArguments
from instructor_st.training.presets import PRESETS

__all__ = ["ConfigurationError", "format_configuration", "parse_train_arguments"]

_FILE_SUFFIXES = (".yaml", ".yml", ".json")


class ConfigurationError(ValueError):
    """Settings that cannot be taken; the message names the file or the flag, and the setting."""


def parse_train_arguments(arguments: Sequence[str] | None = None) -> TrainArguments:
    """Read the settings of a training run.

    Args:
        arguments: The command line without the program: a YAML or JSON file first, if there is one, then flags. The
            file holds a mapping of settings, `preset` among them if wanted. By default the program's own command line.

    Returns:
        The settings; flags come before the file, the file before the preset, the preset before the defaults.

    Raises:
        ConfigurationError: If the file cannot be read, or a setting or preset is unknown.
    """
    rest = list(sys.argv[1:] if arguments is None else arguments)
    settings: dict[str, Any] = {}
    if rest and rest[0].lower().endswith(_FILE_SUFFIXES):
        settings = _read_file(Path(rest.pop(0)))
    preset = _take_preset(rest) or settings.pop("preset", None)
    parser = HfArgumentParser(TrainArguments)  # type: ignore[arg-type]
    if preset is not None:
        if preset not in PRESETS:
            raise ConfigurationError(f"There is no preset {preset!r}; there are {', '.join(PRESETS)}.")
        settings = {**PRESETS[preset], **settings}
    # argparse takes a default in text form through the flag's own type, as `2e-5` comes from YAML.
    parser.set_defaults(**settings)
    try:
        (parsed,) = parser.parse_args_into_dataclasses(rest)
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigurationError(str(error)) from None
    result: TrainArguments = parsed
    return result


def format_configuration(settings: TrainArguments) -> str:
    """List the settings that differ from the trainer's defaults, and all of our own.

    Args:
        settings: The settings.

    Returns:
        A line each, `name: value`.
    """
    own = set(TrainArguments.__annotations__)
    lines = []
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        default = each.default_factory() if callable(each.default_factory) else each.default
        if each.init and not each.name.startswith("_") and (each.name in own or value != default):
            lines.append(f"  {each.name}: {value}")
    return "\n".join(lines)


def _take_preset(arguments: list[str]) -> str | None:
    """Take `--preset NAME` out of the command line."""
    for place, argument in enumerate(arguments):
        if argument == "--preset":
            if place + 1 == len(arguments):
                raise ConfigurationError(f"--preset wants a name; there are {', '.join(PRESETS)}.")
            name = arguments[place + 1]
            del arguments[place : place + 2]
            return name
        if argument.startswith("--preset="):
            del arguments[place]
            return argument.partition("=")[2]
    return None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        settings = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such configuration file.") from None
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: not readable: {error}") from None
    if not isinstance(settings, Mapping):
        raise ConfigurationError(f"{path}: a mapping of settings is expected, not {type(settings).__name__}.")
    known = {each.name for each in dataclasses.fields(TrainArguments) if each.init} | {"preset"}
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(str(name), sorted(known), n=3)
            hint = f" Did you mean {', '.join(near)}?" if near else ""
            raise ConfigurationError(f"{path}: there is no setting {name!r}.{hint}")
    return dict(settings)
