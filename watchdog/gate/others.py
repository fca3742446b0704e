"""Who else may end a gate: the running service, whose incidents it does not disturb, and whoever deploys meanwhile.

What the service's records say holds. A mark on the workload is a claim, which anybody who may deploy can write: it may
keep a gate from acting, and proves neither a breach nor an action.
"""

import datetime as dt
from collections.abc import Sequence
from contextlib import suppress

from watchdog.decide import marks
from watchdog.decide.limits import condemned_images
from watchdog.decide.record import Planned, Record, State, Written
from watchdog.errors import ClusterError, Denied, NotFound
from watchdog.gate.pinned import Look, Pinned
from watchdog.gate.request import End, GateRequest
from watchdog.judge.blocks import Status, Verdict
from watchdog.model import MANAGER, Action, IncidentId, Mode, Objection, Outcome, Result, ScaleDown, Topology, Undo
from watchdog.ports import Store

_HELD = (State.BREACH, State.ASKING, State.ACTING, State.VERIFYING)
_ACTED = (Outcome.ROLLED_BACK, Outcome.SCALED_DOWN, Outcome.PAUSED, Outcome.RECOVERED, Outcome.INEFFECTIVE)


class ServiceState:
    """What the running service keeps, and what the gate adds to it.

    Args:
        request_s: deadline of an answer.
    """

    def __init__(self, store: Store, scene: Pinned, *, request_s: float) -> None:
        self._store = store
        self.scene = scene
        self._request_s = request_s
        self._condemned: dict[tuple[str, str], str] | None = None
        self.denied = False

    async def record(self) -> Record | None:
        """The record; nothing where there is none, or where we may not read it. Raises `ClusterError`."""
        if self.denied:
            return None
        try:
            return await self._store.get(self.scene.rollout.incident, timeout_s=self._request_s)
        except Denied:
            self.denied = True
            return None

    async def condemned(self, seen: Look, *, now: dt.datetime) -> IncidentId | None:
        """The incident of the last day whose record condemns an image of the version; read once, at the start.

        Where no record may be read none does. Raises `ClusterError`.
        """
        if self._condemned is None:
            workloads = (self.scene.rollout.workload, self.scene.stable)
            self._condemned = condemned_images(await self._all(), workloads, now=now)
        found = self._condemned
        runs = self.scene.running_images(seen).items()
        return next((IncidentId(found[each]) for each in sorted(runs) if each in found), None)

    async def _all(self) -> Sequence[Record]:
        """Every record; those about the version itself where they may be read but not listed."""
        rollout, timeout_s = self.scene.rollout, self._request_s
        with suppress(Denied, NotFound):
            return await self._store.all(timeout_s=timeout_s)
        ids = (rollout.incident, rollout.gate_incident)
        with suppress(Denied):
            return [record for each in ids if (record := await self._store.get(each, timeout_s=timeout_s))]
        return ()

    async def condemn(self, task: GateRequest, seen: Look, verdict: Verdict, result: Result, *, at: dt.datetime) -> str:
        """Keep what was found and done in a record of the gate's own, so that the service knows that version for bad.

        Args:
            seen: how the workload looked.
            result: an undo or a scale-down that was written.

        Returns:
            Why there is no record; empty where there is one.
        """
        if not isinstance(result.plan, Undo | ScaleDown):
            return ""
        record = _record(task, self.scene, seen, verdict, result, result.plan, at=at)
        try:
            await self._store.save(record, timeout_s=self._request_s)
        except ClusterError as error:
            return f"no record condemns this version, so the service does not know it for bad: {error}"
        return ""


