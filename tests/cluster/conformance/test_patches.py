"""Patches, versions and generations: docs/design a, b, c, e and l."""

from typing import Any

import pytest

from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ApiError, Json

CONSTANT = "the server rejected our request due to an error in our request"


@pytest.fixture
def web(cluster: Cluster) -> Json:
    """`web` with two replicas of v1, complete."""
    cluster.create_deployment("web", replicas=2, annotations={"team": "shop"})
    return cluster.wait_complete("web")


def op(kind: str, path: str, value: Any = None) -> Json:
    return {"op": kind, "path": path} if kind == "remove" else {"op": kind, "path": path, "value": value}


def refused(cluster: Cluster, *operations: Json, query: str = "") -> ApiError:
    with pytest.raises(ApiError) as caught:
        cluster.plane.api(
            "PATCH",
            cluster.path("deployments", "web") + query,
            list(operations),
            content_type="application/json-patch+json",
        )
    return caught.value


@pytest.mark.parametrize("query", ["", "?dryRun=All"])
@pytest.mark.usefixtures("web")
def test_a1_a_failed_test_is_a_422_with_a_constant_message_and_no_details(cluster: Cluster, query: str) -> None:
    error = refused(cluster, op("test", "/spec/replicas", 7), query=query)
    assert (error.status, error.body["reason"], error.body["message"]) == (422, "Invalid", CONSTANT)
    assert error.body["details"] == {}


@pytest.mark.usefixtures("web")
def test_a2_a_validation_error_names_its_fields(cluster: Cluster) -> None:
    error = refused(cluster, op("replace", "/spec/replicas", -1))
    assert error.status == 422
    assert [cause["field"] for cause in error.body["details"]["causes"]] == ["spec.replicas"]


@pytest.mark.usefixtures("web")
def test_a3_a_stale_resource_version_is_a_409_that_names_the_object(cluster: Cluster) -> None:
    error = refused(cluster, op("replace", "/metadata/resourceVersion", "1"))
    assert (error.status, error.body["reason"]) == (409, "Conflict")
    assert error.body["details"] == {"name": "web", "group": "apps", "kind": "deployments"}


def test_a4_replace_sets_a_missing_key_but_not_below_a_missing_parent(cluster: Cluster, web: Json) -> None:
    patched = cluster.patch("deployments", "web", [op("replace", "/metadata/annotations/none", "x")])
    assert patched["metadata"]["annotations"]["none"] == "x"
    assert refused(cluster, op("remove", "/metadata/annotations/other")).status == 422
    for kind in ("add", "replace"):
        assert refused(cluster, op(kind, "/spec/template/spec/affinity/x", {})).status == 422


@pytest.mark.usefixtures("web")
def test_a5_a_test_of_null_holds_where_there_is_no_key_and_fails_where_there_is_no_parent(cluster: Cluster) -> None:
    cluster.patch("deployments", "web", [op("test", "/metadata/annotations/none", None)])
    assert refused(cluster, op("test", "/metadata/annotations/team", None)).status == 422
    assert refused(cluster, op("test", "/spec/template/spec/affinity/x", None)).status == 422


@pytest.mark.usefixtures("web")
def test_a6_strictly_an_unknown_field_is_a_422_that_shows_the_whole_object(cluster: Cluster) -> None:
    unknown = (
        op("add", "/spec/template/spec/containers/0/nonsense", 1),
        op("add", "/metadata/other", 1),
    )
    error = refused(cluster, *unknown, query="?fieldValidation=Strict")
    assert (error.status, error.body["reason"], list(error.body["details"])) == (422, "Invalid", ["causes"])
    assert [(cause["field"], cause["reason"]) for cause in error.body["details"]["causes"]] == [
        ("patch", "FieldValueInvalid")
    ]
    fields = 'unknown field "metadata.other", unknown field "spec.template.spec.containers[0].nonsense"'
    assert error.body["message"].endswith(f": strict decoding error: {fields}")
    assert error.body["message"].startswith(' "" is invalid: patch: Invalid value: "{')
    assert '\\"terminationMessagePath\\"' in error.body["message"]


