"""What the API says of itself, as far as kubectl asks."""

from typing import Any

from watchdog.sandbox.resources import RESOURCES, Resource

Json = dict[str, Any]

_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
_REVIEWS = {
    ("authentication.k8s.io", "v1"): {
        "tokenreviews": "TokenReview",
        "selfsubjectreviews": "SelfSubjectReview",
    },
    ("authorization.k8s.io", "v1"): {
        "subjectaccessreviews": "SubjectAccessReview",
        "selfsubjectaccessreviews": "SelfSubjectAccessReview",
    },
}
VERSION: Json = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.0-rollback-watchdog-sandbox",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "",
}


def document(path: str) -> Json | None:
    """The answer to a path of discovery; None for any other path."""
    match path.strip("/").split("/"):
        case ["version"]:
            return VERSION
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["api", "v1"]:
            return _resources("", "v1")
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*each) for each in _groups()]}
        case ["apis", group] if found := [each for each in _groups() if each[0] == group]:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(*found[0])}
        case ["apis", group, version] if (group, version) in _groups():
            return _resources(group, version)
        case ["openapi", "v3"]:
            return {"paths": {_base(*each): {"serverRelativeURL": f"/openapi/v3/{_base(*each)}"} for each in _all()}}
        case ["openapi", "v3", *rest]:
            found = [each for each in _all() if _base(*each) == "/".join(rest)]
            return _openapi(*found[0]) if found else None
    return None


def _groups() -> list[tuple[str, str]]:
    named = {(kind.group, kind.version): None for kind in RESOURCES.values() if kind.group}
    return [*named, *_REVIEWS]


def _all() -> list[tuple[str, str]]:
    return [("", "v1"), *_groups()]


def _base(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _group(group: str, version: str) -> Json:
    entry = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [entry], "preferredVersion": entry}


def _kinds(group: str, version: str) -> list[Resource]:
    return [kind for kind in RESOURCES.values() if (kind.group, kind.version) == (group, version)]


def _resources(group: str, version: str) -> Json:
    listed: list[Json] = []
    for kind in _kinds(group, version):
        entry: Json = {"name": kind.name, "singularName": kind.singular, "namespaced": kind.namespaced}
        listed.append({**entry, "kind": kind.kind, "verbs": _VERBS, "shortNames": list(kind.short)})
        for subresource in kind.subresources:
            below: Json = {"name": f"{kind.name}/{subresource}", "singularName": "", "namespaced": kind.namespaced}
            below |= {"kind": kind.kind, "verbs": ["get", "patch", "update"]}
            if subresource == "scale":
                below |= {"group": "autoscaling", "version": "v1", "kind": "Scale"}
            listed.append(below)
    for name, kind_name in _REVIEWS.get((group, version), {}).items():
        listed.append({"name": name, "singularName": "", "namespaced": False, "kind": kind_name, "verbs": ["create"]})
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": listed,
    }


def _openapi(group: str, version: str) -> Json:
    """Enough for kubectl to see that the server checks fields itself; it then needs no schemas."""
    parameter = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
    paths: Json = {}
    for kind in _kinds(group, version):
        where = "/namespaces/{namespace}" if kind.namespaced else ""
        named = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        patch = {"parameters": [parameter], "x-kubernetes-group-version-kind": named, "responses": {}}
        paths[f"/{_base(group, version)}{where}/{kind.name}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.0"}, "paths": paths}
