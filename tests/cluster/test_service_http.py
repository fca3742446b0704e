"""The service's API as people and pipelines use it: who is let in, and what becomes of what they ask for."""

import datetime as dt
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import ACCOUNT
from tests.cluster.service import TOKEN, Service, allow, policy
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane

AUDIENCE = "rollback-watchdog"
SHOP = "shop-over-http"
NOBODY = "http://127.0.0.1:9"
EVALUATIONS = "[policies.evaluations]\nenabled = true"
NEVER_READY = {"sim/mode": "never-ready"}


@pytest.fixture(scope="module")
def shop(plane: ControlPlane) -> Iterator[Cluster]:
    """A namespace with the service's rights, and ServiceAccounts of a developer, who may patch, and of a guest."""
    plane.api("POST", "/api/v1/namespaces", {"metadata": {"name": SHOP}})
    shop = Cluster(plane, SHOP)
    shop.wait(lambda: plane.exists(shop.path("serviceaccounts", "default")))
    allow(plane, SHOP)
    allow(plane, SHOP, records=True)
    rule = {"apiGroups": ["apps"], "resources": ["deployments"]}
    shop.service_account("developer", {**rule, "verbs": ["get", "patch"]})
    shop.service_account("guest", {**rule, "verbs": ["get"]})
    yield shop
    plane.api("DELETE", f"/api/v1/namespaces/{SHOP}")


