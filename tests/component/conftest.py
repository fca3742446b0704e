"""Fixtures: a scripted API server on loopback, and the ways to it."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.component.fake_api import FakeApi, running, write_kubeconfig
from watchdog.kube import KubeCluster, connect
from watchdog.kube.transport import Transport
from watchdog.kube.watching import WatchSettings


@pytest.fixture(autouse=True)
def no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare each connection the reading of the system's certificates, which takes longer than most tests."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    """Give an API server without any script."""
    async with running(FakeApi()) as api:
        yield api


@pytest.fixture
def kubeconfig(api: FakeApi, tmp_path: Path) -> Path:
    """Give a kubeconfig for that server, with its token in the file `token` beside it."""
    return write_kubeconfig(tmp_path, api.url)


@pytest.fixture
async def transport(kubeconfig: Path) -> AsyncIterator[Transport]:
    """Give an open way to that server."""
    async with connect(kubeconfig=str(kubeconfig)) as transport:
        yield transport


@pytest.fixture
def cluster(transport: Transport) -> KubeCluster:
    """Give the operations on that server."""
    return KubeCluster(transport, watching=WatchSettings(request_s=5, watch_s=300, inactivity_s=90))
