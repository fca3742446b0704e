"""Each scenario ends as it promises: the command's exit code is checked against the record and the cluster."""

import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from watchdog import config
from watchdog.config import Config
from watchdog.demo.scenarios import SCENARIOS


def run(name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "watchdog", "demo", "--fast", "--scenario", name]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)


@pytest.fixture(scope="module")
def ends() -> dict[str, subprocess.CompletedProcess[str]]:
    with ThreadPoolExecutor(3) as pool:  # each keeps real time, and needs a part of a core for it
        return dict(zip(SCENARIOS, pool.map(run, SCENARIOS), strict=True))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_ends_as_promised(name: str, ends: dict[str, subprocess.CompletedProcess[str]]) -> None:
    end = ends[name]
    assert end.returncode == 0, end.stdout + end.stderr
    assert "As promised" in end.stdout


def test_what_it_says_to_type_next_can_be_typed(ends: dict[str, subprocess.CompletedProcess[str]]) -> None:
    hints, _, smallest = ends["healthy"].stdout.partition("On your own cluster")[2].partition("The smallest")
    lines = [line.partition("#")[0].partition(">")[0] for line in hints.splitlines() if line.startswith("  ")]
    assert len(lines) == 3
    for line in lines:
        words = [{"NAMESPACE/NAME": "shop/web"}.get(word, word) for word in shlex.split(line)]
        end = subprocess.run([*words, "--help"], capture_output=True, text=True, check=False, timeout=30)
        assert end.returncode == 0, end.stderr
        assert f"rollback-watchdog {words[-1] if words[-1] == 'run' else ''}" in end.stdout
    assert config.parse(smallest.partition("\n")[2]) != Config()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_can_be_interrupted(sent: signal.Signals, code: int) -> None:
    command = [sys.executable, "-u", "-m", "watchdog", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        assert any("take traffic" in line for line in process.stdout)
        begun = time.monotonic()
        process.send_signal(sent)
        assert process.wait(timeout=20) == code
        assert time.monotonic() - begun < 10
        assert process.stderr.read().strip().startswith("Error: interrupted")
