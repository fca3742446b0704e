"""Which revision the service goes back to: one that is known to be good, where there is one.

A person's undo goes where kubectl's would; see `history`.
"""

import datetime as dt
from collections.abc import Collection

from watchdog.decide import marks, templates
from watchdog.decide.revisions import History
from watchdog.model import Guard, Objection
from watchdog.objects import Deployment, ReplicaSet, TemplateHash

_NEWEST = dt.timedelta(days=7)
_STEPS_BACK = 2


def service_target(
    deployment: Deployment,
    history: History,
    *,
    begun_from: TemplateHash,
    doubtful: Collection[TemplateHash],
    cut_short: Collection[TemplateHash] = (),
    bake: dt.timedelta,
    began: dt.datetime,
    now: dt.datetime,
) -> tuple[ReplicaSet, bool] | Objection:
    """The target, and whether it passed.

    Args:
        begun_from: the hash that was live when the rollout began.
        doubtful: hashes that a record of ours says did not pass.
        cut_short: hashes that somebody replaced before they could pass, by our records; a mark may say that they passed
            at another time.
        bake: how long a revision that we did not watch must have lived to count as passed.
        began: when the rollout began.
    """
    others = sorted(
        (item for item in history.others if item.revision is not None and not marks.condemned_by(item)),
        key=lambda item: item.revision or 0,
        reverse=True,
    )
    if not others:
        limit = deployment.spec.revision_history_limit
        why = "revisionHistoryLimit is 0" if limit == 0 else "no older ReplicaSet that is not condemned is left"
        return Objection(Guard.NO_TARGET, f"there is nothing to go back to: {why}")
    before = next((item for item in others if item.hash == begun_from), others[0])

    def passed_when(item: ReplicaSet) -> dt.datetime | None:
        return _passed(item, doubtful, cut_short, bake, began)

    target, passed = before, passed_when(before) is not None
    if not passed:
        for item in others[:_STEPS_BACK]:
            at = passed_when(item)
            if at is not None and now - at <= _NEWEST:
                target, passed = item, True
                break
    if templates.differ_only_in_annotations(target.spec.template, deployment.spec.template):
        return Objection(
            Guard.NOTHING_TO_UNDO,
            f"revision {target.revision} differs from the live one only in annotations of its pods",
        )
    return target, passed


def _passed(
    item: ReplicaSet,
    doubtful: Collection[TemplateHash],
    cut_short: Collection[TemplateHash],
    bake: dt.timedelta,
    began: dt.datetime,
) -> dt.datetime | None:
    """When it passed, as its mark says or because it outlived a bake; never against a record of ours."""
    if item.hash in doubtful:
        return None
    if marked := marks.passed_at(item):
        return min(marked, began)
    created = item.metadata.creation_timestamp
    return None if item.hash in cut_short or created is None or began - created < bake else began
