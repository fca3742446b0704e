"""The judge's decisions in known worlds at four blocks, by the bars of docs/decisions.md.

Fixed seeds; a third of the 100 runs of each healthy cell is played here, all of them where the heavy tests run, too.
`python -m benchmarks.decisions` gives the tables, with peers.
"""

import numpy as np
import pytest

from benchmarks import canaries
from benchmarks.canaries import Found
from benchmarks.worlds import Seen, World

RUNS = 100
SEED = 1
NEVER = ("independent failures", "clusters of 10", "upstream outage 30 % × 300 s")


@pytest.mark.parametrize("runs", [RUNS // 3, pytest.param(RUNS, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("family", canaries.HEALTHY)
def test_a_healthy_canary_is_hardly_ever_rolled_back(
    family: str, runs: int, capsys: pytest.CaptureFixture[str]
) -> None:
    worlds = canaries.HEALTHY[family]
    assert len(worlds) == 8
    false = {each.name: int((played(each, runs=runs).acted_s > 0).sum()) for each in worlds}
    with capsys.disabled():
        print(f"\n{family}, {runs} runs each, rolled back: {false}")
    assert sum(false.values()) <= (0 if family in NEVER else 0.01 * runs * len(worlds))


def test_a_bad_canary_is_found_in_time_and_serves_few_failures(capsys: pytest.CaptureFixture[str]) -> None:
    medians, served = {}, []
    for world in canaries.BAD:
        seen, found = watched(world)
        medians[world.name] = canaries.median_s(world, found.acted_s)
        served.append(canaries.errors(world, seen, found.acted_s))
    mean = canaries.geometric(served)
    with capsys.disabled():
        print(f"\nbad canaries, {RUNS} runs each, median seconds: {medians}; failures served: {mean:.1f}")
    assert mean <= 72
    assert medians["100 rps, 10.0%"] <= 75
    assert medians["10 rps, 10.0%"] <= 150
    assert medians["1 rps, 100.0%"] <= 105
    assert max(medians[f"{rps} rps, 100.0%"] for rps in (10, 100, 1000)) <= 60


def test_a_canary_that_fails_after_ten_healthy_hours_is_found_as_soon() -> None:
    found = played(canaries.LATE)
    assert not np.any((found.acted_s > 0) & (found.acted_s <= canaries.LATE.onset_s))
    assert canaries.median_s(canaries.LATE, found.acted_s) <= 90


def test_an_outage_of_both_tracks_is_not_the_canarys_fault_though_they_are_scraped_apart() -> None:
    assert not np.any(played(canaries.APART, runs=600).acted_s)


def played(world: World, *, runs: int = RUNS) -> Found:
    return watched(world, runs=runs)[1]


def watched(world: World, *, runs: int = RUNS) -> tuple[Seen, Found]:
    return canaries.run(world, runs=runs, seed=SEED)
