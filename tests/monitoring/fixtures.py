"""Fixtures and the rule about missing programs, as a plugin: `pytest_plugins = ["tests.monitoring.fixtures"]`."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.controlplane.plane import ControlPlane
from tests.monitoring.alertmanager import AlertmanagerServer
from tests.monitoring.exporter import Exporter
from tests.monitoring.prometheus import PrometheusServer
from tests.monitoring.server import BINARIES, find

REQUIRED = os.environ.get("WATCHDOG_TESTS_REQUIRE_ALL") == "1"
MISSING = [program for program in BINARIES if not find(program)]
NEEDS = {
    "exporter": "prometheus",
    "prometheus": "prometheus",
    "alertmanager": "alertmanager",
    "alertmanagers": "alertmanager",
}
REASON = f"NO MONITORING TESTS without {', '.join(MISSING)}: install your distribution's packages of them"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run by a mark, as pytest shows that once for each file and not for each test."""
    for item in items:
        wanted = getattr(item, "fixturenames", ())
        if not REQUIRED and any(NEEDS.get(name) in MISSING for name in wanted):
            item.add_marker(pytest.mark.skip(reason=REASON))


@pytest.fixture(scope="session")
def exporter(plane: ControlPlane) -> Iterator[Exporter]:
    """The metrics of every pod on the plane whose template has the annotation `sim/rps`."""
    _require("prometheus")
    with Exporter(plane) as exporter:
        yield exporter


@pytest.fixture(scope="session")
def prometheus(exporter: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """One Prometheus for the whole run; scrapes and evaluates every second. It keeps the last test's rules."""
    _require("prometheus")
    with PrometheusServer(tmp_path_factory.mktemp("prometheus"), exporter=exporter) as prometheus:
        yield prometheus


@pytest.fixture
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AlertmanagerServer]:
    """An Alertmanager of the test's own, which tells nobody until `reload` says whom."""
    _require("alertmanager")
    with AlertmanagerServer(tmp_path_factory.mktemp("alertmanager")) as alertmanager:
        yield alertmanager


@pytest.fixture
def alertmanagers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[AlertmanagerServer]]:
    """Two of the kind that gossip."""
    _require("alertmanager")
    with ExitStack() as stack:
        found: list[AlertmanagerServer] = []
        for name in ("first", "second"):
            server = AlertmanagerServer(tmp_path_factory.mktemp(name), clustered=True, peers=found)
            found.append(stack.enter_context(server))
        yield found


def _require(program: str) -> None:
    if program in MISSING:
        pytest.fail(REASON, pytrace=False)
