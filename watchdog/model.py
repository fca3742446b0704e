"""The nouns of deciding: guards and refusals, rollouts and revisions, plans, events and results. All frozen."""

import datetime as dt
import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import NewType

import msgspec

from watchdog.objects import TemplateHash, WorkloadRef

IncidentId = NewType("IncidentId", str)

MANAGER = "rollback-watchdog"
"""Field manager, reporting controller and first word of the user agent."""


class Mode(StrEnum):
    """How far the service may go, the least first."""

    OBSERVE = "observe"
    APPROVE = "approve"
    ENFORCE = "enforce"


class Topology(StrEnum):
    """What a candidate is compared with: the ReplicaSet before it, another Deployment, or nothing beside it."""

    ROLLING = "rolling"
    CANARY = "canary"
    BLUE_GREEN = "blue-green"


class Action(StrEnum):
    """What a breach leads to."""

    UNDO = "undo"
    SCALE_DOWN = "scale-down"
    PAUSE = "pause"
    SWITCH_BACK = "switch-back"


class GuardClass(StrEnum):
    """Whom a guard binds.

    `physical` everyone; `policy` the service, and a person unless they force it; `judgement` the service only.
    """

    PHYSICAL = "physical"
    POLICY = "policy"
    JUDGEMENT = "judgement"


class Guard(StrEnum):
    """Why an action is refused: the same word in record, metric, Event, Slack and log."""

    SUPERSEDED = "superseded"
    NOT_OBSERVED = "not-observed"
    NO_TARGET = "no-target"
    NOTHING_TO_UNDO = "nothing-to-undo"
    ALREADY = "already"
    NO_CAPACITY = "no-capacity"
    PAUSED = "paused"
    RECREATE = "recreate"
    GITOPS = "gitops"
    CONDEMNED = "condemned"
    HOLD = "hold"
    KEDA = "keda"
    MODE = "mode"
    BLIND = "blind"
    BUDGET = "budget"
    COOL_DOWN = "cool-down"
    BREAKER = "breaker"
    SHARED = "shared"
    INCIDENT_FIRST = "incident-first"
    BYSTANDERS = "bystanders"
    LATE = "late"
    ONE_POD = "one-pod"
    NO_HISTORY = "no-history"
    LOOP = "loop"
    SILENCE = "silence"
    TARGET_NOT_PASSED = "target-not-passed"
    UNCONFIRMED = "unconfirmed"

    @property
    def guard_class(self) -> GuardClass:
        """Whom it binds."""
        if self in _PHYSICAL:
            return GuardClass.PHYSICAL
        return GuardClass.POLICY if self in _POLICY else GuardClass.JUDGEMENT


_PHYSICAL = frozenset(
    {
        Guard.SUPERSEDED,
        Guard.NOT_OBSERVED,
        Guard.NO_TARGET,
        Guard.NOTHING_TO_UNDO,
        Guard.ALREADY,
        Guard.NO_CAPACITY,
    }
)
_POLICY = frozenset({Guard.PAUSED, Guard.RECREATE, Guard.GITOPS, Guard.CONDEMNED, Guard.HOLD, Guard.KEDA})


class Objection(msgspec.Struct, frozen=True, omit_defaults=True):
    """A guard's no, or its wish that a person is asked (`asks`), and what it saw.

    Args:
        at: when, in a record.
        asks: it turns acting into asking; `lowers` in a record, where it is always written.
        pod: which it is about, where it is about one.
        also: where several policy guards refuse, the others.
    """

    guard: Guard
    detail: str
    at: dt.datetime | None = None
    asks: bool = msgspec.field(default_factory=bool, name="lowers")
    pod: str = ""
    also: tuple["Objection", ...] = ()

    def __str__(self) -> str:
        return "; ".join(f"{each.guard}: {each.detail}" for each in (self, *self.also))


class Outcome(StrEnum):
    """How an action or a watched rollout ended; after an action an incident ends `recovered` or `ineffective`."""

    PASSED = "passed"
    UNJUDGED = "unjudged"
    ROLLED_BACK = "rolled-back"
    SCALED_DOWN = "scaled-down"
    SWITCHED_BACK = "switched-back"
    RESTORED = "restored"
    PAUSED = "paused"
    REFUSED = "refused"
    OBSERVED = "observed"
    ALREADY = "already"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    UNDER_WAY = "under-way"
    UNPROVEN = "unproven"
    RECOVERED = "recovered"
    INEFFECTIVE = "ineffective"


class Rollout(msgspec.Struct, frozen=True):
    """A revision of a workload while it is live: what every action is about.

    `switch` is empty but for blue-green, where it tells one switch from the next: `<Service's UID>/<RFC3339 time>`.
    """

    workload: WorkloadRef
    uid: str
    revision: int
    hash: TemplateHash
    switch: str = ""

    @property
    def incident(self) -> IncidentId:
        """The id of the incident that this rollout may become.

        A name cut after a dot would not be a legal object name any more, so the dot goes too.
        """
        switched = f"/{self.switch}" if self.switch else ""
        digest = hashlib.sha256(f"{self.uid}/{self.revision}/{self.hash}{switched}".encode()).hexdigest()
        return IncidentId(f"{self.workload.name[:40].rstrip('.')}-{self.revision}-{digest[:8]}")

    @property
    def gate_incident(self) -> IncidentId:
        """The id of the record that a pipeline's gate writes of this rollout, beside the one that the service keeps."""
        return by_gate(self.incident)


