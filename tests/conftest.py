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
# Live tests wait more than they work, so they come first, the longest files before all others; what keeps a core busy
# fills the gaps, and gives way to them.
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


def pytest_xdist_auto_num_workers() -> int:
    """Give a process to each core, and two at least; each has a control plane of its own (half a GB)."""
    return min(8, max(2, os.cpu_count() or 1))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first, for `--dist loadfile` gives out files in this order."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> tuple[int, int]:
    file = item.path.relative_to(HERE)
    name = file.as_posix()
    folder = ("pipeline", "cluster", "statistics", "component", "unit").index(file.parts[0])
    return (LONG.index(name) if name in LONG else len(LONG), folder)


@pytest.fixture(scope="session")
def _polite() -> None:
    os.nice(10)


@pytest.fixture(autouse=True)
def politeness(request: pytest.FixtureRequest) -> None:
    """Let the live tests of other processes go first."""
    live = request.path.relative_to(HERE).as_posix().startswith(LIVE)
    if not live and "PYTEST_XDIST_WORKER" in os.environ:
        request.getfixturevalue("_polite")
