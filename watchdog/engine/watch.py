"""One rollout under watch: what is asked for it, and the fold from readings to a verdict."""

import datetime as dt
import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from watchdog.config import Policy, Signal
from watchdog.decide import marks
from watchdog.decide.record import EvidenceStatus, Record, SignalUsed
from watchdog.engine.baselines import BaselineQuery
from watchdog.engine.bystanders import Bystanders
from watchdog.engine.pod_timeline import Named
from watchdog.engine.rules import BySequence, ByThreshold, Rule, evidence_of
from watchdog.judge import conditions, counters, evaluations, starved, threshold
from watchdog.judge.blocks import Blind, Block, Counts, PodTimeline, Reading, Trace, Track, Verdict, steps
from watchdog.judge.conditions import ConditionSettings, Observed
from watchdog.judge.counters import CounterSettings
from watchdog.judge.evaluations import Evaluation, EvaluationState
from watchdog.judge.sequential import SequentialSettings
from watchdog.judge.threshold import ThresholdSettings
from watchdog.model import IncidentId
from watchdog.objects import Pod, ReplicaSet, TemplateHash, WorkloadRef
from watchdog.ports import SignalQuery

FEW_PODS = 50
"""Fewer are asked for by name; else whole namespaces are read."""

PAST_S = 30.0
"""How long Prometheus may take for steps that are over."""

Key = tuple[IncidentId, TemplateHash]
"""An incident, and the hash that is on the candidate's side."""

_INCIDENT_FIRST_S = 600.0
_RECORDED = 640
"""Blocks of a signal for the record: without what single pods counted more than these are longer than it may be."""


