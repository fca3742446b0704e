"""What is read of the past: counts between far readings, and what of a day is frozen at a rollout's start."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from watchdog.engine import baselines
from watchdog.engine.baselines import BaselineQuery
from watchdog.engine.bystanders import Bystanders
from watchdog.judge.blocks import Blind, BlindReason, Counts, Reading, Sample, ScrapeTarget
from watchdog.judge.objections import Bystander
from watchdog.judge.past import Span, by_pod, spans
from watchdog.objects import WorkloadRef
from watchdog.ports import SignalQuery

STEP_S = 15.0
DAY = 86_400
NOW = 10 * DAY // 15
QUERY = SignalQuery(bad="errors_total", total="requests_total", namespaces=("",))
WEB = WorkloadRef("shop", "web")
PODS = ("web-aaa-11111", "web-aaa-22222")


def row(pod: str, namespace: str = "shop", instance: str = "i") -> ScrapeTarget:
    return ScrapeTarget(namespace, pod, "c", instance, "j")


def reading(step: int, **counts: tuple[float, float | None]) -> Reading:
    found = (Sample(row(pod.replace("_", "-")), *each, at=step * STEP_S) for pod, each in counts.items())
    return Reading(step, tuple(found))


def counted(*readings: Reading, restarts: dict[str, tuple[float, ...]] | None = None) -> tuple[Span, ...]:
    return spans(readings, lambda each: each.pod, step_s=STEP_S, restarts=restarts or {})


def test_what_a_pod_shows_first_was_counted_nobody_knows_when_and_is_left_out() -> None:
    found = counted(reading(1, a_x=(1000, 7)), reading(2, a_x=(1010, 8), a_y=(30, None)), reading(3, a_y=(31, 2)))
    assert [span.counts for span in found] == [Counts(10, 1), Counts(1, 2)]
    assert by_pod(found) == [[Counts(10, 1), Counts()], [Counts(), Counts(1, 2)]]


def test_what_comes_back_after_a_gap_does_not_count_what_the_gap_hid() -> None:
    found = counted(reading(1, a_x=(10, 0)), reading(2), reading(3, a_x=(5000, 50), a_y=(400, 4)))
    assert [span.counts for span in found] == [Counts(), Counts()]


def test_a_counter_that_goes_down_tears_the_time_unless_a_restart_explains_it() -> None:
    readings = reading(1, a_x=(100, 3)), reading(2, a_x=(20, 1))
    assert counted(*readings)[0].torn == {"a-x"}
    assert counted(*readings, restarts={"a-x": (25.0,)}) == (Span({"a-x": Counts(20, 1)}),)
    assert counted(*readings, restarts={"a-x": (5.0,)})[0].torn, "that one was before the first reading"


def test_of_a_target_that_moved_the_newer_row_counts() -> None:
    old, new = row("a-x"), row("a-x", instance="j")
    first = Reading(1, (Sample(old, 100, 0, 10.0),))
    second = Reading(2, (Sample(old, 100, 0, 10.0), Sample(new, 130, 2, 28.0)))
    assert counted(first, second)[0].counts == Counts(30, 2)


# -- a day ------------------------------------------------------------------------------------------------------------


class Prometheus:
    """Counts of every pod at a constant rate; what is asked is kept."""

    def __init__(self, pods: Sequence[str], *, rate: Callable[[str, float], float], rps: float = 10.0) -> None:
        self.pods = pods
        self.rate = rate
        self.rps = rps
        self.asked: list[tuple[SignalQuery, range]] = []
        self.blind: Blind | None = None
        self.fine_blind: Blind | None = None

    async def read_past(
        self, query: SignalQuery, *, first: int, last: int, every: int = 1, timeout_s: float
    ) -> tuple[Reading, ...]:
        self.asked.append((query, range(first, last + 1, every)))
        if blind := self.blind or (self.fine_blind if every == 1 else None):
            return tuple(Reading(step, blind=blind) for step in range(first, last + 1, every))
        found, bad = [], dict.fromkeys(self.pods, 0.0)
        for step in range(first, last + 1, every):
            time = step * STEP_S
            samples = []
            for pod in self.pods:
                bad[pod] += self.rps * every * STEP_S * self.rate(pod, time)
                samples.append(Sample(row(pod), self.rps * time, float(int(bad[pod])), time))
            found.append(Reading(step, tuple(samples)))
        return tuple(found)


async def read(signals: Prometheus, *asked: BaselineQuery) -> tuple[baselines.Baseline, ...]:
    return await baselines.read(signals, asked, step_s=STEP_S)  # type: ignore[arg-type]  # asks nothing else


def ask(ref: WorkloadRef = WEB, **more: object) -> BaselineQuery:
    return BaselineQuery(query=QUERY, first=NOW, workloads=(ref,), old=frozenset({f"{ref.name}-aaa"}), **more)  # type: ignore[arg-type]


async def test_a_quiet_day_gives_its_share_and_the_smallest_clusters() -> None:
    [past] = await read(Prometheus(PODS, rate=lambda *_: 0.004), ask())
    assert past.reference.known
    assert past.reference.base == pytest.approx(0.004, abs=2e-4)
    assert past.reference.phi_concurrent == past.reference.phi_historical == 1.5
    assert past.reference.m_cap is None
    assert past.incident_first is None
    assert past.told == "1728000 requests in 288 windows of 5 min of the day before"


async def test_old_pods_that_fail_since_some_minutes_are_an_incident_of_before() -> None:
    signals = Prometheus(PODS, rate=lambda _, time: 0.3 if time > 10 * DAY - 300 else 0.004)
    [past] = await read(signals, ask())
    assert past.incident_first
    assert "of 12000 failed in the 10 min before the rollout" in past.incident_first.detail


async def test_a_version_that_was_found_bad_does_not_make_the_next_one_look_good() -> None:
    bad = "web-bad-33333"
    signals = Prometheus((*PODS, bad), rate=lambda pod, _: 0.2 if pod == bad else 0.004)
    [clean] = await read(signals, ask(condemned=frozenset({"web-bad"})))
    [mixed] = await read(signals, ask())
    assert clean.reference.base == pytest.approx(0.004, abs=2e-4)
    assert mixed.reference.base > 0.06


async def test_however_many_rollouts_begin_two_questions_are_asked_per_selector_set() -> None:
    refs = [WorkloadRef("shop", f"w{index}") for index in range(30)]
    signals = Prometheus([f"{ref.name}-aaa-11111" for ref in refs], rate=lambda *_: 0.004)
    pasts = await read(signals, *map(ask, refs))
    assert len(signals.asked) == 2
    assert all(past.reference.known for past in pasts)
    [(query, day), (_, hours)] = signals.asked
    assert query.workloads == tuple(sorted(ref.name for ref in refs))
    assert (len(day), day.step, day[-1]) == (289, 20, NOW)
    assert len(hours) * 30 <= baselines.MOST_SAMPLES + 30


async def test_with_many_rows_fewer_hours_are_read() -> None:
    signals = Prometheus([f"web-aaa-{index:05}" for index in range(700)], rate=lambda *_: 0.0)
    await read(signals, ask())
    assert len(signals.asked[1][1]) == baselines.MOST_SAMPLES // 700 + 1


async def test_a_past_that_cannot_be_read_is_the_default_with_its_reason() -> None:
    signals = Prometheus(PODS, rate=lambda *_: 0.0)
    signals.blind = Blind(BlindReason.UNREACHABLE, "Prometheus gave no usable answer")
    [past] = await read(signals, ask())
    assert not past.reference.known
    assert (past.reference.phi_historical, past.reference.m_cap) == (3.0, 20.0)
    assert past.told == "no history: Prometheus gave no usable answer"
    assert len(signals.asked) == 1


async def test_a_past_that_is_read_in_part_only_is_the_default_too() -> None:
    signals = Prometheus(PODS, rate=lambda _, time: 0.3 if time > 10 * DAY - 300 else 0.004)
    signals.fine_blind = Blind(BlindReason.UNREACHABLE, "no answer within 1 s")
    [past] = await read(signals, ask())
    assert past.told == "no history: no answer within 1 s"
    assert not past.reference.known


async def test_the_loop_does_not_wait_for_the_arithmetic_of_many_pods() -> None:
    signals = Prometheus([f"web-aaa-{index:05}" for index in range(60)], rate=lambda *_: 0.004)
    task, rounds = asyncio.create_task(read(signals, ask())), 0
    await asyncio.sleep(0)  # the questions, which this source answers at once
    while not task.done():
        await asyncio.sleep(0.005)
        rounds += 1
    assert (await task)[0].reference.known
    assert rounds > 3


# -- bystanders --------------------------------------------------------------------------------------------------------


async def test_at_most_twenty_busy_workloads_of_the_same_namespace_first_are_bystanders() -> None:
    others = tuple(WorkloadRef("shop", f"o{index:02}") for index in range(25))
    silent = WorkloadRef("shop", "silent")
    signals = Prometheus([*PODS, *(f"{ref.name}-bbb-11111" for ref in others)], rate=lambda *_: 0.004)
    [past] = await read(signals, ask(others=(*others, silent)))
    assert len(past.bystanders) == 20
    assert {each.name for each in past.bystanders} <= {str(ref) for ref in others}
    assert all(each.base == pytest.approx(0.004, abs=2e-4) for each in past.bystanders)


def test_bystanders_count_step_by_step_until_they_roll_out_themselves() -> None:
    chosen = [Bystander("shop/web", 0.005, 1.5), Bystander("bank/web", 0.005, 1.5)]
    watched = Bystanders(chosen, step_s=STEP_S)

    def at(step: int, here: float, there: float) -> Reading:
        rows = ((row("web-aaa-11111"), here), (row("web-aaa-11111", "bank"), there), (row("web-x-aaa-11111"), 9.0))
        return Reading(step, tuple(Sample(each, 10 * value, value, step * STEP_S) for each, value in rows))

    assert watched.take(at(1, 5, 50), gone=()) == {"shop/web": Counts(), "bank/web": Counts()}
    assert watched.take(at(2, 6, 53), gone=()) == {"shop/web": Counts(10, 1), "bank/web": Counts(30, 3)}
    assert watched.take(at(3, 1, 54), gone=()) == {"shop/web": Counts(), "bank/web": Counts(10, 1)}
    assert watched.take(at(4, 2, 55), gone={WorkloadRef("bank", "web")}) == {"shop/web": Counts(10, 1)}


def test_a_bystander_that_was_not_scraped_once_does_not_count_its_whole_life() -> None:
    watched = Bystanders([Bystander("shop/web", 0.005, 1.5), Bystander("shop/api", 0.005, 1.5)], step_s=STEP_S)

    def at(step: int, **totals: float) -> Reading:
        rows = ((row(f"{name}-aaa-11111"), total) for name, total in totals.items())
        return Reading(step, tuple(Sample(each, total, total / 10, step * STEP_S) for each, total in rows))

    watched.take(at(1, web=1_000_000, api=500), gone=())
    assert watched.take(at(2, api=510), gone=()) == {"shop/web": Counts(), "shop/api": Counts(10, 1)}
    assert watched.take(at(3, web=1_000_020, api=520), gone=()) == {
        "shop/web": Counts(20, 2),
        "shop/api": Counts(10, 1),
    }
