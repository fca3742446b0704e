"""What may happen to a rollout, each as a play in a namespace of its own; all are played at once to one service.

A play sets its scene as a user would and waits for the record that it is about; the facts of its end are then read from
the cluster, and `test_scenarios` says what they must be.
"""

import datetime as dt
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tests.cluster.service import Service, policy
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane, Json
from tests.monitoring.alertmanager import AlertmanagerServer
from tests.monitoring.exporter import Exporter
from tests.monitoring.prometheus import PrometheusServer, agent_errors
from watchdog.decide.record import Record, State
from watchdog.records.form import read

DEPLOY = Path(__file__).parents[2] / "deploy"
ACCOUNT = "rollback-watchdog"
RECORDS = "scenario-records"
MARKS = "rollback-watchdog.io"

_RECORDS = f"/api/v1/namespaces/%s/configmaps?labelSelector=app.kubernetes.io%%2Fmanaged-by%%3D{ACCOUNT}"
_POLL_S = 0.25


def image_of(item: Json) -> str:
    """The image of a Deployment's or ReplicaSet's pods."""
    return str(item["spec"]["template"]["spec"]["containers"][0]["image"])


class Records:
    """The records in the cluster, read at most every `_POLL_S` for all plays together."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._plane = plane
        self._path = _RECORDS % namespace
        self._lock = threading.Lock()
        self._found: list[Record] = []
        self._at = 0.0

    def of(self, namespace: str) -> list[Record]:
        """The records of a namespace's workloads, oldest first."""
        with self._lock:
            if time.monotonic() - self._at > _POLL_S:
                items = self._plane.api("GET", self._path)["items"]
                self._found = [read(item["data"]["record.json"]) for item in items]
                self._at = time.monotonic()
        mine = [record for record in self._found if record.workload.namespace == namespace]
        return sorted(mine, key=lambda record: (record.workload.name, record.rollout.revision))


class Scene(Cluster):
    """A play's namespace, and what it plays with."""

    def __init__(
        self,
        namespace: str,
        *,
        plane: ControlPlane,
        records: Records,
        service: Service,
        exporter: Exporter,
        prometheus: PrometheusServer,
    ) -> None:
        super().__init__(plane, namespace, poll_s=_POLL_S)
        self.records = records
        self.service = service
        self.exporter = exporter
        self.prometheus = prometheus
        self.facts: Json = {}

    def good(self, name: str = "web", *, errors: str = "0", annotations: Json | None = None, **spec: Any) -> None:
        """Version v1, complete and known to be good."""
        told = {"sim/rps": "50", "sim/errors": errors}
        self.create_deployment(name, replicas=2, template_annotations=told, annotations=annotations, **spec)
        self.complete(name)
        self.mark_passed(name)

    def bad(self, name: str = "web", image: str = "v2", **annotations: str | None) -> None:
        """Begin the rollout of a version that fails 30 % of its requests."""
        self.set_image(name, image, template_annotations={"sim/errors": "0.3", **annotations})

    def complete(self, name: str = "web") -> None:
        """Wait until the rollout is complete."""
        self.wait_complete(name)

    def fail(self, name: str = "web") -> None:
        """Have all pods fail from now on, those to come too."""
        self.exporter.set(f"{self.namespace}/{name}-", errors=0.3)

    def annotate(self, name: str = "web", **annotations: str) -> None:
        """Write annotations of ours on the Deployment."""
        ours = {f"{MARKS}/{key}": value for key, value in annotations.items()}
        self.patch("deployments", name, {"metadata": {"annotations": ours}})

    def reached(self, state: State, revision: int = 2, name: str = "web") -> Record:
        """Wait until the watch of a revision has come to a state."""

        def found() -> Record | None:
            return next((each for each in self.seen(revision, name) if each.state is state), None)

        return self.wait(found, what=f"{name}, revision {revision}, {state}: {self.namespace}")

    def ended(self, revision: int = 2, name: str = "web") -> Record:
        """Wait until the watch of a revision has ended."""
        return self.reached(State.ENDED, revision, name)

    def seen(self, revision: int = 2, name: str = "web") -> list[Record]:
        """The record of a revision, if there is one."""
        records = self.records.of(self.namespace)
        return [each for each in records if (each.workload.name, each.rollout.revision) == (name, revision)]

    def shown(self, expr: str) -> None:
        """Wait until an expression gives something in Prometheus; `%` stands for this namespace's matcher."""
        text = expr.replace("%", f'{{namespace="{self.namespace}"}}')
        self.wait(lambda: self.prometheus.query(text), what=text)

    def logged(self, *events: str, name: str = "web") -> Json | None:
        """The first line that the service has logged of such events about a workload."""
        about = f"{self.namespace}/{name}"
        return next(
            (line for line in self.service.log if line.get("workload") == about and line["event"] in events), None
        )