class Watch:
    """The numbers of one side-by-side comparison, step by step.

    Made anew by each process and fed from the rollout's first step on, it comes to the same verdict: the past is
    read from Prometheus, and the pod facts are in the record.

    Args:
        first: the first step of the rollout.
        begun: when the rollout began, in seconds.
        bad_known: by signal: whether an absent `bad` is 0.
        sawtooth: by signal: why its counters cannot be believed from the start.
        beside: the stable side takes traffic at the same time, and so is a control.
        workloads: names of the Deployments of both sides, so that no other's rows are looked at; empty where any may
            count.
        judged_by: by signal: what the rule `sequential` is held to; empty for the rule `threshold`.
        lowest: by signal: requests of the quietest two minutes of the day before, where that is known.
        evaluated_by: what posted evaluations are held to; None where none are taken.
    """

    def __init__(
        self,
        ref: WorkloadRef,
        policy: Policy,
        *,
        step_s: float,
        first: int,
        begun: float,
        bad_known: Mapping[str, bool],
        sawtooth: Mapping[str, Blind],
        test_settings: Mapping[str, SequentialSettings],
        lowest: Mapping[str, float],
        evaluated_by: SequentialSettings | None = None,
        beside: bool = True,
        workloads: Collection[str] = (),
    ) -> None:
        self.ref = ref
        self.policy = policy
        self.step_s = step_s
        self.next_step = first
        limits = rule_of(policy, step_s)
        kept = max(
            _RECORDED, limits.looked_at, *(steps(each, step_s=step_s) for each in (policy.bake, starved.WINDOW_S))
        )
        self.blocks = {name: Trace(kept) for name in policy.signals}
        self._settings = {
            name: CounterSettings(
                namespace=ref.namespace,
                workloads=tuple(workloads),
                step_s=step_s,
                grace_s=policy.grace_s,
                begun=begun,
                join=(signal.candidate, signal.stable) if signal.join else None,
                bad_known=bad_known.get(name, False),
                base_blind=sawtooth.get(name),
            )
            for name, signal in policy.signals.items()
        }
        self._states = {name: counters.initial(settings) for name, settings in self._settings.items()}
        self._window = limits.steps(limits.window_s)
        self._rule: Rule = (
            BySequence(test_settings, min_requests=limits.min_requests) if test_settings else ByThreshold(limits)
        )
        self._beside = beside
        self._lowest = lowest
        self.note = ""
        """What was seen once, and is worth a word in the record."""
        self._least = limits.min_requests
        self._evaluated_by = evaluated_by
        self._evaluated = EvaluationState()
        self._bystanders = {
            name: Bystanders(settings.bystanders, step_s=step_s) for name, settings in test_settings.items()
        }
        self.bystanders = frozenset(ref for each in self._bystanders.values() for ref in each.refs)
        """Other workloads whose counters are read, too."""

    def feed(
        self,
        readings: Mapping[str, Reading],
        pods: Sequence[PodTimeline],
        *,
        posted: Sequence[Evaluation] = (),
        alert: bool = False,
        gone: Collection[WorkloadRef] = (),
    ) -> None:
        """Take in the next step.

        Args:
            pods: what is known of the pods.
            posted: all evaluations of this rollout.
            alert: an attributable alert was firing then.
            gone: bystanders that are rolling out themselves, or have.
        """
        for name, state in self._states.items():
            self._states[name], block = counters.step(state, readings[name], pods)
            block = block if self._beside else msgspec.structs.replace(block, stable=Counts())
            self.blocks[name].append(block)
            others = self._bystanders[name].take(readings[name], gone=gone) if name in self._bystanders else {}
            self._rule.take(name, block, alert=alert, bystanders=others)
        if self._evaluated_by:
            self._evaluated = evaluations.step(
                self._evaluated, posted, self._evaluated_by, at=self.next_step, alert=alert
            )
        self.note = self.note or self._little(pods)
        self.next_step += 1

    def _little(self, pods: Sequence[PodTimeline]) -> str:
        """Say that new pods get little traffic beside old ones; empty where they do not."""
        if not self._beside:
            return ""
        old, since = self.next_step * self.step_s - starved.BESIDE_S, self.next_step
        ready = [each for each in pods if each.ready is not None and (each.ready_step or since) <= since]
        there = [each for each in ready if each.gone_step is None or each.gone_step > since]
        candidates = sum(each.track is Track.CANDIDATE and (each.ready or old) <= old for each in there)
        stables = sum(each.track is Track.STABLE for each in there)
        found = (
            starved.beside(blocks, candidates=candidates, stables=stables, step_s=self.step_s)
            for blocks in self.blocks.values()
        )
        return next(filter(None, found), "")

    @property
    def full(self) -> bool:
        """Whether there is a whole window to judge by."""
        return all(len(blocks) >= self._window for blocks in self.blocks.values())

    def verdicts(self, *, urgent: bool, baked: bool = False) -> tuple[Verdict, ...]:
        """What each signal says now.

        Args:
            urgent: an alert speaks for a breach, too.
            baked: the bake is over.
        """
        baked_s = float(self.policy.bake) if baked else None
        found = tuple(
            self._rule.verdict(name, blocks, urgent=urgent, baked_s=baked_s) for name, blocks in self.blocks.items()
        )
        evaluated = self._evaluated_by and evaluations.verdict(
            self._evaluated, self._evaluated_by, alone=not found, baked=baked, least=self._least, urgent=urgent
        )
        quiet = (
            starved.judge(self.blocks[name], usual, step_s=self.step_s, alone=not self._beside, signal=name)
            for name, usual in self._lowest.items()
        )
        return (*found, *(each for each in (evaluated, *quiet) if each))

    @property
    def fed(self) -> bool:
        """Whether it has taken a step."""
        return any(self.blocks.values())

    def recorded(self) -> dict[str, tuple[Block, ...]]:
        """The newest blocks by signal, as many as a record has room for."""
        return {name: tuple(blocks[-_RECORDED:]) for name, blocks in self.blocks.items()}

    def evidence(self, *, urgent: bool = False) -> dict[str, tuple[EvidenceStatus, ...]]:
        """Where each signal's controls stand; empty under the rule `threshold`. `urgent` is that of `verdicts`."""
        found = {name: stands for name in self.blocks if (stands := self._rule.evidence(name, urgent=urgent))}
        if self._evaluated_by:
            found[evaluations.SIGNAL] = evidence_of(self._evaluated.judged, self._evaluated_by, urgent=urgent)
        return found


def rule_of(policy: Policy, step_s: float) -> ThresholdSettings:
    """The threshold rule on a grid."""
    rule = policy.threshold
    return ThresholdSettings(
        step_s=step_s,
        max_ratio=rule.max_ratio,
        max_times_stable=rule.max_times_stable,
        window_s=float(rule.window),
        consecutive=rule.consecutive,
        min_requests=rule.min_requests,
        min_bad=rule.min_bad,
    )


def digest(policy: Policy) -> str:
    """A short name for a policy's settings, which changes with them."""
    return hashlib.sha256(msgspec.json.encode(policy, enc_hook=float)).hexdigest()[:12]


