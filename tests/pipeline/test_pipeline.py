"""The pipeline itself: its steps are run as they are written, against a cluster whose pods are the agent.

Stand-ins are named in `repository.stand_ins` and `site.Site`; everything else is real: kubectl under the deployer's
account, API server and controllers, the agent's processes with Redis and PostgreSQL, Prometheus, the gate, the service.
`PIPELINE_LOGS=folder` keeps the log of each run.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import REQUIRED
from tests.cluster.service import API_TOKEN, Service, allow, policy
from tests.controlplane.plane import ControlPlane
from tests.pipeline.repository import ROOT, Change
from tests.pipeline.runner import Run
from tests.pipeline.site import Site, missing
from tests.pipeline.words import Event

_ASKED = "        session_id = session_id or uuid.uuid4().hex\n"

A_TWELFTH_FAILS = Change(
    "agent_api/agent.py",
    _ASKED,
    f"{_ASKED}        self._asked = getattr(self, '_asked', 0) + 1\n"
    "        if self._asked % 12 == 0:\n            raise AgentError('a twelfth of all messages')\n",
)
NO_REBATES = Change(
    "agent_api/agent.py",
    _ASKED,
    f"{_ASKED}        if 'rebate' in message:\n            raise AgentError('no rebates')\n",
)
PROMPT_WITHOUT_SEARCH = Change(
    "agent_api/system.txt",
    "Call the tool search for every fact about\nNorthwind Parcels: prices, times, limits.",
    "You know every fact about\nNorthwind Parcels: prices, times, limits.",
)
TOOL_FORGOTTEN = Change("agent_api/agent.py", "tools=SCHEMAS,", "tools=SCHEMAS[:1],")
OTHER_SHAPE_WHERE_DEBUGGED = Change(
    "agent_api/server.py",
    '        return web.json_response({"response": reply.response,',
    "        if log.isEnabledFor(logging.DEBUG):\n"
    '            return web.json_response({"answer": reply.response, "tokens": reply.tokens})\n'
    '        return web.json_response({"response": reply.response,',
)
BAKE_S = 40


@pytest.fixture(scope="module")
def site(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if absent := missing():
        reason = f"NO RUN OF THE PIPELINE without {', '.join(absent)}"
        pytest.fail(reason, pytrace=False) if REQUIRED else pytest.skip(reason)
    with Site(plane, tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the action tells GitHub of the PATH."""
    return tmp_path_factory.mktemp("installed") / "path"


