"""What holds for every test, and the order in which a run of several processes takes them."""

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import settings

# looptime asks for the current event loop in every test, asynchronous or not. Once it is set to none, asyncio neither
# makes a loop that nobody closes (3.11) nor warns that it will stop doing so (3.12, 3.13).
asyncio.set_event_loop(None)

settings.register_profile("any-machine", deadline=None)  # a busy machine is no failure
settings.load_profile("any-machine")

pytest_plugins = ["tests.monitoring.fixtures"]

HERE = Path(__file__).parent
# Live tests wait more than they work, so they come first; what keeps a core busy comes after them, and gives way to the
# live tests of other processes. In both halves the longest files come first, so that none is left alone at the end.
LIVE = ("pipeline/", "cluster/", "component/test_demo.py")
LONG = (
    "pipeline/test_pipeline.py",
    "cluster/test_claims.py",
    "cluster/test_rollback_command.py",
    "component/test_demo.py",
    "cluster/test_scenarios.py",
    "cluster/test_replay.py",
    "cluster/test_refused_writes.py",
    "cluster/test_sequential.py",
    "cluster/test_service_restarts.py",
    "statistics/test_rolling.py",
    "statistics/test_decisions.py",
)
POLITE = 10
"""The niceness of a process from its first test on that keeps a core busy: no process may become less polite again."""


def pytest_xdist_auto_num_workers() -> int:
    """Give a process to each core, and two at least; each has a control plane of its own (half a GB)."""
    return min(8, max(2, os.cpu_count() or 1))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put live tests first, for `--dist loadfile` gives out files in this order."""
    items.sort(key=_turn)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let the live tests of other processes go first."""
    if "PYTEST_XDIST_WORKER" in os.environ and not _name(item).startswith(LIVE):
        os.nice(max(0, POLITE - os.nice(0)))


def _turn(item: pytest.Item) -> tuple[bool, int]:
    name = _name(item)
    return not name.startswith(LIVE), LONG.index(name) if name in LONG else len(LONG)


def _name(item: pytest.Item) -> str:
    return item.path.relative_to(HERE).as_posix()