@pytest.fixture(scope="module")
def service(
    shop: Cluster, account: Path, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The service; conditions of Kubernetes are all that it judges by, and people decide."""
    directory = tmp_path_factory.mktemp("service")
    policies = [policy(SHOP, mode="approve", signal="", bake="60s", after=EVALUATIONS)]
    with Service(directory, kubeconfig=account, policies=policies, prometheus=NOBODY, records=SHOP) as service:
        yield service


def two_versions(shop: Cluster, name: str) -> None:
    """A Deployment that went from v1 to v2."""
    shop.create_deployment(name, replicas=1)
    shop.wait_complete(name)
    shop.set_image(name, "v2")
    shop.wait_complete(name)


def image(shop: Cluster, name: str) -> str:
    """What a Deployment runs."""
    return str(shop.get("deployments", name)["spec"]["template"]["spec"]["containers"][0]["image"])


def ask(name: str, **more: Any) -> Mapping[str, Any]:
    """The body of a rollback."""
    return {"namespace": SHOP, "deployment": name, "reason": "checkout is broken", **more}


def code(answer: tuple[int, Any]) -> tuple[int, str]:
    """Status and error code."""
    return answer[0], answer[1]["error"]["code"]


def patches(shop: Cluster, name: str) -> int:
    """How often the service has replaced the template of a Deployment."""
    found = 0
    for event in shop.plane.audit(f"system:serviceaccount:{ACCOUNT}:{ACCOUNT}"):
        about = event["objectRef"]
        if (about["resource"], about.get("namespace"), about.get("name"), event["verb"]) == (
            "deployments",
            SHOP,
            name,
            "patch",
        ):
            steps = event["requestObject"]
            persisted = "dryRun" not in event["requestURI"] and event["responseStatus"]["code"] == 200
            found += persisted and any((step["op"], step["path"]) == ("replace", "/spec/template") for step in steps)
    return found


# -- rollback ----------------------------------------------------------------------------------------------------------


def test_a_rollback_with_the_static_token_is_carried_out_and_verified(shop: Cluster, service: Service) -> None:
    two_versions(shop, "static")
    status, body = service.post("/rollback", ask("static"))
    assert (status, body["outcome"], body["from"]["revision"], body["to"]["revision"]) == (200, "rolled-back", 2, 1)
    assert image(shop, "static") == "v1"


def test_whoever_may_patch_the_deployment_may_roll_it_back_and_nobody_else(shop: Cluster, service: Service) -> None:
    two_versions(shop, "tokens")
    guest = shop.plane.token_for(SHOP, "guest", audience=AUDIENCE)
    assert code(service.post("/rollback", ask("tokens"), token=guest)) == (403, "forbidden")
    assert image(shop, "tokens") == "v2"
    developer = shop.plane.token_for(SHOP, "developer", audience=AUDIENCE)
    status, body = service.post("/rollback", ask("tokens"), token=developer)
    assert (status, body["outcome"], image(shop, "tokens")) == (200, "rolled-back", "v1")
    by = shop.get("deployments", "tokens")["metadata"]["annotations"]["rollback-watchdog.io/last-rollback"]
    assert f"system:serviceaccount:{SHOP}:developer" in by


@pytest.mark.parametrize("audience", [None, "somebody-else"])
def test_a_token_for_another_audience_lets_nobody_in(shop: Cluster, service: Service, audience: str | None) -> None:
    token = shop.plane.token_for(SHOP, "developer", audience=audience)
    assert code(service.post("/rollback", ask("any"), token=token)) == (401, "unauthorized")
    assert service.post("/rollback", ask("any"), token="")[0] == 401


def test_a_rollback_of_another_revision_than_expected_is_refused(shop: Cluster, service: Service) -> None:
    two_versions(shop, "expected")
    status, body = service.post("/rollback", ask("expected", expected_current_revision=1))
    assert (status, body["error"]["code"], image(shop, "expected")) == (409, "superseded", "v2")
    assert service.post("/rollback", ask("expected", expected_current_revision=2))[0] == 200


def test_the_same_idempotency_key_gives_the_same_answer_and_one_action(shop: Cluster, service: Service) -> None:
    two_versions(shop, "twice")
    first = service.post("/rollback", ask("twice", idempotency_key="build-17"))
    assert (first[0], service.post("/rollback", ask("twice", idempotency_key="build-17"))) == (200, first)
    assert (patches(shop, "twice"), image(shop, "twice")) == (1, "v1")


@pytest.mark.parametrize("key", ["", "build-18"])
def test_twenty_rollbacks_at_once_make_one_write_and_the_good_version_stays(
    shop: Cluster, service: Service, key: str
) -> None:
    name = f"at-once-{len(key)}"
    two_versions(shop, name)
    with ThreadPoolExecutor(20) as threads:
        asked = [ask(name, idempotency_key=key, reason=f"reason {number}") for number in range(20)]
        statuses = [status for status, _ in threads.map(lambda body: service.post("/rollback", body), asked)]
    assert statuses.count(422) == (19 if key else 0)
    assert set(statuses) <= {200, 409, 422}
    status, body = service.post("/rollback", ask(name))
    assert (status, body["outcome"]) == (200, "already")
    assert (patches(shop, name), image(shop, name)) == (1, "v1")


def test_a_dry_run_tells_what_would_be_done_and_does_nothing(shop: Cluster, service: Service) -> None:
    two_versions(shop, "dry")
    status, body = service.post("/rollback", ask("dry", dry_run=True))
    assert (status, body["dry_run"], body["to"]["revision"]) == (200, True, 1)
    assert (image(shop, "dry"), patches(shop, "dry")) == ("v2", 0)


# -- alerts ------------------------------------------------------------------------------------------------------------


def alert(name: str) -> Mapping[str, Any]:
    """What Alertmanager posts about a Deployment."""
    labels = {"alertname": "AgentErrors", "namespace": SHOP, "deployment": name}
    found = {
        "status": "firing",
        "labels": labels,
        "annotations": {},
        "startsAt": dt.datetime.now(dt.UTC).isoformat(),
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": f"{hash(name) & 0xFFFFFFFF:016x}",
    }
    return {"version": "4", "status": "firing", "receiver": "rollback-watchdog", "alerts": [found]}


def test_alerts_are_taken_with_their_own_token_and_with_no_other(service: Service) -> None:
    assert service.post("/alerts", alert("unknown"), token=TOKEN) == (200, {"accepted": 1})
    for other in ("", "wrong", "api-token"):
        assert code(service.post("/alerts", alert("unknown"), token=other)) == (401, "unauthorized")


def test_nothing_is_taken_before_the_first_list_of_deployments(
    shop: Cluster, plane: ControlPlane, account: Path, tmp_path: Path
) -> None:
    policies = [policy(SHOP, signal="")]
    service = Service(tmp_path, kubeconfig=account, policies=policies, prometheus=NOBODY, records=SHOP)
    try:
        with plane.frozen("kube-apiserver"):
            service.start(wait=False)
            service.until(lambda: service.get("/healthz", metrics=True)[0], "up")
            assert service.get("/readyz", metrics=True)[0] == 503
            assert code(service.post("/alerts", alert("web"), token=TOKEN)) == (503, "unavailable")
        service.until(lambda: service.get("/readyz", metrics=True)[0] == 200, "ready")
        assert service.post("/alerts", alert("web"), token=TOKEN)[0] == 200
    finally:
        service.kill()


# -- rollouts and incidents --------------------------------------------------------------------------------------------


def about(service: Service, path: str, name: str) -> list[Mapping[str, Any]]:
    """The entries of a list that are about revision 2 of a Deployment."""
    entries = service.get(f"/{path}")[1][path]
    return [each for each in entries if (each["deployment"], each["revision"]) == (name, 2)]


def test_a_breach_that_people_are_asked_about_is_undone_when_somebody_who_may_approves(
    shop: Cluster, service: Service
) -> None:
    shop.create_deployment("asked", replicas=1, progressDeadlineSeconds=1)
    shop.wait_complete("asked")
    shop.mark_passed("asked")
    shop.set_image("asked", "v2", template_annotations=NEVER_READY)
    service.until(lambda: about(service, "rollouts", "asked"), "watched")
    service.until(lambda: any(each["state"] == "asking" for each in about(service, "incidents", "asked")), "asking")
    name = about(service, "incidents", "asked")[0]["id"]
    status, body = service.get(f"/incidents/{name}")
    assert (status, body["incident"]["id"], body["incident"]["plan"]["from_revision"]) == (200, name, 2)
    guest = shop.plane.token_for(SHOP, "guest", audience=AUDIENCE)
    assert service.get(f"/incidents/{name}", token=guest)[0] == 200
    assert code(service.post(f"/incidents/{name}/approve", {}, token=guest)) == (403, "forbidden")
    assert image(shop, "asked") == "v2"
    developer = shop.plane.token_for(SHOP, "developer", audience=AUDIENCE)
    assert service.post(f"/incidents/{name}/approve", {}, token=developer)[0] == 200
    service.until(lambda: service.get(f"/incidents/{name}")[1]["incident"].get("outcome") == "recovered", "recovered")
    assert (image(shop, "asked"), about(service, "rollouts", "asked")) == ("v1", [])
    assert service.post(f"/incidents/{name}/approve", {}, token=developer)[0] == 409


def evaluated(name: str, version: str, bad: int) -> Mapping[str, Any]:
    """A batch of evaluations."""
    about = {"namespace": SHOP, "deployment": name, "image": version}
    return {**about, "bad": bad, "total": 100, "id": f"run-{version}"}


def test_evaluations_of_whoever_may_patch_the_deployment_are_a_breach_where_the_stable_version_did_better(
    shop: Cluster, service: Service
) -> None:
    two_versions(shop, "evaluated")
    service.until(lambda: about(service, "rollouts", "evaluated"), "watched")
    guest = shop.plane.token_for(SHOP, "guest", audience=AUDIENCE)
    assert code(service.post("/evaluations", evaluated("evaluated", "v2", 60), token=guest)) == (403, "forbidden")
    developer = shop.plane.token_for(SHOP, "developer", audience=AUDIENCE)
    for version, bad, track in (("v1", 3, "stable"), ("v2", 60, "candidate")):
        status, body = service.post("/evaluations", evaluated("evaluated", version, bad), token=developer)
        assert (status, body["counted"], body["rollouts"][0]["track"]) == (200, True, track)
    again = service.post("/evaluations", evaluated("evaluated", "v2", 60))
    assert (again[0], again[1]["counted"]) == (200, False)
    assert code(service.post("/evaluations", evaluated("evaluated", "v3", 1))) == (409, "conflict")
    assert code(service.post("/evaluations", evaluated("nobody", "v1", 1))) == (404, "not-found")
    service.until(lambda: any(each["state"] == "asking" for each in about(service, "incidents", "evaluated")), "asking")
    incident = service.get(f"/incidents/{about(service, 'incidents', 'evaluated')[0]['id']}")[1]["incident"]
    assert (incident["plan"]["cause"], incident["verdicts"][-1]["signal"]) == ("sequential", "evaluations")
    assert "60 of 100 evaluations failed, of the stable version 3 of 100" in incident["verdicts"][-1]["detail"]
    assert image(shop, "evaluated") == "v2"


def test_lists_and_incidents_are_for_those_who_are_known(service: Service) -> None:
    for path in ("/incidents", "/rollouts", "/incidents/web-1-00000000"):
        assert code(service.get(path, token="wrong")) == (401, "unauthorized")
    assert code(service.get("/incidents/web-1-00000000")) == (404, "not-found")
