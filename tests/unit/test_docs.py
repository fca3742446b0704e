"""The documentation names what the program has, and nothing else. Slack's wording is held by `test_slack_wording`."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast, get_args

import msgspec
import pytest

from tests.unit.test_metrics import families, used
from watchdog import config
from watchdog.cli import cli
from watchdog.config import Config
from watchdog.decide import marks
from watchdog.engine import fleet, rollouts
from watchdog.judge.blocks import BlindReason, Word
from watchdog.metrics import PREFIX, AlertOutcome
from watchdog.model import Action, EventReason, Guard, Mode, Outcome, Topology
from watchdog.web import server
from watchdog.web.api import Api

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
ANNOTATIONS = {
    *(value for name, value in vars(marks).items() if name.isupper() and str(value).startswith(f"{marks.PREFIX}/")),
    *(fleet._POLICY, rollouts.MODE),
}

Row = tuple[str, ...]


def words(text: str) -> list[str]:
    """What stands in backticks, outside of blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))


def table(first: str) -> list[Row]:
    """The rows of the README's table whose head begins so, as texts of their cells."""
    _, found, rest = README.partition(f"\n| {first}")
    assert found, f"the README has no table that begins with {first!r}"
    lines = rest.split("\n\n")[0].splitlines()[2:]
    return [tuple(cell.strip() for cell in line.strip("| ").split(" | ")) for line in lines]


def first_words(first: str) -> set[str]:
    """What the first column of a table names."""
    return {word for row in table(first) for word in words(row[0])}


def options(command: str) -> set[str]:
    """The options of one command, without those of all."""
    shared = {option for parameter in cli.params for option in parameter.opts}
    found = {option for parameter in cli.commands[command].params for option in parameter.opts}
    return {option for option in found - shared if option.startswith("--")}


def routes(application: Any) -> set[str]:
    """The routes of an application, as the README writes them."""
    return {
        f"{route.method} {path}"
        for route in application.router.routes()
        if route.method != "HEAD"
        for path in [route.resource.canonical]
    }


def served() -> set[str]:
    """Every route, with the two answers as routes of their own."""
    nothing = cast(Any, None)
    api = routes(Api(nothing, nothing, nothing).application())
    both = {route.replace("{answer}", answer) for route in api for answer in get_args(marks.Verb)}
    return both | routes(server._open_routes(nothing, nothing))


@pytest.mark.parametrize(
    ("head", "there"),
    [
        ("word | class", set(Guard)),
        ("reason | what it is", set(BlindReason)),
        ("outcome | means", set(Outcome)),
        ("mode | what", set(Mode)),
        ("topology | by", set(Topology)),
        ("annotation | on", ANNOTATIONS),
        ("command | does", {f"{name} {args}".strip() for name, args in (("run", ""), ("check", ""))}),
        ("route | who may", served()),
        ("metric, all", {name.removeprefix(f"{PREFIX}_") for name in families(used()) if name.startswith(PREFIX)}),
    ],
    ids=lambda value: value.partition(" ")[0] if isinstance(value, str) else "",
)
def test_a_table_names_all_that_there_is_and_nothing_else(head: str, there: Iterable[str]) -> None:
    assert first_words(head) == {str(each) for each in there}
