"""Kubernetes objects as far as they matter here, in the API's own spelling.

Everything is frozen. The structs name only the fields that are read, so that decoding is fast and an unknown field of
a newer server does no harm; a pod template stays the raw JSON that the server sent, because a template rebuilt from
models silently loses what the models do not know (reference/kubernetes.md §3.5).
"""

import datetime as dt
import re
from collections.abc import Mapping
from typing import NewType

import msgspec

TemplateHash = NewType("TemplateHash", str)

REVISION = "deployment.kubernetes.io/revision"
CHANGE_CAUSE = "kubernetes.io/change-cause"
HASH_LABEL = "pod-template-hash"

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NUMBER = re.compile(r"\+?0*[0-9]{1,19}")
_LARGEST = 2**63 - 1


def is_name(text: str) -> bool:
    """Whether Kubernetes could have an object of this name; nothing else may come into a URL's path."""
    return _NAME.fullmatch(text) is not None


class WorkloadRef(msgspec.Struct, frozen=True, order=True):
    """A Deployment's address."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class _Object(msgspec.Struct, frozen=True, rename="camel"):
    """A struct in the API's own spelling."""


def revision_number(metadata: "Metadata") -> int | None:
    """The revision number of a Deployment or ReplicaSet; None where it has none above zero that Go could read."""
    text = metadata.annotations.get(REVISION, "")
    number = int(text.lstrip("+0") or "0") if _NUMBER.fullmatch(text) else 0  # Python reads no 5,000 leading zeros
    return number if 0 < number <= _LARGEST else None


class OwnerReference(_Object, frozen=True):
    """Who an object belongs to."""

    uid: str
    kind: str = ""
    name: str = ""
    controller: bool = False


class ManagedFields(_Object, frozen=True):
    """One manager's fields; `fields_v1` is decoded only where a question needs it."""

    manager: str = ""
    operation: str = ""
    time: dt.datetime | None = None
    fields_v1: msgspec.Raw = msgspec.Raw(b"{}")

    def __post_init__(self) -> None:
        # A Raw is a window into the whole response, which it would keep alive.
        msgspec.structs.force_setattr(self, "fields_v1", self.fields_v1.copy())


class Metadata(_Object, frozen=True):
    """Object metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: dt.datetime | None = None
    deletion_timestamp: dt.datetime | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    managed_fields: tuple[ManagedFields, ...] = ()


class Requirement(_Object, frozen=True):
    """One expression of a label selector."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it holds of these labels."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels
        return False


class LabelSelector(_Object, frozen=True):
    """A label selector; `str()` gives the form that the API's query parameter takes."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[Requirement, ...] = ()

    def __str__(self) -> str:
        parts = [f"{key}={value}" for key, value in sorted(self.match_labels.items())]
        for term in self.match_expressions:
            match term.operator:
                case "Exists":
                    parts.append(term.key)
                case "DoesNotExist":
                    parts.append(f"!{term.key}")
                case operator:
                    parts.append(f"{term.key} {operator.lower()} ({','.join(term.values)})")
        return ",".join(parts)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it finds an object with these labels; an operator that nobody knows finds nothing."""
        return self.match_labels.items() <= labels.items() and all(
            term.matches(labels) for term in self.match_expressions
        )


class Strategy(_Object, frozen=True):
    """How a Deployment replaces its pods."""

    type: str = "RollingUpdate"


class DeploymentSpec(_Object, frozen=True):
    """What is wanted."""

    selector: LabelSelector
    template: msgspec.Raw
    replicas: int = 1
    strategy: Strategy = Strategy()
    paused: bool = False
    revision_history_limit: int = 10

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "template", self.template.copy())


class Condition(_Object, frozen=True):
    """A Deployment's or pod's condition."""

    type: str
    status: str = ""
    reason: str = ""
    last_transition_time: dt.datetime | None = None
    last_update_time: dt.datetime | None = None


