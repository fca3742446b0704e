"""From what the watch of Deployments shows to rollouts: where one begins, completes, is superseded or comes back.

Deployments are looked at one after the other as they change, the newest state only. ReplicaSets are listed when the
revision has changed, not at every change of a status.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable

import msgspec

from watchdog.decide import incident, marks, templates
from watchdog.decide.history import History, live_rollout, read_history
from watchdog.decide.limits import condemned_images
from watchdog.decide.plan import Request
from watchdog.decide.record import Answer, Planned, Record, State
from watchdog.decide.status import Progress, progressed_at, rollout_status
from watchdog.engine.context import Context
from watchdog.engine.evaluations import settings_of
from watchdog.engine.fleet import Match, Side
from watchdog.engine.watch import digest, signals_used
from watchdog.errors import ClusterError
from watchdog.model import MANAGER, Action, Cause, Mode, Outcome, Refused, Rollout, Topology
from watchdog.objects import REVISION, Deployment, ReplicaSet, Snapshot, TemplateHash, WorkloadRef

_log = logging.getLogger(__name__)

_AGAIN_S = 1.0
_BEFORE_ACTING = (State.WATCHING, State.BREACH, State.ASKING)
MODE = f"{marks.PREFIX}/mode"


class Rollouts:
    """Begins and ends watches.

    Args:
        context: what the loops share.
        changed: told of a record that was changed by what the watch showed, such as an answer.
        began: told of a rollout that is under watch from now on.
    """

    def __init__(
        self,
        context: Context,
        *,
        changed: Callable[[Record], Awaitable[None]],
        began: Callable[[Record], None],
    ) -> None:
        self._context = context
        self._changed = changed
        self._began = began
        self._seen: dict[WorkloadRef, tuple[str, str]] = {}
        self._live: dict[WorkloadRef, TemplateHash] = {}
        self._due: asyncio.Queue[WorkloadRef] = asyncio.Queue()
        self._waiting: set[WorkloadRef] = set()
        self._bringing_back: set[tuple[WorkloadRef, str]] = set()
        self.look_at_colour: Callable[[Deployment, Match, Record | None], Awaitable[None]] = _left_alone

    def look_at(self, ref: WorkloadRef) -> None:
        """Have a workload looked at, soon and once."""
        if ref not in self._waiting:
            self._waiting.add(ref)
            self._due.put_nowait(ref)

    async def run(self) -> None:
        """Look at whatever is due, for ever."""
        while True:
            ref = await self._due.get()
            self._waiting.discard(ref)
            try:
                await self._look(ref)
            except ClusterError as error:
                _log.warning("not looked at: %s", error, extra={"event": "look-failed", "workload": str(ref)})
                asyncio.get_running_loop().call_later(_AGAIN_S, self.look_at, ref)

    async def _look(self, ref: WorkloadRef) -> None:
        context = self._context
        deployment, match = context.deployment(ref), context.fleet.match(ref)
        record = context.open_of(ref)
        if deployment is None and ref.namespace in context.fleet.denied:
            return
        if deployment is None or (record and record.rollout.uid != deployment.metadata.uid):
            self._seen.pop(ref, None)
            if record:
                await self.supersede(record, "the Deployment was deleted by someone else")
            if deployment is None:
                return
            record = None
        if match is None:
            if record:
                await self.supersede(record, "no policy matches the Deployment any more")
            return
        if record:
            record = await self._heed(record, deployment)
            if record.state in _BEFORE_ACTING and marks.acted(deployment.metadata.annotations) == record.id:
                # Its process died between the patch and the record: the patch carries the proof.
                record = await context.put(msgspec.structs.replace(record, state=State.ACTING))
                await self._changed(record)
        if match.side is Side.COLOUR:
            await self.look_at_colour(deployment, match, record)
            return
        await self._maybe_restore(deployment, record)
        if deployment.metadata.generation > deployment.status.observed_generation:
            return  # the controller's own change comes next
        # The template's identity too: while paused, a new template gets no new revision (TESTBED k2).
        identity = (deployment.metadata.uid, deployment.metadata.annotations.get(REVISION, ""))
        if self._seen.get(ref) == identity and not (record and record.completed is None):
            return
        if self._seen.get(ref) != identity:
            snapshot = await self._snapshot(deployment)
            history = read_history(snapshot)
            found = live_rollout(snapshot.deployment, history)
            if isinstance(found, Refused):
                asyncio.get_running_loop().call_later(_AGAIN_S, self.look_at, ref)
                return
            if deployment.spec.replicas == 0 and match.side is Side.CANDIDATE:
                return  # no candidate pod, and so no rollout yet
            rollout, live = found
            record = await self._turn(record, rollout, live, snapshot.deployment, history, match)
            self._seen[ref] = identity
            self._live[ref] = rollout.hash
        if record and record.completed is None and record.state is not State.ENDED:
            await self._maybe_complete(record, deployment)

    async def _snapshot(self, deployment: Deployment) -> Snapshot:
        cluster, timeout_s = self._context.ports.cluster, self._context.request_s
        fresh = await cluster.deployment(deployment.ref, timeout_s=timeout_s)
        found = await cluster.replicasets(deployment.ref.namespace, fresh.spec.selector, timeout_s=timeout_s)
        return Snapshot(fresh, found)

    # -- beginning -----------------------------------------------------------------------------------------------------

    async def _turn(
        self,
        record: Record | None,
        rollout: Rollout,
        live: ReplicaSet,
        deployment: Deployment,
        history: History,
        match: Match,
    ) -> Record | None:
        """The live revision is not the one that was seen before: end the old watch, begin a new one."""
        context, ref = self._context, rollout.workload
        if record and record.rollout == rollout:
            return record
        if record:
            if _ours(record, deployment, rollout):
                return record
            await self.supersede(record, f"revision {rollout.revision} ({rollout.hash}) is live now, by someone else")
        if rollout.incident in context.records:
            return None  # ended already
        if await self._rebuild(deployment, rollout, history, match) or _undone(deployment, rollout):
            return None
        progress = rollout_status(deployment)
        now = context.now()
        completed = progressed_at(deployment) if progress.progress is Progress.COMPLETE else None
        first_sight = ref not in self._seen
        bake = dt.timedelta(seconds=match.policy.bake)
        if first_sight and progress.progress is Progress.COMPLETE and (completed is None or now - completed >= bake):
            return None
        created = live.metadata.creation_timestamp or now
        started = created if dt.timedelta(0) <= now - created < dt.timedelta(seconds=match.policy.max_watch) else now
        if not first_sight and now - started > bake:
            started = now  # an old ReplicaSet that came back
        return await self._begin(rollout, live, deployment, history, match, started=started, completed=completed)

    async def _begin(
        self,
        rollout: Rollout,
        live: ReplicaSet,
        deployment: Deployment,
        history: History,
        match: Match,
        *,
        started: dt.datetime,
        completed: dt.datetime | None,
    ) -> Record:
        context, policy = self._context, match.policy
        stable, stable_hash = rollout.workload, _before(rollout, history, self._live.get(rollout.workload))
        if match.topology is Topology.CANARY and match.other:
            stable, stable_hash = match.other, await self._hash_live(match.other)
        record = Record(
            id=rollout.incident,
            rollout=rollout,
            policy=policy.name,
            policy_digest=digest(policy),
            topology=match.topology,
            mode=mode_of(policy.mode, deployment),
            action=action_of(match),
            started=started,
            completed=completed,
            images=templates.images(live.spec.template),
            stable=stable,
            stable_hash=stable_hash,
            signals=signals_used(policy),
            evaluated_by=settings_of(policy, context.config.step_s),
        )
        fields = {"event": "rollout-begins", "incident": record.id, "workload": str(record.workload)}
        _log.info("revision %d is under watch, beside %s", rollout.revision, stable_hash or "nothing", extra=fields)
        record = await context.put(record)
        self._began(record)
        return record

    async def _hash_live(self, ref: WorkloadRef) -> TemplateHash:
        deployment = await self._context.ports.cluster.deployment(ref, timeout_s=self._context.request_s)
        found = live_rollout(deployment, read_history(await self._snapshot(deployment)))
        return TemplateHash("") if isinstance(found, Refused) else found[0].hash

    async def _rebuild(self, deployment: Deployment, rollout: Rollout, history: History, match: Match) -> bool:
        """Make the record anew of an action whose process died before it could write one (DESIGN §7)."""
        context = self._context
        mark = marks.read_last_rollback(deployment.metadata.annotations)
        if mark is None or mark.by != MANAGER or mark.incident in context.records:
            return False
        source = next((item for item in history.all if item.hash == mark.from_hash), None)
        target = next((item for item in history.all if item.hash == mark.to_hash), None)
        if rollout.hash != mark.to_hash or context.now() - mark.at > dt.timedelta(days=1):
            return False
        action = Action.SCALE_DOWN if mark.from_hash == mark.to_hash else Action.UNDO
        record = Record(
            id=mark.incident,
            rollout=Rollout(deployment.ref, deployment.metadata.uid, mark.from_revision, mark.from_hash),
            policy=match.policy.name,
            policy_digest=digest(match.policy),
            topology=match.topology,
            mode=Mode.ENFORCE,
            action=action,
            started=mark.at,
            state=State.ACTING,
            images=templates.images(source.spec.template) if source else {},
            stable=match.other if action is Action.SCALE_DOWN and match.other else deployment.ref,
            plan=Planned(
                action=action,
                from_revision=mark.from_revision,
                from_hash=mark.from_hash,
                to_revision=mark.to_revision,
                to_hash=mark.to_hash,
                cause=mark.cause,
                condemned=_differing(source, target) if source and target and action is Action.UNDO else {},
            ),
            write_at=mark.at,
            detail="rebuilt from the mark on the Deployment",
        )
        await self._changed(await context.put(record))
        return True

    # -- going on ------------------------------------------------------------------------------------------------------

    async def _heed(self, record: Record, deployment: Deployment) -> Record:
        """Take what people wrote on the Deployment: a lower mode, an answer."""
        context = self._context
        lowered = incident.lower(record, mode_of(record.mode, deployment))
        if lowered.mode is not record.mode:
            record = await context.put(lowered)
        answer = marks.read_answer(deployment.metadata.annotations, record.id)
        if answer and record.state is State.ASKING and not record.people:
            owner = marks.field_owner(deployment.metadata, ("f:metadata", "f:annotations", f"f:{marks.ANSWER}"))
            by = owner.manager if owner else "unknown"
            said = Answer(answer, f"who may annotate the Deployment ({by})", context.now(), "annotation")
            record = await context.put(msgspec.structs.replace(record, people=(said,)))
            await self._changed(record)
        return context.records[record.id]

    async def _maybe_complete(self, record: Record, deployment: Deployment) -> None:
        if record.state is State.WATCHING and rollout_status(deployment).progress is Progress.COMPLETE:
            now = self._context.now()
            await self._context.put(msgspec.structs.replace(record, completed=progressed_at(deployment) or now))

    async def supersede(self, record: Record, why: str) -> None:
        """End a watch whose version somebody else has replaced."""
        if record.state is State.ACTING or (record.state is State.VERIFYING and not record.verified):
            return  # whoever carries the action out sees it, too
        if record.verified:
            why = f"{record.verified}, then {why}"
        await self._context.put(incident.end(record, Outcome.SUPERSEDED, why, now=self._context.now()))

    async def _maybe_restore(self, deployment: Deployment, record: Record | None) -> None:
        """Give a scaled-down canary its replicas back, when another template has come (DESIGN §5).

        Where that came with replicas of its own only the mark goes: it would undo a later scaling to zero.
        """
        context, text = self._context, deployment.metadata.annotations.get(marks.REPLICAS_BEFORE)
        acting = record is not None and record.state in (State.ACTING, State.VERIFYING)
        key = (deployment.ref, bytes(deployment.spec.template).hex()[:4096] + (text or ""))
        if not text or acting or key in self._bringing_back:
            return
        if deployment.metadata.generation > deployment.status.observed_generation:
            return
        match = context.fleet.match(deployment.ref)
        if match is None or mode_of(match.policy.mode, deployment) is Mode.OBSERVE:
            return
        linked = [ref for ref in (deployment.ref, match.other) if ref]
        found = condemned_images(context.records.values(), linked, now=context.now())
        # Without pods the id of an image is not known, only its name: the names in condemned templates count, too.
        hashes = {each.rollout.hash for each in context.records.values() if each.id in found.values()}
        condemned = [item for item in (await self._snapshot(deployment)).replicasets if item.hash in hashes]
        containers = {container for container, _ in found}
        told = {pair for item in condemned for pair in templates.images(item.spec.template).items()}
        pairs = frozenset({*found, *(pair for pair in told if pair[0] in containers)})
        request = Request(cause=Cause(MANAGER, "another version has come after a scale-down"))
        result = await context.ports.actor.restore(deployment.ref, request, condemned_images=pairs)
        _log.info("%s", result.detail, extra={"event": str(result.outcome), "workload": str(deployment.ref)})
        self._bringing_back.add(key)


async def _left_alone(_deployment: Deployment, _match: Match, _record: Record | None) -> None:
    """Where nobody looks at colours."""


def mode_of(mode: Mode, deployment: Deployment) -> Mode:
    """The mode, lowered by the Deployment's annotation where that is lower; one that cannot be read is `observe`."""
    text = deployment.metadata.annotations.get(MODE)
    if text is None:
        return mode
    said = Mode(text) if text in set(Mode) else Mode.OBSERVE
    return min(mode, said, key=list(Mode).index)