def test_a6_otherwise_an_unknown_field_is_dropped(cluster: Cluster, web: Json) -> None:
    patched = cluster.patch("deployments", "web", [op("add", "/spec/nonsense", 1)])
    assert patched["spec"] == web["spec"]
    assert patched["metadata"]["generation"] == web["metadata"]["generation"]
    body = {"metadata": {"name": "x"}, "spec": {"nonsense": 1}}
    with pytest.raises(ApiError) as caught:
        cluster.plane.api("POST", f"{cluster.path('deployments')}?fieldValidation=Strict", body)
    assert (caught.value.status, caught.value.body["reason"]) == (400, "BadRequest")


def test_b1_spec_and_annotations_are_a_new_generation_and_nothing_else_is(cluster: Cluster, web: Json) -> None:
    def generation_after(body: Any, kind: str = "deployments", name: str = "web") -> int:
        before = cluster.get(kind, name)["metadata"]["generation"]
        return int(cluster.patch(kind, name, body)["metadata"]["generation"]) - int(before)

    assert generation_after({"metadata": {"annotations": {"x": "1"}}}) == 1
    assert generation_after({"spec": {"replicas": 1}}) == 1
    assert generation_after({"metadata": {"labels": {"x": "1"}}}) == 0
    assert generation_after({"spec": {"replicas": 1}}) == 0
    assert generation_after({"status": {"replicas": 9}}) == 0
    name = cluster.replicasets("web")[0]["metadata"]["name"]
    assert generation_after({"metadata": {"annotations": {"x": "2"}}}, "replicasets", name) == 0


def test_b2_the_revision_is_written_before_the_observed_generation(cluster: Cluster, web: Json) -> None:
    path = f"{cluster.path('deployments')}?resourceVersion={web['metadata']['resourceVersion']}"
    cluster.set_image("web", "v2")
    cluster.wait_complete("web")
    seen = []
    for event in cluster.plane.watch(f"{path}&timeoutSeconds=1"):
        metadata, status = event["object"]["metadata"], event["object"]["status"]
        revision = int(metadata["annotations"]["deployment.kubernetes.io/revision"])
        seen.append((metadata["generation"], status["observedGeneration"], revision))
    assert list(dict.fromkeys(seen)) == [(2, 1, 1), (2, 1, 2), (2, 2, 2)]


@pytest.mark.usefixtures("web")
def test_b3_annotations_can_be_written_through_status_without_a_new_generation(cluster: Cluster) -> None:
    path = cluster.path("deployments", "web") + "/status"
    body = {"metadata": {"annotations": {"through": "status"}}, "spec": {"replicas": 9}}
    answer = cluster.plane.api("PATCH", path, body, content_type="application/merge-patch+json")
    assert answer["metadata"]["annotations"]["through"] == "status"
    assert (answer["metadata"]["generation"], answer["spec"]["replicas"]) == (1, 2)


def test_c1_a_guarded_undo_works_once_and_a_dry_run_keeps_nothing(cluster: Cluster, web: Json) -> None:
    cluster.set_image("web", "v2")
    bad = cluster.wait_complete("web")
    good = web["spec"]["template"]
    patch = [
        op("test", "/metadata/uid", bad["metadata"]["uid"]),
        op("test", "/spec/template", bad["spec"]["template"]),
        op("replace", "/spec/template", good),
        op("add", "/metadata/annotations/mark", "1"),
    ]
    path = cluster.path("deployments", "web") + "?fieldManager=rollback-watchdog&fieldValidation=Strict"
    kind = "application/json-patch+json"
    shown = cluster.plane.api("PATCH", f"{path}&dryRun=All", patch, content_type=kind)
    assert shown["metadata"]["generation"] == bad["metadata"]["generation"] + 1
    assert cluster.get("deployments", "web")["spec"] == bad["spec"]
    done = cluster.plane.api("PATCH", path, patch, content_type=kind)
    assert (done["spec"]["template"], done["metadata"]["generation"]) == (good, shown["metadata"]["generation"])
    assert refused(cluster, *patch).status == 422


def owned(item: Json) -> dict[tuple[str, str, str], Json]:
    """The fields that each manager has, by its name, what it did and through which subresource."""
    return {
        (entry["manager"], entry["operation"], entry.get("subresource", "")): entry["fieldsV1"]
        for entry in item["metadata"]["managedFields"]
    }


