"""The record of a rollout that comes under watch."""

import datetime as dt
from typing import Any

from watchdog.decide import marks
from watchdog.decide.record import Record
from watchdog.engine.fleet import Match, WorkloadRole
from watchdog.engine.topologies import TRAITS
from watchdog.engine.watch import digest, signals_used
from watchdog.model import Action, Mode, Rollout
from watchdog.objects import Deployment


def new_record(rollout: Rollout, match: Match, *, mode: Mode, started: dt.datetime, **more: Any) -> Record:
    """Begin the record of a rollout.

    Args:
        match: the policy of its workload.
        mode: how far the service may go.
        started: when its first candidate pod was created, or when it was switched to.
        more: further fields.
    """
    policy = match.policy
    more.setdefault("stable", match.other or rollout.workload)
    return Record(
        id=rollout.incident,
        rollout=rollout,
        policy=policy.name,
        policy_digest=digest(policy),
        topology=match.topology,
        mode=mode,
        action=action_of(match),
        started=started,
        signals=signals_used(policy),
        **more,
    )


def mode_of(mode: Mode, deployment: Deployment) -> Mode:
    """The mode, lowered by the Deployment's annotation where that is lower."""
    said = marks.read_mode(deployment.metadata.annotations)
    return mode if said is None else min(mode, said, key=list(Mode).index)


def action_of(match: Match) -> Action:
    """What a breach of this workload leads to. Only a canary is ever scaled down, never the stable side beside it."""
    wanted = match.policy.action or TRAITS[match.topology].action
    return Action.UNDO if wanted is Action.SCALE_DOWN and match.side is not WorkloadRole.CANDIDATE else wanted
