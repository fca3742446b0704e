"""Writes that the API server refuses, changes or slows down: real policies, webhooks, deletion, `minReadySeconds`."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.command import Command
from tests.cluster.scenarios import Records, image_of
from tests.cluster.service import Service, allow, policy
from tests.controlplane.admission import AdmissionServer, denial, mutation
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ApiError, ControlPlane, Json
from watchdog.app import assemble
from watchdog.config import Config
from watchdog.decide.plan import Request
from watchdog.decide.record import Record, State
from watchdog.model import Cause, Outcome, Undo
from watchdog.objects import WorkloadRef

RECORDS = "refused-records"
ACCOUNT = "system:serviceaccount:rollback-watchdog:rollback-watchdog"
CODES = (0, 403, 409, 422, 429, 500)
HOOKS = tuple(f"refused-{code}" for code in CODES)
POLICIES = ("refused-forbidden", "refused-invalid")
PLAYS = (*HOOKS, *POLICIES, "refused-down", "refused-twice", "refused-mutated", "refused-observed", "refused-deleted")
SENTENCE = "v1 has a hole, ask sec@example.test"
RULES = [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments"]}]
NEVER_READY = {"sim/mode": "crash-loop"}
LATER = {"sim/mode": "crash-later", "sim/crash-after": "10s"}


def undoes(request: Json) -> bool:
    """Whether a request brings v1 back."""
    return image_of(request["oldObject"]) != "v1" and image_of(request["object"]) == "v1"


def refuse(code: int, request: Json) -> Json:
    """Say no to going back to v1."""
    return denial(code, SENTENCE) if undoes(request) else {"allowed": True}


def hooks(server: AdmissionServer) -> list[Json]:
    """The webhooks, each for a namespace of its own."""
    left = [2]

    def twice(request: Json) -> Json:
        if undoes(request) and left[0]:
            left[0] -= not request.get("dryRun")
            return denial(422, SENTENCE)
        return {"allowed": True}

    for code, namespace in zip(CODES, HOOKS, strict=True):
        server.answers[f"/{namespace}"] = partial(refuse, code)
    server.answers["/refused-twice"] = twice
    urls = {namespace: f"{server.url}/{namespace}" for namespace in (*HOOKS, "refused-twice")}
    urls["refused-down"] = "https://127.0.0.1:9/nobody"
    return [_hook(namespace, url, server.ca) for namespace, url in urls.items()]


def _hook(namespace: str, url: str, ca: str) -> Json:
    return {
        "name": f"{namespace}.example.test",
        "clientConfig": {"url": url, "caBundle": ca},
        "rules": RULES,
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "matchConditions": [{"name": "undo", "expression": "request.userInfo.username.startsWith('system:service')"}],
        "sideEffects": "None",
        "timeoutSeconds": 5,
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Fail",
    }


def inject(_: Json) -> Json:
    """What a mutating webhook of a mesh adds to a template."""
    return mutation({"op": "add", "path": "/spec/template/metadata/labels/injected", "value": "yes"})


def admission_policy(plane: ControlPlane, namespace: str, reason: str) -> None:
    """A ValidatingAdmissionPolicy that lets nobody go back to v1."""
    api = "/apis/admissionregistration.k8s.io/v1"
    back = "object.spec.template.spec.containers[0].image == 'v1' && object.spec.template != oldObject.spec.template"
    validation = {"expression": f"!({back})", "message": SENTENCE, **({"reason": reason} if reason else {})}
    spec = {"matchConstraints": {"resourceRules": RULES}, "validations": [validation]}
    plane.api("POST", f"{api}/validatingadmissionpolicies", {"metadata": {"name": namespace}, "spec": spec})
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {"policyName": namespace, "validationActions": ["Deny"], "matchResources": selector}
    plane.api("POST", f"{api}/validatingadmissionpolicybindings", {"metadata": {"name": namespace}, "spec": binding})


class Played:
    """What became of every play."""

    def __init__(self, plane: ControlPlane, records: dict[str, Record]) -> None:
        self.plane = plane
        self._records = records
        done = plane.audit(ACCOUNT)
        self._writes = [
            event for event in done if event["verb"] == "patch" and "last-rollback" in str(event.get("requestObject"))
        ]

    def record(self, namespace: str) -> Record:
        """The record of the bad revision."""
        return self._records[namespace]

    def writes(self, namespace: str) -> list[int]:
        """The status of each write of an undo."""
        mine = [event for event in self._writes if event["objectRef"]["namespace"] == namespace]
        return [event["responseStatus"]["code"] for event in mine]

    def notes(self, namespace: str, reason: str) -> list[str]:
        """The texts of the Events with a reason."""
        events = Cluster(self.plane, namespace).objects("events")
        return [event.get("note", "") for event in events if event["reason"] == reason]

    def image(self, namespace: str) -> str:
        """What is live."""
        return image_of(Cluster(self.plane, namespace).get("deployments", "web"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdmissionServer]:
    """The webhooks' server."""
    with AdmissionServer(tmp_path_factory.mktemp("admission")) as server:
        yield server