def test_c3_l2_an_undo_owns_what_it_changed_and_can_give_that_up(cluster: Cluster, web: Json) -> None:
    path = cluster.path("deployments", "web")
    kind = "application/json-patch+json"
    bad = op("replace", "/spec/template/spec/containers/0/image", "v2")
    cluster.plane.api("PATCH", f"{path}?fieldManager=deployer", [bad], content_type=kind)
    image: Json = {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"app"}': {"f:image": {}}}}}}}
    before = cluster.wait_complete("web")
    assert owned(before)["deployer", "Update", ""] == image
    undo = [op("replace", "/spec/template", web["spec"]["template"]), op("add", "/metadata/annotations/mark", "1")]
    cluster.plane.api("PATCH", f"{path}?fieldManager=rollback-watchdog", undo, content_type=kind)
    done = cluster.wait_complete("web")
    ours = {**image, "f:metadata": {"f:annotations": {"f:mark": {}}}}
    assert owned(done)["rollback-watchdog", "Update", ""] == ours
    assert "deployer" not in {manager for manager, _, _ in owned(done)}
    entries = done["metadata"]["managedFields"]
    index = next(i for i, entry in enumerate(entries) if entry["manager"] == "rollback-watchdog")
    at = f"/metadata/managedFields/{index}"
    release = (op("test", f"{at}/manager", "rollback-watchdog"), op("test", f"{at}/operation", "Update"))
    released = cluster.patch("deployments", "web", [*release, op("remove", at)])
    assert "rollback-watchdog" not in {manager for manager, _, _ in owned(released)}
    assert released["metadata"]["generation"] == done["metadata"]["generation"]
    assert released["metadata"]["resourceVersion"] != done["metadata"]["resourceVersion"]


def test_whoever_creates_a_deployment_owns_its_defaults_and_the_controller_its_status(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=1, template_annotations={"sim/ready-after": "1ms"})
    fields = owned(cluster.wait_complete("web"))
    ((creator, created),) = ((key, value) for key, value in fields.items() if not key[2])
    assert creator[1] == "Update"
    app = {"f:image", "f:imagePullPolicy", "f:name", "f:resources", "f:terminationMessagePath"}
    template = created["f:spec"]["f:template"]
    assert template["f:metadata"] == {
        "f:annotations": {".": {}, "f:sim/ready-after": {}},
        "f:labels": {".": {}, "f:app": {}},
    }
    assert template["f:spec"].pop("f:containers") == {
        'k:{"name":"app"}': {key: {} for key in (".", *app, "f:terminationMessagePolicy")}
    }
    pod = {
        "dnsPolicy",
        "nodeName",
        "restartPolicy",
        "schedulerName",
        "securityContext",
        "terminationGracePeriodSeconds",
    }
    assert template["f:spec"] == {f"f:{field}": {} for field in pod}
    assert created["f:metadata"] == {"f:labels": {".": {}, "f:app": {}}}
    scalars = {"progressDeadlineSeconds", "replicas", "revisionHistoryLimit", "selector"}
    rolling: Json = {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}
    assert created["f:spec"] == {
        **{f"f:{field}": {} for field in scalars},
        "f:strategy": {"f:rollingUpdate": rolling, "f:type": {}},
        "f:template": template,
    }
    status = fields["kube-controller-manager", "Update", "status"]
    assert status["f:metadata"] == {"f:annotations": {".": {}, "f:deployment.kubernetes.io/revision": {}}}
    condition = {"lastTransitionTime", "lastUpdateTime", "message", "reason", "status", "type"}
    assert status["f:status"]["f:conditions"] == {
        ".": {},
        **{
            f'k:{{"type":"{kind}"}}': {".": {}, **{f"f:{field}": {} for field in condition}}
            for kind in ("Available", "Progressing")
        },
    }


