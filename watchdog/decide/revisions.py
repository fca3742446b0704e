"""Revisions of a Deployment, and which one an undo goes to.

The order, the ownership rule and the choice are those of `kubectl rollout undo` (docs/design/kubernetes.md), and are
held to the real kubectl by tests. The differences are deliberate, each with a name that the tests use too:

    not-observed        kubectl goes one revision too far while the controller has not yet seen the live template, and
                        skips where the live template is not the newest, which is a moment between two states
    unnumbered          kubectl takes a ReplicaSet without a revision number for revision 0 and may choose it
    condemned           kubectl goes back to what an incident found bad
    nothing-to-undo     kubectl restarts all pods for a template that differs only in its annotations
    paused              kubectl refuses a pause for ever; ours and a forced one are lifted by the same patch
"""

import datetime as dt

import msgspec

from watchdog.decide import marks, templates
from watchdog.model import Guard, Objection, Revision, Rollout
from watchdog.objects import REVISION, Deployment, ReplicaSet, Snapshot

_LONG_AGO = dt.datetime.min.replace(tzinfo=dt.UTC)


class History(msgspec.Struct, frozen=True):
    """A Deployment's own ReplicaSets, in the order in which kubectl looks at them: by age, the live one last."""

    live: ReplicaSet | None
    others: tuple[ReplicaSet, ...]

    @property
    def all(self) -> tuple[ReplicaSet, ...]:
        """Every one, the live one last."""
        return (*self.others, self.live) if self.live else self.others

    @property
    def numbered(self) -> tuple[ReplicaSet, ...]:
        """Those with a revision number."""
        return tuple(replicaset for replicaset in self.all if replicaset.revision is not None)


def read_history(snapshot: Snapshot) -> History:
    """Keep what the Deployment controls, and find the live one: the oldest whose template equals the Deployment's.

    Labels never suffice: a ReplicaSet that was orphaned, or that belongs to a Deployment of the same name that is gone,
    carries the same ones.
    """
    uid = snapshot.deployment.metadata.uid
    owned = sorted(
        (
            replicaset
            for replicaset in snapshot.replicasets
            if any(owner.controller and owner.uid == uid for owner in replicaset.metadata.owner_references)
        ),
        key=lambda replicaset: (
            replicaset.metadata.creation_timestamp or _LONG_AGO,
            replicaset.metadata.name,
        ),
    )
    template = snapshot.deployment.spec.template
    live = next((item for item in owned if templates.same(item.spec.template, template)), None)
    return History(live, tuple(replicaset for replicaset in owned if replicaset is not live))


def live_rollout(deployment: Deployment, history: History) -> tuple[Rollout, ReplicaSet] | Objection:
    """What is live, or `not-observed` while the controller has yet to see it.

    The revision is written before observedGeneration is (docs/design b2), so equal generations mean the revision is
    current; only a paused Deployment may be observed without a ReplicaSet for its template (k2).
    """
    metadata, live = deployment.metadata, history.live
    if metadata.generation > deployment.status.observed_generation:
        return Objection(Guard.NOT_OBSERVED, "the controller has not seen the newest change yet")
    if live is None:
        why = "; it is paused: resume it first" if deployment.spec.paused else ""
        return Objection(Guard.NOT_OBSERVED, f"no ReplicaSet has the live template{why}")
    if live.revision is None or REVISION not in metadata.annotations:
        return Objection(Guard.NOT_OBSERVED, "the live ReplicaSet has no revision number yet")
    return Rollout(deployment.ref, metadata.uid, live.revision, live.hash), live


def choose_target(
    deployment: Deployment, history: History, *, to_revision: int | None, below: int | None = None
) -> ReplicaSet | Objection:
    """The ReplicaSet that a person's undo goes to.

    Without a number this passes over condemned revisions, as long as there is another; that a condemned one is the
    answer is for the policy guard to refuse.

    Args:
        to_revision: a revision number, or None for the one before.
        below: where what is live was put there by an undo: the number that it had before. Without `to_revision` only
            older ones are a place to go further back to; the others are what was left, now or in an undo before.
    """
    if to_revision is not None:
        target = next((item for item in history.numbered if item.revision == to_revision), None)
        if target is None:
            numbers = ", ".join(str(number) for number in sorted(set(map(_number, history.numbered))))
            return Objection(Guard.NO_TARGET, f"there is no revision {to_revision}; there are: {numbers or 'none'}")
    else:
        known = history.numbered
        if below is not None:
            known = tuple(item for item in known if item is history.live or _number(item) < below)
        target = _one_before(known, passing_condemned=True) or _one_before(known, passing_condemned=False)
    if target is None:
        limit = deployment.spec.revision_history_limit
        why = "revisionHistoryLimit is 0" if limit == 0 else "no older ReplicaSet is left"
        return Objection(Guard.NO_TARGET, f"there is nothing to go back to: {why}")
    if templates.same(target.spec.template, deployment.spec.template):
        if to_revision is None and target is history.live:  # it was read before a change, the others after it
            return Objection(Guard.NOT_OBSERVED, f"a newer revision than the live {target.revision} is about to be")
        return Objection(Guard.NOTHING_TO_UNDO, f"revision {target.revision} is what is live")
    if templates.differ_only_in_annotations(target.spec.template, deployment.spec.template):
        return Objection(
            Guard.NOTHING_TO_UNDO,
            f"revision {target.revision} differs from the live one only in annotations of its pods;"
            " an older one can be named with --to-revision",
        )
    return target


def _one_before(numbered: tuple[ReplicaSet, ...], *, passing_condemned: bool) -> ReplicaSet | None:
    """The second-highest revision number, as kubectl finds it [1]; of equal numbers the first in order.

    The highest counts as the newest even where it is condemned: what is passed over is a place to go to.

    [1] kubectl pkg/polymorphichelpers/rollback.go, deploymentRevision
    """
    newest = max(numbered, key=_number, default=None)
    older = (item for item in numbered if item is not newest)
    return max(
        (item for item in older if not (passing_condemned and marks.condemned_by(item))),
        key=_number,
        default=None,
    )


def _number(replicaset: ReplicaSet) -> int:
    return replicaset.revision or 0


def describe(replicaset: ReplicaSet) -> Revision:
    """A revision as a message names it."""
    return Revision(
        number=replicaset.revision or 0,
        hash=replicaset.hash,
        replicaset=replicaset.metadata.name,
        images=templates.images(replicaset.spec.template),
    )
