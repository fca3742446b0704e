"""What marks on a workload claim of the service's own actions, and what its records prove."""

import datetime as dt
import logging
from collections.abc import Callable

import msgspec

from watchdog.decide import incident, marks, templates
from watchdog.decide.marks import LastRollback
from watchdog.decide.record import BEFORE_ACTING, Record, State
from watchdog.decide.revisions import History
from watchdog.engine.context import Context
from watchdog.engine.new_record import new_record
from watchdog.model import Action, EventReason, Mode, Outcome, Rollout
from watchdog.objects import Deployment, WorkloadRef

_log = logging.getLogger(__name__)

RECENT = dt.timedelta(days=1)
"""How long a claim about an unfinished action is worth telling."""


class Claims:
    """Reads marks: a mark is a claim, and only a nonce whose digest the record holds is a proof.

    Args:
        changed: told of a record that goes on by what a mark proves.
    """

    def __init__(self, context: Context, *, changed: Callable[[Record], None]) -> None:
        self._context = context
        self._changed = changed
        self._malformed: dict[WorkloadRef, tuple[str, ...]] = {}

    def forget(self, ref: WorkloadRef) -> None:
        """Forget a workload that is gone."""
        self._malformed.pop(ref, None)

    def mark(self, deployment: Deployment) -> LastRollback | None:
        """The mark of the newest action; what stands there and cannot be read is said once."""
        annotations, now = deployment.metadata.annotations, self._context.now()
        malformed = marks.malformed(annotations, now=now)
        if malformed and self._malformed.get(deployment.ref) != malformed:
            fields = {"event": "malformed-mark", "workload": str(deployment.ref)}
            _log.warning("no mark of ours, left alone: %s", ", ".join(malformed), extra=fields)
        if malformed:
            self._malformed[deployment.ref] = malformed
        else:
            self._malformed.pop(deployment.ref, None)
        return marks.read_last_rollback(annotations, now=now)

    def take_proof(self, record: Record, deployment: Deployment) -> Record:
        """Go on with a write that an earlier process made and could not record: its nonce proves it.

        A mark that names the service without such a proof is a claim. Where what it claims stands, the watch is over
        and people are told; nothing is written.
        """
        context = self._context
        if record.state not in BEFORE_ACTING:
            return record
        mark, paused = self.mark(deployment), marks.read_pause(deployment.metadata.annotations, record.rollout.hash)
        nonces = [mark.nonce] if mark and mark.incident == record.id else []
        if deployment.spec.paused and paused and paused[0] == record.id:
            nonces.append(paused[1])
        if any(marks.proves(nonce, record.rollout, record.proofs) for nonce in nonces):
            record = context.put(msgspec.structs.replace(record, state=State.ACTING), notify=False)
            self._changed(record)
        elif mark and self.claimed(mark, record) and mark.to_hash == mark.from_hash and deployment.spec.replicas == 0:
            record = context.put(self.unproven(record, mark))
        return record

    def claimed(self, mark: LastRollback, record: Record) -> bool:
        """Whether a mark says that the service has just acted in this incident, without proof."""
        recent = self._context.now() - mark.at <= RECENT
        return mark.by_us and mark.incident == record.id and recent and record.mode is not Mode.OBSERVE

    def unproven(self, record: Record, mark: LastRollback) -> Record:
        """The record of a watch that ends with such a claim; people are told by an Event, too."""
        why = (
            f"a mark of {mark.at:%Y-%m-%d %H:%M:%S} UTC says that the service went from revision {mark.from_revision}"
            f" to {mark.to_revision or 'another one'}; no record proves it, and nothing more is done"
        )
        self._context.note(record, EventReason.FAILED, f"unproven: {why}", suffix="-unproven")
        return incident.end(record, Outcome.UNPROVEN, why, now=self._context.now())

    def ours(self, record: Record, deployment: Deployment, rollout: Rollout) -> bool:
        """Whether the new revision is what this record's own action made live.

        An accepted write needs no mark to tell: anybody may have overwritten that since.
        """
        if record.state not in (State.ACTING, State.VERIFYING):
            return False
        target = record.plan.to_hash if record.plan and record.state is State.VERIFYING else None
        if target == rollout.hash and rollout.revision == record.rollout.revision + 1:
            return True
        mark = self.mark(deployment)
        return (
            mark is not None
            and mark.incident == record.id
            and _made(mark, record, deployment, rollout)
            and marks.proves(mark.nonce, record.rollout, record.proofs)
        )

    def undone(self, deployment: Deployment, rollout: Rollout, history: History) -> bool:
        """Whether an undo of the service has just made this revision live: an undo is never undone.

        That is withheld on a mere claim, too. One that no record knows, and that may not have been finished, is told:
        as `unproven`, and once, because the Event's name and the message's incident are the same after each restart.
        It is not saved, since anybody could fill the store so.
        """
        mark = self.mark(deployment)
        if (
            mark is None
            or not mark.by_us
            or not _made(mark, self._context.records.get(mark.incident), deployment, rollout)
            or rollout.revision not in (mark.from_revision, mark.from_revision + 1)
        ):
            return False
        context, match = self._context, self._context.fleet.match(rollout.workload)
        left = Rollout(rollout.workload, rollout.uid, mark.from_revision, mark.from_hash)
        lasts = dt.timedelta(seconds=context.config.rollback.timeout + context.config.limits.recovery)
        condemned = any(marks.condemned_by(item) == mark.incident for item in history.all)
        finished = condemned and context.now() - mark.at > lasts
        known = finished or mark.incident in context.records or left.incident != mark.incident
        if match and not known and context.now() - mark.at <= RECENT and match.policy.mode is not Mode.OBSERVE:
            claim = new_record(left, match, mode=match.policy.mode, started=mark.at)
            claim = msgspec.structs.replace(claim, id=mark.incident, write_at=mark.at)
            context.claim(self.unproven(claim, mark))
        return True

    def scaled_down_by_us(self, deployment: Deployment) -> bool:
        """Whether a record of ours, or of a gate, says that what `replicas-before` is about was scaled down."""
        about = marks.replicas_before(deployment.metadata.annotations)
        return about is not None and any(
            each.rollout.hash == about[0] and each.write_at and each.plan and each.plan.action is Action.SCALE_DOWN
            for each in self._context.about(deployment.ref)
        )


def _made(mark: LastRollback, record: Record | None, deployment: Deployment, rollout: Rollout) -> bool:
    """Whether a revision is what a mark names, also where admission changed that on its way in: see `plan.still_live`.

    Args:
        mark: proven, where that matters.
        record: of its incident, which knows the target's images.
        deployment: what is live.
        rollout: the same.
    """
    if mark.to_hash == rollout.hash:
        return True
    images = record.plan.target_images.items() if record and record.plan else ()
    live = templates.images(deployment.spec.template).items()
    return rollout.revision == mark.from_revision + 1 and bool(images) and set(images) <= set(live)
