"""What others may write on objects, or do by hand, while the service watches: each as a play, as in `scenarios`.

The marks here are what anybody can write who may patch a Deployment or a ReplicaSet. A play ends with what shows that
the service has got that far: a watch that ended, or a later rollout that did.
"""

import datetime as dt
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from typing import Any

from tests.cluster.command import Command
from tests.cluster.scenarios import ACCOUNT, LONG, MARKS, End, Records, Scenario, Scene, image_of
from tests.cluster.service import Service, allow, policy
from tests.component.fake_slack import READS, broken, in_a_thread
from tests.controlplane.lossy import Trouble, troubled
from tests.controlplane.plane import Json
from watchdog.decide.record import Record
from watchdog.model import Outcome
from watchdog.objects import WorkloadRef

WRITES = ("create", "patch", "update", "delete", "deletecollection")
RECORDS = "claim-records"
REASON = "my own reason"
GARBAGE = "0badf00d"
NAMES = {
    "dots": "/../victim-config",
    "query": "victim-config?force=true",
    "empty": "",
    "long": f"victim-config-{'x' * 300}",
}
"""Incidents that are no names, by the Deployment that carries one; most would lead a path elsewhere."""

_KEYS = (
    "mode",
    "hold",
    "policy",
    "answer",
    "last-rollback",
    "replicas-before",
    "paused-by",
    "condemned",
    "passed",
    "stage",
    "leader",
)
_LONGEST_NAME = f"longest-{'x' * 55}"
_ODD = {
    "every-key": {f"{MARKS}/{key}": '{"incident": [[], "\u0000"], "at": 1e999} :=; \u202e' for key in _KEYS},
    "other-types": {f"{MARKS}/{key}": value for key, value in zip(_KEYS, cycle(("null", "[]", "1", "{}", "-")))},
    "large": {"example.com/large": "x" * 255_000},
    "large-mark": {f"{MARKS}/last-rollback": '{"incident": "' + "x" * 120_000 + '"}', f"{MARKS}/hold": "y" * 120_000},
    "deep": {f"{MARKS}/last-rollback": "[" * 20_000, f"{MARKS}/answer": '{"a":' * 20_000},
    "numbers": {
        f"{MARKS}/last-rollback": f'{{"from_revision": {"9" * 5_000}}}',
        f"{MARKS}/replicas-before": "9" * 5_000,
    },
    "controls": {f"{MARKS}/hold": "until=\u0001\u001b[2J\u0007;\r\n\t\u0085", f"{MARKS}/mode": "\u001b[31menforce"},
    _LONGEST_NAME: {f"{MARKS}/paused-by": f"x:{'y' * 4_000}"},
}
"""Annotations, by the Deployment that carries them."""

_BODIES = (
    b'{"ok": true}',
    b'{"ok": true, "messages": {}, "channels": []}',
    b'{"ok": true, "messages": [{"ts": "1", "metadata": {"event_type": "rollback_watchdog"}}], "channels": [{}]}',
    b'{"ok": true, "messages": [7, null, "x"], "channels": [null], "channel": 7, "ts": []}',
    b'{"ok": true, "messages": null, "channels": null, "channel": null, "ts": null}',
    b'{"ok": true, "messages": [{"ts": {}, "metadata": []}], "channels": [{"id": {}, "name": []}]}',
    b'{"ok": "yes", "response_metadata": 5, "channels": "abc"}',
    b"[]",
    b"\xff\xfe",
    b'{"ok": true, "channel": ' + b"[" * 100_000,
    b'{"ok": true, "ts": 1e999, "channel": ' + b"9" * 5_000 + b"}",
)
"""Answers with status 200 that are none of Slack's."""

CLAIMS: list[Scenario] = []
ALONE: list[Scenario] = []
"""Those that are played to services of their own, see `test_held_up`."""

Play = Callable[[Scene], None]


