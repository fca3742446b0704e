"""What Roles allow: an account may do what a Role says that a RoleBinding of the same namespace gives it.

There are no ClusterRoles here, so whatever has no namespace is the administrator's.
"""

from typing import Any

from watchdog.sandbox.store import Store

Json = dict[str, Any]


def allowed(store: Store, user: str, attributes: Json) -> bool:
    """Whether a user may do what the resource attributes of a SubjectAccessReview say.

    Args:
        store: where the Roles are.
        user: such as ``system:serviceaccount:shop:deployer``.
        attributes: verb, group, resource, subresource, namespace and name; what is missing is empty.
    """
    namespace = attributes.get("namespace", "")
    for binding in store.list("rolebindings", namespace) if namespace else ():
        if any(_username(subject) == user for subject in binding.get("subjects") or ()):
            role = store.find("roles", namespace, binding["roleRef"]["name"])
            if role and any(_covers(rule, attributes) for rule in role.get("rules") or ()):
                return True
    return False


def _username(subject: Json) -> str:
    name: str = subject["name"]
    match subject["kind"]:
        case "ServiceAccount":
            return f"system:serviceaccount:{subject['namespace']}:{name}"
        case "User":
            return name
    return ""


def _covers(rule: Json, attributes: Json) -> bool:
    resource = "/".join(filter(None, (attributes.get("resource", ""), attributes.get("subresource", ""))))
    names = rule.get("resourceNames")
    return (
        _has(rule, "verbs", attributes.get("verb", ""))
        and _has(rule, "apiGroups", attributes.get("group", ""))
        and _has(rule, "resources", resource)
        and (not names or attributes.get("name", "") in names)
    )


def _has(rule: Json, field: str, value: str) -> bool:
    return bool({value, "*"} & set(rule.get(field) or ()))
