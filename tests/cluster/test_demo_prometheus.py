"""The demonstration with a real Prometheus between the pods and the service."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "watchdog", "demo", "--prometheus")


def processes() -> set[str]:
    """The command line of everything that runs."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.add(path.read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="NOT RUN: prometheus is not installed")
def test_a_bad_version_is_undone_by_what_prometheus_scraped_and_prometheus_ends_with_it() -> None:
    end = subprocess.run(COMMAND, capture_output=True, text=True, check=False, timeout=100)
    assert end.returncode == 0, end.stdout + end.stderr
    assert 'source = "pods"            #' not in end.stdout.partition("On your own cluster")[0]
    (address,) = re.findall(r'url = "http://([\d.:]+)"', end.stdout)
    assert not [line for line in processes() if f"--web.listen-address={address} " in line]


def test_without_the_program_it_ends_in_one_line() -> None:
    end = subprocess.run(
        COMMAND, capture_output=True, text=True, check=False, timeout=60, env={"PATH": "", "HOME": "/"}
    )
    assert (end.returncode, end.stdout) == (2, "")
    assert end.stderr.startswith("Error: --prometheus: there is no program prometheus on the PATH")
    assert len(end.stderr.splitlines()) == 1
