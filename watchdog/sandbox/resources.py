"""The kinds of object that the sandbox knows, by the name they have in URLs."""

import msgspec


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """One kind.

    Args:
        name: plural, as in URLs.
        kind: as in objects.
        group: the API group; empty for the core.
        version: of the group.
        namespaced: whether objects live in namespaces.
        short: names that kubectl takes for it.
        subresources: what can be addressed below an object.
        bumps: top-level fields whose change is a new generation; a path's last part is below ``metadata``.
    """

    name: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    bumps: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """As in objects: ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        """As kubectl prints it."""
        return self.kind.lower()


# Annotations of a Deployment count as much as its spec, because the controller copies them (docs/design b1).
RESOURCES: dict[str, Resource] = {
    resource.name: resource
    for resource in (
        Resource(name="configmaps", kind="ConfigMap", short=("cm",)),
        Resource(name="endpoints", kind="Endpoints", short=("ep",)),
        Resource(name="namespaces", kind="Namespace", short=("ns",), namespaced=False, subresources=("status",)),
        Resource(name="nodes", kind="Node", short=("no",), namespaced=False, subresources=("status",)),
        Resource(name="pods", kind="Pod", short=("po",), subresources=("status",), bumps=("spec",)),
        Resource(name="secrets", kind="Secret"),
        Resource(name="serviceaccounts", kind="ServiceAccount", short=("sa",)),
        Resource(name="services", kind="Service", short=("svc",), subresources=("status",)),
        Resource(
            name="deployments",
            kind="Deployment",
            group="apps",
            short=("deploy",),
            subresources=("scale", "status"),
            bumps=("spec", "annotations"),
        ),
        Resource(
            name="replicasets",
            kind="ReplicaSet",
            group="apps",
            short=("rs",),
            subresources=("scale", "status"),
            bumps=("spec",),
        ),
        Resource(
            name="horizontalpodautoscalers",
            kind="HorizontalPodAutoscaler",
            group="autoscaling",
            version="v2",
            short=("hpa",),
            subresources=("status",),
        ),
        Resource(name="leases", kind="Lease", group="coordination.k8s.io"),
        Resource(name="events", kind="Event", group="events.k8s.io", short=("ev",)),
        Resource(name="roles", kind="Role", group="rbac.authorization.k8s.io"),
        Resource(name="rolebindings", kind="RoleBinding", group="rbac.authorization.k8s.io"),
    )
}
