"""Whether an action helped: the restored pods, or the stable ones after a scale-down, by what the bad one failed."""

import datetime as dt
import logging

from watchdog.decide.marks import condemned_by
from watchdog.decide.patches import absolve
from watchdog.decide.record import Record
from watchdog.engine.context import Context
from watchdog.engine.polled import Polled
from watchdog.errors import ClusterError
from watchdog.judge.blocks import Verdict
from watchdog.judge.objections import noisy
from watchdog.judge.sequential import Control
from watchdog.model import Action, Outcome

_log = logging.getLogger(__name__)

_UNPROVEN = {Action.SCALE_DOWN: Outcome.SCALED_DOWN, Action.SWITCH_BACK: Outcome.SWITCHED_BACK}


def proof(record: Record, item: Polled, *, waited: dt.timedelta, patience: dt.timedelta) -> tuple[Outcome, str] | None:
    """Say how an action ended, and why; None where that is not known yet.

    Args:
        item: the newest step of what is live since.
        waited: since the action's rollout was complete.
        patience: how long a proof is waited for.
    """
    least = item.watch.policy.threshold.min_requests
    verdicts = item.watch.verdicts(urgent=True)
    bad = [each for each in verdicts if each.candidate.total >= least and _over(each, record, item)]
    proven = item.watch.full and all(each.candidate.total >= least and not each.blind for each in verdicts)
    worst = max(verdicts, key=lambda each: each.candidate.ratio - _limit(each, record, item))
    if proven and worst.candidate.ratio <= _limit(worst, record, item):
        return Outcome.RECOVERED, f"{record.verified}; {_counts(worst)} requests failed afterwards"
    if waited < patience:
        return None
    if bad:
        why = f"{_counts(bad[0])} requests failed, limit {_limit(bad[0], record, item):.1%}"
        return Outcome.INEFFECTIVE, f"{record.verified}, but the signal is as bad as before: {why}"
    outcome = _UNPROVEN.get(record.action, Outcome.ROLLED_BACK)
    few = f"{_counts(worst)} requests failed, limit {_limit(worst, record, item):.1%}: too few requests to tell"
    why = next((each.blind.detail for each in verdicts if each.blind), few if proven else "too few requests since")
    return outcome, f"{record.verified}; recovery is not proven: {why}"


async def absolve_if_only_the_past_spoke(context: Context, record: Record, item: Polled) -> None:
    """Lift the mark of a version that only the past spoke against, and that was undone in vain: it was no fault of it.

    Source: docs/design/statistics.md §5.
    """
    stands = [stand for each in record.evidence.values() for stand in each]
    spoke = {stand.control for stand in stands if stand.reached is not None}
    if spoke != {Control.HISTORICAL} or record.plan is None or record.plan.cause != "sequential":
        return
    for replicaset in item.snapshot.replicasets:
        if condemned_by(replicaset) == record.id:
            namespace, name = replicaset.metadata.namespace, replicaset.metadata.name
            fields = {"event": "absolved", "incident": record.id, "workload": str(record.workload)}
            patch, timeout_s = absolve(replicaset), context.request_s
            try:
                await context.ports.cluster.patch_replicaset(namespace, name, patch, timeout_s=timeout_s)
                _log.info("ReplicaSet %s is absolved: its undo did not help", name, extra=fields)
            except ClusterError as error:
                _log.warning("ReplicaSet %s not absolved: %s", name, error, extra=fields | {"event": "not-absolved"})


def _over(verdict: Verdict, record: Record, item: Polled) -> bool:
    """Whether what is live since fails too often, with certainty where the rule was `sequential`."""
    settings, limit = record.test_settings.get(verdict.signal), _limit(verdict, record, item)
    if settings is None:
        return verdict.candidate.ratio > limit
    return noisy(verdict.candidate, limit=limit, phi=settings.phi_historical)


def _limit(verdict: Verdict, record: Record, item: Polled) -> float:
    settings = record.test_settings.get(verdict.signal)
    return settings.limit if settings else item.watch.policy.threshold.max_ratio


def _counts(verdict: Verdict) -> str:
    return f"{verdict.candidate.bad:.0f} of {verdict.candidate.total:.0f}"
