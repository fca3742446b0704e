"""The record of a rollout under watch: what the cluster stores of it, and what every message is written from.

One ConfigMap or Secret each, created at the rollout's start. It holds what a next process cannot learn from
Kubernetes and Prometheus, and what a person wants to know afterwards. Times are RFC3339.
"""

import datetime as dt
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from watchdog.judge.blocks import Block, PodTimeline
from watchdog.judge.evaluations import Evaluation
from watchdog.judge.sequential import SequentialSettings
from watchdog.model import Action, IncidentId, Mode, Objection, Outcome, Rollout, Topology
from watchdog.objects import TemplateHash, WorkloadRef

SCHEMA = 1


class State(StrEnum):
    """Where a rollout stands; `decide.incident` has the transitions."""

    WATCHING = "watching"
    BREACH = "breach"
    ASKING = "asking"
    ACTING = "acting"
    VERIFYING = "verifying"
    ENDED = "ended"


BEFORE_ACTING = (State.WATCHING, State.BREACH, State.ASKING)
"""A rollout is judged, and nothing is decided yet."""

UNWRITTEN = (*BEFORE_ACTING, State.ACTING)
"""Nothing is known to be written yet."""


class SignalUsed(msgspec.Struct, frozen=True):
    """What was asked of Prometheus for one signal."""

    name: str
    bad: str
    total: str


class VerdictSeen(msgspec.Struct, frozen=True):
    """A verdict that differed from the one before, and when."""

    at: dt.datetime
    status: str = msgspec.field(name="word")
    detail: str
    cause: str = ""
    signal: str = ""


class AlertSeen(msgspec.Struct, frozen=True):
    """An alert about this workload, and what became of it: `attributed`, `before-rollout`, `resolved`.

    Args:
        fingerprint: Alertmanager's name for its labels.
        name: its `alertname`.
        starts_at: since when Alertmanager has it firing.
        what: what became of it.
        onset: when its expression began to hold, where that is known.
        from_step: of one that was attributed, the first step that was judged with it.
        until_step: of the same, once resolved, the first step that was judged without it.
    """

    fingerprint: str
    name: str
    starts_at: dt.datetime
    what: str
    onset: dt.datetime | None = None
    from_step: int = 0
    until_step: int = 0

    def speaks(self, step: int) -> bool:
        """Whether a step is judged with it: the same when it is lived through and when it is replayed."""
        return self.from_step <= step and (self.what == "attributed" or step < self.until_step)


class DecisionCounts(msgspec.Struct, frozen=True):
    """The counts at the moment of the decision."""

    candidate_bad: float
    candidate_total: float
    stable_bad: float
    stable_total: float


class Switched(msgspec.Struct, frozen=True):
    """A switch of a blue-green Service.

    Args:
        service: its name.
        uid: its UID.
        before: its selector before the switch; empty where that is not known.
        after: its selector after it.
        replicas: how many replicas the colour of before had.
    """

    service: str
    uid: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    replicas: int


class Planned(msgspec.Struct, frozen=True):
    """What was decided: from which revision to which, and why.

    Args:
        action: what is done.
        from_revision: what is left.
        from_hash: its hash.
        to_revision: where it goes; the same where no template changes, 0 where it is not known yet.
        to_hash: its hash; empty where it is not known yet.
        cause: what found the breach.
        numbers: the counts of that moment.
        target_images: images of the target by container, for people.
        condemned: images by container in which the two differ: image ids, where the kubelet told them.
    """

    action: Action
    from_revision: int
    from_hash: TemplateHash
    to_revision: int
    to_hash: TemplateHash
    cause: str
    numbers: DecisionCounts | None = None
    target_images: Mapping[str, str] = {}
    condemned: Mapping[str, str] = {}


class Written(msgspec.Struct, frozen=True):
    """One write to the cluster on behalf of this rollout."""

    at: dt.datetime
    what: str


