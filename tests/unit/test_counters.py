"""Readings of counters to blocks: what counts, from where, on which side, and when nothing can be said."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from watchdog.judge import counters
from watchdog.judge.blocks import (
    Blind,
    BlindReason,
    Block,
    Counts,
    PodCounts,
    PodTimeline,
    Reading,
    Restart,
    Sample,
    ScrapeTarget,
    Track,
)
from watchdog.judge.counters import CounterSettings
from watchdog.objects import TemplateHash

STEP = 15.0
BEGUN = 1500.0  # step 100
SETTINGS = CounterSettings(namespace="shop", step_s=STEP, grace_s=30, begun=BEGUN, bad_known=True)
UNREACHABLE = Blind(BlindReason.UNREACHABLE, "no answer")


def fact(name: str, track: Track, *, created: float = 0, step: int = 0, ready: float | None = 0) -> PodTimeline:
    known = None if ready is None else max(step, int(ready // STEP) + 1)
    return PodTimeline(name, track, TemplateHash("abc"), created, step, ready, known)


OLD = fact("old", Track.STABLE)
NEW = fact("new", Track.CANDIDATE, created=BEGUN, step=101, ready=BEGUN + 5)


def row(
    pod: str, *, instance: str = "10.0.0.1:80", job: str = "web", namespace: str = "shop", label: str = ""
) -> ScrapeTarget:
    return ScrapeTarget(namespace, pod, "web", instance, job, label)


def sample(
    where: str | ScrapeTarget, total: float | None, bad: float | None = None, *, at: float | None = None
) -> Sample:
    return Sample(row(where) if isinstance(where, str) else where, total, bad, at)


def run(
    *readings: Sequence[Sample] | Blind,
    pods: Sequence[PodTimeline] = (OLD, NEW),
    settings: CounterSettings = SETTINGS,
    first: int = 100,
) -> tuple[Block, ...]:
    numbered = [
        Reading(step, blind=given) if isinstance(given, Blind) else Reading(step, tuple(given))
        for step, given in enumerate(readings, start=first)
    ]
    return counters.blocks(settings, numbered, pods)


def reasons(blocks: Sequence[Block]) -> list[BlindReason | None]:
    return [block.blind.reason if block.blind else None for block in blocks]


def stable(*values: tuple[float, float | None] | Blind, pods: Sequence[PodTimeline] = (OLD,)) -> tuple[Block, ...]:
    return run(*([sample("old", *each)] if isinstance(each, tuple) else each for each in values), pods=pods)


# What counts, and from where


def test_a_pod_that_was_there_before_counts_from_what_it_showed_first() -> None:
    assert [block.stable for block in stable((1000, 10), (1100, 12), (1100, 12))] == [
        Counts(),
        Counts(100, 2),
        Counts(),
    ]


def test_a_pod_born_in_the_rollout_counts_from_zero() -> None:
    young = fact("young", Track.STABLE, created=BEGUN)
    assert stable((1, 0))[0].stable == Counts()
    assert run([sample("young", 40, 3)], pods=[young])[0].stable == Counts(40, 3)


def test_failures_that_appear_beside_a_known_total_count_from_zero() -> None:
    assert stable((1000, None), (1100, 7))[1].stable == Counts(100, 7)


def test_failures_that_appear_together_with_the_total_are_history() -> None:
    assert stable((1000, 7), (1100, 7))[1].stable == Counts(100, 0)


def test_rows_of_a_pod_are_added_up_per_track() -> None:
    other = fact("old-2", Track.STABLE)
    first = [sample("old", 10, 0), sample("old-2", 20, 0)]
    second = [sample("old", 15, 1), sample("old-2", 30, 2)]
    assert run(first, second, pods=[OLD, other])[1].stable == Counts(15, 3)


def test_a_row_that_comes_back_counts_since_it_was_seen_last() -> None:
    away = [sample("old-2", 1, 0)]
    blocks = run([sample("old", 10, 0)], away, away, [sample("old", 60, 5)], pods=[OLD, fact("old-2", Track.STABLE)])
    assert [block.stable for block in blocks] == [Counts(), Counts(), Counts(), Counts(50, 5)]


def test_what_happens_while_prometheus_is_away_counts_in_the_block_after() -> None:
    blocks = stable((10, 0), UNREACHABLE, UNREACHABLE, (60, 5), (61, 5))
    assert reasons(blocks) == [None, BlindReason.UNREACHABLE, BlindReason.UNREACHABLE, None, None]
    assert [block.stable for block in blocks] == [Counts(), Counts(), Counts(), Counts(50, 5), Counts(1, 0)]


def test_other_pods_unknown_pods_and_other_namespaces_count_nowhere() -> None:
    foreign = ScrapeTarget("staging", "old", "web", "10.0.0.9:80", "web")
    before = [sample("old", 1, 0), sample("older", 1, 0), sample("stranger", 1, 0), sample(foreign, 1, 0)]
    after = [sample("old", 2, 0), sample("older", 90, 9), sample("stranger", 90, 9), sample(foreign, 90, 9)]
    assert run(before, after, pods=[OLD, fact("older", Track.OTHER)])[1] == Block(
        101, stable=Counts(1, 0), old_live=True
    )


@pytest.mark.parametrize(("created", "counted"), [(0, Counts(50, 5)), (BEGUN, Counts(150, 15))])
def test_a_pod_that_becomes_known_late_loses_nothing(created: float, counted: Counts) -> None:
    late = fact("late", Track.STABLE, created=created, step=102)
    blocks = run(*([sample("late", total, total / 10)] for total in (100, 130, 150)), pods=[late])
    assert blocks[2].stable == counted


def test_a_pod_that_is_first_seen_in_a_blind_block_loses_nothing() -> None:
    twice = [sample(row("old", job="a"), 1, 0), sample(row("old", job="b"), 1, 0)]
    young = fact("young", Track.STABLE, created=BEGUN)
    blocks = run([*twice, sample("young", 40, 4)], [sample("old", 1, 0), sample("young", 70, 7)], pods=[OLD, young])
    assert reasons(blocks) == [BlindReason.SCRAPED_TWICE, None]
    assert blocks[1].stable == Counts(70, 7)


def test_steps_are_taken_in_order_and_none_is_left_out() -> None:
    state, _ = counters.step(counters.initial(SETTINGS), Reading(100), [])
    for wrong in (99, 100, 102):
        with pytest.raises(ValueError, match=f"step {wrong} cannot follow step 100"):
            counters.step(state, Reading(wrong), [])


# Grace


def candidate(*totals: float, pods: Sequence[PodTimeline] = (NEW,), first: int = 101) -> tuple[Block, ...]:
    return run(*([sample("new", total, 0)] for total in totals), pods=pods, first=first)


def test_a_candidate_pod_is_judged_in_blocks_that_begin_after_its_grace() -> None:
    blocks = candidate(10, 20, 30, 40, 50)  # Ready at 1505, so from 1535 on: the first block after begins at 1545
    assert [block.grace.total for block in blocks] == [10, 10, 10, 0, 0]
    assert [block.candidate.total for block in blocks] == [0, 0, 0, 10, 10]


def test_a_candidate_pod_that_was_never_ready_is_in_its_grace() -> None:
    blocks = candidate(10, 20, 30, 40, 50, pods=[replace(NEW, ready=None, ready_step=None)])
    assert sum(block.candidate.total for block in blocks) == 0
    assert sum(block.grace.total for block in blocks) == 50


def test_a_block_that_spans_a_gap_is_judged_only_if_the_gap_began_after_the_grace() -> None:
    gap = [UNREACHABLE] * 4
    early = run([sample("new", 10, 0)], *gap, [sample("new", 90, 0)], pods=[NEW], first=102)
    late = run([sample("new", 10, 0)], *gap, [sample("new", 90, 0)], pods=[NEW], first=103)
    assert (early[-1].grace.total, early[-1].candidate.total) == (80, 0)
    assert (late[-1].grace.total, late[-1].candidate.total) == (0, 80)


def test_a_block_that_spans_a_blindness_in_which_the_pod_was_seen_is_no_other() -> None:
    odd = [sample("old", None, 1)]
    seen = [[sample("new", 20.0 * n, 0), *odd * (n in {2, 3, 4})] for n in range(1, 6)]
    blocks = run(*seen, pods=[NEW, OLD], first=102)
    assert reasons(blocks) == [None, *[BlindReason.PARTIAL] * 3, None]
    assert (blocks[-1].grace.total, blocks[-1].candidate.total) == (80, 0)


def test_a_grace_that_ends_with_a_step_is_over_in_the_next() -> None:
    blocks = candidate(10, 20, 30, pods=[replace(NEW, ready=BEGUN)])  # until 1530, which is step 102
    assert [block.candidate.total for block in blocks] == [0, 0, 10]


def test_a_candidate_pod_whose_first_requests_come_after_its_grace_is_judged_by_them() -> None:
    quiet = [[sample("old", 1, 0)]] * 3
    assert run(*quiet, [sample("new", 10, 6)], first=101)[-1].candidate == Counts(10, 6)


def test_readiness_that_becomes_known_later_does_not_change_the_blocks_before() -> None:
    known_late = replace(NEW, ready_step=105)
    assert [block.candidate.total for block in candidate(10, 20, 30, 40, 50, pods=[known_late])] == [0, 0, 0, 0, 10]


# Resets


def restarted(pod: PodTimeline, *restarts: tuple[float, int]) -> PodTimeline:
    return replace(pod, restarts=tuple(Restart(n, at, step) for n, (at, step) in enumerate(restarts, start=1)))


def test_a_counter_that_restarts_with_its_container_counts_from_zero() -> None:
    assert stable((100, 10), (30, 3), pods=[restarted(OLD, (1504, 101))])[1].stable == Counts(30, 3)


def test_a_restart_takes_failures_and_total_to_zero_together() -> None:
    restart = restarted(OLD, (1504, 101))
    assert stable((10, 5), (50, 2), pods=[restart])[1].stable == Counts(50, 2)
    assert stable((10, 5), (50, None), (60, 1), pods=[restart])[1:] == (
        Block(101, stable=Counts(50, 0), old_live=True),
        Block(102, stable=Counts(10, 1), old_live=True),
    )


def test_failures_that_vanish_without_a_restart_are_no_new_ones() -> None:
    assert [block.stable for block in stable((10, 5), (20, None), (30, 6))] == [
        Counts(),
        Counts(10, 0),
        Counts(10, 1),
    ]


def test_a_restart_before_the_last_sample_explains_no_decrease() -> None:
    early = restarted(OLD, (1490, 100))
    assert reasons(stable((100, 10), (30, 3), pods=[early])) == [None, BlindReason.NOT_MONOTONIC]


def test_a_restart_in_the_second_of_the_last_sample_explains_it() -> None:
    same = restarted(OLD, (1500, 101))
    blocks = run([sample("old", 100, 10, at=1500.4)], [sample("old", 30, 3)], pods=[same])
    assert blocks[1].stable == Counts(30, 3)


def test_a_restart_that_becomes_known_a_step_later_explains_a_decrease_and_nothing_is_lost() -> None:
    blocks = stable((100, 10), (30, 3), (180, 18), pods=[restarted(OLD, (1504, 102))])
    assert reasons(blocks) == [None, BlindReason.NOT_MONOTONIC, None]
    assert blocks[2].stable == Counts(180, 18)


def test_a_decrease_that_no_restart_explains_in_time_blinds_the_rollout_for_good() -> None:
    blocks = stable((100, 10), (30, 3), (40, 4), (50, 5), (140, 14), pods=[restarted(OLD, (1550, 104))])
    assert reasons(blocks) == [None, *[BlindReason.NOT_MONOTONIC] * 4]
    assert blocks[1].blind
    assert "pod old" in blocks[1].blind.detail
    assert "PROMETHEUS_MULTIPROC_DIR" in blocks[1].blind.detail


def test_a_reset_in_a_blind_block_is_remembered() -> None:
    pods = [restarted(OLD, (1504, 101)), fact("odd", Track.STABLE)]
    odd = sample("odd", None, 1)
    blocks = run([sample("old", 100, 0)], [sample("old", 5, 0), odd], [sample("old", 300, 0)], pods=pods)
    assert reasons(blocks) == [None, BlindReason.PARTIAL, None]
    assert blocks[2].stable == Counts(300, 0)


def test_many_decreases_before_the_rollout_blind_it_from_the_start() -> None:
    blind = counters.not_monotonic({row("old"): 3.0, row("stranger"): 40.0}, {"old": 1})
    assert blind
    assert blind.reason is BlindReason.NOT_MONOTONIC
    blocks = run([sample("old", 1, 0)], UNREACHABLE, settings=replace(SETTINGS, base_blind=blind))
    assert [block.blind for block in blocks] == [blind, blind]


def test_restarts_and_a_single_decrease_before_the_rollout_do_not() -> None:
    assert counters.not_monotonic({row("old"): 3.0, row("stranger"): 40.0}, {"old": 2}) is None


# Blindness that passes


def test_a_pod_scraped_twice_is_blind_and_both_ways_are_named() -> None:
    ways = [row("old", job="pods"), row("old", job="endpoints")]
    (block,) = run([sample(way, 10, 0) for way in ways], pods=[OLD])
    assert block.blind
    assert block.blind.reason is BlindReason.SCRAPED_TWICE
    assert 'job="pods"' in block.blind.detail
    assert 'job="endpoints"' in block.blind.detail


def test_a_row_that_is_only_still_visible_is_not_a_second_scrape() -> None:
    before, after = row("old", instance="10.0.0.1:80"), row("old", instance="10.0.0.1:9100")
    blocks = run(
        [sample(before, 100, 0, at=1495)],
        [sample(before, 100, 0, at=1495), sample(after, 120, 2, at=1510)],
        [sample(before, 100, 0, at=1495), sample(after, 150, 2, at=1525)],
        pods=[OLD],
    )
    assert [block.stable for block in blocks] == [Counts(), Counts(20, 2), Counts(30, 0)]


def test_two_containers_of_a_pod_are_two_targets() -> None:
    side = ScrapeTarget("shop", "old", "proxy", "10.0.0.1:81", "web")
    blocks = run(*([sample("old", n, 0), sample(side, n, 0)] for n in (10, 15)), pods=[OLD])
    assert blocks[1].stable == Counts(10, 0)


def test_absent_failures_are_none_only_where_they_were_seen_before() -> None:
    doubtful = replace(SETTINGS, bad_known=False)
    never, seen = [sample("old", 10)], [sample("old", 20, 1)]
    blocks = run(never, never, seen, [sample("old", 30)], pods=[OLD], settings=doubtful)
    assert reasons(blocks) == [BlindReason.BAD_NEVER_SEEN, BlindReason.BAD_NEVER_SEEN, None, None]
    assert [block.stable for block in blocks[2:]] == [Counts(10, 1), Counts(10, 0)]


def test_failures_without_a_total_are_blind() -> None:
    assert reasons(run([sample("old", None, 3)], pods=[OLD])) == [BlindReason.PARTIAL]


def test_no_rows_of_either_track_are_blind() -> None:
    assert reasons(run([], [sample("stranger", 1, 0)])) == [BlindReason.STALE] * 2


def test_a_candidate_most_of_whose_settled_pods_show_nothing_new_is_blind_and_they_are_named() -> None:
    pods = [OLD, *(fact(f"new-{n}", Track.CANDIDATE, created=BEGUN, step=101, ready=1501) for n in range(5))]

    def reading(*fresh: int) -> list[Sample]:
        return [sample("old", 1, 0), *(sample(f"new-{n}", 1, 0) for n in fresh)]

    blocks = run(*[reading(0)] * 4, reading(0, 1, 2), pods=pods, first=101)
    assert reasons(blocks) == [None, None, None, BlindReason.STALE, None]  # settled after 1546, in step 104
    assert blocks[3].blind
    assert "4 of 5" in blocks[3].blind.detail
    assert "new-1, new-2, new-3" in blocks[3].blind.detail


def test_old_samples_are_nothing_new_and_pods_that_are_gone_owe_none() -> None:
    old = [sample("old", 1, 0), sample("new", 1, 0, at=1500)]
    gone = replace(NEW, gone=1540.0, gone_step=104)
    assert reasons(run(*[old] * 5, first=101)) == [None, None, None, BlindReason.STALE, BlindReason.STALE]
    assert reasons(run(*[old] * 5, first=101, pods=[OLD, gone])) == [None] * 5


# Joined by a label

JOINED = replace(SETTINGS, join=("canary", "main"))


def joined(canary: float, main: float) -> list[Sample]:
    return [
        sample(ScrapeTarget("shop", instance="a", job="agent", label=label), total, 0)
        for label, total in (("canary", canary), ("main", main), ("test", 999 * canary))
    ]


def test_joined_rows_count_on_the_track_that_their_label_names_from_the_first_ready_on() -> None:
    readings = [joined(500 + 10 * n, 1000 + 100 * n) for n in range(6)]
    late = replace(NEW, ready_step=102)
    blocks = run(*readings, pods=[late], settings=JOINED)
    assert [block.stable.total for block in blocks] == [0, 100, 100, 100, 100, 100]
    assert [block.grace.total for block in blocks] == [0, 0, 10, 10, 0, 0]
    assert [block.candidate.total for block in blocks] == [0, 0, 0, 0, 10, 10]


def test_joined_rows_of_several_instances_are_added_up() -> None:
    rows = [ScrapeTarget("shop", instance=name, job="agent", label="main") for name in "ab"]
    blocks = run(*([sample(each, total, 0) for each in rows] for total in (10, 15)), pods=[OLD], settings=JOINED)
    assert blocks[1].stable == Counts(10, 0)


def test_a_joined_row_may_restart_with_any_pod_of_its_track() -> None:
    readings = [joined(500, 1000), joined(500, 40)]
    assert run(*readings, pods=[restarted(OLD, (1504, 101))], settings=JOINED)[1].stable == Counts(40, 0)
    assert reasons(run(*readings, pods=[restarted(NEW, (1504, 101))], settings=JOINED))[1] is BlindReason.NOT_MONOTONIC


def test_a_joined_candidate_without_rows_is_blind_once_it_is_settled() -> None:
    readings = [joined(500, 1000)[1:2]] * 5
    blocks = run(*readings, pods=[NEW], settings=JOINED, first=101)
    assert reasons(blocks) == [None, None, None, BlindReason.STALE, BlindReason.STALE]


# Whatever happens

COUNT = st.integers(0, 50)


class World:
    """Pods that serve, restart, come and go for some steps: what Prometheus and the API server would show of them.

    Args:
        chance: where everything comes from.
        steps: how long it lasts.
        gaps: Prometheus, or a target, may be away; then nothing restarts.
    """

    def __init__(self, chance: random.Random, *, steps: int = 24, gaps: bool = False) -> None:
        self.first, self.shown = 100, dict[str, dict[int, Sample]]()
        self.served = dict[str, list[tuple[int, Counts]]]()
        facts = [self._pod(chance, f"pod-{n}", steps, gaps=gaps) for n in range(chance.randint(1, 5))]
        self.pods = tuple(facts)
        self.readings = tuple(
            Reading(step, blind=UNREACHABLE)
            if gaps and chance.random() < 0.2
            else Reading(step, tuple(shown[step] for shown in self.shown.values() if step in shown))
            for step in range(self.first, self.first + steps)
        )

    def _pod(self, chance: random.Random, name: str, steps: int, *, gaps: bool) -> PodTimeline:
        born = chance.choice([0, chance.randint(0, steps // 2)])
        dies = chance.choice([steps, chance.randint(born, steps)])
        created = BEGUN + STEP * born - 10 if born else chance.choice([0.0, BEGUN])
        known = self.first + born + chance.choice([0, 0, 1, 3])
        ready = max(created, BEGUN) + chance.choice([1.0, 20.0, 80.0])
        restarts, total, bad = list[Restart](), 0, 0
        self.shown[name], self.served[name] = {}, []
        if created < BEGUN:
            total, bad = 1000, chance.choice([0, 30])
        for step in range(self.first + born, self.first + dies):
            time, requests = STEP * step - 5, chance.choice([0, 1, chance.randint(0, 50)])
            failures = chance.randint(0, requests)
            rested = not restarts or step > restarts[-1].step + 1
            if not gaps and step > known and rested and requests < total and chance.random() < 0.15:
                restarts.append(Restart(len(restarts) + 1, time - 14, step + chance.choice([0, 0, 1])))
                total, bad = 0, 0
            total, bad = total + requests, bad + failures
            if not (gaps and chance.random() < 0.2):
                self.shown[name][step] = sample(name, total, bad or None, at=time)
            self.served[name].append((step, Counts(requests, failures)))
        track = chance.choice([Track.CANDIDATE, Track.STABLE, Track.OTHER])
        return PodTimeline(
            name, track, TemplateHash("abc"), created, known, ready, max(known, int(ready // STEP) + 1), tuple(restarts)
        )

    def known(self, step: int) -> tuple[PodTimeline, ...]:
        """The facts as the live run has them at a step."""
        return tuple(
            replace(
                pod,
                ready=pod.ready if (pod.ready_step or 0) <= step else None,
                ready_step=pod.ready_step if (pod.ready_step or 0) <= step else None,
                restarts=tuple(each for each in pod.restarts if each.step <= step),
            )
            for pod in self.pods
            if pod.step <= step
        )

    def expected(self, track: Track, blocks: Sequence[Block]) -> Counts:
        """What was served between a pod's first sample, or its birth in the rollout, and its last one that counted."""
        seeing = {block.step for block in blocks if not block.blind}
        told = {reading.step for reading in self.readings if not reading.blind}
        found = Counts()
        for pod in self.pods:
            shown = self.shown[pod.name].keys() & told
            counted = [step for step in shown if step in seeing and step >= pod.step]
            if pod.track is track and counted:
                begin = 0 if pod.created >= BEGUN else min(shown) + 1
                served = [counts for step, counts in self.served[pod.name] if begin <= step <= max(counted)]
                found += sum(served, Counts())
        return found


