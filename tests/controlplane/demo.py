"""`make demo`: a bad rollout on a real control plane, undone before your eyes.

Every line after a `$` is a command that ran, and what follows is what it printed.
"""

import os
import shlex
import subprocess
import sys

from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane, ControlPlaneError

CAUSE = "kubernetes.io/change-cause"


def main() -> int:
    """Run the demonstration; 0 when the undo ended as promised."""
    try:
        with ControlPlane() as plane:
            return play(plane)
    except ControlPlaneError as error:
        print(error, file=sys.stderr)
        return 1


def play(plane: ControlPlane) -> int:
    """Ship two good versions and a bad one, and go back."""
    say("A real etcd, kube-apiserver, Deployment controller and a fake kubelet run on loopback.")
    plane.api("POST", "/api/v1/namespaces", {"metadata": {"name": "shop"}})
    account = "/api/v1/namespaces/shop/serviceaccounts/default"
    shop = Cluster(plane, "shop")
    shop.wait(lambda: plane.exists(account))
    shop.create_deployment("web", image="shop/web:v1", annotations={CAUSE: "first release"})
    shop.wait_complete("web")
    ship(shop, "shop/web:v2", "faster search")
    shop.wait_complete("web")

    say("Version 3 goes out, and its pods never become ready.")
    ship(shop, "shop/web:v3", "new prompt", mode="never-ready")
    shop.wait(lambda: len(shop.pods("web")) > 3)
    run(plane, "kubectl get deployment,pods --namespace shop")
    run(plane, "rollback-watchdog history shop/web")

    say("First a dry run, which the API server checks; then the undo, guarded, recorded and proven.")
    run(plane, "rollback-watchdog rollback shop/web --dry-run")
    code = run(plane, "rollback-watchdog rollback shop/web --reason 'v3 never becomes ready'")
    run(plane, "kubectl get deployment,pods --namespace shop")
    run(plane, "rollback-watchdog history shop/web")
    columns = "-o custom-columns=REASON:.reason,MESSAGE:.message"
    run(plane, f"kubectl get events --namespace shop --field-selector reportingComponent=rollback-watchdog {columns}")

    say("Someone holds the workload: the next undo is refused, and says why.")
    hold = "'rollback-watchdog.io/hold=until=2999-01-01T00:00:00Z;load test'"
    run(plane, f"kubectl annotate --namespace shop deployment/web {hold}")
    refused = run(plane, "rollback-watchdog rollback shop/web")
    say("On your own cluster: rollback-watchdog rollback NAMESPACE/NAME --dry-run")
    return 0 if (code, refused) == (0, 4) else 1


def ship(shop: Cluster, image: str, cause: str, *, mode: str | None = None) -> None:
    """Begin a rollout, as a pipeline would."""
    shop.patch(
        "deployments",
        "web",
        {
            "metadata": {"annotations": {CAUSE: cause}},
            "spec": {
                "template": {
                    "metadata": {"annotations": {"sim/mode": mode}},
                    "spec": {"containers": [{"name": "app", "image": image}]},
                }
            },
        },
    )


def say(text: str) -> None:
    """Print a sentence between the commands."""
    print(f"\n# {text}", flush=True)


def run(plane: ControlPlane, line: str) -> int:
    """Show a command and run it."""
    print(f"\n$ {line}", flush=True)
    name, *args = shlex.split(line)
    command = [sys.executable, "-m", "watchdog"] if name == "rollback-watchdog" else [str(plane.kubectl)]
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig), "COLUMNS": "120"}
    # The log would say everything a second time.
    return subprocess.run([*command, *args], env=environment, stderr=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