def claim(plays: list[Scenario] = CLAIMS, **settings: Any) -> Callable[[Play], Play]:
    """Have a play played under a policy with these settings."""

    def register(play: Play) -> Play:
        plays.append(Scenario(play, settings, None))
        return play

    return register


def forged(incident: str, **more: object) -> str:
    """A mark as the service would write it, but for what it says."""
    mark = {
        "incident": incident,
        "from_hash": GARBAGE,
        "to_hash": GARBAGE,
        "from_revision": 2,
        "to_revision": 1,
        "by": "jane",
        "cause": "threshold",
        "at": stamp(),
        "nonce": "0" * 32,
    }
    return json.dumps(mark | more)


def stamp(**later: float) -> str:
    """A time as marks have it."""
    return (dt.datetime.now(dt.UTC) + dt.timedelta(**later)).isoformat()


TIMES: Mapping[str, Callable[[], str]] = {
    "naive": lambda: stamp().partition("+")[0],
    "future": lambda: stamp(days=400),
    "year-1": lambda: "0001-01-01T00:00:00+14:00",
    "year-9999": lambda: "9999-12-31T23:59:59-14:00",
}
"""Times that are none, or that nothing can be counted from, by the Deployment that carries one."""


# -- what plays do -----------------------------------------------------------------------------------------------------


def versions(
    scene: Scene,
    names: Sequence[str],
    *,
    errors: str = "0",
    v1: Mapping[str, str] | None = None,
    last: str = "v2",
) -> None:
    """Deployments at version v1, complete and known to be good; then the rollout of v2, with this share of errors.

    Args:
        scene: where.
        names: of the Deployments.
        errors: the share.
        v1: further annotations of the first template.
        last: with "v1" the second version does not come.
    """
    told = {"sim/rps": "50", "sim/errors": "0", **(v1 or {})}
    for name in names:
        scene.create_deployment(name, replicas=1, template_annotations=told)
    for name in names:
        scene.complete(name)
        scene.mark_passed(name)
    for name in names if last == "v2" else ():
        scene.set_image(name, "v2", template_annotations={"sim/errors": errors})


def hashes(scene: Scene, name: str) -> tuple[str, str]:
    """Of v1 and v2."""
    found = {image_of(item): item["metadata"]["labels"]["pod-template-hash"] for item in scene.replicasets(name)}
    return found["v1"], found["v2"]


def mark(scene: Scene, name: str, **annotations: str) -> None:
    """Write annotations of ours on a Deployment, written with underscores for hyphens."""
    scene.annotate(name, **{key.replace("_", "-"): value for key, value in annotations.items()})


def mark_revision(scene: Scene, name: str, image: str, **annotations: str) -> None:
    """Write marks on the ReplicaSet of an image: about itself, as the service writes them."""
    item = next(each for each in scene.replicasets(name) if image_of(each) == image)["metadata"]
    about = item["labels"]["pod-template-hash"]
    marks = {f"{MARKS}/{key}": f"{about}:{value}" for key, value in annotations.items()}
    scene.patch("replicasets", item["name"], {"metadata": {"annotations": marks}})


def return_to_v1(scene: Scene, name: str, **annotations: str) -> None:
    """Go back to v1 by hand, with annotations of ours in the same patch."""
    ours = {f"{MARKS}/{key.replace('_', '-')}": value for key, value in annotations.items()}
    told = {"sim/rps": "50", "sim/errors": "0"}
    spec = {"template": {"metadata": {"annotations": told}, "spec": {"containers": [{"name": "app", "image": "v1"}]}}}
    scene.patch("deployments", name, {"metadata": {"annotations": ours}, "spec": spec})


def watched(scene: Scene, name: str, revision: int = 2) -> Record:
    """Wait until a revision is under watch, or was: on a busy machine its watch may end before anybody looks."""
    return scene.wait(lambda: next(iter(scene.seen(revision, name)), None), what=f"the watch of {name}")


