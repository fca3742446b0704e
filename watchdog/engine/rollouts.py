"""From what the watch of Deployments shows to rollouts: where one begins, completes, is superseded or comes back.

Each workload that has changed is looked at by itself, its newest state only; one that cannot be looked at holds up no
other. ReplicaSets are read when the revision has changed, not at every change of a status, and for all that are looked
at in the same moment together. What is found old and complete at first sight is not read at all.
"""

import asyncio
import datetime as dt
import hashlib
import logging
from functools import partial

import msgspec

from watchdog.decide import incident, marks, templates
from watchdog.decide.limits import condemned_images
from watchdog.decide.plan import Request
from watchdog.decide.record import UNWRITTEN, Answer, Record, State
from watchdog.decide.revisions import History, live_rollout, read_history
from watchdog.decide.status import Progress, progressed_at, rollout_status
from watchdog.engine.bluegreen import ServiceWatcher
from watchdog.engine.claims import RECENT
from watchdog.engine.context import Context
from watchdog.engine.evaluations import settings_of
from watchdog.engine.fleet import Match, WorkloadRole
from watchdog.engine.lifecycle import Lifecycle
from watchdog.engine.new_record import mode_of, new_record
from watchdog.errors import ClusterError
from watchdog.metrics import Part
from watchdog.model import MANAGER, Cause, Mode, Objection, Rollout, Topology
from watchdog.objects import (
    REVISION,
    Deployment,
    ReplicaSet,
    Snapshot,
    TemplateHash,
    WorkloadRef,
    revision_number,
)

_log = logging.getLogger(__name__)

_AGAIN_S = 1.0
_GATES_AFTER_S = (0.5, 5.0, 30.0)


