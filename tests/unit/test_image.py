"""What the production image leaves out is missed by the demonstration alone."""

import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

import watchdog
from watchdog.cli import cli

ROOT = Path(__file__).parents[2]
LEFT_OUT = ("watchdog/demo/", "watchdog/sandbox/")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree as the builder of the image gets it."""
    directory = tmp_path_factory.mktemp("image")
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    left_out = [line.strip("/") for line in ignored if line.startswith("watchdog/")]
    shutil.copytree(ROOT / "watchdog", directory / "watchdog", ignore=shutil.ignore_patterns("__pycache__"))
    for path in left_out:
        shutil.rmtree(directory / path)
    return directory


def run(image: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python where the tree is; its current directory comes before what is installed."""
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=image, capture_output=True, text=True, check=False, timeout=60)


def test_the_builder_gets_neither_the_demonstration_nor_the_sandbox() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    after = lines[lines.index("!watchdog/") :]  # the last line that fits counts
    assert set(LEFT_OUT) <= set(after)


def test_there_the_demonstration_ends_in_one_line_that_says_where_it_is(image: Path) -> None:
    end = run(image, "-m", "watchdog", "demo")
    assert (end.returncode, end.stdout) == (2, "")
    assert end.stderr == "Error: the demonstration is not in this image: type make demo in a clone of the project\n"


def test_everything_else_is_there(image: Path) -> None:
    names = [each.name for each in pkgutil.walk_packages(watchdog.__path__, "watchdog.")]
    rest = [name for name in names if not name.startswith(("watchdog.demo", "watchdog.sandbox", "watchdog.__main__"))]
    assert len(rest) > 50
    code = f"import {', '.join(rest)}; print(watchdog.__file__)"
    end = run(image, "-c", code)
    assert end.stderr == ""
    assert Path(end.stdout.strip()).is_relative_to(image)


def test_the_other_commands_work(image: Path) -> None:
    end = run(image, "-m", "watchdog", "--config", str(ROOT / "config.example.toml"), "check")
    assert end.returncode == 0, end.stderr
    end = run(image, "-m", "watchdog", "--help")
    assert set(cli.list_commands(click.Context(cli))) <= set(end.stdout.split())