@pytest.fixture(scope="module")
def played(
    plane: ControlPlane, account: Path, server: AdmissionServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Played]:
    """Every play, at once, to one service."""
    for namespace in (*PLAYS, RECORDS):
        plane.api("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        allow(plane, namespace, records=namespace == RECORDS)
    api = "/apis/admissionregistration.k8s.io/v1"
    validating = {"metadata": {"name": "refused"}, "webhooks": hooks(server)}
    plane.api("POST", f"{api}/validatingwebhookconfigurations", validating)
    server.answers["/inject"] = inject
    hook = _hook("refused-mutated", f"{server.url}/inject", server.ca)
    mutating = {"metadata": {"name": "mutated"}, "webhooks": [hook]}
    plane.api("POST", f"{api}/mutatingwebhookconfigurations", mutating)
    for namespace, reason in zip(POLICIES, ("Forbidden", ""), strict=True):
        admission_policy(plane, namespace, reason)
    told = [policy(each, signal="", mode="observe" if each == "refused-observed" else "enforce") for each in PLAYS]
    service = Service(
        tmp_path_factory.mktemp("refused"),
        kubeconfig=account,
        policies=told,
        prometheus="http://127.0.0.1:9",
        records=RECORDS,
    )
    records = Records(plane, RECORDS)
    with service, ThreadPoolExecutor(len(PLAYS)) as pool:
        ends = dict(zip(PLAYS, pool.map(lambda each: _play(plane, each, records), PLAYS), strict=True))
    yield Played(plane, ends)
    for kind in ("validatingwebhookconfigurations/refused", "mutatingwebhookconfigurations/mutated"):
        plane.api("DELETE", f"{api}/{kind}")
    for namespace in POLICIES:
        plane.api("DELETE", f"{api}/validatingadmissionpolicies/{namespace}")
        plane.api("DELETE", f"{api}/validatingadmissionpolicybindings/{namespace}")
    for namespace in (*PLAYS, RECORDS):
        plane.api("DELETE", f"/api/v1/namespaces/{namespace}")


def _play(plane: ControlPlane, namespace: str, records: Records) -> Record:
    """A version that crashes, under whatever refuses its undo."""
    cluster = Cluster(plane, namespace, poll_s=0.25)
    cluster.create_deployment("web", replicas=2)
    cluster.wait_complete("web")
    cluster.mark_passed("web")
    if namespace in POLICIES:
        _effective(cluster)
    crashes = LATER if namespace == "refused-deleted" else NEVER_READY  # the deletion has to come first
    cluster.set_image("web", "v2", template_annotations=crashes)
    if namespace == "refused-deleted":
        cluster.wait(lambda: _watched(records, namespace), what="the watch")
        cluster.patch("deployments", "web", {"metadata": {"finalizers": ["example.test/keep"]}})
        cluster.plane.api("DELETE", cluster.path("deployments", "web"), {"propagationPolicy": "Foreground"})

    def ended() -> Record | None:
        mine = [each for each in records.of(namespace) if each.rollout.revision == 2]
        return next((each for each in mine if each.state is State.ENDED), None)

    try:
        return cluster.wait(ended, 60, what=f"the end of {namespace}")
    finally:
        if namespace == "refused-deleted":
            cluster.patch("deployments", "web", {"metadata": {"finalizers": None}})


def _watched(records: Records, namespace: str) -> list[Record]:
    return [each for each in records.of(namespace) if each.rollout.revision == 2]


def _effective(cluster: Cluster) -> None:
    """Wait until the policy is in force: the API server takes it up some time after it was written."""
    probe = {"metadata": {"name": "probe"}, "spec": {**cluster.get("deployments", "web")["spec"], "replicas": 0}}
    cluster.create("deployments", probe)
    template = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "v2"}]}}}}
    cluster.patch("deployments", "probe", template)

    def refused() -> bool:
        back = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "v1"}]}}}}
        path = f"{cluster.path('deployments', 'probe')}?dryRun=All"
        try:
            cluster.plane.api("PATCH", path, back, content_type="application/strategic-merge-patch+json")
        except ApiError:
            return True
        return False

    cluster.wait(refused, what="the policy's being in force")
    cluster.delete("deployments", "probe")


