"""The documentation names what the program has, and nothing else. Slack's wording is held by `test_slack_wording`."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast, get_args

import click
import msgspec
import pytest

from tests.unit.test_metrics import AGREED
from watchdog import config
from watchdog.cli import cli
from watchdog.config import Config, Confirm
from watchdog.config.reading import type_of
from watchdog.decide import marks
from watchdog.engine.fleet import _POLICY
from watchdog.judge.blocks import BlindReason, Status
from watchdog.metrics import PREFIX, AlertOutcome
from watchdog.model import Action, EventReason, Guard, Mode, Outcome, Topology
from watchdog.web import server
from watchdog.web.api import Api

ROOT = Path(__file__).parents[2]
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
README = PAGES[ROOT / "README.md"]
EVERYTHING = "\n".join(PAGES.values())

CONTEXT = click.Context(cli)
COMMANDS = {name: cast(click.Command, cli.get_command(CONTEXT, name)) for name in cli.list_commands(CONTEXT)}

OURS = "\n".join(text for page, text in PAGES.items() if page.name != "pipeline.md")
"""That page speaks of the folders of an application."""

BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def words(text: str) -> list[str]:
    """What stands in backticks, outside of blocks."""
    return re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))


def table(head: str) -> list[list[str]]:
    """The cells of the one table whose head begins so, row by row."""
    _, *found = EVERYTHING.split(f"\n| {head} ")
    assert len(found) == 1, f"{len(found)} tables begin with {head!r}"
    rows = found[0].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def first_column(head: str) -> set[str]:
    """What the first column of a table names."""
    return {word for row in table(head) for word in words(row[0])}


def annotations() -> set[str]:
    """Every annotation of ours."""
    found = {value for value in vars(marks).values() if isinstance(value, str) and value.startswith(f"{marks.PREFIX}/")}
    return found | {_POLICY}


def routes() -> set[str]:
    """Every route, as the documentation writes it."""
    nothing = cast(Any, None)
    found = set()
    for application in (Api(nothing, nothing, nothing).application(), server._open_routes(nothing, nothing)):
        for route in application.router.routes():
            path = route.resource.canonical if route.resource else ""
            found |= {f"{route.method} {path.replace('{answer}', verb)}" for verb in get_args(marks.Verb)}
    return {route for route in found if not route.startswith("HEAD ")}


def options(command: str) -> set[str]:
    """The long options of a command, with those of all commands."""
    return {option for parameter in COMMANDS[command].params for option in parameter.opts if option[:2] == "--"}


def is_setting(path: str) -> bool:
    """Whether there is such a setting."""
    kind: Any = Config
    for key in path.split("."):
        kind = type_of(kind, key)
    return kind is not None


# -- tables ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "there"),
    [
        ("mode", Mode),
        ("topology", Topology),
        ("reason", BlindReason),
        ("word", Guard),
        ("outcome", Outcome),
        ("annotation", annotations()),
        ("route", routes()),
        ("metric, all with the prefix", AGREED),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_table_names_all_that_there_is_and_nothing_else(head: str, there: Iterable[str]) -> None:
    assert first_column(head) == {str(each) for each in there}


def test_each_guard_stands_in_its_class() -> None:
    assert {words(row[0])[0]: row[1] for row in table("word")} == {guard: guard.guard_class for guard in Guard}


def test_each_metric_has_its_labels() -> None:
    said = {name: set(words(row[1])) for row in table("metric, all with the prefix") for name in words(row[0])}
    assert said == AGREED


def test_the_events_are_those_that_there_are() -> None:
    (said,) = re.findall(r"^Events on the Deployment:(.*?)\n\n", EVERYTHING, re.MULTILINE | re.DOTALL)
    assert words(said) == list(map(str, EventReason))


def test_each_command_has_its_options() -> None:
    rows = {words(row[0])[0].split()[0]: set(OPTION.findall(" ".join(row))) for row in table("command")}
    common = options("run")
    assert rows == {name: options(name) - common for name in COMMANDS}
    assert common <= set(OPTION.findall(EVERYTHING))


# -- wherever they stand -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Action, AlertOutcome, Confirm, Status], ids=lambda kind: kind.__name__)
def test_each_word_is_named(kind: type[Action]) -> None:
    named = {word.rpartition(" ")[2].strip('"') for word in words(EVERYTHING)}
    assert named >= set(map(str, kind))


def test_every_command_line_can_be_typed() -> None:
    lines = re.findall(r"(?<!-n )\brollback-watchdog ([a-z]+)\b([^`\n]*)", EVERYTHING)
    assert len(lines) > 10
    wrong = [line for line in lines if line[0] not in COMMANDS or set(OPTION.findall(line[1])) - options(line[0])]
    assert wrong == []


def test_every_setting_that_is_named_exists() -> None:
    sections = {field.name for field in msgspec.structs.fields(Config)}
    named = {word for word in words(EVERYTHING) if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", word)}
    settings = {word for word in named if word.partition(".")[0] in sections} - {"config.toml"}
    assert len(settings) > 10
    assert [word for word in sorted(settings) if not is_setting(word)] == []


def test_every_metric_that_is_named_exists() -> None:
    named = set(re.findall(rf"\b{PREFIX}_([a-z_]+)\b", EVERYTHING))
    assert named <= set(AGREED)


def test_every_annotation_that_is_named_exists() -> None:
    labels = {f"{marks.PREFIX}/api", f"{marks.PREFIX}/state"}
    assert set(re.findall(rf"\b{re.escape(marks.PREFIX)}/[a-z-]+", EVERYTHING)) <= annotations() | labels


@pytest.mark.parametrize(
    "text", [text for _, language, text in BLOCK.findall(EVERYTHING) if language == "toml"], ids=lambda text: text[:40]
)
def test_every_configuration_that_is_shown_is_good(text: str) -> None:
    assert config.parse(text) != Config()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    anchors = re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text())
    assert [
        each for each in anchors if "://" not in each[0] and each[1] not in headings(page.parent / each[0], page)
    ] == []


def headings(path: Path, page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them; of the page itself where the link names no other."""
    text = (path if path.is_file() else page).read_text()
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize(
    "path", sorted({word for word in words(OURS) if re.match(r"(tests|deploy|docs|watchdog)/[\w./-]+$", word)})
)
def test_every_path_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(README.splitlines()) <= 150