def command(scene: Scene, name: str) -> Command:
    """The command of a person with the administrator's rights."""
    return Command(scene.plane.kubeconfig, WorkloadRef(scene.namespace, name))


def go_back(scene: Scene, ways: Sequence[str]) -> None:
    """Have people go back from v2 as soon as it is under watch, each on the Deployment that is named as their way."""
    for way in ways:
        watched(scene, way)
        scene.complete(way)
    with ThreadPoolExecutor(len(ways)) as people:
        list(people.map(lambda way: _go_back(scene, way), ways))
    for way in ways:
        scene.ended(name=way)


def _go_back(scene: Scene, way: str) -> None:
    run = command(scene, way)
    match way:
        case "command":
            done = run.rollback("--reason", REASON)
            assert done.code == 0, done
        case "http":
            body = {"namespace": scene.namespace, "deployment": way, "reason": REASON}
            status, answer = scene.service.post("/rollback", body)
            assert status == 200, answer
        case "once":
            asked = ["--bad=agent_errors_total", "--total=agent_requests_total", "--window=5s", "--threshold=0.005"]
            where = f"--prometheus={scene.prometheus.url}"
            look = ("once", f"{scene.namespace}/{way}", *asked, where, "--reason", REASON)
            scene.shown(f'increase(agent_errors_total{{namespace="{scene.namespace}",pod=~"{way}-.*"}}[5s]) > 1')
            scene.wait(lambda: run(*look).code == 1, what="enough requests for `once`")
        case _:
            scene.kubectl("rollout", "undo", f"deployment/{way}")


WAYS = ("command", "http", "once", "kubectl")
BY_HAND = ("command", "http", "kubectl")


def outcomes(end: End, revision: int = 2, *, but: tuple[str, ...] = ()) -> dict[str, Outcome | None]:
    """How the watches of a revision ended, by Deployment."""
    found = (each for each in end.records if each.rollout.revision == revision)
    return {each.workload.name: each.outcome for each in found if each.workload.name not in but}


def images(end: End, *, but: tuple[str, ...] = ()) -> set[str]:
    """What the Deployments run."""
    return {end.image(name) for name in end.deployments if name not in but}


def writes(audit: list[Json], play: Callable[[Scene], None], *kinds: str, since: str = "") -> list[str]:
    """What the service's account wrote to objects of these kinds in a play's namespace, and with which answer."""
    namespace = play.__name__.replace("_", "-")
    return [
        f"{event['verb']} {about['resource']}/{about['name']} {event['responseStatus']['code']}"
        for event in audit
        if event["verb"] in WRITES
        and (about := event.get("objectRef", {})).get("namespace") == namespace
        and about["resource"] in (kinds or ("deployments", "replicasets", "services"))
        and event["requestReceivedTimestamp"] >= since
    ]


# -- mode observe ------------------------------------------------------------------------------------------------------


@claim(mode="observe", bake=LONG)
def observed_and_healthy(scene: Scene) -> None:
    """Marks on healthy versions under watch, which say that this very incident has acted."""
    names = (*_FORGED, "paused", "scaled")
    versions(scene, names)
    of = {name: watched(scene, name).id for name in names}
    _forge(scene, of)
    scene.complete("paused")
    _, new = hashes(scene, "paused")
    paused = {f"{MARKS}/paused-by": f"{new}:{of['paused']}"}
    scene.patch("deployments", "paused", {"metadata": {"annotations": paused}, "spec": {"paused": True}})
    _, new = hashes(scene, "scaled")
    scaled = {
        f"{MARKS}/replicas-before": "2",
        f"{MARKS}/last-rollback": forged(of["scaled"], by=ACCOUNT, from_hash=new, to_hash=new),
    }
    scene.patch("deployments", "scaled", {"metadata": {"annotations": scaled}, "spec": {"replicas": 0}})
    for name in names:
        if name != "scaled":  # no pod, no rollout
            scene.ended(name=name)


