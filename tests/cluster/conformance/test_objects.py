"""Events, leases, lists and watches: docs/design g, h and i."""

from typing import Any

import pytest

from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ApiError, Json

EVENT = {
    "eventTime": "2026-01-02T03:04:05.000006Z",
    "reportingController": "rollback-watchdog",
    "reportingInstance": "test",
    "action": "Undo",
    "reason": "RolledBack",
    "type": "Normal",
}


def refusal(cluster: Cluster, method: str, path: str, body: Any = None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        cluster.plane.api(method, path, body)
    return caught.value


def event(cluster: Cluster, **fields: Any) -> Json:
    about = {"kind": "Deployment", "namespace": cluster.namespace, "name": "web", "apiVersion": "apps/v1"}
    return {"metadata": {"name": "e1"}, "regarding": about, **EVENT, **fields}


def config(cluster: Cluster, name: str, **labels: str) -> Json:
    return cluster.create("configmaps", {"metadata": {"name": name, "labels": labels}, "data": {"a": "b"}})


@pytest.mark.parametrize("field", [*EVENT])
def test_g1_an_event_without_a_required_field_is_refused(cluster: Cluster, field: str) -> None:
    assert refusal(cluster, "POST", cluster.path("events"), event(cluster, **{field: ""})).status in (400, 422)


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"note": "x" * 1025}, 422), ({"note": "é" * 600}, 422), ({"reason": "x" * 129}, 422), ({"type": "Bad"}, 422)],
)
def test_g2_the_fields_of_an_event_have_their_longest_lengths(cluster: Cluster, fields: Json, status: int) -> None:
    assert refusal(cluster, "POST", cluster.path("events"), event(cluster, **fields)).status == status
    cluster.create("events", event(cluster, note="é" * 512))


def test_g3_an_event_of_the_same_name_exists_already(cluster: Cluster) -> None:
    cluster.create("events", event(cluster))
    error = refusal(cluster, "POST", cluster.path("events"), event(cluster))
    assert (error.status, error.body["reason"]) == (409, "AlreadyExists")


def test_h_a_lease_is_held_to_its_version_and_its_times(cluster: Cluster) -> None:
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 1, "renewTime": "2026-01-02T03:04:05.000006Z"}
    made = cluster.create("leases", {"metadata": {"name": "leader"}, "spec": spec})
    path = cluster.path("leases", "leader")
    twice = refusal(cluster, "POST", cluster.path("leases"), {"metadata": {"name": "leader"}, "spec": spec})
    assert (twice.status, twice.body["reason"]) == (409, "AlreadyExists")
    renewed = {**made, "spec": {**spec, "holderIdentity": ""}}
    cluster.plane.api("PUT", path, renewed)
    assert refusal(cluster, "PUT", path, renewed).body["reason"] == "Conflict"
    bare = {"metadata": {"name": "leader"}, "spec": spec}
    assert refusal(cluster, "PUT", path, bare).status == 422
    bad = {"metadata": {"name": "other"}, "spec": {**spec, "leaseDurationSeconds": 0}}
    assert refusal(cluster, "POST", cluster.path("leases"), bad).status == 422


def test_i2_a_watch_ends_after_its_time_without_a_word(cluster: Cluster) -> None:
    assert (
        list(cluster.plane.watch(f"{cluster.path('configmaps')}?timeoutSeconds=1&fieldSelector=metadata.name=x")) == []
    )


def test_i3_a_version_that_is_too_old_is_an_event_and_not_a_status(cluster: Cluster) -> None:
    before = config(cluster, "one")["metadata"]["resourceVersion"]
    config(cluster, "two")
    cluster.plane.restart("kube-apiserver")
    found = next(cluster.plane.watch(f"{cluster.path('configmaps')}?resourceVersion={before}"))
    assert (found["type"], found["object"]["code"], found["object"]["reason"]) == ("ERROR", 410, "Expired")


def test_i4_a_version_from_the_future_is_silent_in_a_watch_and_a_504_in_a_list(cluster: Cluster) -> None:
    path = f"{cluster.path('configmaps')}?resourceVersion=99999999"
    assert list(cluster.plane.watch(f"{path}&timeoutSeconds=1")) == []
    error = refusal(cluster, "GET", path)
    assert error.status == 504
    assert [cause["reason"] for cause in error.body["details"]["causes"]] == ["ResourceVersionTooLarge"]


def test_i5_a_watch_list_tells_where_the_beginning_ends(cluster: Cluster) -> None:
    config(cluster, "one", mine="1")
    path = f"{cluster.path('configmaps')}?sendInitialEvents=true&labelSelector=mine&timeoutSeconds=2"
    match = "&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    events = list(cluster.plane.watch(path + match))
    assert [found["type"] for found in events][:2] == ["ADDED", "BOOKMARK"]
    assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    with pytest.raises(ApiError) as caught:
        next(cluster.plane.watch(path))
    assert caught.value.status == 422


def test_a_list_comes_in_pages_of_one_version(cluster: Cluster) -> None:
    for name in ("a", "b", "c"):
        config(cluster, name, mine="1")
    path = f"{cluster.path('configmaps')}?labelSelector=mine&limit=2"
    first = cluster.plane.api("GET", path)
    second = cluster.plane.api("GET", f"{path}&continue={first['metadata']['continue']}")
    names = [item["metadata"]["name"] for page in (first, second) for item in page["items"]]
    assert names == ["a", "b", "c"]
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert not second["metadata"].get("continue")


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("app=web", ["one"]),
        ("app!=web,mine", ["three", "two"]),
        ("app in (web, cart),mine", ["one", "two"]),
        ("app notin (web),mine", ["three", "two"]),
        ("!app,mine", ["three"]),
    ],
)
def test_label_selectors_find_what_they_say(cluster: Cluster, selector: str, names: list[str]) -> None:
    for name, labels in (("one", {"app": "web"}), ("two", {"app": "cart"}), ("three", {})):
        config(cluster, name, mine="1", **labels)
    query = selector.replace(" ", "%20").replace("!", "%21")
    found = cluster.plane.api("GET", f"{cluster.path('configmaps')}?labelSelector={query}")
    assert [item["metadata"]["name"] for item in found["items"]] == names


def test_a_watch_with_a_selector_sees_an_object_leave_it(cluster: Cluster) -> None:
    made = config(cluster, "one", app="web")
    version = made["metadata"]["resourceVersion"]
    cluster.patch("configmaps", "one", {"data": {"x": "y"}})
    cluster.patch("configmaps", "one", {"metadata": {"labels": {"app": "cart"}}})
    cluster.patch("configmaps", "one", {"metadata": {"labels": {"app": "web"}}})
    cluster.delete("configmaps", "one")
    query = f"?labelSelector=app=web&resourceVersion={version}&timeoutSeconds=1"
    events = [found["type"] for found in cluster.plane.watch(cluster.path("configmaps") + query)]
    assert events == ["MODIFIED", "DELETED", "ADDED", "DELETED"]


def test_what_is_not_there_is_a_404_that_names_it(cluster: Cluster) -> None:
    error = refusal(cluster, "GET", cluster.path("deployments", "none"))
    assert (error.status, error.body["reason"]) == (404, "NotFound")
    assert error.body["message"] == 'deployments.apps "none" not found'