class End(msgspec.Struct):
    """The facts after a play.

    Args:
        records: of its workloads, by workload and revision.
        deployments: by name.
        replicasets: by Deployment, oldest revision first.
        events: every Event of the namespace.
        writes: what the service patched here, as resources.
        facts: what the play itself kept.
    """

    records: list[Record]
    deployments: dict[str, Json]
    replicasets: dict[str, list[Json]]
    events: list[Json]
    writes: list[str] = []
    facts: Json = {}

    def record(self, revision: int = 2, name: str = "web") -> Record:
        """The record of a revision."""
        return next(each for each in self.records if (each.workload.name, each.rollout.revision) == (name, revision))

    def image(self, name: str = "web") -> str:
        """What runs."""
        return image_of(self.deployments[name])

    def mark(self, kind: str, image: str, name: str = "web") -> str:
        """A mark of ours on the newest ReplicaSet with an image, without the hash that it is about; empty if absent."""
        return next(
            (
                item["metadata"]["annotations"].get(f"{MARKS}/{kind}", "").partition(":")[2]
                for item in reversed(self.replicasets[name])
                if image_of(item) == image
            ),
            "",
        )

    def notes(self, reason: str) -> list[str]:
        """The texts of the Events with a reason."""
        return [event.get("note", "") for event in self.events if event["reason"] == reason]


class Scenario(msgspec.Struct, frozen=True):
    """A play, the settings of its policy, and from which share of errors on an alert fires; None for no alert."""

    play: Callable[[Scene], None]
    settings: dict[str, Any]
    alert: float | None

    @property
    def namespace(self) -> str:
        """Where it is played."""
        return self.play.__name__.replace("_", "-")


SCENARIOS: list[Scenario] = []


def scenario(
    alert: float | None = None, **settings: Any
) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    """Have a play played under a policy with these settings."""

    def register(play: Callable[[Scene], None]) -> Callable[[Scene], None]:
        SCENARIOS.append(Scenario(play, settings, alert))
        return play

    return register


