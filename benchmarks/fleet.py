"""Hundreds of Deployments shipped at once, on a real control plane: `python -m benchmarks.fleet`.

The service is a process of its own with the default step of 15 s. It has no Prometheus: what is looked at is how many
requests the API server gets for so many rollouts, from its audit log, how soon all of them are under watch, and what
the process computes meanwhile. The machine is shared with the control plane, its kubelet and this script.
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.cluster.service import Service, allow, policy
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane

ACCOUNT = "rollback-watchdog"
STEP_S = 15


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=500)
    parser.add_argument("--steps", type=int, default=4, help="that are counted after all are under watch [4]")
    given = parser.parse_args()
    names = [f"app-{number:04}" for number in range(given.deployments)]
    with ControlPlane() as plane, tempfile.TemporaryDirectory() as directory:
        for namespace in ("shop", ACCOUNT):
            plane.api("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        shop, own = Cluster(plane, "shop"), Cluster(plane, ACCOUNT)
        shop.wait(lambda: plane.exists("/api/v1/namespaces/shop/serviceaccounts/default"))
        own.create("serviceaccounts", {"metadata": {"name": ACCOUNT}})
        allow(plane, "shop")
        allow(plane, ACCOUNT, records=True)
        for name in names:
            shop.create_deployment(name, replicas=1)
        shop.wait(lambda: _complete(shop) == len(names), 600, what="all Deployments complete")
        text = policy("shop", signal="", bake="10m", mode="observe")
        kubeconfig = plane.kubeconfig_for(ACCOUNT, ACCOUNT)
        service = Service(
            Path(directory), kubeconfig=kubeconfig, policies=[text], prometheus="http://127.0.0.1:9", records=ACCOUNT
        )
        config = Path(directory) / "config.toml"
        config.write_text(config.read_text().replace('step = "1s"', f'step = "{STEP_S}s"'))
        with service:
            print(measure(plane, shop, service, names, given.steps))


def measure(plane: ControlPlane, shop: Cluster, service: Service, names: list[str], steps: int) -> str:
    """Ship all of them, and say what came of it."""
    time.sleep(STEP_S)
    before, cpu, begun = _requests(plane), service.cpu_s, time.monotonic()
    for name in names:
        shop.set_image(name, "v2")
    shipped = time.monotonic() - begun
    shop.wait(lambda: _watched(service) >= len(names), 600, what="all of them are under watch")
    watched, beginning, cpu_beginning = time.monotonic() - begun, _requests(plane) - before, service.cpu_s - cpu
    before, cpu, since = _requests(plane), service.cpu_s, time.monotonic()
    time.sleep(steps * STEP_S)
    steady, share = _requests(plane) - before, (service.cpu_s - cpu) / (time.monotonic() - since)
    per_step = Counter({kind: round(number / steps) for kind, number in steady.items()})
    return "\n".join(
        (
            f"{len(names)} Deployments were shipped within {shipped:.0f} s, and all under watch after {watched:.0f} s.",
            f"Until then: {_told(beginning)}; {100 * cpu_beginning / watched:.0f} % of a core.",
            f"Then at each step of {STEP_S} s: {_told(per_step)}; {100 * share:.0f} % of a core.",
        )
    )


def _requests(plane: ControlPlane) -> Counter[str]:
    """Requests of the service so far, by kind."""
    user = f"system:serviceaccount:{ACCOUNT}:{ACCOUNT}"
    done = [each for each in plane.audit(user) if each.get("stage") == "ResponseComplete"]
    return Counter(f"{each['verb']} {each['objectRef']['resource']}" for each in done if "objectRef" in each)


def _complete(shop: Cluster) -> int:
    return sum(each.get("status", {}).get("availableReplicas", 0) >= 1 for each in shop.objects("deployments"))


def _watched(service: Service) -> int:
    return sum(each["revision"] > 1 for each in service.get("/rollouts")[1]["rollouts"])


def _told(found: Counter[str]) -> str:
    return ", ".join(f"{number} × {kind}" for kind, number in found.most_common() if number) or "no request"


if __name__ == "__main__":
    main()