def signals_used(policy: Policy) -> tuple[SignalUsed, ...]:
    """What is asked of Prometheus, for the record."""
    return tuple(
        SignalUsed(name, signal.bad or f"{signal.total} - {signal.good}", signal.total)
        for name, signal in policy.signals.items()
    )


def group_of(signal: Signal) -> SignalQuery:
    """What is asked for a signal, without a place: signals that share it are asked for together."""
    return query_of(signal, ("",))


def query_of(
    signal: Signal, namespaces: Iterable[str], pods: Iterable[str] = (), *, targets: tuple[Pod, ...] = ()
) -> SignalQuery:
    """What is asked for a signal."""
    return SignalQuery(
        bad=signal.bad or signal.good,
        total=signal.total,
        good=bool(signal.good),
        join=signal.join,
        namespaces=tuple(sorted(set(namespaces))),
        pods=tuple(sorted(set(pods))),
        targets=targets,
    )


def baseline_query(
    signal: Signal,
    *,
    first: int,
    workloads: Iterable[WorkloadRef],
    others: tuple[WorkloadRef, ...] = (),
    named: Named | None = None,
    replicasets: Iterable[ReplicaSet] = (),
    pods: Iterable[PodTimeline] = (),
) -> BaselineQuery:
    """What the past of one signal is asked for.

    Args:
        first: the rollout's first step.
        workloads: whose past it is.
        others: workloads with the same signal that are not rolling out, those to be preferred first.
        named: the ReplicaSets of both tracks, by name.
        replicasets: those of the workloads; what was condemned is no past.
        pods: whose restarts are known.
    """
    old = frozenset(name for name, (track, _) in (named or {}).items() if track is Track.STABLE)
    return BaselineQuery(
        query=group_of(signal),
        first=first,
        workloads=tuple(dict.fromkeys(workloads)),
        label=signal.stable if signal.join else "",
        others=() if signal.join else others,
        old=old,
        condemned=frozenset(item.metadata.name for item in replicasets if marks.condemned_by(item)) - old,
        restarts={pod.name: tuple(each.at for each in pod.restarts) for pod in pods if pod.restarts},
    )


def judge_conditions(policy: Policy, seen: Observed, *, now: dt.datetime) -> Verdict | None:
    """What Kubernetes itself says of a rollout; None where it says nothing, or the policy does not want to know."""
    rule = policy.conditions
    if not rule.enabled:
        return None
    settings = ConditionSettings(
        crash_restarts=rule.crash_restarts, crash_share=rule.crash_share, image_pull_s=float(rule.image_pull)
    )
    return conditions.judge(seen, settings, now=now)


def past_steps(started_step: int, policy: Policy, step_s: float) -> tuple[int, int]:
    """First and last step of the ten minutes before a rollout, and of the window before them."""
    span = math.ceil((_INCIDENT_FIRST_S + policy.threshold.window) / step_s)
    return started_step - span, started_step


def failed_before(
    readings: Sequence[Reading],
    policy: Policy,
    signal: str,
    pods: Sequence[PodTimeline],
    *,
    namespace: str,
    step_s: float,
) -> str:
    """Whether the workload was failing before the rollout began, as a sentence; empty where it was not."""
    if not readings:
        return ""
    joined = policy.signals[signal]
    settings = CounterSettings(
        namespace=namespace,
        step_s=step_s,
        grace_s=0.0,
        begun=(readings[-1].step + 1) * step_s,
        join=(joined.candidate, joined.stable) if joined.join else None,
        bad_known=True,
    )
    first = readings[0].step
    old = tuple(
        msgspec.structs.replace(
            pod,
            step=first,
            ready_step=first if pod.ready else None,
            restarts=tuple(msgspec.structs.replace(each, step=first) for each in pod.restarts),
        )
        for pod in pods
        if pod.track is Track.STABLE
    )
    return threshold.failed_before(counters.blocks(settings, readings, old), rule_of(policy, step_s))


def traffic_from(record: Record) -> float | None:
    """When the candidate could first take traffic."""
    ready = [pod.ready for pod in record.pods if pod.track is Track.CANDIDATE and pod.ready is not None]
    first = min(ready, default=None)
    # Pods of a colour are ready long before they are switched to.
    return max(first, record.started.timestamp()) if first is not None and record.switched else first