def test_scaling_is_owned_through_the_subresource_and_a_reset_keeps_nothing(cluster: Cluster, web: Json) -> None:
    assert web["metadata"]["managedFields"]
    scale(cluster, op("replace", "/spec/replicas", 1))
    ((_, replicas),) = ((key, value) for key, value in owned(cluster.wait_complete("web")).items() if key[2] == "scale")
    assert replicas == {"f:spec": {"f:replicas": {}}}
    reset: Json = {"metadata": {"managedFields": [{}]}}
    cluster.plane.api("PATCH", cluster.path("deployments", "web"), reset, content_type="application/merge-patch+json")
    cluster.patch("deployments", "web", {"metadata": {"labels": {"x": "1"}}})
    assert "managedFields" not in cluster.get("deployments", "web")["metadata"]


@pytest.mark.usefixtures("web")
def test_c4_scaling_leaves_a_test_of_the_template_alone(cluster: Cluster) -> None:
    template = cluster.get("deployments", "web")["spec"]["template"]
    cluster.patch("deployments", "web", {"spec": {"replicas": 3}})
    cluster.patch("deployments", "web", [op("test", "/spec/template", template)])


def scale(cluster: Cluster, *operations: Json) -> Json:
    path = cluster.path("deployments", "web") + "/scale"
    answer: Json = cluster.plane.api("PATCH", path, list(operations), content_type="application/json-patch+json")
    return answer


@pytest.mark.usefixtures("web")
def test_e1_the_scale_subresource_can_be_guarded(cluster: Cluster) -> None:
    patch = (op("test", "/spec/replicas", 2), op("replace", "/spec/replicas", 1))
    assert scale(cluster, *patch)["spec"] == {"replicas": 1}
    with pytest.raises(ApiError) as caught:
        scale(cluster, *patch)
    assert caught.value.status == 422
    assert cluster.get("deployments", "web")["metadata"]["generation"] == 2


@pytest.mark.usefixtures("web")
def test_e2_at_no_replicas_the_scale_has_no_spec_to_test(cluster: Cluster) -> None:
    assert scale(cluster, op("replace", "/spec/replicas", 0))["spec"] == {}
    with pytest.raises(ApiError):
        scale(cluster, op("test", "/spec/replicas", 0))
    scale(cluster, op("test", "/spec/replicas", None))
    cluster.patch("deployments", "web", [op("test", "/spec/replicas", 0), op("replace", "/spec/replicas", 2)])


def test_l5_the_selector_of_a_service_is_tested_whatever_the_order_of_its_keys(cluster: Cluster) -> None:
    spec = {"selector": {"app": "web", "track": "blue"}, "ports": [{"port": 80}]}
    cluster.create("services", {"metadata": {"name": "web"}, "spec": spec})
    patch = [
        op("test", "/spec/selector", {"track": "blue", "app": "web"}),
        op("replace", "/spec/selector/track", "green"),
    ]
    patched = cluster.patch("services", "web", patch)
    assert patched["spec"]["selector"]["track"] == "green"
    assert "generation" not in patched["metadata"]
    with pytest.raises(ApiError):
        cluster.patch("services", "web", patch)


@pytest.mark.usefixtures("web")
def test_a_strategic_merge_patch_merges_containers_and_environments_by_name(cluster: Cluster) -> None:
    def containers(*items: Json) -> Json:
        return {"spec": {"template": {"spec": {"containers": list(items)}}}}

    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    cluster.patch("deployments", "web", containers({"name": "app", "env": env}, {"name": "side", "image": "s1"}))
    removed = {"name": "A", "$patch": "delete"}
    patched = cluster.patch("deployments", "web", containers({"name": "app", "env": [removed]}))
    found = {item["name"]: item for item in patched["spec"]["template"]["spec"]["containers"]}
    assert (found["app"]["image"], found["side"]["image"]) == ("v1", "s1")
    assert found["app"]["env"] == [{"name": "B", "value": "2"}]


def test_defaults_are_filled_in(cluster: Cluster) -> None:
    spec = cluster.create_deployment("web", replicas=0)["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
    assert (spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (10, 600)
    pod = spec["template"]["spec"]
    # The account is the admission controller's doing, of pods only.
    assert pod == {
        "nodeName": "node-0",
        "containers": [
            {
                "name": "app",
                "image": "v1",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "Always",
            }
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
    }