_FORGED = ("person", "service", "no-template", "condemned")


def _forge(scene: Scene, of: Mapping[str, str]) -> None:
    """Write marks that name the incidents under watch, by Deployment, each of the kind that its name says."""
    old, new = hashes(scene, "service")
    mark(scene, "person", last_rollback=forged(of["person"]))
    mark(scene, "service", last_rollback=forged(of["service"], by=ACCOUNT, from_hash=new, to_hash=old))
    _, new = hashes(scene, "no-template")
    mark(scene, "no-template", last_rollback=forged(of["no-template"], by=ACCOUNT, from_hash=new, to_hash=new))
    for image in ("v1", "v2"):
        mark_revision(scene, "condemned", image, condemned=of["condemned"])
    mark(scene, "condemned", answer=f"{of['condemned']}=approve")


@claim(mode="observe", bake=LONG)
def observed_and_bad(scene: Scene) -> None:
    """Bad versions, and marks that say that something was done or that all is well."""
    names = ("plain", "acted", "passed")
    versions(scene, names, errors="0.3")
    of = {name: watched(scene, name).id for name in names}
    old, new = hashes(scene, "acted")
    mark(scene, "acted", last_rollback=forged(of["acted"], by=ACCOUNT, from_hash=new, to_hash=old))
    mark_revision(scene, "passed", "v2", passed=stamp())
    for name in names:
        scene.ended(name=name)


@claim(mode="observe", bake="60s")
def observed_and_returned(scene: Scene) -> None:
    """The older template comes back, and the same patch says that the service has done it."""
    names = ("known", "person", *NAMES, *TIMES)
    versions(scene, names)
    for name in names:
        record = watched(scene, name)
        old, new = hashes(scene, name)
        claimed = {"by": "jane" if name == "person" else ACCOUNT, "from_hash": new, "to_hash": old}
        if name in TIMES:
            claimed["at"] = TIMES[name]()
        return_to_v1(scene, name, last_rollback=forged(NAMES.get(name, record.id), **claimed))
    for name in names:
        scene.ended(name=name)


@claim(mode="observe", bake="60s", consecutive=1000)
def observed_and_by_hand(scene: Scene) -> None:
    """A person goes back from a version under watch, in every way."""
    versions(scene, WAYS, errors="0.1")
    go_back(scene, WAYS)


@claim(mode="observe", bake=LONG)
def observed_and_copied(scene: Scene) -> None:
    """A mark travels to a ReplicaSet with v1, is taken off, and comes back with `kubectl rollout undo`."""
    scene.good()
    old = scene.replicasets("web")[-1]
    about = old["metadata"]["labels"]["pod-template-hash"]
    text = forged("web-9-deadbeef", by=ACCOUNT, to_hash=about)
    mark(scene, "web", last_rollback=text)
    key = f"{MARKS}/last-rollback"

    def copied() -> bool:
        return key in scene.replicasets("web")[-1]["metadata"]["annotations"]

    scene.wait(copied, what="the controller's copy")
    scene.patch("deployments", "web", {"metadata": {"annotations": {key: None}}})
    scene.set_image("web", "v2")
    watched(scene, "web")
    scene.kubectl("rollout", "undo", "deployment/web")
    scene.ended()
    assert scene.get("deployments", "web")["metadata"]["annotations"][key] == text


# -- mode enforce ------------------------------------------------------------------------------------------------------


@claim(bake=LONG)
def enforced_and_healthy(scene: Scene) -> None:
    """The same marks where the service may act."""
    versions(scene, _FORGED)
    _forge(scene, {name: watched(scene, name).id for name in _FORGED})
    for name in _FORGED:
        scene.ended(name=name)