def prepare(plane: ControlPlane, plays: Sequence[Scenario] = SCENARIOS, *, records: str = RECORDS) -> None:
    """Make the namespaces of plays and of their records, and give the account its rights there as `deploy/` does."""
    role, binding = _documents("workload-namespace/role.yaml"), _documents("workload-namespace/rolebinding.yaml")
    wanted = {each.namespace: [*role, *binding] for each in plays}
    wanted[records] = [
        each
        for file in ("role", "rolebinding")
        for each in _documents(f"base/{file}.yaml")
        if each["kind"] in ("Role", "RoleBinding")
    ]
    for namespace, documents in wanted.items():
        plane.api("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        for document in documents:
            for subject in document.get("subjects", []):
                subject["namespace"] = ACCOUNT
            Cluster(plane, namespace).create(f"{document['kind'].lower()}s", document)


def clear(plane: ControlPlane, plays: Sequence[Scenario] = SCENARIOS, *, records: str = RECORDS) -> None:
    """Have the namespaces deleted; that is not waited for."""
    for namespace in (records, *(each.namespace for each in plays)):
        plane.api("DELETE", f"/api/v1/namespaces/{namespace}")


def policies(plays: Sequence[Scenario] = SCENARIOS) -> list[str]:
    """One policy for each."""
    return [policy(each.namespace, **each.settings) for each in plays]


def alert_rules() -> list[Json]:
    """The alert rules that they ask for."""
    return [agent_errors(each.namespace, "web", above=each.alert) for each in SCENARIOS if each.alert is not None]


def play_all(
    plane: ControlPlane,
    service: Service,
    exporter: Exporter,
    prometheus: PrometheusServer,
    plays: Sequence[Scenario] = SCENARIOS,
    *,
    records: str = RECORDS,
) -> dict[str, End | Exception]:
    """Play everything at once; give the facts of each end, or why it did not come to one."""
    parts: dict[str, Any] = {"service": service, "exporter": exporter, "prometheus": prometheus}
    parts["records"] = Records(plane, records)
    scenes = [(each, Scene(each.namespace, plane=plane, **parts)) for each in plays]
    with ThreadPoolExecutor(len(scenes)) as pool:
        ends = dict(zip((each.play.__name__ for each, _ in scenes), pool.map(_played, scenes), strict=True))
    writes = _writes(plane)
    for each, scene in scenes:
        end = ends[each.play.__name__]
        if isinstance(end, End):
            end.writes = [resource for namespace, resource in writes if namespace == scene.namespace]
    return ends


def _played(cast: tuple[Scenario, Scene]) -> End | Exception:
    found, scene = cast
    try:
        found.play(scene)
        names = [item["metadata"]["name"] for item in scene.objects("deployments")]
        return End(
            records=scene.records.of(scene.namespace),
            deployments={name: scene.get("deployments", name) for name in names},
            replicasets={name: scene.replicasets(name) for name in names},
            events=scene.objects("events"),
            facts=scene.facts,
        )
    except Exception as error:  # the test about this scenario raises it
        for record in scene.records.of(scene.namespace):
            verdicts = [f"{each.status}: {each.detail}" for each in record.verdicts]
            error.add_note(
                f"{record.workload} {record.id}: {record.state} {record.outcome} {record.detail}, {verdicts}"
            )
        return error


def _writes(plane: ControlPlane) -> list[tuple[str, str]]:
    """Namespace and resource of every write of the service to a workload or its ReplicaSets."""
    done = plane.audit(f"system:serviceaccount:{ACCOUNT}:{ACCOUNT}")
    about = [event["objectRef"] for event in done if event["verb"] in ("patch", "update", "delete")]
    return [(each["namespace"], each["resource"]) for each in about if each.get("apiGroup") == "apps"]


def _documents(file: str) -> Sequence[Json]:
    return [each for each in yaml.safe_load_all((DEPLOY / file).read_text()) if each]


def _until(**later: float) -> str:
    return f"until={dt.datetime.now(dt.UTC) + dt.timedelta(**later):%Y-%m-%dT%H:%M:%SZ};release freeze"


# -- acted upon --------------------------------------------------------------------------------------------------------


@scenario()
def breach(scene: Scene) -> None:
    """A version fails much more than the one before."""
    scene.good()
    scene.bad()
    scene.ended()


@scenario()
def condemned_image_returns(scene: Scene) -> None:
    """The condemned image comes back in another template, and behaves."""
    scene.good()
    scene.bad()
    scene.ended()
    scene.set_image("web", "v2", template_annotations={"sim/errors": "0", "note": "another template"})
    scene.ended(4)


LONG = "16s"  # to pass, less than a fifth of it may be blind: there is room for a busy machine

CANARY = 'stable = "web"\ncandidate = "web-canary"'


@scenario(more=CANARY, bake=LONG)
def canary(scene: Scene) -> None:
    """A bad canary, and after it a good one."""
    scene.good()
    scene.good("web-canary")
    scene.bad("web-canary")
    scene.ended(name="web-canary")
    scene.set_image("web-canary", "v3", template_annotations={"sim/errors": "0"})
    scene.ended(3, "web-canary")


@scenario(more=CANARY)
def canary_again(scene: Scene) -> None:
    """A bad canary, and after it the same image in another template."""
    scene.good()
    scene.good("web-canary")
    scene.bad("web-canary")
    scene.ended(name="web-canary")
    scene.bad("web-canary", note="another template")
    scene.wait(lambda: scene.logged("refused", "restored", name="web-canary"), what="a look at the canary")


@scenario()
def progress_deadline(scene: Scene) -> None:
    """Pods of the new version never become ready."""
    scene.good(progressDeadlineSeconds=10)  # the undo has to keep it, too, on however busy a machine
    scene.set_image("web", "v2", template_annotations={"sim/mode": "never-ready"})
    scene.ended()


@scenario()
def crash_loop(scene: Scene) -> None:
    """Pods of the new version crash at their start."""
    scene.good()
    scene.set_image("web", "v2", template_annotations={"sim/mode": "crash-loop"})
    scene.ended()


# -- alerts ------------------------------------------------------------------------------------------------------------

_SLOW = 60  # more steps than any rollout here is watched: the signal alone never makes a breach


@scenario(alert=0.05, consecutive=_SLOW)
def alert_confirmed(scene: Scene) -> None:
    """An alert begins after the new version took traffic, and the policy's signal says the same."""
    scene.good()
    scene.bad()
    scene.ended()


@scenario(alert=0.01, bake=LONG)
def alert_unconfirmed(scene: Scene) -> None:
    """An alert begins after the new version took traffic, but the policy's limit is another."""
    scene.good()
    scene.bad(**{"sim/errors": "0.03"})
    scene.ended()


@scenario(alert=0.01, consecutive=_SLOW)
def alert_before(scene: Scene) -> None:
    """An alert was firing when the rollout began."""
    scene.good(errors="0.03")
    scene.shown("time() - ALERTS_FOR_STATE% > 2")
    scene.bad()
    scene.ended()


# -- left alone --------------------------------------------------------------------------------------------------------


@scenario(bake=LONG)
def healthy(scene: Scene) -> None:
    """Nothing is wrong."""
    scene.good()
    scene.set_image("web", "v2")
    scene.ended()


@scenario(more=CANARY)
def both_tracks(scene: Scene) -> None:
    """Something that both tracks share breaks while a canary is out."""
    scene.good()
    scene.good("web-canary")
    scene.set_image("web-canary", "v2")
    scene.complete("web-canary")
    scene.wait(lambda: scene.seen(name="web-canary"), what="the watch")
    scene.fail("web")  # and web-canary with it
    scene.ended(name="web-canary")


@scenario()
def no_data(scene: Scene) -> None:
    """Pods have no metrics."""
    scene.create_deployment("web", replicas=2)
    scene.complete()
    scene.mark_passed("web")
    scene.set_image("web", "v2")
    scene.ended()


@scenario()  # beside all others: one workload without numbers hides no other
def not_a_number(scene: Scene) -> None:
    """Counters are NaN."""
    scene.exporter.nan(f"{scene.namespace}/")
    scene.good()
    scene.bad()
    scene.ended()


@scenario()
def saw_tooth(scene: Scene) -> None:
    """Several workers count apart behind one /metrics."""
    scene.exporter.saw_tooth(f"{scene.namespace}/")
    scene.good()
    scene.shown("min(resets(agent_requests_total%[1m])) >= 3")
    scene.bad()
    scene.ended()


@scenario()
def pending(scene: Scene) -> None:
    """There is no room for the new pods."""
    scene.good(progressDeadlineSeconds=4)
    template = {"spec": {"nodeName": None, "containers": [{"name": "app", "image": "v2"}]}}
    scene.patch("deployments", "web", {"spec": {"template": template}})
    for pod in scene.wait(lambda: [each for each in scene.pods("web") if "nodeName" not in each["spec"]]):
        no_room = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        scene.patch("pods", f"{pod['metadata']['name']}/status", {"status": {"conditions": [no_room]}})
    scene.wait(lambda: scene.condition("web", "Progressing")["reason"] == "ProgressDeadlineExceeded")
    scene.wait(
        lambda: [each for each in scene.seen() if [seen for seen in each.verdicts if seen.cause == "pending"]],
    )


@scenario(consecutive=_SLOW, bake=LONG)
def hotfix(scene: Scene) -> None:
    """A good version is pushed while evidence against the bad one comes in."""
    scene.good()
    scene.bad()
    scene.wait(lambda: [each for each in scene.seen() if each.verdicts], what="the watch")
    scene.complete()
    scene.set_image("web", "v3", template_annotations={"sim/errors": "0"})
    scene.ended(3)


@scenario()
def hotfix_in_an_incident(scene: Scene) -> None:
    """The version that shall repair a bad one is bad, too."""
    scene.good()
    scene.bad(**{f"{MARKS}/hold": _until(hours=1)})
    scene.ended()
    scene.bad("web", "v3", **{f"{MARKS}/hold": None})
    scene.reached(State.ASKING, 3)


@scenario(more="opt_in = true")
def opt_in(scene: Scene) -> None:
    """One Deployment carries the policy's name, the other does not; both get a bad version."""
    scene.good()
    scene.good("named", annotations={f"{MARKS}/policy": scene.namespace})
    scene.bad()
    scene.bad("named")
    scene.ended(name="named")


@scenario(mode="observe")
def observed(scene: Scene) -> None:
    """A bad version where nothing may be written."""
    scene.good()
    scene.bad()
    scene.ended()


@scenario(mode="observe", bake=LONG)
def observed_healthy(scene: Scene) -> None:
    """A good version where nothing may be written."""
    scene.good()
    scene.set_image("web", "v2")
    scene.ended()


@scenario(more='workloads = ["absent"]')
def nothing_matched(scene: Scene) -> None:
    """A policy names a Deployment that is not there."""
    scene.good()


# -- refused or asked --------------------------------------------------------------------------------------------------


@scenario(consecutive=6)
def paused(scene: Scene) -> None:
    """Somebody has paused the rollout."""
    scene.good()
    scene.bad()
    scene.wait(lambda: scene.seen(), what="the watch")
    scene.patch("deployments", "web", {"spec": {"paused": True}})
    scene.ended()


@scenario()
def no_history(scene: Scene) -> None:
    """Nothing is left to go back to."""
    scene.good(revisionHistoryLimit=0)
    scene.set_image("web", "v2")
    scene.wait(lambda: [image_of(each) for each in scene.replicasets("web")] == ["v2"], what="cleaning up")
    scene.fail()
    scene.ended()


@scenario()
def restart_only(scene: Scene) -> None:
    """Somebody restarts the pods, and they fail from then on."""
    scene.good()
    at = {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}  # as `kubectl rollout restart` does
    scene.set_image("web", "v1", template_annotations=at)
    scene.complete()
    scene.fail()
    scene.ended()


@scenario()
def hold(scene: Scene) -> None:
    """Somebody wants the Deployment left alone."""
    scene.good(annotations={f"{MARKS}/hold": _until(hours=1)})
    scene.bad()
    scene.ended()


@scenario()
def silenced(scene: Scene) -> None:
    """Somebody has silenced the watchdog for this namespace."""
    scene.good()
    scene.bad()
    scene.reached(State.ASKING)


@scenario(mode="approve")
def approved(scene: Scene) -> None:
    """A person is asked and agrees."""
    scene.good()
    scene.bad()
    scene.annotate(answer=f"{scene.reached(State.ASKING).id}=approve")
    scene.ended()


@scenario(mode="approve", bake=LONG)
def approved_late(scene: Scene) -> None:
    """A person agrees when a hotfix is live already."""
    scene.good()
    scene.bad()
    asking = scene.reached(State.ASKING)
    scene.set_image("web", "v3", template_annotations={"sim/errors": "0"})
    scene.ended()
    scene.annotate(answer=f"{asking.id}=approve")
    scene.ended(3)


@scenario(mode="approve")
def dismissed(scene: Scene) -> None:
    """A person is asked and declines; an answer to another incident counts for nothing."""
    scene.good()
    scene.bad()
    asking = scene.reached(State.ASKING)
    scene.annotate(answer="web-1-00000000=approve")
    scene.annotate(answer=f"{asking.id}=dismiss")
    scene.ended()


def silence(alertmanager: AlertmanagerServer) -> None:
    """The silence of `silenced`."""
    alertmanager.silence({"alertname": "RollbackWatchdog", "namespace": "silenced"}, "database work")


def rules(prometheus: PrometheusServer, alertmanager: AlertmanagerServer) -> None:
    """Have the alerts fire, and told of."""
    prometheus.reload(alert_rules(), alertmanagers=[alertmanager.url])


Played = Callable[[Callable[[Scene], None]], End]
"""Gives the facts after a play."""


def ends_of(ends: Mapping[str, End | Exception]) -> Played:
    """Give the facts after a play, or raise what ended it."""

    def give(play: Callable[[Scene], None]) -> End:
        end = ends[play.__name__]
        if isinstance(end, Exception):
            raise end
        return end

    return give
