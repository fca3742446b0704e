"""`gate` on a real control plane, with a real Prometheus, under an account that may do no more than a gate needs."""

import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.command import Command, Done
from tests.cluster.conftest import ACCOUNT
from tests.cluster.service import Service, allow, policy
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane, Json
from tests.monitoring.exporter import Exporter
from tests.monitoring.fixtures import MISSING, REASON, REQUIRED
from tests.monitoring.past import PastServer, Sample
from tests.monitoring.prometheus import PrometheusServer
from watchdog.decide.record import Record, State
from watchdog.model import Outcome
from watchdog.objects import WorkloadRef
from watchdog.records.form import read

SELECTORS = ("--bad=agent_errors_total", "--total=agent_requests_total")
USUAL = "--baseline=0.004"
RIGHTS: tuple[Json, ...] = (
    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch", "patch"]},
    {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["list", "patch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list"]},
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
)
CONFIG = """
[prometheus]
url = "{url}"
step = "1s"
delay = "1s"
timeout = "3s"
[[policies]]
name = "shop"
namespaces = ["{namespace}"]
grace = "1s"
sensitivity = "quick"
"""


class Shop:
    """A workload under traffic, and the gate of the account `ci`."""

    def __init__(self, cluster: Cluster, prometheus: PrometheusServer, directory: Path) -> None:
        self.cluster = cluster
        self._prometheus = prometheus
        self._directory = directory
        self._ci = Command(cluster.service_account("ci", *RIGHTS), WorkloadRef(cluster.namespace, "web"))

    def good(self, name: str = "web") -> None:
        """Bring v1, which fails nothing."""
        self.cluster.create_deployment(name, image="v1", template_annotations={"sim/rps": "50", "sim/errors": "0"})
        self.cluster.wait_complete(name)

    def roll_out(self, image: str, *, errors: str, name: str = "web") -> None:
        """Bring a version that fails such a share, and wait until the rollout is complete."""
        self.cluster.set_image(name, image, template_annotations={"sim/rps": "50", "sim/errors": errors})
        self.cluster.wait_complete(name)

    def gate(
        self, *options: str, name: str = "web", url: str = "", meanwhile: Callable[[], object] = lambda: None
    ) -> Done:
        """Run the gate for a few seconds; something happens once it has pinned the version."""
        config = self._directory / "gate.toml"
        config.write_text(CONFIG.format(url=url or self._prometheus.url, namespace=self.cluster.namespace))
        records = f"--namespace={self.cluster.namespace}"
        about = ("gate", f"{self.cluster.namespace}/{name}", f"--config={config}", "--for=6s", records)
        return self._ci.meanwhile(meanwhile, *about, *SELECTORS, *options)

    def kubectl(self, name: str = "web") -> str:
        """What kubectl says that runs."""
        image = "jsonpath={.spec.template.spec.containers[0].image}"
        return self.cluster.kubectl("get", "deployment", name, "--output", image)

    @property
    def writes(self) -> list[Json]:
        """What the account of the gate has patched."""
        user = f"system:serviceaccount:{self.cluster.namespace}:ci"
        return [each for each in self.cluster.plane.audit(user) if each["verb"] == "patch"]

    def marks(self, name: str = "web") -> dict[str, str]:
        """Our annotations on the Deployment."""
        found = self.cluster.get("deployments", name)["metadata"].get("annotations", {})
        return {key.partition("/")[2]: value for key, value in found.items() if key.startswith("rollback-watchdog.io/")}


@pytest.fixture
def shop(cluster: Cluster, prometheus: PrometheusServer, tmp_path: Path) -> Shop:
    return Shop(cluster, prometheus, tmp_path)


def test_a_healthy_version_passes_and_nothing_is_written(shop: Shop) -> None:
    shop.good()
    shop.roll_out("v2", errors="0.002")
    done = shop.gate()
    assert done.code == 0, done
    assert re.search(r"^\S+/web revision 2 \(\w+\) is healthy: candidate ", done.out, re.MULTILINE), done
    assert (shop.kubectl(), shop.writes) == ("v2", [])


def test_a_bad_version_is_undone_and_kubectl_sees_the_one_before(shop: Shop) -> None:
    shop.good()
    before = shop.cluster.get("deployments", "web")["spec"]["template"]
    shop.roll_out("v2", errors="0.4")
    done = shop.gate(USUAL, "--for=30s")
    assert done.code == 1, done
    assert "this gate: rolled-back, rolled back 2 → 1, 3 of 3 pods available" in done.out, done
    assert shop.kubectl() == "v1"
    assert "successfully rolled out" in shop.cluster.kubectl("rollout", "status", "deployment/web", "--timeout=10s")
    assert shop.cluster.get("deployments", "web")["spec"]["template"] == before
    bad = next(each for each in shop.cluster.replicasets("web") if _image(each) == "v2")
    assert "rollback-watchdog.io/condemned" in bad["metadata"]["annotations"]
    assert "ci" in shop.marks()["last-rollback"]


