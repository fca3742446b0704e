"""From a file to the settings, with errors that name the place and the cure."""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

from watchdog.config.base import PauseDuration, Seconds, duration
from watchdog.config.checks import check
from watchdog.config.sections import Config
from watchdog.errors import ConfigError

ENVIRONMENT = "ROLLBACK_WATCHDOG_CONFIG"
PLACES = (Path("/etc/rollback-watchdog/config.toml"), Path("config.toml"))


def find(named: str | None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file to read: the one named, else that of the environment, else the first that exists; None for none."""
    if named or environment.get(ENVIRONMENT):
        return Path(named or environment[ENVIRONMENT])
    return next((place for place in PLACES if place.is_file()), None)


def load(path: Path | None) -> Config:
    """Read and check a file; None gives the defaults.

    Raises:
        ConfigError: with the TOML path of the setting and what to write instead.
    """
    if path is None:
        return Config()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError("", f"{path} cannot be read ({error.strerror}); name another with --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError("", f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    return parse(text, source=str(path))


def parse(text: str, *, source: str = "configuration") -> Config:
    """Check the text of a file. Raises as `load` does."""
    try:
        raw = tomllib.loads(text)
    except RecursionError:
        raise ConfigError("", f"{source} is nested too deeply; write it as in config.example.toml") from None
    except ValueError as error:  # of numbers that Python does not read, too
        raise ConfigError("", f"{source} is not TOML: {error}; write it as in config.example.toml") from error
    _refuse_unknown(raw, Config, "")
    try:
        config = msgspec.convert(raw, Config, dec_hook=_decode)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        raise _cured(problem, place.strip(".`")) from error
    check(config)
    return config


def _decode(kind: type, value: object) -> object:
    if kind is Seconds:
        return duration(value)
    if kind is PauseDuration:
        return PauseDuration(duration(value, zero=True))
    raise NotImplementedError


def _cured(problem: str, path: str) -> ConfigError:
    """Say what to write instead, in TOML's words."""
    kind: Any = Config
    for key in re.findall(r"[a-z_]+|\.\.\.", path):
        kind = type_of(kind, key)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        problem = f"write one of {', '.join(kind)}"
    if path == "policies" and problem.startswith("Expected"):
        problem = "write each policy as a table [[policies]]"
    problem = problem.replace("Object missing required field", "missing; write the setting")
    for ours, theirs in (("a table", "`object`"), ("a list", "`array`"), ("a text", "`str`"), ("a number", "`int`")):
        problem = problem.replace(theirs, ours)
    return ConfigError(path, problem)


def type_of(kind: Any, key: str) -> Any:
    """The type of a key of a table; of whatever stands in it, where it is a list, a map or optional."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        kind = next((field.type for field in msgspec.structs.fields(kind) if field.encode_name == key), None)
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    arguments = [part for part in get_args(kind) if part not in (str, type(None), Ellipsis)]
    return arguments[0] if arguments else kind


def _refuse_unknown(raw: Mapping[str, Any], section: Any, path: str) -> None:
    """Unknown keys are errors with the nearest known name, before anything else is looked at."""
    fields = [field.encode_name for field in msgspec.structs.fields(section)]
    for key, value in raw.items():
        here = f"{path}.{key}" if path else key
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(fields)}"
            raise ConfigError(here, f"unknown setting; {hint}")
        inner = type_of(section, key)
        if not (isinstance(inner, type) and issubclass(inner, msgspec.Struct)):
            continue
        if key == "signals" and isinstance(value, dict):
            for name, item in value.items():
                if isinstance(item, dict):
                    _refuse_unknown(item, inner, f"{here}.{name}")
        elif isinstance(value, dict):
            _refuse_unknown(value, inner, here)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    _refuse_unknown(item, inner, f"{here}[{index}]")
