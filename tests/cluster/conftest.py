"""Fixtures of the tests that run on a real control plane."""

import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.command import Command
from tests.controlplane.build import COMMAND, find
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane
from watchdog.app import Parts, assemble
from watchdog.config import Config
from watchdog.objects import WorkloadRef

DEPLOY = Path(__file__).parents[2] / "deploy"
ACCOUNT = "rollback-watchdog"


REQUIRED = os.environ.get("WATCHDOG_TESTS_REQUIRE_ALL") == "1"
MISSING = find()[1]
REASON = f"NO CLUSTER TESTS without {', '.join(MISSING)}: `{COMMAND}` builds them, once"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run by a mark, as pytest shows that once for each file and not for each test."""
    for item in items:
        on_sandbox = "sandbox" in getattr(getattr(item, "callspec", None), "params", {}).values()
        if MISSING and not REQUIRED and not on_sandbox and "plane" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=REASON))


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """One control plane for the whole run; under pytest-xdist each worker starts its own (430 MB, 4 s)."""
    if MISSING:
        pytest.fail(REASON, pytrace=False)
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def namespace(plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace named after the test, ready for pods; its deletion is not waited for."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_"))[:40].strip("-")
    name = f"{words}-{secrets.token_hex(3)}"
    plane.api("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    Cluster(plane, name).wait(lambda: plane.exists(f"/api/v1/namespaces/{name}/serviceaccounts/default"))
    yield name
    plane.api("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def cluster(plane: ControlPlane, namespace: str) -> Cluster:
    """The verbs that set a scene in the test's namespace."""
    return Cluster(plane, namespace)


@pytest.fixture(scope="session")
def account(plane: ControlPlane) -> Path:
    """The kubeconfig of the ServiceAccount in `deploy/base`, applied as it stands."""
    plane.api("POST", "/api/v1/namespaces", {"metadata": {"name": ACCOUNT}})
    plane.admin("apply", "--kustomize", str(DEPLOY / "base"))
    return plane.kubeconfig_for(ACCOUNT, ACCOUNT)


@pytest.fixture
def kubeconfig(plane: ControlPlane, namespace: str, account: Path) -> Path:
    """The same kubeconfig, once `deploy/workload-namespace` has given the account its rights in this namespace."""
    rendered = plane.admin("kustomize", str(DEPLOY / "workload-namespace"))
    documents = list(yaml.safe_load_all(rendered))
    for document in documents:
        document["metadata"]["namespace"] = namespace
    plane.admin("apply", "--filename=-", stdin=yaml.safe_dump_all(documents))
    return account


@pytest.fixture
async def parts(kubeconfig: Path) -> AsyncIterator[Parts]:
    """What a command works with, under the service's own account."""
    async with assemble(Config(), kubeconfig=str(kubeconfig), context=None, verify_s=20) as parts:
        yield parts


@pytest.fixture
def web(namespace: str) -> WorkloadRef:
    """The workload of most tests: a Deployment `web` that the test creates."""
    return WorkloadRef(namespace, "web")


@pytest.fixture
def watchdog(kubeconfig: Path, web: WorkloadRef) -> Command:
    """Run the command as a user does, under the service's own account."""
    return Command(kubeconfig, web)