@claim(bake="60s")
def enforced_and_bad(scene: Scene) -> None:
    """Marks on bad versions under watch, which say that they were undone already, or have passed.

    None of them is one that withholds: of the service's own name, and of less than the cool-down ago. The watches of v1
    are open until v2 comes: one that ended unjudged, as on a busy machine, would have the service ask.
    """
    names = ("person", "old", "naive", "passed")
    versions(scene, names, errors="0.3")
    of = {name: watched(scene, name).id for name in names}
    mark(scene, "person", last_rollback=forged(of["person"]))
    mark(scene, "old", last_rollback=forged(of["old"], by=ACCOUNT, at=stamp(days=-2)))
    mark(scene, "naive", last_rollback=forged(of["naive"], by=ACCOUNT, at=TIMES["naive"]()))
    mark_revision(scene, "passed", "v2", passed=stamp())
    for name in names:
        scene.ended(name=name)


@claim(bake="30s")
def enforced_and_by_hand(scene: Scene) -> None:
    """A person goes back from a version under watch, and ships it again."""
    versions(scene, BY_HAND)
    go_back(scene, BY_HAND)
    scene.facts["condemned"] = {way: _condemned(scene, way) for way in BY_HAND}
    for way in BY_HAND:
        scene.set_image(way, "v2")
    for way in BY_HAND:
        scene.ended(4, way)


@claim(bake="60s")
def enforced_after_by_hand(scene: Scene) -> None:
    """A person goes back from a version under watch; after it comes one that is really bad."""
    versions(scene, BY_HAND)
    go_back(scene, BY_HAND)
    for way in BY_HAND:
        scene.bad(way, "v3")
    for way in BY_HAND:
        scene.ended(4, way)


def _condemned(scene: Scene, name: str) -> list[str]:
    """Which images are condemned."""
    return [
        image_of(each) for each in scene.replicasets(name) if f"{MARKS}/condemned" in each["metadata"]["annotations"]
    ]


@claim(bake="60s")
def enforced_beside_odd_ones(scene: Scene) -> None:
    """Deployments with annotations of all kinds roll out, and beside them a bad version; see `enforced_and_bad`."""
    scene.good()
    versions(scene, tuple(_ODD))
    for name, annotations in _ODD.items():
        scene.patch("deployments", name, {"metadata": {"annotations": annotations}})
    for name in _ODD:
        scene.set_image(name, "v3")
    scene.bad()
    scene.facts["undo_s"] = undo_s(scene, "web")
    scene.ended()


def undo_s(scene: Scene, name: str) -> float:
    """Wait for the undo of v2; give the seconds from its first Ready pod to the older template."""

    def ready() -> bool:
        return any(
            container["image"] == "v2" and container["ready"]
            for pod in scene.pods(name)
            for container in pod.get("status", {}).get("containerStatuses", [])
        )

    scene.wait(ready, what=f"a Ready pod of {name}")
    began = time.monotonic()
    scene.wait(lambda: image_of(scene.get("deployments", name)) == "v1", 90, what=f"the undo of {name}")
    return time.monotonic() - began


# -- services of their own ---------------------------------------------------------------------------------------------


def own(scene: Scene, name: str, **more: Any) -> Service:
    """Another service that watches this namespace alone, and keeps its records there."""
    given = {"kubeconfig": scene.service.kubeconfig, "policies": [policy(scene.namespace)], **more}
    directory = scene.service.directory.parent / f"{scene.namespace}-{name}"
    return Service(directory, prometheus=scene.prometheus.url, records=scene.namespace, **given)


def records_here(scene: Scene) -> None:
    """Keep the records in this namespace."""
    allow(scene.plane, scene.namespace, records=True)
    scene.records = Records(scene.plane, scene.namespace)


@contextmanager
def between(scene: Scene, troubles: Callable[[str, str], Trouble]) -> Iterator[Json]:
    """Yield what lets a service of its own reach the API server with these troubles."""
    with troubled(scene.plane, troubles) as server:
        yield {"kubeconfig": scene.plane.kubeconfig_for(ACCOUNT, ACCOUNT, server=server)}


