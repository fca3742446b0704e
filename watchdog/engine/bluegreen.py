"""From what the watches of Services and Deployments show to switches: where one begins, and where it is over.

Only the switch of a Service from one colour to the other is a rollout here. The colour without traffic is nobody's
risk, and a change in place of the one that has it ends the watch of its switch: there is nothing to switch back from
what was never switched to.
"""

import datetime as dt
import logging
from collections.abc import Callable, Mapping

import msgspec

from watchdog.decide import marks, templates
from watchdog.decide.record import BEFORE_ACTING, UNWRITTEN, Record, State, Switched
from watchdog.decide.revisions import live_rollout, read_history
from watchdog.decide.status import Progress, rollout_status
from watchdog.decide.switch import colour_before, selector_text, stands
from watchdog.engine.context import Context
from watchdog.engine.evaluations import settings_of
from watchdog.engine.fleet import Match
from watchdog.engine.lifecycle import Lifecycle
from watchdog.engine.new_record import mode_of, new_record
from watchdog.errors import ClusterError
from watchdog.model import MANAGER, Mode, Objection, Outcome, Rollout
from watchdog.objects import Deployment, Service, Snapshot, TemplateHash, WorkloadRef

_log = logging.getLogger(__name__)

_ACTED = {Outcome.RECOVERED, Outcome.INEFFECTIVE, Outcome.SWITCHED_BACK}


