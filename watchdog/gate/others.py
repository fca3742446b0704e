"""Who else may end a gate: the running service, whose incidents it does not disturb, and whoever deploys meanwhile."""

import datetime as dt

from watchdog.decide import marks
from watchdog.decide.record import Record, State
from watchdog.errors import Denied
from watchdog.gate.scene import Look, Scene
from watchdog.gate.task import End
from watchdog.judge.blocks import Verdict, Word
from watchdog.model import MANAGER, Outcome, Refused
from watchdog.ports import Store

_HELD = (State.BREACH, State.ASKING, State.ACTING, State.VERIFYING)
_ACTED = (Outcome.ROLLED_BACK, Outcome.SCALED_DOWN, Outcome.PAUSED, Outcome.RECOVERED, Outcome.INEFFECTIVE)


class Service:
    """What the running service keeps of the version.

    Args:
        store: its records.
        scene: what was pinned.
        request_s: deadline of an answer.
    """

    def __init__(self, store: Store, scene: Scene, *, request_s: float) -> None:
        self._store = store
        self._scene = scene
        self._request_s = request_s
        self.denied = False

    async def record(self) -> Record | None:
        """The record; nothing where there is none, or where we may not read it. Raises `ClusterError`."""
        if self.denied:
            return None
        try:
            return await self._store.get(self._scene.rollout.incident, timeout_s=self._request_s)
        except Denied:
            self.denied = True
            return None


def held(record: Record | None) -> bool:
    """Whether the service has an open incident, so that a second action would be one too many."""
    return record is not None and record.state in _HELD


def ended(scene: Scene, seen: Look, record: Record | None, *, now: dt.datetime) -> End | None:
    """Whether this version is over: by the service, or because somebody else replaced it."""
    if record and record.state is State.ENDED and (end := _told(scene, record)):
        return end
    rollout, live = scene.rollout, seen.live
    mark = marks.read_last_rollback(seen.deployment.metadata.annotations, now=now)
    mine = mark is not None and mark.incident == rollout.incident
    if mark and mine and mark.by == MANAGER:
        outcome = Outcome.SCALED_DOWN if mark.to_hash == mark.from_hash else Outcome.ROLLED_BACK
        return _by_service(scene, outcome, f"the service acted: {mark.cause}")
    if scene.condemned(seen) == rollout.incident:
        verdict = Verdict(Word.BREACH, f"condemned in incident {rollout.incident}", cause="condemned-image")
        return End(verdict=verdict, detail=f"{mark.by} acted: {mark.cause}" if mark and mine else "")
    replaced = seen.deployment.metadata.uid != rollout.uid or (not isinstance(live, Refused) and live != rollout)
    waiting = isinstance(live, Refused) and scene.replicaset(seen) is not seen.history.live
    if not replaced and not waiting:
        return None
    by = f"{mark.by} rolled it back" if mark and mine else "someone else replaced it"
    what = "a newer version" if isinstance(live, Refused) else f"revision {live.revision} ({live.hash})"
    return superseded(f"{by}: {what} is live now", "nothing was changed")


def superseded(why: str, detail: str) -> End:
    """The version is not what is live any more."""
    return End(verdict=Verdict(Word.INSUFFICIENT, why), outcome=Outcome.SUPERSEDED, detail=detail)


def _told(scene: Scene, record: Record) -> End | None:
    """What the record's end means to a gate; nothing where the service had nothing against the version, or no say."""
    if record.outcome in _ACTED:
        return _by_service(scene, record.outcome, record.detail)
    dismissed = record.outcome is Outcome.REFUSED and record.people and record.people[-1].answer == "dismiss"
    if record.outcome is not Outcome.FAILED and not dismissed:
        return None
    verdict = Verdict(Word.BREACH, record.detail, cause="service")
    return End(verdict=verdict, outcome=record.outcome, detail=record.detail, service=True)


def _by_service(scene: Scene, outcome: Outcome, detail: str) -> End:
    verdict = Verdict(Word.BREACH, f"condemned in incident {scene.rollout.incident}", cause="service")
    return End(verdict=verdict, outcome=outcome, detail=detail, service=True)
