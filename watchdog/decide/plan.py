"""The exact writes of each action, as one guarded JSON patch each.

Every patch tests what was judged and changes it in the same request, which the API server applies as one: whoever came
in between wins, and this patch does nothing. `/spec/template` is tested whole, because it pins the version that was
judged and, unlike the generation, does not change when an autoscaler does its work (docs/design c4).
"""

import datetime as dt
from collections.abc import Iterable, Sequence

import msgspec

from watchdog.decide import guards, marks, templates
from watchdog.decide.marks import LastRollback
from watchdog.decide.patches import Operation, add, annotation, encode, remove, replace, test
from watchdog.decide.revisions import History, choose_target, describe, live_rollout, read_history
from watchdog.decide.status import Progress, rollout_status
from watchdog.model import (
    Cause,
    Guard,
    Objection,
    Pause,
    Plan,
    Restore,
    Revision,
    Rollout,
    ScaleDown,
    Undo,
)
from watchdog.objects import (
    CHANGE_CAUSE,
    HASH_LABEL,
    REVISION,
    Autoscaler,
    Deployment,
    ReplicaSet,
    Snapshot,
)

_LATELY = dt.timedelta(hours=1)
_LONGEST_CAUSE = 200


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of an action, beside the workload.

    Args:
        rollout: the rollout that was judged; None takes what is live at the first look.
        to_revision: where an undo goes; None for the revision before.
        expected_revision: the revision that the caller believes to be live. Where an undo put it there, an undo without
            `to_revision` goes further back, while without this it changes nothing.
        force: pass the policy guards.
        gitops_act: the policy says to act although a GitOps controller manages the workload.
        nonce: what proves the service's own write; empty for a person.
    """

    cause: Cause
    rollout: Rollout | None = None
    to_revision: int | None = None
    expected_revision: int | None = None
    force: bool = False
    gitops_act: bool = False
    nonce: str = ""


def plan_undo(snapshot: Snapshot, request: Request, *, now: dt.datetime) -> Undo | Objection:
    """Decide one undo. Physical guards come first: where they refuse, no force would help."""
    deployment, history = snapshot.deployment, read_history(snapshot)
    judged = _judged(deployment, history, request)
    if isinstance(judged, Objection):
        return judged
    rollout, live = judged
    before = None if request.to_revision else _undo_before(deployment, live, now)
    further = before.to_revision if before and request.expected_revision is not None else None
    target = choose_target(deployment, history, to_revision=request.to_revision, below=further)
    if isinstance(target, Objection):
        return target
    if before and before.from_hash == target.hash:
        return _already(rollout, before)
    refusals = _refusals(
        # A mark proves nothing: only a person may believe that a pause is ours.
        guards.paused(deployment, None if request.nonce else rollout.hash),
        guards.recreate(deployment),
        guards.condemned(deployment, target),
        *_common_guards(deployment, live, request, now),
    )
    if refusals and not request.force:
        return _first(refusals)
    mark = marks.last_rollback(rollout, target, request.cause, nonce=request.nonce, now=now)
    return Undo(
        rollout=rollout,
        live=describe(live),
        target=describe(target),
        template=target.spec.template,
        patch=encode(_undo_operations(deployment, target, mark)),
        mark=mark,
        changes=templates.changes(deployment.spec.template, target.spec.template),
        forced=refusals,
    )


def _undo_before(deployment: Deployment, live: ReplicaSet, now: dt.datetime) -> LastRollback | None:
    """The undo of the last hour that made live what is live, whoever carried it out, if its mark tells of one.

    A mark is a claim, so it may withhold an undo and never bring one about.
    """
    mark = marks.read_last_rollback(deployment.metadata.annotations, now=now)
    if mark is None or mark.to_hash == mark.from_hash or mark.to_hash != live.hash or now - mark.at > _LATELY:
        return None
    return msgspec.structs.replace(mark, at=mark.at.astimezone(dt.UTC))


def _already(rollout: Rollout, before: LastRollback) -> Objection:
    """An undo would bring back what the last one left: the emergency button pressed twice must not."""
    cause = f" ({before.cause[:_LONGEST_CAUSE]})" if before.cause else ""
    return Objection(
        Guard.ALREADY,
        f"revision {rollout.revision} was put there by the rollback {before.from_revision} → {before.to_revision}"
        f" at {before.at:%H:%M:%S} UTC by {before.by[:_LONGEST_CAUSE]}{cause}; to go further back, name"
        f" the revision with --to-revision, or say --expected-current-revision {rollout.revision}",
    )


def _undo_operations(deployment: Deployment, target: ReplicaSet, mark: str) -> Iterable[Operation]:
    annotations = deployment.metadata.annotations
    yield from _preconditions(deployment)
    yield test(annotation(REVISION), annotations[REVISION])
    yield test("/spec/paused", deployment.spec.paused or None)
    yield replace("/spec/template", target.spec.template)
    if templates.carries_hash(target.spec.template):
        yield remove(f"/spec/template/metadata/labels/{HASH_LABEL}")
    if deployment.spec.paused:
        yield replace("/spec/paused", False)
        if marks.PAUSED_BY in annotations:
            yield remove(annotation(marks.PAUSED_BY))
    cause = target.metadata.annotations.get(CHANGE_CAUSE)
    if cause is not None:
        yield add(annotation(CHANGE_CAUSE), cause)
    elif CHANGE_CAUSE in annotations:
        yield remove(annotation(CHANGE_CAUSE))
    yield add(annotation(marks.LAST_ROLLBACK), mark)


def plan_scale_down(
    snapshot: Snapshot, request: Request, *, autoscalers: Sequence[Autoscaler], now: dt.datetime
) -> ScaleDown | Objection:
    """Decide to take every pod of a canary away, remembering how many there were.

    One patch on the Deployment and not on its scale subresource, which at 0 has no count to test and drops annotations
    (docs/design e2).
    """
    deployment, history = snapshot.deployment, read_history(snapshot)
    judged = _judged(deployment, history, request)
    if isinstance(judged, Objection):
        return judged
    rollout, live = judged
    replicas = deployment.spec.replicas
    if replicas == 0:
        return Objection(Guard.NOTHING_TO_UNDO, "it has 0 replicas")
    refusals = _refusals(guards.keda(deployment, autoscalers), *_common_guards(deployment, live, request, now))
    if refusals and not request.force:
        return _first(refusals)
    mark = marks.last_rollback(rollout, live, request.cause, nonce=request.nonce, now=now)
    operations = (
        *_preconditions(deployment),
        test("/spec/replicas", replicas),
        replace("/spec/replicas", 0),
        add(annotation(marks.REPLICAS_BEFORE), marks.write_about(rollout.hash, str(replicas))),
        add(annotation(marks.LAST_ROLLBACK), mark),
    )
    return ScaleDown(
        rollout=rollout, live=describe(live), replicas=replicas, patch=encode(operations), mark=mark, forced=refusals
    )


def plan_restore(snapshot: Snapshot, *, condemned_images: frozenset[tuple[str, str]]) -> Restore | None:
    """Give a scaled-down workload its replicas back once another, uncondemned template has arrived.

    Without this the next canary would have no pods and nothing to be judged by.

    Args:
        condemned_images: (container, image) pairs that must not run again.

    Returns:
        None where there is nothing to restore, or not yet.
    """
    deployment, history = snapshot.deployment, read_history(snapshot)
    found = live_rollout(deployment, history)
    mark = deployment.metadata.annotations.get(marks.REPLICAS_BEFORE)
    before = marks.replicas_before(deployment.metadata.annotations)
    going = deployment.metadata.deletion_timestamp is not None
    if mark is None or before is None or isinstance(found, Objection) or going:
        return None
    rollout, live = found
    about, count = before
    images = templates.images(deployment.spec.template).items()
    if about == rollout.hash or marks.condemned_by(live) or condemned_images & images:
        return None
    operations = [*_preconditions(deployment), test(annotation(marks.REPLICAS_BEFORE), mark)]
    operations.append(test("/spec/replicas", deployment.spec.replicas))
    replicas = count if deployment.spec.replicas == 0 else None
    if replicas is not None:
        operations.append(replace("/spec/replicas", replicas))
    operations.append(remove(annotation(marks.REPLICAS_BEFORE)))
    return Restore(rollout=rollout, live=describe(live), replicas=replicas, patch=encode(operations), mark=mark)


def plan_pause(snapshot: Snapshot, request: Request, *, now: dt.datetime) -> Pause | Objection:
    """Decide to stop a rolling update where it stands. A later undo by us lifts the pause."""
    deployment, history = snapshot.deployment, read_history(snapshot)
    judged = _judged(deployment, history, request)
    if isinstance(judged, Objection):
        return judged
    rollout, live = judged
    if deployment.spec.paused:
        return guards.paused(deployment, rollout.hash) or Objection(Guard.NOTHING_TO_UNDO, "it is paused by us already")
    if rollout_status(deployment).progress is Progress.COMPLETE:
        return Objection(Guard.NOTHING_TO_UNDO, "the rollout is complete: there is nothing left to stop")
    refusals = _common_guards(deployment, live, request, now)
    if refusals and not request.force:
        return _first(refusals)
    mark = marks.write_pause(rollout.hash, rollout.incident, request.nonce)
    operations = (
        *_preconditions(deployment),
        test("/spec/paused", None),
        add("/spec/paused", True),
        add(annotation(marks.PAUSED_BY), mark),
    )
    return Pause(rollout=rollout, live=describe(live), patch=encode(operations), mark=mark, forced=refusals)


def written_plan(
    snapshot: Snapshot, rollout: Rollout, *, proofs: Iterable[str], now: dt.datetime
) -> Undo | ScaleDown | None:
    """What an action of this rollout's incident wrote, from its mark; None where there is none that still stands.

    The mark must be proven, and what it says must stand: the controller copies it about, and others write after us. A
    template that admission changed on its way in stands, too.

    Args:
        rollout: what the incident is about.
        proofs: digests of the nonces that the service's writes may carry.
    """
    deployment, history = snapshot.deployment, read_history(snapshot)
    text = deployment.metadata.annotations.get(marks.LAST_ROLLBACK, "")
    mark = marks.read_last_rollback(deployment.metadata.annotations, now=now)
    source = next((item for item in history.all if item.hash == rollout.hash), None)
    if mark is None or mark.incident != rollout.incident or deployment.metadata.uid != rollout.uid:
        return None
    if not marks.proves(mark.nonce, rollout, proofs):
        return None
    gone = Revision(rollout.revision, rollout.hash, "", {})
    live = msgspec.structs.replace(describe(source), number=rollout.revision) if source else gone
    if mark.to_hash == mark.from_hash:
        about, count = marks.replicas_before(deployment.metadata.annotations) or ("", 0)
        stands = deployment.spec.replicas == 0 and about == rollout.hash
        return ScaleDown(rollout=rollout, live=live, replicas=count, mark=text) if stands else None
    target = next((item for item in history.all if item.hash == mark.to_hash), None)
    now_live = history.live.revision if history.live else None
    if target is None or not still_live(mark, target.spec.template, deployment.spec.template, revision=now_live):
        return None
    revision = msgspec.structs.replace(describe(target), number=mark.to_revision)
    return Undo(rollout=rollout, live=live, target=revision, template=deployment.spec.template, mark=text)


def still_live(mark: LastRollback, target: msgspec.Raw, live: msgspec.Raw, *, revision: int | None) -> bool:
    """Whether what an undo wrote is what is live, also where admission changed it on its way in.

    Then its template and hash are not the target's, but the revision is the very next one, with the target's images.

    Args:
        mark: of the undo, proven to be ours.
        target: the template that was written.
        revision: the number of the live revision; None while it has none.
    """
    return templates.same(target, live) or (revision == mark.from_revision + 1 and templates.descends(live, target))


def landed(plan: Plan, deployment: Deployment) -> bool:
    """Whether a write that got no answer has happened and stands: our very mark, and what it was to change."""
    annotations = deployment.metadata.annotations
    ours = marked(plan, deployment)
    match plan:
        case Undo():
            return ours and templates.same(deployment.spec.template, plan.template)
        case ScaleDown():
            return ours and deployment.spec.replicas == 0
        case Pause():
            return ours and deployment.spec.paused
        case _:
            return marks.REPLICAS_BEFORE not in annotations


def marked(plan: Plan, deployment: Deployment) -> bool:
    """Whether the newest mark is the plan's own, to the letter: an incident may have had another action before."""
    key = marks.PAUSED_BY if isinstance(plan, Pause) else marks.LAST_ROLLBACK
    return not isinstance(plan, Restore) and deployment.metadata.annotations.get(key) == plan.mark


