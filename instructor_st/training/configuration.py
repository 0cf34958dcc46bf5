"""The training script's settings: a preset, a YAML or JSON file over it, flags over both."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
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
        ConfigurationError: If the file cannot be read, or a setting, its value, a flag or a preset is unknown.
        SystemExit: If the value of a flag is of the wrong kind, or help is asked for, as argparse does it.
    """
    rest = list(sys.argv[1:] if arguments is None else arguments)
    path = Path(rest.pop(0)) if rest and rest[0].lower().endswith(_FILE_SUFFIXES) else None
    settings = {} if path is None else _read_file(path)
    named = settings.pop("preset", None)
    preset = _take_preset(rest)
    preset = named if preset is None else preset
    if preset is not None:
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ConfigurationError(f"There is no preset {preset!r}; there are {', '.join(PRESETS)}.")
        settings = {**PRESETS[preset], **settings}
    parser = HfArgumentParser(
        TrainArguments,  # type: ignore[arg-type]
        description=f"A .yaml or .json file may come first; --preset is one of {', '.join(PRESETS)}.",
    )
    _set_defaults(parser, settings, path)
    try:
        result, *remaining = parser.parse_args_into_dataclasses(
            rest, return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigurationError(str(error)) from None
    if unknown := [text for texts in remaining for text in texts]:
        raise ConfigurationError(_explain_unknown(unknown[0]))
    parsed: TrainArguments = result
    return parsed


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


def _set_defaults(parser: HfArgumentParser, settings: Mapping[str, Any], path: Path | None) -> None:
    """Make settings the parser's defaults, read as the flags are: argparse converts and checks what is text."""
    parser.set_defaults(**{name: _write_value(name, value) for name, value in settings.items()})
    parser.exit_on_error = False
    try:
        parser.parse_known_args([])
    except argparse.ArgumentError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    finally:
        parser.exit_on_error = True


def _write_value(name: str, value: Any) -> Any:
    # To YAML 1.1, `no` is false; strategies have it for a name.
    if value is False and name.endswith("_strategy"):
        return "no"
    return str(value) if isinstance(value, (int, float)) else value


class _Loader(yaml.SafeLoader):
    """Reads `2e-5` as a number, as YAML 1.2 has it; to YAML 1.1 it is text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        settings = json.loads(text) if path.suffix.lower() == ".json" else yaml.load(text, Loader=_Loader)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such configuration file.") from None
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: not readable: {error}") from None
    if not isinstance(settings, Mapping):
        raise ConfigurationError(f"{path}: a mapping of settings is expected, not {type(settings).__name__}.")
    known = {each.name for each in dataclasses.fields(TrainArguments) if each.init} | {"preset"}
    for name in settings:
        if name not in known:
            raise ConfigurationError(f"{path}: there is no setting {name!r}.{_suggest(str(name), known)}")
    return dict(settings)


def _explain_unknown(text: str) -> str:
    """Say what is wrong with a part of the command line that no flag took."""
    if not text.startswith("-"):
        return (
            f"{text!r} belongs to no flag. A configuration file ({', '.join(_FILE_SUFFIXES)}) comes before the flags."
        )
    name = text.lstrip("-").partition("=")[0]
    flags = {each.name for each in dataclasses.fields(TrainArguments) if each.init} | {"preset"}
    return f"There is no flag {text!r}.{_suggest(name.replace('-', '_'), flags, prefix='--')}"


def _suggest(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    near = difflib.get_close_matches(name, sorted(known), n=3)
    return f" Did you mean {', '.join(prefix + each for each in near)}?" if near else ""