@pytest.mark.skipif(not REQUIRED and "promtool" in MISSING, reason=REASON)
def test_a_bad_version_is_undone_by_what_the_hours_before_show(shop: Shop, tmp_path: Path) -> None:
    shop.good()
    old = [pod["metadata"]["name"] for pod in shop.cluster.pods("web")]
    shop.roll_out("v2", errors="0.4")
    new = [name for pod in shop.cluster.pods("web") if (name := pod["metadata"]["name"]) not in old]
    now = math.floor(time.time())
    hours = _counted(shop, old, range(now - 7200, now, 5), rps=50, share=0.01)
    since = _counted(shop, new, range(now - 5, now + 120), rps=50, share=0.1)
    with PastServer(tmp_path, (*hours, *since)) as prometheus:
        done = shop.gate("--for=60s", url=prometheus.url)
    assert done.code == 1, done
    assert re.search(r"^usual share of failures 1\.\d\d%, by \d+ requests in 2\d windows", done.out, re.MULTILINE), done
    assert "this gate: rolled-back" in done.out, done
    assert shop.kubectl() == "v1"


def _counted(shop: Shop, pods: list[str], times: range, *, rps: int, share: float) -> Iterator[Sample]:
    """What pods have counted, and will, where a share fails."""
    for name in pods:
        labels = {"namespace": shop.cluster.namespace, "pod": name, "container": "app", "instance": name, "job": "pods"}
        for at in times:
            requests = rps * (at - times[0])
            yield "agent_requests_total", labels, requests, at
            yield "agent_errors_total", labels, math.floor(requests * share), at


def test_a_bad_canary_is_scaled_to_zero_and_the_stable_one_goes_on(shop: Shop) -> None:
    for name in ("web", "web-canary"):
        shop.good(name)
    shop.roll_out("v2", errors="0.4", name="web-canary")
    generation = shop.cluster.get("deployments", "web")["metadata"]["generation"]
    done = shop.gate("--stable=web", "--for=30s", name="web-canary")
    assert done.code == 1, done
    assert "this gate: scaled-down" in done.out, done
    canary = shop.cluster.get("deployments", "web-canary")
    assert (canary["spec"]["replicas"], _image(canary)) == (0, "v2")
    assert shop.marks("web-canary")["replicas-before"].endswith(":3")
    assert shop.cluster.get("deployments", "web")["metadata"]["generation"] == generation


def test_a_version_that_somebody_replaces_meanwhile_ends_with_4_and_theirs_stays(shop: Shop) -> None:
    shop.good()
    shop.roll_out("v2", errors="0.002")
    done = shop.gate(USUAL, "--for=30s", meanwhile=lambda: shop.cluster.set_image("web", "v3"))
    assert done.code == 4, done
    newer = r"(revision 3 \(\w+\)|a newer version) is live now"  # the latter until the controller has numbered it
    assert re.search(f"is not what is live any more: someone else replaced it: {newer}", done.out), done
    assert (shop.kubectl(), shop.writes) == ("v3", [])


@pytest.mark.parametrize("fault", ["nan", "stop_serving"])
def test_what_cannot_be_seen_is_not_judged_and_nothing_is_moved(shop: Shop, exporter: Exporter, fault: str) -> None:
    shop.good()
    shop.roll_out("v2", errors="0.9")
    getattr(exporter, fault)(f"{shop.cluster.namespace}/web-")
    done = shop.gate(USUAL, "--for=3s")
    assert done.code == 3, done
    assert " cannot be judged: stale: " in done.out, done
    assert (shop.kubectl(), shop.writes) == ("v2", [])


# -- beside the service ------------------------------------------------------------------------------------------------


@pytest.fixture
def service(
    plane: ControlPlane, namespace: str, kubeconfig: Path, prometheus: PrometheusServer, tmp_path: Path
) -> Iterator[Service]:
    """A service that asks before it acts, and keeps its records in the test's namespace."""
    allow(plane, namespace, records=True)
    service = Service(
        tmp_path / "service",
        kubeconfig=kubeconfig,
        policies=[policy(namespace, mode="approve", bake="60s")],
        prometheus=prometheus.url,
        records=namespace,
    )
    with service:
        yield service


def test_beside_a_service_that_holds_the_incident_the_gate_waits_for_its_end(shop: Shop, service: Service) -> None:
    shop.good()
    shop.cluster.mark_passed("web")
    shop.roll_out("v2", errors="0.5")
    service.until(lambda: _record(shop.cluster, State.ASKING), "asking")
    record = _record(shop.cluster, State.ASKING)
    assert record

    def approve() -> None:
        answer = {"rollback-watchdog.io/answer": f"{record.id}=approve"}
        shop.cluster.patch("deployments", "web", {"metadata": {"annotations": answer}})

    done = shop.gate(USUAL, "--for=60s", meanwhile=approve)
    assert done.code == 1, done
    assert f"the service holds incident {record.id} (" in done.out, done
    assert "the service: " in done.out, done
    assert (shop.kubectl(), shop.writes) == ("v1", [])
    assert ACCOUNT in shop.marks()["last-rollback"]
    ended = _record(shop.cluster, State.ENDED)
    assert ended
    assert ended.outcome is Outcome.RECOVERED


def _record(cluster: Cluster, state: State) -> Record | None:
    """The service's record of the second revision, once it is in a state."""
    texts = [item["data"].get("record.json") for item in cluster.objects("configmaps")]
    found = [read(text) for text in texts if text]
    return next((each for each in found if each.rollout.revision == 2 and each.state is state), None)


def _image(item: Any) -> str:
    return str(item["spec"]["template"]["spec"]["containers"][0]["image"])
