"""The beginning of a watch: what has to be known before its first step, read for all that begin together.

It may take Prometheus half a minute, and nothing else waits for it: a watch that begins late is fed the steps that it
missed. What the first process found is frozen in the record, so that the next one begins alike.
"""

import asyncio
import itertools
import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from watchdog.config import Policy, RuleName, Signal
from watchdog.decide.record import Record, VerdictSeen
from watchdog.engine import baselines, pod_timeline
from watchdog.engine.baselines import Baseline, BaselineQuery
from watchdog.engine.context import Context
from watchdog.engine.evaluations import settings_of
from watchdog.engine.rules import freeze_settings
from watchdog.engine.topologies import TRAITS
from watchdog.engine.watch import (
    PAST_S,
    Key,
    Watch,
    baseline_query,
    digest,
    failed_before,
    group_of,
    past_steps,
    query_of,
    signals_used,
)
from watchdog.judge import counters
from watchdog.judge.blocks import Blind, ScrapeTarget, Status
from watchdog.objects import Pod, ReplicaSet, TemplateHash, WorkloadRef
from watchdog.ports import SignalQuery, Signals

_log = logging.getLogger(__name__)


_NO_SOURCE = "no Prometheus is configured"


class WatchStart(msgspec.Struct, frozen=True):
    """A watch that is to begin.

    Args:
        key: the incident, and the hash that is on the candidate's side.
        replicasets: of the workload and of the other side.
        named: those of both tracks, by name.
    """

    key: Key
    record: Record
    policy: Policy
    strategy: str
    step: int
    pods: tuple[Pod, ...]
    replicasets: tuple[ReplicaSet, ...]
    named: pod_timeline.Named

    @property
    def watching(self) -> bool:
        """Whether the rollout itself is on the candidate's side, and not what it went back to."""
        return self.key[1] == self.record.rollout.hash

    @property
    def namespaces(self) -> set[str]:
        """Where its pods are."""
        return namespaces(self.record)

    def first(self, step_s: float) -> int:
        """The first step that is fed."""
        return first_step(self.record, self.key[1], step=self.step, step_s=step_s)