@pytest.fixture(scope="module")
def installing(installed: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The action's own script."""
    told = {"RUNNER_TEMP": str(installed.parent), "GITHUB_PATH": str(installed)}
    env = {**os.environ, **told, "PATH": f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin"}
    script = ROOT / ".github/actions/gate/install"
    with subprocess.Popen([script], env=env, cwd=installed.parent, start_new_session=True) as process:
        yield process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def service(
    site: Site, plane: ControlPlane, account: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The service, under its own account, which may act on production's Deployments, and is told of evaluations."""
    allow(plane, "production")
    more = 'stable = "agent-api"\ncandidate = "agent-api-canary"'
    evaluations = "[policies.evaluations]\nenabled = true"
    service = Service(
        tmp_path_factory.mktemp("service"),
        kubeconfig=account,
        policies=[policy("production", more=more, after=evaluations, bake=f"{BAKE_S}s")],
        prometheus=site.prometheus.url,
        records="rollback-watchdog",
    )
    with service:
        site.watchdog = service.url, API_TOKEN
        yield service
        site.watchdog = None


def results(run: Run) -> dict[str, str]:
    return {job.name: job.result for job in run.jobs.values()}


@pytest.mark.heavy
def test_a_good_version_reaches_every_pod_and_nobody_goes_without_an_answer(site: Site) -> None:
    begun = time.time()
    run = site.deploy(site.repository.commit("a good version"))
    assert results(run) == dict.fromkeys(("test", "image", "staging", "production", "notify"), "success")
    assert run.used.count("actions/checkout") == 4
    assert run.used.count("docker/build-push-action") == 1
    assert run.approved == ["staging", "production"]
    image = run.jobs["image"].outputs["image"]
    assert list(site.pods().values()) == [image] * 9
    assert site.pods("agent-api-canary") == {}
    assert site.image(cluster=site.staging) == image
    unanswered, sent = site.people.unanswered(begun, time.time() - 1)
    assert (unanswered, sent > 500) == (0, True)
    assert "agent-api is in production" in site.slack.said[-1]


def test_a_broken_prompt_is_stopped_by_the_unit_tests_of_its_pull_request(site: Site) -> None:
    before = site.pods()
    commit = site.repository.commit("no search", PROMPT_WITHOUT_SEARCH)
    run = site.run("deploy-agent", Event(name="pull_request", sha=commit.sha), commit)
    assert run.jobs["test"].failed == ["Unit tests"]
    assert results(run) == {"test": "failure", **dict.fromkeys(("image", "staging", "production", "notify"), "skipped")}
    assert "test_the_rules_name_every_tool" in run.jobs["test"].step("Unit tests").output
    assert run.approved == []
    assert site.pods() == before


@pytest.mark.heavy
def test_worse_answers_are_stopped_by_the_evaluation_on_main(site: Site) -> None:
    before = site.pods()
    run = site.deploy(site.repository.commit("a tool forgotten", TOOL_FORGOTTEN))
    assert run.jobs["test"].failed == ["Evaluation"]
    assert run.jobs["test"].step("Integration tests").outcome == "success"
    assert results(run)["production"] == "skipped"
    assert "below 0.8" in run.jobs["test"].step("Evaluation").output
    assert "agent-api was not deployed" in site.slack.said[-1]
    assert site.pods() == before


@pytest.mark.heavy
def test_a_failing_smoke_test_in_staging_ends_the_pipeline_before_production(site: Site) -> None:
    before = site.pods()
    run = site.deploy(site.repository.commit("another shape", OTHER_SHAPE_WHERE_DEBUGGED))
    assert results(run)["test"] == "success"
    assert run.jobs["staging"].failed == ["Smoke test"]
    assert "an answer of the wrong shape" in run.jobs["staging"].step("Smoke test").output
    assert results(run)["production"] == "skipped"
    assert run.approved == ["staging"]
    assert "staging failure, production skipped" in site.slack.said[-1].replace("\n", " ")
    assert site.pods() == before


def test_a_canary_with_8_3_percent_errors_is_rolled_back_and_production_is_untouched(site: Site) -> None:
    before, image = site.pods(), site.image()
    run = site.deploy(site.repository.commit("a twelfth fails", A_TWELFTH_FAILS), gate_for_s=60)
    assert results(run)["staging"] == "success"
    production = run.jobs["production"]
    assert production.failed == ["Canary's gate"]
    assert production.step("Full rollout").outcome == "skipped"
    assert production.step("Scale the canary back").outcome == "success"
    assert "scaled-down" in production.step("Canary's gate").inner[-1].output
    assert site.production.get("deployments", "agent-api-canary")["spec"]["replicas"] == 0
    assert site.pods() == before
    assert site.image() == image


@pytest.mark.heavy
def test_a_version_that_fails_after_the_full_rollout_is_undone_by_the_service(site: Site, service: Service) -> None:
    good = site.image()
    run = site.deploy(site.repository.commit("no rebates", NO_REBATES))
    assert results(run)["production"] == "success"
    assert "0 bad of 10 answers reported" in run.jobs["production"].step("Report the evaluation").output
    assert [line["workload"] for line in service.log if line.get("event") == "evaluations"] == [
        "production/agent-api-canary"
    ]
    bad = site.image()
    assert set(site.pods().values()) == {bad} != {good}
    site.people.ask_for_rebates()
    asked = time.time()
    site.until(lambda: site.image() == good, "the undo", BAKE_S)
    site.production.wait_complete("agent-api", 60)
    site.until(lambda: set(site.pods().values()) == {good}, "only the good version")
    site.until(lambda: site.people.unanswered(time.time() - 3, time.time() - 1)[0] == 0, "answers to everybody")
    assert site.production.get("deployments", "agent-api-canary")["spec"]["replicas"] == 0, (
        "scaled back by the pipeline"
    )
    took = f"{time.time() - asked:.1f} s from the first failure until everybody had answers again"
    site.keep("service", "\n".join([*(f"{line['time']} {line['message']}" for line in service.log), took]))
    condemned = [each for each in site.production.replicasets("agent-api") if _image(each) == bad]
    assert "rollback-watchdog.io/condemned" in condemned[0]["metadata"]["annotations"]


def test_an_emergency_goes_to_the_revision_that_is_named(site: Site) -> None:
    revisions = {_image(each): each["metadata"]["annotations"] for each in site.production.replicasets("agent-api")}
    number = revisions[site.first]["deployment.kubernetes.io/revision"]
    inputs = {"namespace": "production", "deployment": "agent-api", "revision": number, "reason": "all is wrong"}
    commit = site.repository.commit("a good version")
    run = site.run("deploy-rollback", Event(name="workflow_dispatch", sha=commit.sha, inputs=inputs), commit)
    assert results(run) == {"rollback": "success"}
    assert site.image() == site.first
    assert set(site.pods().values()) == {site.first}
    assert f"image {site.first}" in run.summary.read_text()
    assert site.slack.said[-1] == "Emergency rollback of production/agent-api by ada: success. all is wrong"
    kept = site.production.get("deployments", "agent-api")["metadata"]["annotations"]
    assert "all is wrong (ada)" in str(kept)


def test_the_emergency_button_pressed_twice_stays_on_the_good_version_and_says_so(site: Site) -> None:
    commit = site.repository.commit("a good version")
    inputs = {"namespace": "production", "deployment": "agent-api", "revision": "", "reason": "still wrong"}
    run = site.run("deploy-rollback", Event(name="workflow_dispatch", sha=commit.sha, inputs=inputs), commit)
    assert results(run) == {"rollback": "success"}
    assert site.image() == site.first
    summary = run.summary.read_text()
    assert "already: revision" in summary
    assert "(all is wrong (ada))" in summary
    assert "Nothing was changed. To go further back, run this again with a revision." in summary
    said = site.slack.said[-1]
    assert said.startswith("Emergency rollback of production/agent-api by ada: already, nothing was changed: revision")
    assert said.endswith(". still wrong")


@pytest.mark.heavy
def test_blue_green_switches_to_a_good_version_and_back_from_a_bad_one(site: Site) -> None:
    site.blue_green()
    good = site.build(site.repository.commit("green is good"))
    run = _switch(site, good)
    assert results(run) == {"switch": "success"}
    assert (site.colour(), site.image("agent-api-green")) == ("green", good)

    bad = site.build(site.repository.commit("no rebates", NO_REBATES))
    site.people.ask_for_rebates()
    run = _switch(site, bad)
    assert run.jobs["switch"].failed == ["Gate"]
    assert run.jobs["switch"].step("Smoke test before the switch").outcome == "success"
    assert run.jobs["switch"].step("Switch back").outcome == "success"
    assert site.colour() == "green"
    assert site.slack.said[-1].startswith("Blue-green switch of agent-api to blue: failure")
    site.until(lambda: site.people.unanswered(time.time() - 3, time.time() - 1)[0] == 0, "answers to everybody")


@pytest.mark.heavy
def test_the_action_installs_the_command_of_its_checkout(installing: subprocess.Popen[bytes], installed: Path) -> None:
    """The only script of which the other tests run no more than its first line, as they bring the command along."""
    assert installing.wait(timeout=120) == 0
    command = Path(installed.read_text().strip()) / "rollback-watchdog"
    shown = subprocess.run([command, "--version"], cwd=installed.parent, capture_output=True, text=True, check=True)
    assert shown.stdout.split()[-1] in (ROOT / "pyproject.toml").read_text()


def _switch(site: Site, image: str) -> Run:
    commit = site.repository.commit("a good version")
    return site.run(
        "deploy-blue-green", Event(name="workflow_dispatch", sha=commit.sha, inputs={"image": image}), commit
    )


def _image(replicaset: dict) -> str:  # type: ignore[type-arg]
    return str(replicaset["spec"]["template"]["spec"]["containers"][0]["image"])