BY_HAND = "kubectl -n {} rollout undo deployment/web --to-revision=1"


@pytest.mark.parametrize("namespace", [*HOOKS, *POLICIES])
def test_a_refusal_ends_failed_with_the_refusers_name_its_sentence_and_the_way_out(
    played: Played, namespace: str
) -> None:
    record = played.record(namespace)
    assert (record.outcome, played.image(namespace)) == (Outcome.FAILED, "v2")
    refuser = "ValidatingAdmissionPolicy '{}'" if namespace in POLICIES else 'admission webhook "{}.example.test"'
    assert f"refused by {refuser.format(namespace)}: {SENTENCE}" in record.detail
    assert BY_HAND.format(namespace) in record.detail
    assert played.notes(namespace, "RollbackFailed") == [record.detail]
    assert record.plan is not None
    assert (record.plan.from_revision, record.plan.to_revision) == (2, 1)


@pytest.mark.parametrize("namespace", ["refused-0", "refused-403", "refused-forbidden"])
def test_a_no_that_rarely_passes_is_tried_twice(played: Played, namespace: str) -> None:
    assert len(played.writes(namespace)) == 2


@pytest.mark.parametrize(
    "namespace", ["refused-409", "refused-422", "refused-429", "refused-500", "refused-invalid", "refused-down"]
)
def test_a_no_that_may_pass_is_tried_with_growing_pauses_for_the_time_of_an_undo(
    played: Played, namespace: str
) -> None:
    assert 5 <= len(played.writes(namespace)) <= 8


def test_a_webhook_that_is_away_is_named_too(played: Played) -> None:
    record = played.record("refused-down")
    assert record.outcome is Outcome.FAILED
    assert 'refused by webhook "refused-down.example.test": failed to call webhook: ' in record.detail
    assert played.notes("refused-down", "RollbackFailed") == [record.detail]


def test_a_refuser_that_gives_way_has_the_undo_done(played: Played) -> None:
    assert (played.record("refused-twice").outcome, played.image("refused-twice")) == (Outcome.RECOVERED, "v1")
    assert played.writes("refused-twice") == [422, 422, 200]


def test_a_template_that_a_mutating_webhook_changes_is_ours_and_is_not_watched_as_a_new_version(played: Played) -> None:
    record = played.record("refused-mutated")
    assert (record.outcome, played.writes("refused-mutated")) == (Outcome.RECOVERED, [200])
    live = Cluster(played.plane, "refused-mutated").get("deployments", "web")
    assert live["spec"]["template"]["metadata"]["labels"]["injected"] == "yes"


