"""Kubernetes objects as far as they matter here, in the API's own spelling.

Everything is frozen. The structs name only the fields that are read, so that decoding is fast and an unknown field of
a newer server does no harm; a pod template stays the raw JSON that the server sent, because a template rebuilt from
models silently loses what the models do not know (docs/design/kubernetes.md, Watches).
"""

import datetime as dt
import hashlib
import re
from collections.abc import Mapping
from typing import NewType

import msgspec

from watchdog.decoding import Moment, Whole, any_json, converted, in_range, moment

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


def _must_be_in_range(*times: dt.datetime | None) -> None:
    if not in_range(*times):
        raise ValueError("a time is out of range")


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
    """One manager's fields; `fields_v1` is decoded only where a question needs it.

    Whoever may write an object may write this, and any time that Go can read: one of the year 0 too.
    """

    manager: str = ""
    operation: str = ""
    written: str | None = msgspec.field(default=None, name="time")
    fields_v1: msgspec.Raw = msgspec.Raw(b"{}")

    def __post_init__(self) -> None:
        # A Raw is a window into the whole response, which it would keep alive.
        msgspec.structs.force_setattr(self, "fields_v1", self.fields_v1.copy())

    @property
    def time(self) -> dt.datetime | None:
        """When the manager last wrote; None where that is no time to reckon with."""
        return moment(self.written or "")


class Metadata(_Object, frozen=True):
    """Object metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: Whole = 0
    creation_timestamp: Moment | None = None
    deletion_timestamp: Moment | None = None
    deletion_grace_period_seconds: Whole | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    managed_fields: tuple[ManagedFields, ...] = ()

    def __post_init__(self) -> None:
        if not all(is_name(text) for text in (self.name, self.namespace) if text):  # they go into paths
            raise ValueError("a name is none of Kubernetes")
        _must_be_in_range(self.creation_timestamp, self.deletion_timestamp)


class Requirement(_Object, frozen=True):
    """One expression of a label selector."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it holds of these labels."""
        given, there = labels.get(self.key) in self.values, self.key in labels
        holds = {"In": given, "NotIn": not given, "Exists": there, "DoesNotExist": not there}
        return holds.get(self.operator, False)


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


class _TemplateMetadata(_Object, frozen=True):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Named(_Object, frozen=True):
    name: str
    image: str = ""


class _TemplateSpec(_Object, frozen=True):
    init_containers: tuple[_Named, ...] | None = None
    containers: tuple[_Named, ...] | None = None


class _Template(_Object, frozen=True):
    """As much of a pod template's shape as its readers rely on."""

    metadata: _TemplateMetadata | None = None
    spec: _TemplateSpec | None = None


_MOST_SOUND = 32_768
_sound_templates: dict[bytes, None] = {}


def _template(raw: msgspec.Raw) -> msgspec.Raw:
    """A copy of a pod template as the server sent it; one that nobody could read is refused here, and nowhere later."""
    text = bytes(raw)
    key = hashlib.sha256(text).digest()
    if key not in _sound_templates:  # the same ones come with every list
        converted(any_json(text), _Template)
        if len(_sound_templates) >= _MOST_SOUND:
            del _sound_templates[next(iter(_sound_templates))]
        _sound_templates[key] = None
    return raw.copy()


class DeploymentSpec(_Object, frozen=True):
    """What is wanted."""

    selector: LabelSelector
    template: msgspec.Raw
    replicas: Whole = 1
    strategy: Strategy = Strategy()
    paused: bool = False
    revision_history_limit: Whole = 10
    min_ready_seconds: Whole = 0
    progress_deadline_seconds: Whole | None = None

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "template", _template(self.template))


class Condition(_Object, frozen=True):
    """A Deployment's or pod's condition."""

    type: str
    status: str = ""
    reason: str = ""
    last_transition_time: Moment | None = None
    last_update_time: Moment | None = None

    def __post_init__(self) -> None:
        _must_be_in_range(self.last_transition_time, self.last_update_time)


class DeploymentStatus(_Object, frozen=True):
    """What the controller has seen and done."""

    observed_generation: Whole = 0
    replicas: Whole = 0
    updated_replicas: Whole = 0
    available_replicas: Whole = 0
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
    replicas: Whole = 1

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "template", _template(self.template))


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
    exit_code: Whole = 0
    finished_at: Moment | None = None

    def __post_init__(self) -> None:
        _must_be_in_range(self.finished_at)


class ContainerStates(_Object, frozen=True):
    """The states of a container that explain why it does not run."""

    waiting: ContainerState | None = None
    terminated: ContainerState | None = None


class ContainerStatus(_Object, frozen=True):
    """What the kubelet says of one container."""

    name: str
    image_id: str = msgspec.field(default="", name="imageID")
    restart_count: Whole = 0
    state: ContainerStates = ContainerStates()
    last_state: ContainerStates = ContainerStates()


class PodStatus(_Object, frozen=True):
    """What the kubelet says of a pod."""

    phase: str = ""
    reason: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    start_time: Moment | None = None
    conditions: tuple[Condition, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()

    def __post_init__(self) -> None:
        _must_be_in_range(self.start_time)


class ContainerPort(_Object, frozen=True):
    """A port that a container declares."""

    container_port: Whole
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
    def ref(self) -> WorkloadRef:
        """Its address."""
        return WorkloadRef(self.metadata.namespace, self.metadata.name)

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether pods with these labels get its traffic; without a selector none do."""
        return bool(self.spec.selector) and self.spec.selector.items() <= labels.items()


class ConfigMap(_Object, frozen=True):
    """A ConfigMap: the only store."""

    metadata: Metadata
    data: dict[str, str] = {}


class Snapshot(msgspec.Struct, frozen=True):
    """A Deployment and the ReplicaSets that its selector finds, read in this order."""

    deployment: Deployment
    replicasets: tuple[ReplicaSet, ...]
