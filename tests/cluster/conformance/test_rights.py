"""Tokens, reviews and rights: docs/design f and j."""

from typing import Any

import pytest

from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ApiError, Json

AUDIENCE = "rollback-watchdog"
REVIEWS = {
    "TokenReview": "/apis/authentication.k8s.io/v1/tokenreviews",
    "SubjectAccessReview": "/apis/authorization.k8s.io/v1/subjectaccessreviews",
    "SelfSubjectReview": "/apis/authentication.k8s.io/v1/selfsubjectreviews",
    "SelfSubjectAccessReview": "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
}


def review(cluster: Cluster, kind: str, spec: Json, *, token: str | None = None) -> Json:
    status: Json = cluster.plane.api("POST", REVIEWS[kind], {"spec": spec} if spec else {}, token=token)["status"]
    return status


def username(cluster: Cluster, name: str) -> str:
    return f"system:serviceaccount:{cluster.namespace}:{name}"


def may(cluster: Cluster, verb: str, resource: str, **more: Any) -> bool:
    attributes = {"verb": verb, "resource": resource, "namespace": cluster.namespace, **more}
    spec = {"user": username(cluster, "dev"), "resourceAttributes": attributes}
    return bool(review(cluster, "SubjectAccessReview", spec)["allowed"])


def test_f1_a_token_for_an_audience_is_reviewed_as_its_owners(cluster: Cluster) -> None:
    token = cluster.plane.token_for(cluster.namespace, "default", audience=AUDIENCE)
    status = review(cluster, "TokenReview", {"token": token, "audiences": [AUDIENCE]})
    assert (status["authenticated"], status["audiences"]) == (True, [AUDIENCE])
    assert status["user"]["username"] == username(cluster, "default")
    assert "system:authenticated" in status["user"]["groups"]


def test_f2_a_token_for_another_audience_is_an_error_in_a_good_answer(cluster: Cluster) -> None:
    token = cluster.plane.token_for(cluster.namespace, "default")
    status = review(cluster, "TokenReview", {"token": token, "audiences": [AUDIENCE]})
    assert "authenticated" not in status
    problem = (
        'token audiences ["https://kubernetes.default.svc"] is invalid for the target audiences ["rollback-watchdog"]'
    )
    assert status["error"] == f"[invalid bearer token, {problem}]"
    unknown = review(cluster, "TokenReview", {"token": "unheard-of", "audiences": [AUDIENCE]})
    assert "authenticated" not in unknown


def test_f3_a_token_for_an_audience_is_no_token_for_the_api(cluster: Cluster) -> None:
    token = cluster.plane.token_for(cluster.namespace, "default", audience=AUDIENCE)
    with pytest.raises(ApiError) as caught:
        cluster.plane.api("GET", cluster.path("deployments"), token=token)
    assert (caught.value.status, caught.value.body["reason"]) == (401, "Unauthorized")


def test_f4_a_role_gives_a_right_by_verb_and_name(cluster: Cluster) -> None:
    assert not may(cluster, "patch", "deployments", group="apps", name="web")
    cluster.service_account("dev", {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"]})
    cluster.wait(lambda: may(cluster, "patch", "deployments", group="apps", name="web"))
    assert not may(cluster, "delete", "deployments", group="apps", name="web")
    assert not may(cluster, "patch", "deployments", group="apps", name="web", subresource="scale")
    assert not may(cluster, "patch", "deployments", name="web")


def test_f5_a_right_to_what_no_api_serves_can_be_given_and_asked_for(cluster: Cluster) -> None:
    rule = {"apiGroups": ["rollback-watchdog.io"], "resources": ["deployments/rollback"], "verbs": ["create"]}
    cluster.service_account("dev", {**rule, "resourceNames": ["web"]})
    asked = {"group": "rollback-watchdog.io", "subresource": "rollback"}
    cluster.wait(lambda: may(cluster, "create", "deployments", name="web", **asked))
    assert not may(cluster, "create", "deployments", name="cart", **asked)


def test_j_an_account_can_do_what_its_role_says_and_is_refused_all_else(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=0)
    cluster.service_account("dev", {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]})
    token = cluster.plane.token_for(cluster.namespace, "dev")
    path = cluster.path("deployments", "web")
    cluster.wait(lambda: may(cluster, "get", "deployments", group="apps", name="web"))
    assert cluster.plane.api("GET", path, token=token)["metadata"]["name"] == "web"
    assert len(cluster.plane.api("GET", cluster.path("deployments"), token=token)["items"]) == 1
    for method, refused in (
        ("PATCH", path),
        ("DELETE", path),
        ("GET", f"{path}/scale"),
        ("GET", f"{cluster.path('deployments')}?watch=1&timeoutSeconds=1"),
        ("GET", cluster.path("secrets")),
        ("GET", "/apis/apps/v1/deployments"),
        ("POST", REVIEWS["TokenReview"]),
    ):
        body: Json | None = {} if method in ("PATCH", "POST") else None
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        with pytest.raises(ApiError) as caught:
            cluster.plane.api(method, refused, body, content_type=kind, token=token)
        assert (caught.value.status, caught.value.body["reason"]) == (403, "Forbidden"), refused
    with pytest.raises(ApiError) as caught:
        cluster.plane.api("GET", cluster.path("secrets", "x"), token=token)
    user, namespace = username(cluster, "dev"), cluster.namespace
    assert caught.value.body["message"] == (
        f'secrets "x" is forbidden: User "{user}" cannot get resource "secrets" in API group "" '
        f'in the namespace "{namespace}"'
    )


def test_an_account_is_told_who_it_is_and_what_it_may(cluster: Cluster) -> None:
    cluster.service_account("dev", {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]})
    token = cluster.plane.token_for(cluster.namespace, "dev")
    found = review(cluster, "SelfSubjectReview", {}, token=token)
    assert found["userInfo"]["username"] == username(cluster, "dev")
    attributes = {"verb": "get", "group": "apps", "resource": "deployments", "namespace": cluster.namespace}

    def may_i(verb: str) -> bool:
        spec = {"resourceAttributes": {**attributes, "verb": verb}}
        return bool(review(cluster, "SelfSubjectAccessReview", spec, token=token)["allowed"])

    cluster.wait(lambda: may_i("get"))
    assert not may_i("patch")