WORLDS = st.builds(World, st.randoms(use_true_random=False), gaps=st.booleans())


@given(WORLDS)
def test_a_run_that_is_cut_and_replayed_gives_the_same_blocks(world: World) -> None:
    state, live = counters.initial(SETTINGS), []
    for reading in world.readings:
        state, block = counters.step(state, reading, world.known(reading.step))
        live.append(block)
        again = counters.blocks(SETTINGS, world.readings[: len(live)], world.known(reading.step))
        assert again == tuple(live)
    assert counters.blocks(SETTINGS, world.readings, world.pods) == tuple(live)


@given(WORLDS)
def test_every_request_that_was_scraped_counts_once(world: World) -> None:
    blocks = counters.blocks(SETTINGS, world.readings, world.pods)
    seen = sum((block.candidate + block.grace for block in blocks), Counts())
    assert seen == world.expected(Track.CANDIDATE, blocks)
    assert sum((block.stable for block in blocks), Counts()) == world.expected(Track.STABLE, blocks)


SAMPLES = st.builds(
    Sample,
    st.builds(row, st.sampled_from(["old", "new", "x"]), job=st.sampled_from(["a", "b"])),
    st.none() | COUNT.map(float),
    st.none() | COUNT.map(float),
    st.none() | st.floats(1400, 1900),
)
READINGS = st.lists(st.lists(SAMPLES, max_size=6, unique_by=lambda each: each.row) | st.just(UNREACHABLE), max_size=20)
RESTARTS = st.builds(Restart, st.just(1), st.floats(1400, 1900), st.integers(95, 125))