class Tried(msgspec.Struct, frozen=True):
    """A write that was not accepted so far.

    Args:
        since: when it was tried first.
        until: when it is given up.
        times: how often it was tried.
        noes: how many of the answers were noes that rarely pass.
        by: who refused, as `watchdog.errors.NotAdmitted` names it; empty where nobody is named.
    """

    since: dt.datetime
    until: dt.datetime
    times: int
    noes: int
    by: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What a person said, `approve` or `dismiss`, and via what."""

    answer: str
    by: str
    at: dt.datetime
    via: str = msgspec.field(name="way")


class Notified(msgspec.Struct, frozen=True):
    """The Slack message of this incident, and what it said last.

    Args:
        channel: the channel's id.
        ts: the message's timestamp, which is its id.
        digest: of the text that it shows.
        details: digests of what stands in its thread.
    """

    channel: str
    ts: str
    digest: str = msgspec.field(default="", name="said")
    details: tuple[str, ...] = ()


class EvidenceStatus(msgspec.Struct, frozen=True):
    """Where one control of the rule `sequential` stands.

    Args:
        control: which.
        log_e: its evidence.
        bar: what it needs without alerts.
        onset_step: when the failure seems to have begun.
        reached: the bar that it has reached, if it has; a lower one with an alert.
    """

    control: str
    log_e: float
    bar: float
    onset_step: int | None = None
    reached: float | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rollout under watch.

    Args:
        schema: version of this form.
        id: the incident's id, which is that of the rollout.
        rollout: what is watched.
        policy: the policy's name.
        policy_digest: of the policy's settings at the start.
        topology: what it is compared with.
        mode: how far the service may go, frozen downwards only.
        state: where it stands.
        started: when its first candidate pod was created.
        completed: when the rollout was complete.
        ended: when the watch ended.
        action: what a breach leads to.
        images: of the live revision, by container.
        stable: the workload on the other side; the same one for `rolling`.
        stable_hash: the hash that was live there when the rollout began; empty where there was none.
        switched: the switch of blue-green, which is what the rollout is.
        signals: what was asked of Prometheus.
        incident_first: why the workload was already failing when the rollout began; empty where it was not.
        bad_known: by signal: whether `bad` was seen in the 7 days before.
        test_settings: by signal: what the rule `sequential` is held to; empty under another rule.
        lowest: by signal: requests of the quietest two minutes of the day before, where that is known.
        evaluated_by: what posted evaluations are held to; None where none are taken.
        evaluations: those that were posted, oldest first.
        evidence: by signal: where it stood after the newest block.
        pods: facts that Prometheus does not know.
        blocks: by signal, oldest first.
        verdicts: changes only.
        objections: of every guard that spoke; `vetoes` in the stored form.
        alerts: about this workload.
        plan: what was decided.
        tried: what became of the action's write while it was not accepted; None where it was, or was not tried.
        writes: what was written.
        write_at: when the action's write was accepted.
        stuck: why pods of the target were not ready a minute after they were to be; empty where they were.
        verified: one sentence about the workload after the action.
        verified_at: when the action's rollout was complete.
        asked: when a person was asked.
        people: what people said.
        outcome: how it ended.
        detail: the outcome in one sentence.
        notified: the Slack message; `told` in the stored form.
        proofs: digests of the nonces that the service's own writes carry (`marks.digest`).
    """

    schema: int = SCHEMA
    id: IncidentId
    rollout: Rollout
    policy: str
    policy_digest: str
    topology: Topology
    mode: Mode
    action: Action
    started: dt.datetime
    state: State = State.WATCHING
    completed: dt.datetime | None = None
    ended: dt.datetime | None = None
    images: Mapping[str, str] = {}
    stable: WorkloadRef | None = None
    stable_hash: TemplateHash = TemplateHash("")
    switched: Switched | None = None
    signals: tuple[SignalUsed, ...] = ()
    incident_first: str = ""
    bad_known: Mapping[str, bool] = {}
    test_settings: Mapping[str, SequentialSettings] = msgspec.field(default_factory=dict, name="judged_by")
    lowest: Mapping[str, float] = {}
    evaluated_by: SequentialSettings | None = None
    evaluations: tuple[Evaluation, ...] = ()
    evidence: Mapping[str, tuple[EvidenceStatus, ...]] = {}
    pods: tuple[PodTimeline, ...] = ()
    blocks: Mapping[str, tuple[Block, ...]] = {}
    verdicts: tuple[VerdictSeen, ...] = ()
    objections: tuple[Objection, ...] = msgspec.field(default=(), name="vetoes")
    alerts: tuple[AlertSeen, ...] = ()
    plan: Planned | None = None
    tried: Tried | None = None
    writes: tuple[Written, ...] = ()
    write_at: dt.datetime | None = None
    stuck: str = ""
    verified: str = ""
    verified_at: dt.datetime | None = None
    asked: dt.datetime | None = None
    people: tuple[Answer, ...] = ()
    outcome: Outcome | None = None
    detail: str = ""
    notified: Notified | None = msgspec.field(default=None, name="told")
    proofs: tuple[str, ...] = ()

    @property
    def workload(self) -> WorkloadRef:
        """The workload's address."""
        return self.rollout.workload

    @property
    def urgent(self) -> bool:
        """Whether an attributable alert speaks for a breach, too."""
        return any(alert.what == "attributed" for alert in self.alerts)

    @property
    def incident(self) -> bool:
        """Whether it was ever in breach."""
        return (
            self.state in {State.BREACH, State.ASKING, State.ACTING, State.VERIFYING}
            or self.outcome
            not in {
                None,
                Outcome.PASSED,
                Outcome.UNJUDGED,
                Outcome.SUPERSEDED,
            }
            or self.plan is not None
        )


_LONG = ("blocks", "pods", "test_settings", "evaluations")
"""What most of a record is, and no guard, message or list of an ended one asks for."""


def thinned(record: Record) -> Record:
    """Give a record without what is long in it."""
    return msgspec.structs.replace(record, **{name: type(getattr(record, name))() for name in _LONG})


def restored(record: Record, stored: Record) -> Record:
    """Give a thinned record with what is long in it, from one that is whole."""
    return msgspec.structs.replace(record, **{name: getattr(stored, name) for name in _LONG})
