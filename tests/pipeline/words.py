"""The words of a workflow's run: what starts it, what it is given, and what becomes of its jobs and steps."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tests.pipeline.expressions import Open

Json: TypeAlias = dict[str, Any]


class WorkflowError(Exception):
    """A workflow has something that this runner does not know."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What starts a workflow.

    Args:
        name: push, pull_request or workflow_dispatch.
        sha: of the commit.
        inputs: of a dispatch.
        actor: who.
    """

    name: str
    sha: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    actor: str = "ada"


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Variables and secrets of the repository, and of each environment, whose go first."""

    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    environments: Mapping[str, "Configuration"] = field(default_factory=dict)


@dataclass(kw_only=True)
class Step:
    """A step that has had its turn; a composite action's own steps are `inner`."""

    title: str
    outcome: str
    began: float
    took_s: float = 0.0
    output: str = ""
    inner: tuple["Step", ...] = ()
    outputs: Open = field(default_factory=Open)


@dataclass(kw_only=True)
class Job:
    """A job that has had its turn."""

    name: str
    result: str
    steps: list[Step] = field(default_factory=list)
    outputs: Open = field(default_factory=Open)

    def step(self, title: str) -> Step:
        """The step of this title."""
        return next(each for each in self.steps if each.title == title)

    @property
    def failed(self) -> list[str]:
        """The steps that failed."""
        return [each.title for each in self.steps if each.outcome == "failure"]


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine for one job: what a stand-in may use.

    Args:
        workspace: where the commit is checked out.
        temp: for files of the job.
        env: of the next steps; a stand-in may add to it.
        path: goes before PATH of the next steps.
        summary: what the steps tell people.
    """

    workspace: Path
    temp: Path
    env: dict[str, str]
    path: list[str]
    summary: Path


StandIn: TypeAlias = Callable[[Host, Mapping[str, str]], Mapping[str, str]]


def given_inputs(declared: Json, given: Mapping[str, str]) -> dict[str, str]:
    """What is given for declared inputs, or their defaults; GitHub only warns of some of what is refused here."""
    if unknown := given.keys() - declared.keys():
        raise WorkflowError(f"there is no input {', '.join(sorted(unknown))}")
    found = {name: str(given.get(name) or about.get("default", "")) for name, about in declared.items()}
    for name, about in declared.items():
        if about.get("required") and not found[name]:
            raise WorkflowError(f"the input {name} is required")
        if about.get("type") == "choice" and found[name] not in about["options"]:
            raise WorkflowError(f"the input {name} cannot be {found[name]!r}")
    return found


def pairs(text: str) -> Open:
    """Read NAME=VALUE lines, and NAME<<END blocks."""
    found, lines = Open(), iter(text.splitlines())
    for line in lines:
        if block := re.fullmatch(r"([\w-]+)<<(.+)", line):
            inner: list[str] = []
            for each in lines:
                if each == block[2]:
                    break
                inner.append(each)
            found[block[1]] = "\n".join(inner)
        elif line:
            name, equals, value = line.partition("=")
            if not equals:
                raise WorkflowError(f"{line!r} is neither NAME=VALUE nor NAME<<END")
            found[name] = value
    return found
