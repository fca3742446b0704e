"""The pipeline itself: its steps are run as they are written, against a cluster whose pods are the agent."""

from collections.abc import Iterator

import pytest

from tests.controlplane.plane import ControlPlane
from tests.pipeline.repository import Change
from tests.pipeline.site import Site, now

ALWAYS_ONE_IN_TWELVE = Change(
    "agent_api/agent.py",
    "        session_id = session_id or uuid.uuid4().hex\n",
    "        session_id = session_id or uuid.uuid4().hex\n"
    "        self._asked = getattr(self, '_asked', 0) + 1\n"
    "        if self._asked % 12 == 0:\n"
    "            raise AgentError('a twelfth of the messages')\n",
)


@pytest.fixture(scope="module")
def site(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(plane, tmp_path_factory.mktemp("site")) as site:
        yield site


def test_a_good_version_reaches_every_pod(site: Site) -> None:
    begun = now()
    run = site.deploy(site.repository.commit("a good version"))
    assert {job.name: job.result for job in run.jobs.values()} == dict.fromkeys(run.jobs, "success")
    image = run.jobs["image"].outputs["image"]
    assert set(site.pods().values()) == {image}
    assert len(site.pods()) == 9
    assert site.pods("agent-api-canary") == {}
    assert site.people.unanswered(begun, now())[0] == 0


def test_a_canary_with_8_3_percent_errors_is_rolled_back_and_production_is_untouched(site: Site) -> None:
    before = site.pods()
    run = site.deploy(site.repository.commit("worse", ALWAYS_ONE_IN_TWELVE), gate_for_s=60)
    assert run.jobs["production"].failed == ["Canary's gate"]
    assert site.pods() == before
    assert site.pods("agent-api-canary") == {}