class ServiceWatcher:
    """Begins and ends the watches of blue-green policies.

    Args:
        life: begins and ends watches.
    """

    def __init__(self, context: Context, life: Lifecycle) -> None:
        self._context = context
        self._life = life
        self._seen: dict[WorkloadRef, tuple[str, Mapping[str, str]]] = {}
        self._replicas: dict[WorkloadRef, int] = {}

    async def look(
        self, deployment: Deployment, match: Match, record: Record | None, *, again: Callable[[], None]
    ) -> None:
        """Look at one colour: has it the traffic, since when, and is that what is under watch?

        Args:
            match: its policy.
            record: what is under watch.
            again: has it looked at again, soon: the controller has not seen the newest change yet.
        """
        context, ref = self._context, deployment.ref
        address = WorkloadRef(ref.namespace, match.policy.service)
        service = context.fleet.services.get(address)
        if service is None:
            if record and ref.namespace in context.fleet.services_listed:
                self._life.supersede(record, f"the Service {address.name} was deleted by someone else")
            return
        other = context.deployment(match.other) if match.other else None
        if not service.selects(templates.labels(deployment.spec.template)):
            if record:
                self._left(record, service)
            return
        if other and service.selects(templates.labels(other.spec.template)):
            if record:
                self._life.supersede(record, f"the Service {address.name} selects both colours now, by someone else")
            return
        if deployment.spec.replicas:
            self._replicas[ref] = deployment.spec.replicas
        if record and await self._goes_on(record, deployment, service, again):
            return
        if other:
            await self._maybe_begin(deployment, other, service, match, again)

    def _left(self, record: Record, service: Service) -> None:
        """A colour under watch has no traffic any more: by us, or by somebody else."""
        now, switched = self._context.now(), record.switched
        if stands(service, record, now=now):
            if record.state in BEFORE_ACTING:
                # Its process died between the patch and the record: the patch carries the proof.
                record = self._context.put(msgspec.structs.replace(record, state=State.ACTING), notify=False)
                self._life.changed(record)
            return
        mark = marks.read_last_rollback(service.metadata.annotations, now=now)
        went_back = switched is not None and service.spec.selector == switched.before
        if mark and went_back and record.state in UNWRITTEN and self._life.claims.claimed(mark, record):
            self._context.put(self._life.claims.unproven(record, mark))
            return
        text = selector_text(service.spec.selector)
        self._life.supersede(record, f"the Service {service.ref.name} selects {text} now, by someone else")

    async def _goes_on(
        self, record: Record, deployment: Deployment, service: Service, again: Callable[[], None]
    ) -> bool:
        """Whether the colour that has the traffic is what its record is about."""
        switched = record.switched
        if switched is None or (service.metadata.uid, service.spec.selector) != (switched.uid, switched.after):
            text = selector_text(service.spec.selector)
            self._life.supersede(record, f"the Service {service.ref.name} selects {text} now, by someone else")
            return False
        if record.state is State.VERIFYING:
            self._life.supersede(record, "it was switched to again by someone else")
            return False
        if deployment.metadata.generation > deployment.status.observed_generation:
            return True
        found = live_rollout(deployment, read_history(await self._snapshot(deployment)))
        if isinstance(found, Objection):
            again()
        elif found[0].hash != record.rollout.hash:
            why = f"{deployment.ref.name} was changed in place by someone else: revision {found[0].revision}"
            self._life.supersede(record, why)
        elif record.state is State.WATCHING and record.completed is None and _complete(deployment):
            self._context.put(msgspec.structs.replace(record, completed=self._context.now()))
        return True

    async def _maybe_begin(
        self, deployment: Deployment, other: Deployment, service: Service, match: Match, again: Callable[[], None]
    ) -> None:
        context, before = self._context, self._seen.get(service.ref)
        seen = (service.metadata.uid, service.spec.selector)
        if before == seen:
            return
        found = live_rollout(deployment, read_history(await self._snapshot(deployment)))
        if isinstance(found, Objection):
            again()
            return
        live, replicaset = found
        self._seen[service.ref] = seen
        fields = {"event": "colour-live", "workload": str(deployment.ref)}
        _log.info("%s has the traffic of Service %s", deployment.ref.name, service.ref.name, extra=fields)
        owner = marks.field_owner(service.metadata, ("f:spec", "f:selector"))
        mark = marks.read_last_rollback(service.metadata.annotations, now=context.now())
        nobody = owner is None or owner.manager == MANAGER
        if nobody and mark and mark.by_us and mark.to_hash == live.hash:
            return  # our own doing, which is never undone
        now = context.now()
        at = owner.time if owner and owner.time else None
        mode = mode_of(match.policy.mode, deployment)
        if before is None or before[0] != service.metadata.uid:
            newest = self._newest(service)
            late = at is not None and now - at >= dt.timedelta(seconds=match.policy.bake)
            if at is None or late or at == service.metadata.creation_timestamp or _known(newest, live):
                return  # never switched, long ago, or watched already
            if newest is None:
                mode = min(mode, Mode.APPROVE, key=list(Mode).index)  # perhaps it was no switch: a person decides
        rollout = msgspec.structs.replace(live, switch=f"{service.metadata.uid}/{(at or now):%Y-%m-%dT%H:%M:%SZ}")
        if rollout.incident not in context.records:
            selector = before[1] if before and before[0] == service.metadata.uid else None
            switched = await self._switched(service, deployment, other, selector)
            try:
                stable_hash = await self._hash_at(other, at or now)
            except ClusterError:
                if before is None:
                    del self._seen[service.ref]
                else:
                    self._seen[service.ref] = before
                raise  # it is looked at again
            record = new_record(
                rollout,
                match,
                mode=mode,
                started=at or now,
                images=templates.images(replicaset.spec.template),
                stable=match.other,
                stable_hash=stable_hash,
                switched=switched,
                evaluated_by=settings_of(match.policy, context.config.step_s),
            )
            self._begin(record, complete=_complete(deployment))

    def _begin(self, record: Record, *, complete: bool) -> None:
        if complete:
            record = msgspec.structs.replace(record, completed=record.started)
        fields = {"event": "rollout-begins", "incident": record.id, "workload": str(record.workload)}
        _log.info("a switch is under watch, back would be %s", record.stable_hash or "nowhere", extra=fields)
        self._life.begin(record)

    def _newest(self, service: Service) -> Record | None:
        """The newest record about this Service."""
        mine = (
            each
            for each in self._context.records.values()
            if each.switched and each.switched.uid == service.metadata.uid
        )
        return max(mine, key=lambda each: each.started, default=None)

    async def _switched(
        self, service: Service, deployment: Deployment, other: Deployment, seen: Mapping[str, str] | None
    ) -> Switched:
        """How the Service was before, and how many pods had the traffic."""
        before = colour_before(service, seen, templates.labels(other.spec.template))
        replicas = self._replicas.get(other.ref) or other.spec.replicas or deployment.spec.replicas
        return Switched(service.ref.name, service.metadata.uid, before, service.spec.selector, replicas)

    async def _hash_at(self, other: Deployment, at: dt.datetime) -> TemplateHash:
        """What the other colour was at the switch; empty where it has been changed since."""
        found = live_rollout(other, read_history(await self._snapshot(other)))
        if isinstance(found, Objection):
            return TemplateHash("")
        created = found[1].metadata.creation_timestamp
        return found[0].hash if created and created <= at else TemplateHash("")

    async def _snapshot(self, deployment: Deployment) -> Snapshot:
        return await self._context.observer.snapshot(deployment)


def _complete(deployment: Deployment) -> bool:
    return rollout_status(deployment).progress is Progress.COMPLETE


def _known(newest: Record | None, live: Rollout) -> bool:
    """Whether the newest record is about what is live: then there was no switch while nobody looked."""
    if newest is None or newest.outcome in _ACTED:
        return False
    return (newest.rollout.uid, newest.rollout.hash) == (live.uid, live.hash)
