"""A command imports what it needs: whoever undoes a bad version waits for every import before the first request."""

import subprocess
import sys

import pytest

MOST = 290
"""Modules outside the standard library; `rollback` needs 244, and needed 1,324 when it imported every command."""

NEVER = {
    "aiohttp.web",
    "kubernetes_asyncio.client.api",
    "kubernetes_asyncio.client.models",
    "multiprocessing",
    "prometheus_client",
    "rich",
    "slack_sdk",
    "watchdog.demo",
    "watchdog.gate",
    "watchdog.web",
}
IMPORTING = """
import sys
import click
from watchdog.cli import cli
assert cli.get_command(click.Context(cli), sys.argv[1])
print(*sys.modules)
"""


def imported(command: str) -> set[str]:
    """What a process has imported that knows this command."""
    words = [sys.executable, "-c", IMPORTING, command]
    return set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("command", ["rollback", "history", "incidents", "approve", "check"])
def test_a_command_that_somebody_waits_for_imports_what_it_needs(command: str) -> None:
    found = imported(command)
    assert found & NEVER == set()
    foreign = [name for name in found if name.partition(".")[0] not in sys.stdlib_module_names]
    assert len(foreign) <= MOST


def test_judging_a_file_needs_no_cluster() -> None:
    assert imported("evaluate") & {"aiohttp", "kubernetes_asyncio", "watchdog.kube", "yaml"} == set()