def test_observing_shows_the_plan_and_writes_nothing_not_even_dry(played: Played) -> None:
    record = played.record("refused-observed")
    assert (record.outcome, played.image("refused-observed")) == (Outcome.OBSERVED, "v2")
    assert record.plan is not None
    assert (record.plan.from_revision, record.plan.to_revision, record.plan.target_images) == (2, 1, {"app": "v1"})
    done = played.plane.audit(ACCOUNT)
    about = [each["objectRef"] for each in done if each["verb"] in ("patch", "update", "delete")]
    assert not [each for each in about if each.get("namespace") == "refused-observed"]


def test_a_deployment_that_is_being_deleted_is_left_alone(played: Played) -> None:
    record = played.record("refused-deleted")
    assert (record.outcome, played.writes("refused-deleted")) == (Outcome.SUPERSEDED, [])
    assert "being deleted" in record.detail


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bad(cluster: Cluster) -> Cluster:
    """`web` with v1 and v2 complete, whose pods must live for some seconds before they count."""
    strategy = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    cluster.create_deployment("web", replicas=3, minReadySeconds=3, strategy=strategy)
    cluster.wait_complete("web")
    cluster.set_image("web", "v2")
    cluster.wait_complete("web")
    return cluster


def test_a_command_that_is_refused_says_by_whom_and_why_at_once(
    cluster: Cluster, watchdog: Command, plane: ControlPlane, server: AdmissionServer
) -> None:
    cluster.create_deployment("web")
    cluster.wait_complete("web")
    cluster.set_image("web", "v2")
    cluster.wait_complete("web")
    server.answers["/command"] = partial(refuse, 422)
    hook = _hook(cluster.namespace, f"{server.url}/command", server.ca) | {"name": "command.example.test"}
    api = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    plane.api("POST", api, {"metadata": {"name": "command"}, "webhooks": [hook]})
    try:
        cluster.wait(
            lambda: "refused by" in watchdog.rollback("--dry-run").err, 20, what="the webhook's being in force"
        )
        done = watchdog.rollback()
    finally:
        plane.api("DELETE", f"{api}/command")
    assert done.code == 4
    assert f'refused by admission webhook "command.example.test": {SENTENCE}' in done.err
    assert BY_HAND.format(cluster.namespace) in done.err


def test_a_command_that_does_not_wait_long_enough_says_that_the_undo_is_under_way(
    bad: Cluster, watchdog: Command
) -> None:
    done = watchdog.rollback("--timeout=2s")
    assert done.code == 4
    assert "under way, not complete after 2 s" in done.out
    assert "Go on watching with: kubectl rollout status" in done.out
    reasons = {event["reason"] for event in bad.objects("events")}
    assert "RollbackFailed" not in reasons


async def test_the_service_waits_for_minimum_ready_seconds_and_surge(
    bad: Cluster, kubeconfig: Path, web: WorkloadRef
) -> None:
    request = Request(cause=Cause(by="test", reason="slow"))
    async with assemble(Config(), kubeconfig=str(kubeconfig), context=None, verify_s=2) as parts:
        written = await parts.actor.undo(web, request, verify=False)
        assert isinstance(written.plan, Undo)
        result = await parts.actor.finish(written.plan, request, resumed=False)
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.elapsed_s is not None
    assert result.elapsed_s > 8


def test_a_deployment_that_waits_for_its_end_is_refused_at_once(cluster: Cluster, watchdog: Command) -> None:
    cluster.create_deployment("web")
    cluster.wait_complete("web")
    cluster.set_image("web", "v2")
    cluster.wait_complete("web")
    cluster.patch("deployments", "web", {"metadata": {"finalizers": ["example.test/keep"]}})
    cluster.plane.api("DELETE", cluster.path("deployments", "web"), {"propagationPolicy": "Foreground"})
    done = watchdog.rollback("--timeout=60s")
    cluster.patch("deployments", "web", {"metadata": {"finalizers": None}})
    assert done.code == 4
    assert "superseded, superseded: it is being deleted" in done.out