class Rollouts:
    """Looks at the Deployments that have changed.

    Args:
        life: begins and ends watches.
        colours: looks at those of blue-green policies.
    """

    def __init__(self, context: Context, life: Lifecycle, colours: ServiceWatcher) -> None:
        self._context = context
        self._life = life
        self._colours = colours
        self._seen: dict[WorkloadRef, tuple[str, str]] = {}
        self._live: dict[WorkloadRef, TemplateHash] = {}
        self._looking: set[WorkloadRef] = set()
        self._due: set[WorkloadRef] = set()
        self._bringing_back: dict[WorkloadRef, str] = {}

    def look_at(self, ref: WorkloadRef) -> None:
        """Have a workload looked at, soon and once; never twice at the same time."""
        if ref in self._looking:
            self._due.add(ref)
        else:
            self._looking.add(ref)
            self._context.spawn(Part.ROLLOUTS, self._looked(ref), about=str(ref))

    async def _looked(self, ref: WorkloadRef) -> None:
        faults, about, pause_s = self._context.faults, str(ref), 0.0
        try:
            await self._look(ref)
            faults.over(Part.ROLLOUTS, about)
        except ClusterError as error:
            _log.warning("not looked at: %s", error, extra={"event": "look-failed", "workload": str(ref)})
            pause_s = _AGAIN_S
        except Exception as error:
            pause_s = faults.note(Part.ROLLOUTS, error, about=about)
        finally:
            self._looking.discard(ref)
        if pause_s:
            self._later(ref, pause_s)
        elif ref in self._due:
            self._due.discard(ref)
            self.look_at(ref)

    def _later(self, ref: WorkloadRef, pause_s: float = _AGAIN_S) -> None:
        self._due.discard(ref)
        asyncio.get_running_loop().call_later(pause_s, self.look_at, ref)

    async def _look(self, ref: WorkloadRef) -> None:
        context = self._context
        deployment, match = context.deployment(ref), context.fleet.match(ref)
        record = context.open_of(ref)
        if deployment is None and ref.namespace in context.fleet.denied:
            return
        if deployment is None or (record and record.rollout.uid != deployment.metadata.uid):
            self._seen.pop(ref, None)
            if record:
                self._life.over(record, "the Deployment was deleted by someone else")
            if deployment is None:
                self._live.pop(ref, None)
                self._bringing_back.pop(ref, None)
                self._life.claims.forget(ref)
                return
            record = None
        if deployment.metadata.deletion_timestamp:
            if record:
                self._life.supersede(record, "the Deployment is being deleted by someone else")
            return
        if match is None:
            if record:
                self._life.over(record, "no policy matches the Deployment any more")
            return
        if record:
            record = self._life.claims.take_proof(record, deployment)
            record = self._read_annotations(record, deployment, match)
        if match.side is WorkloadRole.COLOUR:
            await self._colours.look(deployment, match, record, again=partial(self._later, ref))
            return
        await self._maybe_restore(deployment, record)
        if deployment.metadata.generation > deployment.status.observed_generation:
            return  # the controller's own change comes next
        # The template's identity too: while paused, a new template gets no new revision (docs/design k2).
        identity = (deployment.metadata.uid, deployment.metadata.annotations.get(REVISION, ""))
        if self._seen.get(ref) == identity and not (record and record.completed is None):
            return
        if self._seen.get(ref) != identity:
            if record is None and ref not in self._seen and self._long_there(deployment, match):
                self._seen[ref] = identity
                return
            snapshot = await self._snapshot(deployment)
            history = read_history(snapshot)
            found = live_rollout(snapshot.deployment, history)
            if isinstance(found, Objection):
                self._later(ref)
                return
            if deployment.spec.replicas == 0 and match.side is WorkloadRole.CANDIDATE:
                return  # no candidate pod, and so no rollout yet
            rollout, live = found
            record = await self._turn(context.open_of(ref), rollout, live, snapshot.deployment, history, match)
            self._seen[ref] = identity
            self._live[ref] = rollout.hash
        record = context.open_of(ref)
        if record and record.completed is None:
            self._maybe_complete(record, deployment)

    async def _snapshot(self, deployment: Deployment) -> Snapshot:
        """The workload as it was seen; read anew where its ReplicaSets are newer than that."""
        context = self._context
        snapshot = await context.observer.snapshot(deployment)
        live = read_history(snapshot).live
        if live is None or live.revision == revision_number(deployment.metadata):
            return snapshot
        fresh = await context.ports.cluster.deployment(deployment.ref, timeout_s=context.request_s)
        return await context.observer.snapshot(fresh)

    def _long_there(self, deployment: Deployment, match: Match) -> bool:
        """Whether there is nothing to watch at first sight: complete for a bake or longer, and no recent mark."""
        now, at = self._context.now(), progressed_at(deployment)
        mark = marks.read_last_rollback(deployment.metadata.annotations, now=now)
        return (
            rollout_status(deployment).progress is Progress.COMPLETE
            and (at is None or now - at >= dt.timedelta(seconds=match.policy.bake))
            and (mark is None or now - mark.at > RECENT)
        )

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
            if self._life.claims.ours(record, deployment, rollout):
                return record
            await self._replaced(record, deployment, rollout)
        if rollout.incident in context.records:
            return None  # ended already
        if self._life.claims.undone(deployment, rollout, history):
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
        record = new_record(
            rollout,
            match,
            mode=mode_of(policy.mode, deployment),
            started=started,
            completed=completed,
            images=templates.images(live.spec.template),
            stable=stable,
            stable_hash=stable_hash,
            evaluated_by=settings_of(policy, context.config.step_s),
        )
        fields = {"event": "rollout-begins", "incident": record.id, "workload": str(record.workload)}
        _log.info("revision %d is under watch, beside %s", rollout.revision, stable_hash or "nothing", extra=fields)
        return self._life.begin(record)

    async def _hash_live(self, ref: WorkloadRef) -> TemplateHash:
        deployment = self._context.deployment(ref)
        if deployment is None:
            return TemplateHash("")
        found = live_rollout(deployment, read_history(await self._context.observer.snapshot(deployment)))
        return TemplateHash("") if isinstance(found, Objection) else found[0].hash

    async def _replaced(self, record: Record, deployment: Deployment, rollout: Rollout) -> None:
        """End a watch whose version is live no more: somebody else has replaced it, or a mark claims that we did."""
        mark, context = self._life.claims.mark(deployment), self._context
        if (
            mark
            and self._life.claims.claimed(mark, record)
            and mark.to_hash == rollout.hash
            and record.state in UNWRITTEN
        ):
            context.put(self._life.claims.unproven(record, mark))
            return
        by = "someone else"
        if mark and mark.incident == record.id and not mark.by_us:
            by = mark.by[:100] if mark.to_hash == rollout.hash else by
            context.spawn(Part.RECORDS, self._read_gates(record), about=record.id)
        self._life.supersede(record, f"revision {rollout.revision} ({rollout.hash}) is live now, by {by}")

    async def _read_gates(self, record: Record) -> None:
        """A gate that acted writes a record of its own just after, and what it condemned counts here, too."""
        context = self._context
        for pause_s in _GATES_AFTER_S:
            await asyncio.sleep(pause_s)
            if found := await context.ports.store.get(record.rollout.gate_incident, timeout_s=context.request_s):
                context.read((found,))
                return

    # -- going on ------------------------------------------------------------------------------------------------------

    def _read_annotations(self, record: Record, deployment: Deployment, match: Match) -> Record:
        """Take what people wrote on the Deployment, a lower mode or an answer, and a mode that the policy lowered."""
        context = self._context
        lowered = incident.lower(record, mode_of(match.policy.mode, deployment))
        if lowered.mode is not record.mode:
            record = context.put(lowered)
        answer = marks.read_answer(deployment.metadata.annotations, record.id)
        if answer and record.state is State.ASKING and not record.people:
            owner = marks.field_owner(deployment.metadata, ("f:metadata", "f:annotations", f"f:{marks.ANSWER}"))
            by = owner.manager if owner else "unknown"
            said = Answer(answer, f"who may annotate the Deployment ({by})", context.now(), "annotation")
            record = context.put(msgspec.structs.replace(record, people=(said,)))
            self._life.changed(record)
        return context.records[record.id]

    def _maybe_complete(self, record: Record, deployment: Deployment) -> None:
        if record.state is State.WATCHING and rollout_status(deployment).progress is Progress.COMPLETE:
            now = self._context.now()
            self._context.put(msgspec.structs.replace(record, completed=progressed_at(deployment) or now))

    async def _maybe_restore(self, deployment: Deployment, record: Record | None) -> None:
        """Give a scaled-down canary its replicas back, when another template has come.

        Where that came with replicas of its own only the mark goes: it would undo a later scaling to zero.
        """
        context, text = self._context, deployment.metadata.annotations.get(marks.REPLICAS_BEFORE)
        if not self._life.claims.scaled_down_by_us(deployment):
            return
        acting = record is not None and record.state in (State.ACTING, State.VERIFYING)
        key = hashlib.sha256(bytes(deployment.spec.template) + (text or "").encode()).hexdigest()
        if not text or acting or self._bringing_back.get(deployment.ref) == key:
            return
        if deployment.metadata.generation > deployment.status.observed_generation:
            return
        match = context.fleet.match(deployment.ref)
        if match is None or mode_of(match.policy.mode, deployment) is Mode.OBSERVE:
            return
        linked = [ref for ref in (deployment.ref, match.other) if ref]
        found = condemned_images((each for ref in linked for each in context.about(ref)), linked, now=context.now())
        # Without pods the id of an image is not known, only its name: the names in condemned templates count, too.
        hashes = {each.rollout.hash for each in context.records.values() if each.id in found.values()}
        condemned = [item for item in (await context.observer.snapshot(deployment)).replicasets if item.hash in hashes]
        containers = {container for container, _ in found}
        told = {pair for item in condemned for pair in templates.images(item.spec.template).items()}
        pairs = frozenset({*found, *(pair for pair in told if pair[0] in containers)})
        request = Request(cause=Cause(MANAGER, "another version has come after a scale-down"))
        result = await context.ports.actor.restore(deployment.ref, request, condemned_images=pairs)
        _log.info("%s", result.detail, extra={"event": str(result.outcome), "workload": str(deployment.ref)})
        self._bringing_back[deployment.ref] = key


def _before(rollout: Rollout, history: History, seen: TemplateHash | None) -> TemplateHash:
    """The hash that was live when the rollout began: as it was seen, else the one with the next lower number."""
    others = [item for item in history.others if item.revision is not None]
    if seen and seen != rollout.hash and any(item.hash == seen for item in others):
        return seen
    newest = max(others, key=lambda item: item.revision or 0, default=None)
    return newest.hash if newest else TemplateHash("")
