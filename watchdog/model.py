"""The nouns of deciding: guards and refusals, rollouts and revisions, plans, events and results. All frozen."""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import NewType

import msgspec

from watchdog.objects import TemplateHash, WorkloadRef

IncidentId = NewType("IncidentId", str)

MANAGER = "rollback-watchdog"
"""Field manager, reporting controller and first word of the user agent."""


class GuardClass(StrEnum):
    """Whom a guard binds: `physical` everyone, `policy` the service, and a person unless they force it."""

    PHYSICAL = "physical"
    POLICY = "policy"


class Guard(StrEnum):
    """Why an action is refused: the same word in record, metric, Event, Slack and log."""

    SUPERSEDED = "superseded"
    NOT_OBSERVED = "not-observed"
    NO_TARGET = "no-target"
    NOTHING_TO_UNDO = "nothing-to-undo"
    PAUSED = "paused"
    RECREATE = "recreate"
    GITOPS = "gitops"
    CONDEMNED = "condemned"
    HOLD = "hold"
    KEDA = "keda"

    @property
    def guard_class(self) -> GuardClass:
        """Whom it binds."""
        physical = {Guard.SUPERSEDED, Guard.NOT_OBSERVED, Guard.NO_TARGET, Guard.NOTHING_TO_UNDO}
        return GuardClass.PHYSICAL if self in physical else GuardClass.POLICY


class Refused(msgspec.Struct, frozen=True):
    """A guard's no, and what it saw. Where several policy guards refuse, `also` holds the others."""

    guard: Guard
    detail: str
    also: tuple["Refused", ...] = ()

    def __str__(self) -> str:
        return "; ".join(f"{refusal.guard}: {refusal.detail}" for refusal in (self, *self.also))


class Outcome(StrEnum):
    """How an action ended."""

    ROLLED_BACK = "rolled-back"
    SCALED_DOWN = "scaled-down"
    RESTORED = "restored"
    PAUSED = "paused"
    REFUSED = "refused"
    SUPERSEDED = "superseded"
    FAILED = "failed"


class Rollout(msgspec.Struct, frozen=True):
    """A revision of a workload while it is live: what every action is about."""

    workload: WorkloadRef
    uid: str
    revision: int
    hash: TemplateHash

    @property
    def incident(self) -> IncidentId:
        """The id of the incident that this rollout may become (DESIGN §2).

        A name cut after a dot would not be a legal object name any more, so the dot goes too.
        """
        digest = hashlib.sha256(f"{self.uid}/{self.revision}/{self.hash}".encode()).hexdigest()
        return IncidentId(f"{self.workload.name[:40].rstrip('.')}-{self.revision}-{digest[:8]}")


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


class Undo(msgspec.Struct, frozen=True):
    """The exact writes of an undo.

    Args:
        rollout: what is live and will be left.
        live: the same, as a message names it.
        target: where it goes.
        template: the target's pod template as the server sent it.
        patch: the one guarded JSON patch, encoded.
        mark: the text of the mark that it writes.
        changes: paths at which the two templates differ, for a person to read.
        forced: the policy guards that would have refused.
    """

    rollout: Rollout
    live: Revision
    target: Revision
    template: msgspec.Raw
    patch: bytes
    mark: str
    changes: tuple[str, ...] = ()
    forced: tuple[Refused, ...] = ()


class ScaleDown(msgspec.Struct, frozen=True):
    """The exact writes of a scale-down to zero. `replicas` is the count that is remembered, `mark` as for `Undo`."""

    rollout: Rollout
    live: Revision
    replicas: int
    patch: bytes
    mark: str
    forced: tuple[Refused, ...] = ()


class Restore(msgspec.Struct, frozen=True):
    """The exact writes that give a scaled-down workload its replicas back.

    `replicas` is None where somebody else has scaled it since: then only the mark goes. `mark` is its text, which the
    controller has copied to the live ReplicaSet.
    """

    rollout: Rollout
    live: Revision
    replicas: int | None
    patch: bytes
    mark: str


class Pause(msgspec.Struct, frozen=True):
    """The exact writes that stop a rolling update where it stands."""

    rollout: Rollout
    live: Revision
    patch: bytes
    forced: tuple[Refused, ...] = ()


Plan = Undo | ScaleDown | Restore | Pause


class EventReason(StrEnum):
    """The reasons of the Events that appear on a Deployment."""

    STARTED = "RollbackStarted"
    COMPLETED = "RollbackCompleted"
    FAILED = "RollbackFailed"
    REFUSED = "RollbackRefused"
    SUPERSEDED = "RollbackSuperseded"
    SCALED_DOWN = "CanaryScaledDown"
    PAUSED = "RolloutPaused"


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
        outcome: one word.
        detail: one sentence.
        refused: the guard's no, where the outcome is `refused` or `superseded` before any write.
        plan: what was written, where anything was.
        revision: the revision number that is live afterwards, where it is known.
        elapsed_s: seconds from the accepted write to the end of the verification; None without one.
        pods: why pods of the target do not run, one line each.
    """

    outcome: Outcome
    detail: str
    refused: Refused | None = None
    plan: Plan | None = None
    revision: int | None = None
    elapsed_s: float | None = None
    pods: tuple[str, ...] = ()
