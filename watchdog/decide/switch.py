"""Blue-green: the exact writes that give the traffic back to the colour that had it before a switch.

The Service's selector is tested whole and replaced whole, with our mark in the same patch: whoever switches in between
wins. The colour of before must be what it was, and have the pods for the traffic; else it is scaled up first.
"""

import datetime as dt
import math
from collections.abc import Iterable, Mapping

import msgspec

from watchdog.decide import guards, marks, templates
from watchdog.decide.marks import LastRollback
from watchdog.decide.patches import Operation, add, annotation, encode, replace, test
from watchdog.decide.record import Record, Switched
from watchdog.decide.revisions import describe, live_rollout, read_history
from watchdog.model import Cause, Guard, Objection, Revision, Rollout, ScaleUp, SwitchBack
from watchdog.objects import Pod, ReplicaSet, Service, Snapshot, TemplateHash

ENOUGH = 0.8
"""The share of the live colour's ready pods that the other one needs before it gets the traffic."""


class Colours(msgspec.Struct, frozen=True, kw_only=True):
    """A Service, the colour that a switch made live, the one of before, and the pods of both, read in this order."""

    service: Service
    live: Snapshot
    old: Snapshot
    pods: tuple[Pod, ...]


def plan_switch_back(
    seen: Colours, record: Record, cause: Cause, *, nonce: str, gitops_act: bool, now: dt.datetime
) -> SwitchBack | ScaleUp | Objection:
    """Decide one switch-back.

    Args:
        record: the switch that was judged.
        nonce: what proves the service's own write.
        gitops_act: the policy says to act although a GitOps controller manages the objects.
    """
    switched = record.switched
    if switched is None:
        return Objection(Guard.NO_TARGET, "this rollout was no switch")
    sides = _sides(seen, record, switched)
    if isinstance(sides, Objection):
        return sides
    live, old = sides
    by_gitops = (None if gitops_act else guards.gitops(item) for item in (seen.service, seen.live.deployment))
    mode = guards.mode(seen.live.deployment) if nonce else None
    held = (_held(seen.service, now=now), guards.hold(seen.live.deployment, live, now=now))
    for refusal in (mode, *by_gitops, *held):
        if refusal:
            return refusal
    if refusal := guards.condemned(seen.old.deployment, old):
        return refusal
    ready = (_ready(seen.pods, old, switched.before), _ready(seen.pods, live, switched.after))
    needed = max(1, math.ceil(round(ENOUGH * ready[1], 9)))
    if ready[0] < needed:
        left = msgspec.structs.replace(describe(live), number=record.rollout.revision)
        return _make_room(seen, record.rollout, left, switched, ready=ready, needed=needed, gitops_act=gitops_act)
    mark = marks.last_rollback(record.rollout, old, cause, nonce=nonce, now=now)
    return SwitchBack(
        rollout=record.rollout,
        live=msgspec.structs.replace(describe(live), number=record.rollout.revision),
        target=describe(old),
        service=seen.service.ref.name,
        colour=seen.old.deployment.ref.name,
        ready=ready,
        selector=switched.before,
        patch=encode(_operations(seen.service, switched, mark)),
        mark=mark,
    )


def _sides(seen: Colours, record: Record, switched: Switched) -> tuple[ReplicaSet, ReplicaSet] | Objection:
    """What is live and what was before, if both still are what they were."""
    service, colour = seen.service, seen.old.deployment
    for what, item in (("Service", service), ("Deployment", seen.live.deployment), ("Deployment", colour)):
        if item.metadata.deletion_timestamp:
            return Objection(Guard.SUPERSEDED, f"the {what} {item.ref.name} is being deleted")
    if service.metadata.uid != switched.uid:
        return Objection(Guard.SUPERSEDED, f"the Service {service.ref.name} was made anew by someone else")
    if service.spec.selector != switched.after:
        text = selector_text(service.spec.selector)
        return Objection(Guard.SUPERSEDED, f"the Service {service.ref.name} selects {text} now, by someone else")
    found = live_rollout(seen.live.deployment, read_history(seen.live))
    if isinstance(found, Objection):
        return found
    if (found[0].uid, found[0].hash) != (record.rollout.uid, record.rollout.hash):
        why = f"revision {found[0].revision} ({found[0].hash}) is live now, put there by someone else"
        return Objection(Guard.SUPERSEDED, why)
    before = live_rollout(colour, read_history(seen.old))
    if isinstance(before, Objection):
        return before
    if not switched.before or not record.stable_hash:
        return Objection(Guard.NO_TARGET, f"what {colour.ref.name} was before the switch is not known")
    if before[1].hash != record.stable_hash:
        why = f"{colour.ref.name} has been changed since the switch: {before[1].hash}, not {record.stable_hash}"
        return Objection(Guard.NO_TARGET, why)
    if not switched.before.items() <= templates.labels(colour.spec.template).items():
        why = f"{selector_text(switched.before)} does not select the pods of {colour.ref.name} any more"
        return Objection(Guard.NO_TARGET, why)
    return found[1], before[1]


