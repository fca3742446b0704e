"""Blocks as they are kept, and readings as each watch looks at them."""

import random

import pytest

from watchdog.engine.rules import ByThreshold
from watchdog.judge import sequential, threshold
from watchdog.judge.blocks import Blind, BlindReason, Block, Counts, PodCounts, Reading, Sample, ScrapeTarget, Trace
from watchdog.judge.objections import together
from watchdog.judge.sequential import Control, SequentialSettings, SequentialState
from watchdog.judge.threshold import ThresholdSettings

DARK = Blind(BlindReason.STALE, "nothing new")


def block(step: int, *, blind: bool = False) -> Block:
    """A block in which everything is said."""
    if blind:
        return Block(step, blind=DARK, ready=True)
    pods = (PodCounts("a", Counts(step, 1)),)
    return Block(step, Counts(step, 1), Counts(9, 0.5), Counts(3, 2), None, pods, ready=step % 2 == 0, old_live=True)


def test_a_trace_gives_the_blocks_as_they_came() -> None:
    came = [block(step, blind=step % 7 == 0) for step in range(100, 130)]
    trace = Trace(1000)
    for each in came:
        trace.append(each)
    assert list(trace) == came
    assert (len(trace), trace[0], trace[-1], trace[-3:]) == (30, came[0], came[-1], came[-3:])
    with pytest.raises(IndexError):
        trace[30]


def test_a_trace_keeps_the_newest_blocks_and_never_many_more() -> None:
    trace = Trace(200)
    for step in range(5000):
        trace.append(block(step, blind=step % 7 == 0))
        assert len(trace) <= 264
    assert [each.step for each in trace[-200:]] == list(range(4800, 5000))
    assert [each.step for each in trace if each.blind] == [
        step for step in range(5000 - len(trace), 5000) if step % 7 == 0
    ]


def test_what_single_pods_counted_is_kept_of_the_newest_blocks_only() -> None:
    trace = Trace(200)
    for step in range(100):
        trace.append(block(step))
    assert [each.step for each in trace if each.pods] == list(range(60, 100))


def row(pod: str, namespace: str = "shop") -> Sample:
    """A sample of a pod."""
    return Sample(ScrapeTarget(namespace, pod, "web", "10.0.0.1:8080", "pods"), 1.0, 0.0)


def test_a_watch_looks_at_the_rows_of_its_own_workloads_in_their_order() -> None:
    pods = ["web-1a-bbbbb", "web-1a-aaaaa", "api-1a-aaaaa", "website-1a-aaaaa", "web-canary-2b-aaaaa"]
    reading = Reading(1, (*map(row, pods), row("web-1a-ccccc", "shop-2"), row("web-1a-ccccc", "sho")))
    assert [each.row.pod for each in reading.of("shop", ["web"])] == [
        "web-1a-aaaaa",
        "web-1a-bbbbb",
        "web-canary-2b-aaaaa",  # it may be one of a Deployment `web` as far as its name goes; its owner tells
    ]
    assert [each.row.pod for each in reading.of("shop", ["api", "website"])] == ["api-1a-aaaaa", "website-1a-aaaaa"]
    assert [each.row.pod for each in reading.of("shop")] == sorted(pods)
    assert list(reading.of("elsewhere", ["web"])) == []


def test_pods_whose_names_the_api_server_cut_are_found() -> None:
    name = "a" * 63
    pod = f"{name}-12345abcde-"[:58] + "zzzzz"
    assert [each.row.pod for each in Reading(1, (row(pod),)).of("shop", [name])] == [pod]


SETTINGS = SequentialSettings(step_s=15.0, base=0.005, phi_concurrent=3.0, phi_historical=3.0, m_cap=30.0)


@pytest.mark.parametrize("seed", range(5))
def test_what_pods_counted_since_an_onset_is_the_same_in_few_parts(seed: int) -> None:
    chance = random.Random(seed)
    state, blocks = SequentialState(), []
    for step in range(1, 400):
        counts = {name: Counts(50, sum(chance.random() < 0.02 for _ in range(50))) for name in "abc"}
        each = Block(
            step,
            candidate=sum(counts.values(), Counts()),
            stable=Counts(450, 4),
            pods=tuple(PodCounts(name, found) for name, found in counts.items()),
            ready=True,
            old_live=True,
        )
        blocks.append(each)
        state = sequential.step(state, each, SETTINGS)
        assert len(state.pods) <= 21
        for control in Control:
            evidence = state.evidence(control)
            if evidence.earliest is not None and evidence.onset is not None and max(evidence.gain) > 0:
                kept = together(pods for begin, pods in state.pods if begin >= evidence.onset)
                assert kept == together(one.pods for one in blocks if one.step >= evidence.onset)


@pytest.mark.parametrize("seed", range(20))
def test_the_threshold_rule_remembers_a_breach_that_its_blocks_no_longer_show(seed: int) -> None:
    chance = random.Random(seed)
    limits = ThresholdSettings(
        step_s=15.0,
        max_ratio=0.05,
        max_times_stable=2.0,
        window_s=60.0,
        consecutive=2,
        min_requests=50,
        min_bad=3,
    )
    rule, blocks, kept = ByThreshold(limits), [], Trace(20)
    failing = range(chance.randrange(40), chance.randrange(60))
    for step in range(200):
        bad = 10.0 if step in failing else 0.0
        each = Block(step, candidate=Counts(50, bad), stable=Counts(450, 1)) if step % 9 else Block(step, blind=DARK)
        blocks.append(each)
        kept.append(each)
        rule.take("errors", each, alert=False, bystanders={})
        for baked_s in (None, 300.0):
            said = rule.verdict("errors", kept, urgent=False, baked_s=baked_s)
            if baked_s is None or len(blocks) <= len(kept):
                assert said == threshold.judge(blocks, limits, signal="errors", baked_s=baked_s)
            assert said.status == threshold.judge(blocks, limits, signal="errors", baked_s=baked_s).status
