"""Each scenario ends as it promises: the command's exit code is checked against the record and the cluster."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from watchdog.demo.scenarios import SCENARIOS


def run(name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "watchdog", "demo", "--fast", "--scenario", name]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)


@pytest.fixture(scope="module")
def ends() -> dict[str, subprocess.CompletedProcess[str]]:
    with ThreadPoolExecutor(len(SCENARIOS)) as pool:
        return dict(zip(SCENARIOS, pool.map(run, SCENARIOS), strict=True))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_ends_as_promised(name: str, ends: dict[str, subprocess.CompletedProcess[str]]) -> None:
    end = ends[name]
    assert end.returncode == 0, end.stdout + end.stderr
    assert "As promised" in end.stdout