def by_gate(incident: IncidentId) -> IncidentId:
    """The id of the record that a gate writes about the rollout of an incident."""
    return IncidentId(f"{incident}-gate")


class Cause(msgspec.Struct, frozen=True):
    """Who asks for an action, and why.

    Args:
        by: the API's name for the caller, or `rollback-watchdog` for the service itself.
        reason: free text, shown to people.
    """

    by: str
    reason: str


class Revision(msgspec.Struct, frozen=True):
    """One revision as a message names it."""

    number: int
    hash: TemplateHash
    replicaset: str
    images: Mapping[str, str]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The exact write of an action: one guarded JSON patch.

    Args:
        rollout: what is live and will be left.
        live: the same, as a message names it.
        patch: encoded.
        mark: the text of the mark that it writes; empty where it writes none.
        forced: the policy guards that would have refused.
    """

    rollout: Rollout
    live: Revision
    patch: bytes = b""
    mark: str = ""
    forced: tuple[Objection, ...] = ()


class Undo(Plan, frozen=True, kw_only=True):
    """Makes an older revision live again.

    Args:
        target: where it goes.
        template: the target's pod template as the server sent it; after the write, as admission let it in.
        changes: paths at which the two templates differ, for a person to read.
    """

    target: Revision
    template: msgspec.Raw
    changes: tuple[str, ...] = ()


class ScaleDown(Plan, frozen=True, kw_only=True):
    """Scales to zero; `replicas` is the count that is remembered."""

    replicas: int


class Restore(Plan, frozen=True, kw_only=True):
    """Gives a scaled-down workload its replicas back; None where somebody else has scaled it: then only the mark goes.

    The controller has copied `mark` to the live ReplicaSet.
    """

    replicas: int | None


class Pause(Plan, frozen=True, kw_only=True):
    """Stops a rolling update where it stands."""


class SwitchBack(Plan, frozen=True, kw_only=True):
    """Has a Service select the colour again that it selected before.

    Args:
        target: what was live before.
        service: name of the Service.
        colour: name of the Deployment that gets the traffic back.
        ready: its pods that are ready, and those of the live colour.
        selector: the Service's selector after the write.
    """

    target: Revision
    service: str
    colour: str
    ready: tuple[int, int]
    selector: Mapping[str, str]


class ScaleUp(Plan, frozen=True, kw_only=True):
    """Gives the colour of before its pods back, so that the traffic can follow.

    Args:
        colour: the Deployment that is scaled.
        before: its replicas now.
        replicas: its replicas after the write.
        refused: why the switch has to wait.
    """

    colour: WorkloadRef
    before: int
    replicas: int
    refused: Objection


class EventReason(StrEnum):
    """The reasons of the Events that appear on a Deployment."""

    BREACH = "RolloutBreach"
    STARTED = "RollbackStarted"
    COMPLETED = "RollbackCompleted"
    FAILED = "RollbackFailed"
    REFUSED = "RollbackRefused"
    SUPERSEDED = "RollbackSuperseded"
    SCALED_DOWN = "CanaryScaledDown"
    SWITCHED_BACK = "TrafficSwitchedBack"
    PAUSED = "RolloutPaused"
    INEFFECTIVE = "RollbackIneffective"
    STUCK = "RollbackStuck"
    PASSED = "RolloutPassed"
    UNJUDGED = "RolloutUnjudged"
    BLIND = "RolloutBlind"


class Event(msgspec.Struct, frozen=True):
    """An Event to be put on a Deployment.

    Args:
        name: deterministic, so that a repeat is a harmless 409.
        regarding: the Deployment's address.
        uid: the Deployment's UID.
        reason: what happened.
        action: what was tried.
        note: the text that `kubectl describe` shows; cut to 1,024 bytes by the adapter.
        warning: shown as Warning instead of Normal.
    """

    name: str
    regarding: WorkloadRef
    uid: str
    reason: EventReason
    action: str
    note: str
    warning: bool = False


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How an action ended.

    Args:
        refused: the guard's no, where the outcome is `refused` or `superseded` before any write.
        plan: what was written, where anything was.
        revision: the revision number that is live afterwards, where it is known.
        elapsed_s: seconds from the accepted write to the end of the verification; None without one.
        pods: why pods of the target do not run, one line each.
    """

    outcome: Outcome
    detail: str
    refused: Objection | None = None
    plan: Plan | None = None
    revision: int | None = None
    elapsed_s: float | None = None
    pods: tuple[str, ...] = ()


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert as Alertmanager tells it, by webhook or by its API.

    Args:
        fingerprint: 16 hexadecimal digits that stand for the label set; made from the labels where it is missing.
        labels: all of its labels; foreign text, never put into a query unescaped.
        starts_at: since when it fires; (fingerprint, starts_at) is its identity.
        firing: whether it fires; from its own status only, never from its group's.
        generator_url: where it comes from; foreign text, never fetched.
    """

    fingerprint: str
    labels: Mapping[str, str]
    starts_at: dt.datetime
    firing: bool
    generator_url: str = ""

    @property
    def name(self) -> str:
        """The label alertname, which hand-made alerts may lack."""
        return self.labels.get("alertname", "")


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """An active silence that names the alert `RollbackWatchdog`: somebody wants the watchdog quiet.

    Args:
        id: Alertmanager's id of it.
        matchers: what else it must match, as (label, value, is_regex, is_equal); only namespace and deployment count.
        by: who set it.
        comment: why.
        until: when it ends.
    """

    id: str
    matchers: tuple[tuple[str, str, bool, bool], ...]
    by: str
    comment: str
    until: dt.datetime