class WatchStarts:
    """Makes watches."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._step_s = context.config.step_s

    async def begin(self, starts: Sequence[WatchStart]) -> dict[Key, Watch]:
        """Make the watches of rollouts that begin together, from what is read of their past."""
        starts = [self._by_this_policy(start) for start in starts]
        signals = self._context.ports.signals
        resets = await self._resets(signals, starts) if signals else {}
        pasts = await self._pasts(signals, starts)
        seen = await self._bad_seen(signals, starts) if signals else {}
        watches = await asyncio.gather(*(self._one(start, resets, pasts, seen) for start in starts))
        return {start.key: watch for start, watch in zip(starts, watches, strict=True)}

    def _by_this_policy(self, start: WatchStart) -> WatchStart:
        """Forget what was frozen under another policy: the rollout is judged anew, and its record says so."""
        policy, record = start.policy, self._context.records.get(start.record.id, start.record)
        if not start.watching or record.policy_digest == digest(policy):
            return start
        why = "the policy was changed during the watch: the rollout is judged anew"
        verdict = VerdictSeen(self._context.now(), str(Status.INSUFFICIENT), why)
        changed = msgspec.structs.replace(
            record,
            policy=policy.name,
            policy_digest=digest(policy),
            signals=signals_used(policy),
            bad_known={},
            test_settings={},
            lowest={},
            evaluated_by=settings_of(policy, self._step_s),
            verdicts=(*record.verdicts, verdict),
        )
        _log.warning("%s", why, extra={"event": "judged-anew", "incident": record.id, "workload": str(record.workload)})
        return msgspec.structs.replace(start, record=self._context.put(changed))

    async def _resets(
        self, signals: Signals, starts: Sequence[WatchStart]
    ) -> dict[tuple[SignalQuery, int], Mapping[ScrapeTarget, float]]:
        """How often counters went down in the hour before, by selector set and first step."""
        places: dict[tuple[SignalQuery, int], set[str]] = defaultdict(set)
        targets: dict[tuple[SignalQuery, int], list[Pod]] = defaultdict(list)
        for start in starts:
            for signal in start.policy.signals.values():
                key = group_of(signal), start.first(self._step_s)
                places[key] |= start.namespaces
                targets[key] += start.pods

        async def ask(query: SignalQuery, first: int) -> Mapping[ScrapeTarget, float]:
            key = query, first
            placed = msgspec.structs.replace(query, namespaces=tuple(sorted(places[key])), targets=tuple(targets[key]))
            timeout_s = self._context.config.read_s
            return await signals.resets(placed, step=first, window_s=counters.RESETS_S, timeout_s=timeout_s)

        return dict(zip(places, await asyncio.gather(*(ask(*key) for key in places)), strict=True))

    async def _bad_seen(self, signals: Signals, starts: Sequence[WatchStart]) -> dict[tuple[SignalQuery, int], bool]:
        """Whether absent failures are none, where that is not known yet: one question per selector set and place."""
        targets: dict[tuple[SignalQuery, int], list[Pod]] = defaultdict(list)
        for start in starts:
            for name, signal in start.policy.signals.items():
                if name not in start.record.bad_known:
                    targets[query_of(signal, start.namespaces), start.first(self._step_s)] += start.pods

        async def ask(query: SignalQuery, first: int) -> bool:
            placed = msgspec.structs.replace(query, targets=tuple(targets[query, first]))
            return await signals.bad_seen(placed, step=first, timeout_s=self._context.config.read_s)

        return dict(zip(targets, await asyncio.gather(*(ask(*key) for key in targets)), strict=True))

    # -- the past ------------------------------------------------------------------------------------------------------

    async def _pasts(self, signals: Signals | None, starts: Sequence[WatchStart]) -> dict[tuple[Key, str], Baseline]:
        """What the rule `sequential` is calibrated by, for those that are not frozen yet."""
        wanted = [
            (start, name, signal)
            for start in starts
            if start.policy.rule is RuleName.SEQUENTIAL and start.watching
            for name, signal in start.policy.signals.items()
            if name not in start.record.test_settings
        ]
        if signals is None:
            return {(start.key, name): baselines.none(_NO_SOURCE) for start, name, _ in wanted}
        quiet = self._quiet()
        asked = [self._asked(start, signal, quiet) for start, _, signal in wanted]
        found = await baselines.read(signals, asked, step_s=self._step_s)
        return {(start.key, name): past for (start, name, _), past in zip(wanted, found, strict=True)}

    def _asked(self, start: WatchStart, signal: Signal, quiet: "_Quiet") -> BaselineQuery:
        record = start.record
        refs = (record.workload, record.stable) if record.stable else (record.workload,)
        return baseline_query(
            signal,
            first=start.first(self._step_s),
            workloads=refs,
            others=_others(quiet.get(group_of(signal), {}), refs),
            named=start.named,
            replicasets=start.replicasets,
            pods=record.pods,
        )

    def _quiet(self) -> "_Quiet":
        """Workloads that are not rolling out, by what is asked for their signals and by namespace."""
        found: _Quiet = defaultdict(lambda: defaultdict(list))
        for ref, match in self._context.fleet.matched().items():
            if self._context.open_of(ref) is None:
                for query in {group_of(each) for each in match.policy.signals.values()}:
                    found[query][ref.namespace].append(ref)
        return found

    async def _before(self, signals: Signals, start: WatchStart) -> str:
        """Whether the workload was failing in the ten minutes before, by the rule `threshold`."""
        record, policy = start.record, start.policy
        begin, end = past_steps(start.first(self._step_s), policy, self._step_s)
        for name, signal in policy.signals.items():
            query = query_of(signal, start.namespaces, targets=start.pods)
            readings = await signals.read_past(query, first=begin, last=end, timeout_s=PAST_S)
            namespace, begun = record.workload.namespace, end * self._step_s
            pods = pod_timeline.by_name(
                record.pods, readings, start.named, namespace=namespace, begun=begun, step_s=self._step_s
            )
            if why := failed_before(readings, policy, name, pods, namespace=namespace, step_s=self._step_s):
                return why
        return ""

    # -- one watch -----------------------------------------------------------------------------------------------------

    async def _one(
        self,
        start: WatchStart,
        resets: Mapping[tuple[SignalQuery, int], Mapping[ScrapeTarget, float]],
        pasts: Mapping[tuple[Key, str], Baseline],
        seen: Mapping[tuple[SignalQuery, int], bool],
    ) -> Watch:
        record, policy, first = start.record, start.policy, start.first(self._step_s)
        signals, watching = self._context.ports.signals, start.watching
        bad_known = dict(record.bad_known)
        for name, signal in policy.signals.items():
            key = query_of(signal, start.namespaces), first
            if name not in bad_known and key in seen:
                bad_known[name] = seen[key]
        test_settings, lowest = dict(record.test_settings), dict(record.lowest)
        traits = TRAITS[record.topology]
        for name in policy.signals:
            if past := pasts.get((start.key, name)):
                controls = traits.controls_with(start.strategy)
                switched_s = record.started.timestamp() if record.switched else None
                test_settings[name] = freeze_settings(
                    policy, past, controls=controls, step_s=self._step_s, switched_s=switched_s
                )
                if past.lowest is not None and traits.whole:
                    lowest[name] = past.lowest
        if watching and (bad_known, test_settings) != (dict(record.bad_known), dict(record.test_settings)):
            found = [each.incident_first for each in test_settings.values() if each.incident_first]
            why = found[0].detail if found else ""
            if signals and not test_settings:
                why = await self._before(signals, start)
            latest = self._context.records.get(record.id, record)
            why = latest.incident_first or why
            changed = msgspec.structs.replace(
                latest, bad_known=bad_known, test_settings=test_settings, lowest=lowest, incident_first=why
            )
            record = self._context.put(changed)
        return Watch(
            record.workload,
            policy,
            step_s=self._step_s,
            first=first,
            begun=record.started.timestamp() if watching else first * self._step_s,
            bad_known=bad_known,
            sawtooth=self._sawtooth(start, resets),
            beside=traits.side_by_side,
            workloads=sorted({record.workload.name, (record.stable or record.workload).name}),
            test_settings=test_settings if watching else {},
            lowest=lowest if watching else {},
            evaluated_by=record.evaluated_by if watching else None,
        )

    def _sawtooth(
        self, start: WatchStart, resets: Mapping[tuple[SignalQuery, int], Mapping[ScrapeTarget, float]]
    ) -> dict[str, Blind]:
        """Why a signal's counters cannot be believed."""
        first = start.first(self._step_s)
        end = first * self._step_s
        restarts = {
            pod.name: pod_timeline.restarts_between(pod, end - counters.RESETS_S, end) for pod in start.record.pods
        }
        found: dict[str, Blind] = {}
        for name, signal in start.policy.signals.items():
            rows = resets.get((group_of(signal), first), {})
            mine = {row: count for row, count in rows.items() if row.namespace in start.namespaces}
            if blind := counters.not_monotonic(mine, restarts):
                found[name] = blind
        return found


_Quiet = dict[SignalQuery, dict[str, list[WorkloadRef]]]


def _others(quiet: Mapping[str, Sequence[WorkloadRef]], refs: tuple[WorkloadRef, ...]) -> tuple[WorkloadRef, ...]:
    """The other workloads of a signal, those of the same namespace first."""
    home = refs[0].namespace
    spaces = (home, *sorted(quiet.keys() - {home}))
    near = (ref for space in spaces for ref in sorted(quiet.get(space, ())) if ref not in refs)
    return tuple(itertools.islice(near, baselines.MOST_OTHERS))


def first_step(record: Record, about: TemplateHash, *, step: int, step_s: float) -> int:
    """The first step that is fed of a comparison with a hash on the candidate's side; `step` is the one of now."""
    began = record.started if about == record.rollout.hash else record.write_at or record.started
    return min(step, math.ceil(began.timestamp() / step_s))


def namespaces(record: Record) -> set[str]:
    """Where the pods of a rollout are."""
    return {record.workload.namespace, *([record.stable.namespace] if record.stable else [])}
