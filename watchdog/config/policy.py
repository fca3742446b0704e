"""A policy: which workloads, how they are judged, and what a breach leads to."""

from enum import StrEnum
from typing import Annotated

import msgspec

from watchdog.config.base import MOST, PauseDuration, Seconds, Section
from watchdog.model import Action, Mode
from watchdog.objects import WorkloadRef


class GitOps(StrEnum):
    """What to do where a controller follows Git and would put the bad version back."""

    REFUSE = "refuse"
    ACT = "act"


class Signal(Section, frozen=True):
    """Something that counts bad of total.

    Args:
        bad: selector of the failures.
        good: selector of the successes, instead of `bad`.
        total: selector of all of them; never empty.
        join: label that tells the tracks apart, where series carry no pod label.
        candidate: its value on the candidate.
        stable: its value on the stable track.
    """

    total: str = ""
    bad: str = ""
    good: str = ""
    join: str = ""
    candidate: str = ""
    stable: str = ""


class RuleName(StrEnum):
    """How counts are judged."""

    SEQUENTIAL = "sequential"
    THRESHOLD = "threshold"


class Sensitivity(StrEnum):
    """The trade between speed and the blips that are forgiven; the error probability is the same."""

    QUICK = "quick"
    BALANCED = "balanced"
    PATIENT = "patient"


_BLOCKS = {Sensitivity.QUICK: 2, Sensitivity.BALANCED: 4, Sensitivity.PATIENT: 8}
_GRACE_S = {Sensitivity.QUICK: 10.0, Sensitivity.BALANCED: 30.0, Sensitivity.PATIENT: 60.0}
_LONG_STEP_S = 15.0


class Sequential(Section, frozen=True):
    """The rule `sequential`.

    Args:
        alpha: the probability that a rollout which is not worse is undone; all signals share it.
        blocks: full blocks of evidence that it takes at least, about; without it what `sensitivity` says.
    """

    alpha: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.01
    blocks: Annotated[int, msgspec.Meta(ge=1, le=MOST)] | None = None


class Threshold(Section, frozen=True):
    """The rule `threshold`.

    Args:
        max_ratio: a higher share of failures is a breach.
        max_times_stable: and, where stable pods exist, a higher multiple of theirs.
        window: over which requests are counted.
        consecutive: steps in a row.
        min_requests: fewer in the window say nothing.
        min_bad: fewer failures in the window say nothing.
    """

    max_ratio: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.05
    max_times_stable: Annotated[float, msgspec.Meta(ge=1, le=MOST)] = 2.0
    window: Seconds = Seconds(60)
    consecutive: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 2
    min_requests: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 20
    min_bad: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 5


class Conditions(Section, frozen=True):
    """The rule `conditions`.

    Args:
        enabled: whether it holds.
        crash_restarts: so many restarts with an error make a pod one that crashes.
        crash_share: such a share of candidate pods, and at least one, makes a breach.
        image_pull: so long without its image.
    """

    enabled: bool = True
    crash_restarts: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 2
    crash_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.2
    image_pull: Seconds = Seconds(120)


class EvaluationSettings(Section, frozen=True):
    """Evaluations that are posted to `POST /evaluations`, as a signal of that name.

    Args:
        enabled: whether they are taken.
        baseline: the share of them that fails as a rule, for versions with nothing to compare with.
    """

    enabled: bool = False
    baseline: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.01


class Confirm(StrEnum):
    """What an alert needs before it counts as a breach."""

    SIGNAL = "signal"
    TRUST = "trust"


class AlertSettings(Section, frozen=True):
    """How alerts are taken.

    Args:
        match: labels that stand for this policy's workload, where an alert names no Deployment and no pod.
        confirm: `signal` waits for the policy's own signal; `trust` acts on the alert alone.
        alpha_alert: what `alpha` of the rule `sequential` becomes with an alert that began after the rollout.
    """

    match: dict[str, str] = msgspec.field(default_factory=dict)
    confirm: Confirm = Confirm.SIGNAL
    alpha_alert: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.05


class Policy(Section, frozen=True):
    """Which workloads, and how they are treated: a `candidate` makes it a canary, a `service` blue-green, else rolling.

    Args:
        name: its name in messages.
        namespaces: where its workloads are.
        workloads: names of Deployments; none means all of those namespaces, except in `kube-*`, where they are named.
        stable: of a canary: name of the stable Deployment, or a selector on pod-template labels.
        candidate: of a canary: name of the candidate Deployment, or a selector.
        service: of blue-green: name of the Service whose selector says which of two workloads is live.
        opt_in: only Deployments that carry the annotation `rollback-watchdog.io/policy: <name>`.
        mode: how far the service may go.
        rule: how counts are judged.
        action: what a breach leads to; a canary's default is `scale-down`, else `undo`; blue-green has `switch-back`.
        gitops: what to do where a GitOps controller manages the workload.
        sensitivity: of the rule `sequential`, and the length of `grace`.
        grace: per candidate pod from Ready: counted, not judged; without it what `sensitivity` says.
        bake: after completion.
        max_watch: the longest a rollout is watched.
        signals: what is judged.
        sequential: the rule `sequential`.
        threshold: the rule `threshold`.
        conditions: the rule `conditions`.
        evaluations: what pipelines post, by the rule `sequential`.
        alerts: how alerts are taken.
    """

    name: str
    namespaces: tuple[str, ...]
    workloads: tuple[str, ...] = ()
    stable: str = ""
    candidate: str = ""
    service: str = ""
    opt_in: bool = False
    mode: Mode = Mode.OBSERVE
    rule: RuleName = RuleName.SEQUENTIAL
    sensitivity: Sensitivity = Sensitivity.BALANCED
    action: Action | None = None
    gitops: GitOps = GitOps.REFUSE
    grace: PauseDuration | None = None
    bake: Seconds = Seconds(900)
    max_watch: Seconds = Seconds(7200)
    signals: dict[str, Signal] = msgspec.field(default_factory=dict)
    sequential: Sequential = Sequential()
    threshold: Threshold = Threshold()
    conditions: Conditions = Conditions()
    evaluations: EvaluationSettings = EvaluationSettings()
    alerts: AlertSettings = AlertSettings()

    @property
    def grace_s(self) -> float:
        """Seconds from Ready for which a candidate pod is not judged."""
        return _GRACE_S[self.sensitivity] if self.grace is None else float(self.grace)

    def blocks(self, step_s: float) -> int:
        """How many full blocks of evidence the rule `sequential` takes at least, on a grid."""
        if self.sequential.blocks is not None:
            return self.sequential.blocks
        return _BLOCKS[self.sensitivity] * (1 if step_s >= _LONG_STEP_S else 2)

    @property
    def judged(self) -> int:
        """Among how many signals `alpha` is shared."""
        return len(self.signals) + self.evaluations.enabled

    @property
    def selects(self) -> bool:
        """Whether a track is found by a selector, and so cannot be known by name."""
        return "=" in self.stable or "=" in self.candidate

    @property
    def named(self) -> tuple[str, ...] | None:
        """The workloads that are named; None where all are meant that there are."""
        if self.candidate:
            return tuple(name for name in (self.stable, self.candidate) if "=" not in name)
        return self.workloads or None

    def matches(self, ref: WorkloadRef) -> bool:
        """Whether this policy is about a workload, as far as its name tells."""
        return ref.namespace in self.namespaces and (self.named is None or ref.name in self.named)
