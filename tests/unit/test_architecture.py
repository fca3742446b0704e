"""docs/architecture.md is drawn after the tree: what it names is there, and what is there has its place in it."""

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from watchdog.config import RuleName
from watchdog.model import Guard

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text()
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
FILES = [path for path in (ROOT / "watchdog").rglob("*.py") if path.parts[-2] not in ("sandbox", "demo")]
NAMED = re.findall(r"`([A-Za-z_.]+)` in `(watchdog/[a-z_/]+\.py)`", PAGE)


def test_the_picture_shows_the_floors_that_imports_keep() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [each["layers"] for each in contracts if each["type"] == "layers"]
    (picture,) = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    assert [set(floor.split(" | ")) for floor in " ".join(picture.split()).split(" > ")] == [
        set(floor.split(" | ")) for floor in layers
    ]


@pytest.mark.parametrize(("name", "file"), NAMED)
def test_what_the_walk_names_stands_in_its_file(name: str, file: str) -> None:
    text = (ROOT / file).read_text()
    owner, _, method = name.partition(".")
    assert re.search(rf"^(class|def|async def) {owner}\b", text, re.MULTILINE)
    assert not method or re.search(rf"^    (async )?def {method}\(", text, re.MULTILINE)


def test_the_walk_names_most_of_its_steps() -> None:
    assert len(NAMED) > 12


@pytest.mark.parametrize("rule", RuleName)
def test_a_rule_has_its_file_its_words_and_its_test(rule: RuleName) -> None:
    assert (ROOT / f"watchdog/judge/{rule}.py").exists()
    assert (ROOT / f"tests/unit/test_{rule}.py").exists() or (ROOT / f"tests/component/test_{rule}.py").exists()
    assert f"**`{rule}`**" in (ROOT / "docs/judging.md").read_text()


@pytest.mark.parametrize("guard", Guard)
def test_a_guard_has_its_row_and_a_test_that_names_it(guard: Guard) -> None:
    assert f"| `{guard}` |" in (ROOT / "docs/guards.md").read_text()
    assert f"Guard.{guard.name}" in TESTS or f'"{guard}"' in TESTS


def test_no_class_name_stands_for_two_things() -> None:
    names = [name for path in FILES for name in re.findall(r"^class (\w+)", path.read_text(), re.MULTILINE)]
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_no_file_is_longer_than_400_lines() -> None:
    assert [path.name for path in FILES if len(path.read_text().splitlines()) > 400] == []


def test_no_function_is_longer_than_60_lines() -> None:
    functions = [
        (node.end_lineno or 0) - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert max(functions) <= 60


@pytest.mark.parametrize("room", ["config", "judge", "decide", "engine", "gate", "notify"])
def test_a_room_tells_of_each_of_its_modules(room: str) -> None:
    folder = ROOT / "watchdog" / room
    told = re.findall(
        r"^(\w+) {2,}\S|^(\w+) [a-z]", ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or "", re.M
    )
    named = {name for pair in told for name in pair if name}
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} <= named