@given(READINGS, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(readings: list[list[Sample] | Blind], chance: random.Random) -> None:
    mixed = [each if isinstance(each, Blind) else chance.sample(each, len(each)) for each in readings]
    assert run(*mixed) == run(*readings)


@given(READINGS, st.lists(RESTARTS, max_size=4), st.booleans())
def test_nothing_that_prometheus_may_say_gives_a_negative_count_or_a_count_in_a_blind_block(
    readings: list[list[Sample] | Blind], restarts: list[Restart], known: bool
) -> None:
    pods = [replace(OLD, restarts=tuple(restarts)), replace(NEW, restarts=tuple(restarts))]
    for block in run(*readings, pods=pods, settings=replace(SETTINGS, bad_known=known)):
        counts = (block.candidate, block.stable, block.grace)
        assert min(min(each.total, each.bad) for each in counts) >= 0
        assert not block.blind or counts == (Counts(), Counts(), Counts())


@given(st.lists(st.integers(0, 3), min_size=12, max_size=30), st.lists(COUNT, min_size=4, max_size=4))
def test_several_workers_behind_one_endpoint_are_blind_within_steps_and_never_counted_after(
    answering: list[int], begins: list[int]
) -> None:
    values = [[begins[worker] + 3 * n for worker in range(4)] for n in range(len(answering))]
    totals = [values[n][worker] for n, worker in enumerate(answering)]
    blocks = stable(*((float(total), None) for total in totals))
    falls = [n for n in range(1, len(totals)) if totals[n] < totals[n - 1]]
    if falls:
        assert reasons(blocks[falls[0] :]) == [BlindReason.NOT_MONOTONIC] * (len(totals) - falls[0])


# What the sequential rule needs beside the counts


def test_a_block_names_each_judged_pod_that_counted_something() -> None:
    twin, young = (fact(name, Track.CANDIDATE, created=BEGUN, ready=at) for name, at in (("twin", 0), ("young", 1525)))
    seen = [[sample(name, total, bad) for name in ("young", "twin", "new")] for total, bad in ((0, 0), (5, 1), (9, 2))]
    blocks = run(*seen[:2], [*seen[2][:2], sample("new", 5, 1)], pods=[NEW, twin, young], first=110)
    assert [block.pods for block in blocks[1:3]] == [
        (PodCounts("new", Counts(5, 1)), PodCounts("twin", Counts(5, 1)), PodCounts("young", Counts(5, 1))),
        (PodCounts("twin", Counts(4, 1)), PodCounts("young", Counts(4, 1))),
    ]


def test_a_pod_in_its_grace_is_not_among_the_judged() -> None:
    blocks = run([sample("new", 0, 0)], [sample("new", 5, 1)], pods=[NEW], first=101)
    assert (blocks[1].grace, blocks[1].pods) == (Counts(5, 1), ())


@pytest.mark.parametrize("blind", [False, True])
def test_a_block_says_which_tracks_had_a_ready_pod_even_where_it_is_blind(blind: bool) -> None:
    old = replace(OLD, gone=STEP * 102 + 3, gone_step=103)
    readings = [UNREACHABLE if blind else [sample("old", 1, 0), sample("new", step, 0)] for step in range(5)]
    blocks = run(*readings, pods=[old, NEW])
    assert [(block.ready, block.old_live) for block in blocks] == [
        (False, True),
        (True, True),
        (True, True),
        (True, True),
        (True, False),
    ]