def _judged(deployment: Deployment, history: History, request: Request) -> tuple[Rollout, ReplicaSet] | Objection:
    """What is live, if it still is what was judged."""
    if deployment.metadata.deletion_timestamp:
        return Objection(Guard.SUPERSEDED, "it is being deleted: no controller rolls anything out for it any more")
    found = live_rollout(deployment, history)
    if isinstance(found, Objection):
        # A pause explains why nothing is observed; waiting for it would be in vain.
        waiting = None if request.force else guards.paused(deployment, None)
        return waiting or found
    rollout, live = found
    if request.rollout not in (None, rollout):
        return Objection(
            Guard.SUPERSEDED,
            f"revision {rollout.revision} ({rollout.hash}) is live now, put there by someone else",
        )
    if request.expected_revision not in (None, rollout.revision):
        return Objection(
            Guard.SUPERSEDED,
            f"revision {rollout.revision} is live, not the expected {request.expected_revision}",
        )
    return rollout, live


def _common_guards(
    deployment: Deployment, live: ReplicaSet, request: Request, now: dt.datetime
) -> tuple[Objection, ...]:
    gitops = None if request.gitops_act else guards.gitops(deployment)
    mode = guards.mode(deployment) if request.nonce else None  # it binds the service alone
    return _refusals(mode, gitops, guards.hold(deployment, live, now=now))


def _refusals(*answers: Objection | None) -> tuple[Objection, ...]:
    return tuple(answer for answer in answers if answer)


def _first(refusals: tuple[Objection, ...]) -> Objection:
    return msgspec.structs.replace(refusals[0], also=refusals[1:])


def _preconditions(deployment: Deployment) -> tuple[Operation, ...]:
    """What every action tests: the same object, the same version, and no hold or mode that was not read."""
    return (
        test("/metadata/uid", deployment.metadata.uid),
        test("/spec/template", deployment.spec.template),
        *(test(annotation(key), deployment.metadata.annotations.get(key)) for key in (marks.HOLD, marks.MODE)),
    )