def _make_room(
    seen: Colours,
    rollout: Rollout,
    live: Revision,
    switched: Switched,
    *,
    ready: tuple[int, int],
    needed: int,
    gitops_act: bool,
) -> ScaleUp | Objection:
    """Give the colour of before the pods that it had; where it is to have them already, they are waited for."""
    colour = seen.old.deployment
    why = f"{colour.ref.name} has {ready[0]} ready pods, the {ready[1]} of the live colour need {needed}"
    refused, wanted = Objection(Guard.NO_CAPACITY, why), max(switched.replicas, needed)
    if colour.spec.replicas >= wanted:
        return refused
    if not gitops_act and (by_gitops := guards.gitops(colour)):
        return by_gitops
    operations = (
        test("/metadata/uid", colour.metadata.uid),
        test("/spec/template", colour.spec.template),
        test("/spec/replicas", colour.spec.replicas),
        replace("/spec/replicas", wanted),
    )
    return ScaleUp(
        rollout=rollout,
        live=live,
        colour=colour.ref,
        before=colour.spec.replicas,
        replicas=wanted,
        patch=encode(operations),
        refused=refused,
    )


def _operations(service: Service, switched: Switched, mark: str) -> Iterable[Operation]:
    annotations = service.metadata.annotations
    yield test("/metadata/uid", service.metadata.uid)
    yield test("/spec/selector", switched.after)
    yield replace("/spec/selector", switched.before)
    if annotations:
        yield test(annotation(marks.HOLD), annotations.get(marks.HOLD))
        yield add(annotation(marks.LAST_ROLLBACK), mark)
    else:  # a path into a map that is not there fails (docs/design a4)
        yield test("/metadata/annotations", None)
        yield add("/metadata/annotations", {marks.LAST_ROLLBACK: mark})


def _held(service: Service, *, now: dt.datetime) -> Objection | None:
    text = service.metadata.annotations.get(marks.HOLD)
    if text is None:
        return None
    owner = marks.field_owner(service.metadata, ("f:metadata", "f:annotations", f"f:{marks.HOLD}"))
    found = marks.read_hold(text, set_at=owner.time if owner else None, now=now)
    until = f"{found.until:%Y-%m-%dT%H:%M:%SZ}: {found.reason or 'no reason'}" if found else ""
    return Objection(Guard.HOLD, f"the Service is held until {until}") if found else None


def _ready(pods: Iterable[Pod], replicaset: ReplicaSet, selector: Mapping[str, str]) -> int:
    """Pods of a ReplicaSet that a selector finds and that take traffic."""
    return sum(
        pod.metadata.deletion_timestamp is None
        and selector.items() <= pod.metadata.labels.items()
        and any(owner.controller and owner.uid == replicaset.metadata.uid for owner in pod.metadata.owner_references)
        and any(condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions)
        for pod in pods
    )


def marked_by(service: Service, record: Record, *, now: dt.datetime) -> LastRollback | None:
    """Our proven mark of this incident on the Service, if it is the newest."""
    mark = marks.read_last_rollback(service.metadata.annotations, now=now)
    ours = mark and mark.incident == record.id and marks.proves(mark.nonce, record.rollout, record.proofs)
    return mark if ours else None


def stands(service: Service, record: Record, *, now: dt.datetime) -> bool:
    """Whether this incident's switch-back was written and stands: our mark, and the selector of before."""
    switched = record.switched
    return (
        switched is not None
        and marked_by(service, record, now=now) is not None
        and service.metadata.uid == switched.uid
        and service.spec.selector == switched.before
    )


def written_switch(seen: Colours, record: Record, *, now: dt.datetime) -> SwitchBack | None:
    """What this incident wrote, by this process or one before; None where there is nothing that still stands."""
    mark, switched = marked_by(seen.service, record, now=now), record.switched
    if mark is None or switched is None or not stands(seen.service, record, now=now):
        return None
    revisions = {item.hash: describe(item) for each in (seen.live, seen.old) for item in read_history(each).all}
    live = revisions.get(mark.from_hash, Revision(mark.from_revision, mark.from_hash, "", {}))
    target = revisions.get(mark.to_hash, Revision(mark.to_revision, mark.to_hash, "", {}))
    return SwitchBack(
        rollout=record.rollout,
        live=msgspec.structs.replace(live, number=mark.from_revision),
        target=target,
        service=seen.service.ref.name,
        colour=seen.old.deployment.ref.name,
        ready=(ready_pods(seen, target.hash, switched.before), ready_pods(seen, live.hash, switched.after)),
        selector=switched.before,
        mark=seen.service.metadata.annotations[marks.LAST_ROLLBACK],
    )


def ready_pods(seen: Colours, about: TemplateHash, selector: Mapping[str, str]) -> int:
    """How many pods of a hash take traffic by a selector."""
    sets = (item for each in (seen.live, seen.old) for item in read_history(each).all if item.hash == about)
    return sum(_ready(seen.pods, item, selector) for item in sets)


def selector_text(selector: Mapping[str, str]) -> str:
    """A selector as kubectl takes it."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items())) or "nothing"


def colour_before(live: Service, seen: Mapping[str, str] | None, labels: Mapping[str, str]) -> Mapping[str, str]:
    """The selector that the Service had before a switch.

    Args:
        live: the Service after the switch.
        seen: what was seen before; None where nobody was there to see.
        labels: of the other colour's pods: the same keys with its values are the best guess.

    Returns:
        Empty where it cannot be known.
    """
    if seen and seen.items() <= labels.items():
        return seen
    keys = live.spec.selector.keys()
    return {key: labels[key] for key in keys} if keys <= labels.keys() else {}