def action_of(match: Match) -> Action:
    """What a breach of this workload leads to. Only a canary is ever scaled down, never the stable side beside it."""
    wanted = match.policy.action or Action.SCALE_DOWN
    return Action.UNDO if wanted is Action.SCALE_DOWN and match.side is not Side.CANDIDATE else wanted


def _differing(source: ReplicaSet, target: ReplicaSet) -> dict[str, str]:
    """The images in which a revision differs from the one it was left for."""
    other = templates.images(target.spec.template)
    return {name: image for name, image in templates.images(source.spec.template).items() if other.get(name) != image}


def _ours(record: Record, deployment: Deployment, rollout: Rollout) -> bool:
    """Whether the new revision is what this record's own action made live."""
    if record.state not in (State.ACTING, State.VERIFYING):
        return False
    mark = marks.read_last_rollback(deployment.metadata.annotations)
    return mark is not None and mark.incident == record.id and mark.to_hash == rollout.hash


def _undone(deployment: Deployment, rollout: Rollout) -> bool:
    """Whether this revision is what an undo of ours has just made live: an undo is never undone."""
    mark = marks.read_last_rollback(deployment.metadata.annotations)
    return (
        mark is not None
        and mark.by == MANAGER
        and mark.to_hash == rollout.hash
        and rollout.revision in (mark.from_revision, mark.from_revision + 1)
    )


def _before(rollout: Rollout, history: History, seen: TemplateHash | None) -> TemplateHash:
    """The hash that was live when the rollout began: as it was seen, else the one with the next lower number."""
    others = [item for item in history.others if item.revision is not None]
    if seen and seen != rollout.hash and any(item.hash == seen for item in others):
        return seen
    newest = max(others, key=lambda item: item.revision or 0, default=None)
    return newest.hash if newest else TemplateHash("")
