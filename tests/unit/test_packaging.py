"""What is shipped agrees with itself: locks, versions and image. Nothing here asks the network."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import watchdog

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("run", "dev", "build")


def asked(lock: str) -> list[Requirement]:
    """Return what pyproject.toml wants of a lock file."""
    dependencies, groups = PYPROJECT["project"]["dependencies"], PYPROJECT["dependency-groups"]
    own = [entry for entry in groups["dev"] if isinstance(entry, str)]
    texts = {
        "run": dependencies,
        "dev": dependencies + groups["build"] + own,
        "build": groups["build"],
    }
    return [Requirement(text) for text in texts[lock]]


def pinned(lock: str) -> dict[str, Version]:
    """Return the pins of a lock file, those for other platforms too."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in pins}


def final_stage() -> list[str]:
    """Return the instructions of the Dockerfile's last stage."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    start = max(number for number, line in enumerate(lines) if line.startswith("FROM "))
    return lines[start:]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_each_dependency_within_its_range(lock: str) -> None:
    pins = pinned(lock)
    for requirement in asked(lock):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} is not in requirements/{lock}.txt: run make lock"
        assert pin in requirement.specifier, f"{requirement} is pinned to {pin}: run make lock"


@pytest.mark.parametrize("lock", ["run", "build"])
def test_what_is_shipped_is_what_is_tested(lock: str) -> None:
    assert pinned(lock).items() <= pinned("dev").items()


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_pulls_in_the_distribution_that_would_shadow_ours(lock: str) -> None:
    assert "watchdog" not in pinned(lock), "the file-events package installs the same import name"


def test_the_package_and_the_image_carry_the_version_of_the_project() -> None:
    version = PYPROJECT["project"]["version"]
    assert watchdog.__version__ == version
    assert any(f'image.version="{version}"' in line for line in final_stage())


def test_the_wheel_is_built_by_what_the_build_lock_holds() -> None:
    assert PYPROJECT["build-system"]["requires"] == PYPROJECT["dependency-groups"]["build"]


def test_the_image_runs_as_a_numeric_user_who_is_not_root() -> None:
    users = [line.split()[1] for line in final_stage() if line.startswith("USER ")]
    assert users, "the final stage names no user, so it would run as root"
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]), "runAsNonRoot is checked against a number"
