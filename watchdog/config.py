"""Configuration: TOML into frozen structs, with errors that name the place and the cure.

Every setting has a default; `config.example.toml` shows them all and a test holds it to this file. A command works
without any configuration file.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import msgspec

from watchdog.errors import ConfigError
from watchdog.objects import WorkloadRef, is_name

ENVIRONMENT = "ROLLBACK_WATCHDOG_CONFIG"
PLACES = (Path("/etc/rollback-watchdog/config.toml"), Path("config.toml"))

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class Seconds(float):
    """A duration; in the file a text such as ``30s``."""


class LogFormat(StrEnum):
    """How log lines look: `auto` writes JSON, but short text on a terminal."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """The least important log line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class GitOps(StrEnum):
    """What to do where a controller follows Git and would put the bad version back."""

    REFUSE = "refuse"
    ACT = "act"


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class Kubernetes(_Section, frozen=True):
    """How the API server is spoken to.

    Args:
        request_timeout: deadline of each request, its repetitions included.
        watch_timeout: the server ends a watch after 80 to 100 % of this, and it is opened again.
        watch_inactivity: silence after which a watch counts as dead; more than the 60 s between two bookmarks.
    """

    request_timeout: Seconds = Seconds(10)
    watch_timeout: Seconds = Seconds(300)
    watch_inactivity: Seconds = Seconds(90)


class Rollback(_Section, frozen=True):
    """How long an undo waits.

    Args:
        timeout: until it is verified to be complete; the default of `--timeout`.
        observed_within: for the controller to see a change that was made just before.
    """

    timeout: Seconds = Seconds(300)
    observed_within: Seconds = Seconds(5)


class Log(_Section, frozen=True):
    """The log on standard error."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.AUTO


class Policy(_Section, frozen=True):
    """Which workloads, and how they are treated.

    Args:
        name: its name in messages.
        namespaces: where its workloads are.
        workloads: names of Deployments; none means all of those namespaces, except in `kube-*`, where they are named.
        gitops: what to do where a GitOps controller manages the workload.
    """

    name: str
    namespaces: tuple[str, ...]
    workloads: tuple[str, ...] = ()
    gitops: GitOps = GitOps.REFUSE

    def matches(self, ref: WorkloadRef) -> bool:
        """Whether this policy is about a workload."""
        return ref.namespace in self.namespaces and (not self.workloads or ref.name in self.workloads)


class Config(_Section, frozen=True):
    """The whole file."""

    kubernetes: Kubernetes = Kubernetes()
    rollback: Rollback = Rollback()
    log: Log = Log()
    policies: tuple[Policy, ...] = ()

    def policy_for(self, ref: WorkloadRef) -> Policy | None:
        """The one policy that matches a workload; `load` has seen to it that there are not two."""
        return next((policy for policy in self.policies if policy.matches(ref)), None)


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
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError("", f"{source} is not TOML: {error}") from error
    _refuse_unknown(raw, Config, "")
    try:
        config = msgspec.convert(raw, Config, dec_hook=_decode)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        raise _cured(problem, place.strip(".`")) from error
    _check(config)
    return config


def duration(text: object) -> Seconds:
    """Read a duration such as ``30s``, ``1m30s`` or ``7d``.

    Raises:
        ValueError: with the cure.
    """
    if not isinstance(text, str) or not _DURATION.fullmatch(text.replace(" ", "")):
        raise ValueError(f'{text!r} is not a duration; write a number with ms, s, m, h or d, such as "30s" or "1m30s"')
    found = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text.replace(" ", "")))
    if found <= 0:
        raise ValueError(f"{text!r} is no time at all; write more than 0")
    return Seconds(found)


def _decode(kind: type, value: object) -> object:
    if kind is Seconds:
        return duration(value)
    raise NotImplementedError


def _cured(problem: str, path: str) -> ConfigError:
    """Say what to write instead, in TOML's words."""
    kind: Any = Config
    for key in re.findall(r"[a-z_]+", path):
        kind = next(field.type for field in msgspec.structs.fields(kind) if field.name == key)
        kind = (*get_args(kind), kind)[0]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        problem = f"write one of {', '.join(kind)}"
    if path == "policies" and problem.startswith("Expected"):
        problem = "write each policy as a table [[policies]]"
    problem = problem.replace("Object missing required field", "missing; write the setting")
    for ours, theirs in (("a table", "`object`"), ("a list", "`array`"), ("a text", "`str`"), ("a number", "`int`")):
        problem = problem.replace(theirs, ours)
    return ConfigError(path, problem)


def _refuse_unknown(raw: Mapping[str, Any], section: Any, path: str) -> None:
    """Unknown keys are errors with the nearest known name, before anything else is looked at."""
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(section)}
    for key, value in raw.items():
        here = f"{path}.{key}" if path else key
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(fields)}"
            raise ConfigError(here, f"unknown setting; {hint}")
        inner = fields[key]
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            _refuse_unknown(value, inner, here)
        if key == "policies" and isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    _refuse_unknown(item, Policy, f"{here}[{index}]")


def _check(config: Config) -> None:
    """What the types do not say."""
    kubernetes = config.kubernetes
    if kubernetes.watch_inactivity <= 60:
        problem = 'bookmarks come every 60 s; a shorter limit would drop watches that live: write more than "60s"'
        raise ConfigError("kubernetes.watch_inactivity", problem)
    for index, policy in enumerate(config.policies):
        path = f"policies[{index}]"
        if not policy.name:
            raise ConfigError(f"{path}.name", "is empty; give the policy a name")
        if not policy.namespaces:
            raise ConfigError(f"{path}.namespaces", "is empty; name at least one namespace")
        for key, names in (("namespaces", policy.namespaces), ("workloads", policy.workloads)):
            for name in names:
                if not is_name(name):
                    raise ConfigError(f"{path}.{key}", f"{name!r} is not a name that Kubernetes allows")
                if key == "namespaces" and name.startswith("kube-") and not policy.workloads:
                    problem = f"{name} belongs to the cluster; name the Deployments you mean with workloads = [...]"
                    raise ConfigError(f"{path}.{key}", problem)
        for other in config.policies[:index]:
            _check_apart(policy, other, path)


def _check_apart(policy: Policy, other: Policy, path: str) -> None:
    if policy.name == other.name:
        raise ConfigError(f"{path}.name", f"{policy.name!r} is the name of two policies; rename one")
    shared = set(policy.namespaces) & set(other.namespaces)
    both = set(policy.workloads) & set(other.workloads)
    if shared and (both or not policy.workloads or not other.workloads):
        what = f"{min(shared)}/{min(both) if both else '*'}"
        problem = f"{policy.name!r} and {other.name!r} both match {what}; narrow one of them with workloads = [...]"
        raise ConfigError(path, problem)