def _record(
    task: GateRequest,
    scene: Pinned,
    seen: Look,
    verdict: Verdict,
    result: Result,
    plan: Undo | ScaleDown,
    *,
    at: dt.datetime,
) -> Record:
    rollout, images = scene.rollout, scene.running_images(seen)
    good = plan.target.images if isinstance(plan, Undo) else scene.stable_images
    target = (plan.target.number, plan.target.hash) if isinstance(plan, Undo) else (rollout.revision, rollout.hash)
    action = Action.UNDO if isinstance(plan, Undo) else Action.SCALE_DOWN
    return Record(
        id=rollout.gate_incident,
        rollout=rollout,
        policy=task.policy.name,
        policy_digest="",
        topology=Topology.CANARY if scene.canary else Topology.ROLLING,
        mode=Mode.ENFORCE,
        action=action,
        started=at,
        ended=at,
        state=State.ENDED,
        images=images,
        stable=scene.stable,
        stable_hash=scene.stable_hash,
        plan=Planned(
            action=action,
            from_revision=rollout.revision,
            from_hash=rollout.hash,
            to_revision=target[0],
            to_hash=target[1],
            cause=verdict.cause,
            target_images=good,
            condemned={name: images[name] for name, image in scene.images.items() if good.get(name) != image},
        ),
        writes=(Written(at, result.detail),),
        write_at=at,
        outcome=result.outcome,
        detail=f"gate of {task.cause.by}: {verdict.detail}; {result.detail}",
    )


def held(record: Record | None) -> bool:
    """Whether the service has an open incident, so that a second action would be one too many."""
    return record is not None and record.state in _HELD


def ended(scene: Pinned, seen: Look, record: Record | None, *, now: dt.datetime) -> End | None:
    """Whether this version is over: by the service, or because somebody else replaced it."""
    if record and record.state is State.ENDED and (end := _told(scene, seen, record)):
        return end
    if seen.deployment.metadata.deletion_timestamp:
        return superseded("the Deployment is being deleted", "nothing was changed")
    rollout, live = scene.rollout, seen.live
    mark = marks.read_last_rollback(seen.deployment.metadata.annotations, now=now)
    mine = mark is not None and mark.incident == rollout.incident
    replaced = seen.deployment.metadata.uid != rollout.uid or (not isinstance(live, Objection) and live != rollout)
    waiting = isinstance(live, Objection) and scene.replicaset(seen) is not seen.history.live
    if replaced or waiting:
        by = f"{mark.by} rolled it back, its mark says" if mark and mine else "someone else replaced it"
        what = "a newer version" if isinstance(live, Objection) else f"revision {live.revision} ({live.hash})"
        why = f" ({mark.cause})" if mark and mine and mark.cause else ""
        return superseded(f"{by}: {what} is live now", f"nothing was changed by this gate{why}")
    if mark and mine and mark.by == MANAGER and record is None and not seen.deployment.spec.replicas:
        why = f"a mark says that the service scaled it to zero ({mark.cause}), and no record that can be read proves it"
        return End(verdict=Verdict(Status.BLIND, why), outcome=Outcome.UNPROVEN, detail="nothing was changed")
    return None


def superseded(why: str, detail: str) -> End:
    """The version is not what is live any more."""
    return End(verdict=Verdict(Status.INSUFFICIENT, why), outcome=Outcome.SUPERSEDED, detail=detail)


def _told(scene: Pinned, seen: Look, record: Record) -> End | None:
    """What the record's end means to a gate; nothing where the service had nothing against the version, or no say.

    Nothing either where the service acted and the version has its pods again: somebody brought it back.
    """
    if record.outcome in _ACTED:
        back = record.outcome is not Outcome.PAUSED and seen.live == scene.rollout and seen.deployment.spec.replicas
        return None if back else _by_service(scene, record.outcome, record.detail)
    if record.outcome is Outcome.UNPROVEN:
        return End(
            verdict=Verdict(Status.BLIND, record.detail),
            outcome=Outcome.UNPROVEN,
            detail=record.detail,
            service=True,
        )
    dismissed = record.outcome is Outcome.REFUSED and record.people and record.people[-1].answer == "dismiss"
    if record.outcome not in (Outcome.FAILED, Outcome.UNPROVEN) and not dismissed:
        return None
    verdict = Verdict(Status.BREACH, record.detail, cause="service")
    return End(verdict=verdict, outcome=record.outcome, detail=record.detail, service=True)


def _by_service(scene: Pinned, outcome: Outcome, detail: str) -> End:
    verdict = Verdict(Status.BREACH, f"condemned in incident {scene.rollout.incident}", cause="service")
    return End(verdict=verdict, outcome=outcome, detail=detail, service=True)