def saves(method: str, path: str) -> bool:
    """Whether a request writes a record."""
    return method in ("POST", "PUT", "PATCH") and "/configmaps" in path


@claim(ALONE)
def killed_unsaved(scene: Scene) -> None:
    """No record could be saved before the breach; the process dies after the patch, and others come after it."""
    records_here(scene)
    refused = threading.Event()
    with (
        between(scene, lambda *asked: Trouble(status=503 if refused.is_set() and saves(*asked) else 0)) as way,
        own(scene, "first", **way) as first,
    ):
        versions(scene, ("web",), v1={"sim/ready-after": "4s"}, last="v1")
        refused.set()
        scene.set_image("web", "v2", template_annotations={"sim/errors": "0.5", "sim/ready-after": None})
        first.until(lambda: image_of(scene.get("deployments", "web")) == "v1", "undone")
        first.kill()
    scene.facts["saved"] = len(scene.seen())
    scene.facts["since"] = stamp()
    with in_a_thread() as slack:
        with own(scene, "second", slack=f"{slack.url}/api/"):
            scene.wait(lambda: _unproven(scene), what="the Event")
        with own(scene, "third", slack=f"{slack.url}/api/"):
            scene.good("later")
            scene.set_image("later", "v2")
            scene.ended(name="later")
        told = [each["metadata"]["event_payload"]["incident"] for each in slack.messages if "thread_ts" not in each]
    scene.facts["told"] = [incident for incident in told if incident.startswith("web-2-")]


def _unproven(scene: Scene) -> list[Json]:
    return [event for event in scene.objects("events") if event.get("note", "").startswith("unproven: ")]


@claim(ALONE)
def records_deleted(scene: Scene) -> None:
    """All records of an action are deleted; a process that comes after it knows the mark alone."""
    records_here(scene)
    with own(scene, "first"):
        versions(scene, ("web",), errors="0.3")
        scene.ended()
    for item in scene.objects("configmaps"):
        if item["metadata"]["name"].startswith(ACCOUNT):
            scene.delete("configmaps", item["metadata"]["name"])
    scene.facts["since"] = stamp()
    with own(scene, "second"):
        scene.good("later")
        scene.set_image("later", "v2")
        scene.ended(name="later")
    scene.facts["history"] = command(scene, "web").history()


@claim(ALONE)
def odd_slack(scene: Scene) -> None:
    """Slack gives odd answers, before and during a breach."""
    records_here(scene)
    with in_a_thread() as slack:
        for method in (*READS, "chat.postMessage", "chat.update"):
            slack.trouble(method, *(broken(200, body, "application/json") for body in _BODIES * 3))
        with own(scene, "only", slack=f"{slack.url}/api/") as service:
            versions(scene, ("first", "second"), last="v1")
            scene.bad("first")
            service.until(lambda: len(slack.calls) > 2, "asking Slack")
            scene.bad("second")
            scene.ended(name="first")
            scene.ended(name="second")
            scene.facts["healthz"] = service.get("/healthz", metrics=True)[0]


@claim(ALONE)
def quick_store(scene: Scene) -> None:
    """Six rollouts, one of them bad, beside a store that is quick."""
    _six(scene, wait_s=0)


@claim(ALONE)
def slow_store(scene: Scene) -> None:
    """The same beside a store that takes three seconds for every write."""
    _six(scene, wait_s=3)


def _six(scene: Scene, *, wait_s: float) -> None:
    records_here(scene)
    names = ("one", "two", "three", "four", "five", "six")
    with (
        between(scene, lambda *asked: Trouble(wait_s=wait_s if saves(*asked) else 0)) as way,
        own(scene, "only", **way),
    ):
        versions(scene, names, last="v1")
        for name in names:
            scene.set_image(name, "v2", template_annotations={"sim/errors": "0.5" if name == "six" else "0"})
        scene.facts["undo_s"] = undo_s(scene, "six")
