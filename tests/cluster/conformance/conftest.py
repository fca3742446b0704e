"""Every test here runs on the sandbox and on the real control plane; where they differ, the sandbox is wrong."""

from collections.abc import Iterator

import pytest

from tests.controlplane.plane import ControlPlane
from tests.controlplane.sandboxed import SandboxPlane


@pytest.fixture(scope="session", params=["sandbox", "real"])
def plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """One or the other, for the whole run."""
    if request.param == "real":
        yield request.getfixturevalue("plane")
        return
    with SandboxPlane() as plane:
        yield plane


@pytest.fixture
def needs_kubectl(plane: ControlPlane) -> None:
    """Skip where there is no kubectl."""
    if not plane.kubectl.exists():
        pytest.skip("NO KUBECTL: `make control-plane` builds it, once")
