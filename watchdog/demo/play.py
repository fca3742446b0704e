"""One play, from the first version to the end, which is checked against the record and the cluster."""

import asyncio
import time
from collections.abc import Callable

import msgspec

from watchdog.decide.record import Record, State
from watchdog.demo.prometheus import Prometheus
from watchdog.demo.scenarios import CANDIDATE, FIXED, GOOD, NEW, STABLE, Scenario
from watchdog.demo.stage import Stage, staged
from watchdog.sandbox.traffic import Counted

Say = Callable[[str], None]
Look = Callable[[Stage], None]

_LOOK_S = 0.2
_DEADLINE_S = 55.0
_OUTAGE_S = 5.0


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a play ended.

    Args:
        wrong: what is not as promised; empty if all is.
        record: of the new version; None where there is none.
        during: requests from the new version's first moment to the end.
        after: those of them that began after the write was accepted.
    """

    wrong: tuple[str, ...]
    record: Record | None
    during: Counted
    after: Counted


async def play(scenario: Scenario, *, fast: bool, say: Say, look: Look, prometheus: Prometheus | None = None) -> Ended:
    """Play a scenario.

    Args:
        scenario: what is played.
        fast: as short as can be.
        say: told each thing that happens.
        look: shown the stage a few times per second.
        prometheus: what judges by it, instead of by the pods themselves.

    Raises:
        UsageError: Prometheus does not start.
    """
    async with staged(scenario, fast=fast, prometheus=prometheus) as stage:
        say(f"{'9 pods of v1 and a canary' if scenario.canary else '6 pods of v1'} take traffic, as they did for long")
        await _look_on(stage, look, lambda: False, for_s=2.0 if prometheus else 8.0 if fast else 12.0)
        begun = time.time()
        delay = {} if scenario.told.get("mode") else {"ready-after": "500ms" if fast else "1500ms"}
        stage.ship(stage.rolled, NEW, told=delay | dict(scenario.told))
        say(f"v2 goes out: {scenario.sentence}")
        teller = _Teller(stage, say, begun)

        def tell_and_look(each: Stage) -> None:
            teller.tell()
            look(each)

        await _look_on(stage, tell_and_look, teller.over, for_s=_DEADLINE_S)
        stage.upstream.down = False
        teller.tell()
        record = stage.record()
        if record:
            await stage.watchdog.context.settled(record.id)  # one save may be under way with what was before
        during = stage.load.count(begun)
        accepted = record.write_at.timestamp() if record and record.write_at else None
        after = stage.load.count(accepted) if accepted else Counted()
        return Ended(wrong=tuple(_wrong(stage, record, begun)), record=record, during=during, after=after)


async def _look_on(stage: Stage, look: Look, over: Callable[[], bool], *, for_s: float) -> None:
    deadline = time.monotonic() + for_s
    while not over() and time.monotonic() < deadline:
        look(stage)
        await asyncio.sleep(_LOOK_S)


class _Teller:
    """Plays the people and the upstream, and says each new thing once."""

    def __init__(self, stage: Stage, say: Say, begun: float) -> None:
        self._stage = stage
        self._say = say
        self._begun = begun
        self._said: set[str] = set()
        self._outage = 0.0
        self._fixed = False

    def over(self) -> bool:
        """Whether the new version's watch has ended, and its Deployment has come to rest."""
        record = self._stage.record()
        return record is not None and record.state is State.ENDED and self._settled()

    def _settled(self) -> bool:
        return self._stage.scenario.deadline_s < 600 or self._stage.complete(self._stage.rolled)

    def tell(self) -> None:
        """Do what is due, and say what is new."""
        self._outside()
        record = self._stage.record()
        if record is None:
            return
        for verdict in record.verdicts:
            self._once(f"verdict {verdict.status}: {verdict.detail}" + (f" ({verdict.cause})" if verdict.cause else ""))
        for objection in record.objections:
            self._once(f"guard {objection}")
        for write in record.writes:
            self._once(f"write accepted: {write.what}")
        if record.verified:
            self._once(f"verified: {record.verified}")
        if record.outcome:
            self._once(f"outcome {record.outcome}: {record.detail}")

    def _once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    def _outside(self) -> None:
        stage, now = self._stage, time.time()
        if (
            stage.scenario.outage
            and not self._outage
            and any(each.version == NEW and each.state == "Ready" for each in stage.pods())
        ):
            self._outage, stage.upstream.down = now, True
            self._once("the upstream that all versions call is down")
        if self._outage and now - self._outage > _OUTAGE_S and stage.upstream.down:
            stage.upstream.down = False
            self._once("the upstream is back")
        if stage.scenario.hotfix and not self._fixed and stage.load.count(self._begun).failed >= 3:
            self._fixed = True
            stage.ship(stage.rolled, FIXED, told={})
            self._once("somebody ships v3, the fix")


def _wrong(stage: Stage, live: Record | None, begun: float) -> list[str]:
    """What is not as the scenario promises, by the record that the cluster keeps and by the cluster itself."""
    scenario = stage.scenario
    if live is None:
        return ["there is no record of v2"]
    record, wrong = stage.stored(live), []
    if record.outcome not in scenario.outcomes:
        wrong.append(f"the record's outcome is {record.outcome}, not {' or '.join(scenario.outcomes)}")
    causes = {verdict.cause for verdict in record.verdicts}
    if scenario.said and scenario.said not in causes:
        wrong.append(f"the record names {', '.join(sorted(causes - {''})) or 'no cause'}, not {scenario.said}")
    if bool(record.write_at) != scenario.acts:
        wrong.append("it did not act" if scenario.acts else "it acted")
    wanted = FIXED if scenario.hotfix else GOOD if scenario.acts and not scenario.canary else NEW
    if stage.image(stage.rolled) != wanted:
        wrong.append(f"{stage.rolled} runs {stage.image(stage.rolled)}, not {wanted}")
    if scenario.canary and stage.image(STABLE) != GOOD:
        wrong.append("the stable Deployment was changed")
    if scenario.canary and scenario.acts and any(each.deployment == stage.rolled for each in stage.pods()):
        wrong.append("the canary still has pods")
    failed = {each.pod for each in stage.load.between(begun) if each.failed}
    if scenario.outage and {each.deployment for each in stage.pods() if each.name in failed} != {STABLE, CANDIDATE}:
        wrong.append("the outage did not strike both tracks")
    return wrong