class DeploymentStatus(_Object, frozen=True):
    """What the controller has seen and done."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    conditions: tuple[Condition, ...] = ()


class Deployment(_Object, frozen=True):
    """A Deployment of apps/v1."""

    metadata: Metadata
    spec: DeploymentSpec
    status: DeploymentStatus = DeploymentStatus()

    @property
    def ref(self) -> WorkloadRef:
        """Its address."""
        return WorkloadRef(self.metadata.namespace, self.metadata.name)


class ReplicaSetSpec(_Object, frozen=True):
    """What is wanted of one revision."""

    template: msgspec.Raw
    replicas: int = 1

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "template", self.template.copy())


class ReplicaSet(_Object, frozen=True):
    """A ReplicaSet of apps/v1: one revision of a Deployment."""

    metadata: Metadata
    spec: ReplicaSetSpec

    @property
    def hash(self) -> TemplateHash:
        """The pod-template-hash that the controller gave it; empty where it carries none."""
        return TemplateHash(self.metadata.labels.get(HASH_LABEL, ""))

    @property
    def revision(self) -> int | None:
        """Its revision number."""
        return revision_number(self.metadata)


class ContainerState(_Object, frozen=True):
    """What a container waits for, or how it ended."""

    reason: str = ""
    exit_code: int = 0
    finished_at: dt.datetime | None = None


class ContainerStates(_Object, frozen=True):
    """The states of a container that explain why it does not run."""

    waiting: ContainerState | None = None
    terminated: ContainerState | None = None


class ContainerStatus(_Object, frozen=True):
    """What the kubelet says of one container."""

    name: str
    image_id: str = msgspec.field(default="", name="imageID")
    restart_count: int = 0
    state: ContainerStates = ContainerStates()
    last_state: ContainerStates = ContainerStates()


class PodStatus(_Object, frozen=True):
    """What the kubelet says of a pod."""

    phase: str = ""
    reason: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    start_time: dt.datetime | None = None
    conditions: tuple[Condition, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class ContainerPort(_Object, frozen=True):
    """A port that a container declares."""

    container_port: int
    protocol: str = "TCP"


class Container(_Object, frozen=True):
    """A container as far as it is spoken to."""

    name: str
    ports: tuple[ContainerPort, ...] = ()


class PodSpec(_Object, frozen=True):
    """Where a pod runs, and what runs in it."""

    node_name: str = ""
    containers: tuple[Container, ...] = ()


class Pod(_Object, frozen=True):
    """A pod."""

    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class ScaleTarget(_Object, frozen=True):
    """What an autoscaler scales."""

    kind: str
    name: str


class AutoscalerSpec(_Object, frozen=True):
    """What an autoscaler does."""

    scale_target_ref: ScaleTarget


class Autoscaler(_Object, frozen=True):
    """A HorizontalPodAutoscaler of autoscaling/v2."""

    metadata: Metadata
    spec: AutoscalerSpec


class ServiceSpec(_Object, frozen=True):
    """Where a Service sends traffic."""

    selector: dict[str, str] = {}


class Service(_Object, frozen=True):
    """A Service of v1."""

    metadata: Metadata
    spec: ServiceSpec = ServiceSpec()

    @property
    def ref(self) -> "ServiceRef":
        """Its address."""
        return ServiceRef(self.metadata.namespace, self.metadata.name)

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether pods with these labels get its traffic; without a selector none do."""
        return bool(self.spec.selector) and self.spec.selector.items() <= labels.items()


class ServiceRef(msgspec.Struct, frozen=True, order=True):
    """A Service's address."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ConfigMap(_Object, frozen=True):
    """A ConfigMap: the only store."""

    metadata: Metadata
    data: dict[str, str] = {}


class Snapshot(msgspec.Struct, frozen=True):
    """A Deployment and the ReplicaSets that its selector finds, read in this order."""

    deployment: Deployment
    replicasets: tuple[ReplicaSet, ...]
