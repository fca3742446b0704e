"""Decisions about rolling updates in known worlds: the bars that follow from reference/statistics-after.md §3 and §4.

Fixed seeds; 100 runs of each healthy cell for 18 minutes, which is the rollout and a bake of 15; 20 of each bad one.
"""

import pytest

from benchmarks import rolling

RUNS = 100
BAD_RUNS = 20
SEED = 1
WATCHED_S = 18 * 60


@pytest.mark.parametrize("family", rolling.HEALTHY)
def test_a_healthy_rolling_update_is_hardly_ever_undone(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    worlds = rolling.HEALTHY[family]
    assert len(worlds) == 8
    results = [(each.name, rolling.run(each, runs=RUNS, seed=SEED, seconds=WATCHED_S)) for each in worlds]
    false = {name: int((found.acted_s > 0).sum()) for name, found in results}
    asked = sum(int((found.asked_s > 0).sum()) for _, found in results)
    with capsys.disabled():
        print(f"\n{family}, {RUNS} runs each, undone: {false}, asked about: {asked}")
    assert max(false.values()) <= 0.01 * RUNS


def test_three_quarters_of_bad_rolling_updates_are_caught_within_five_minutes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shares = [rolling.caught(each, runs=BAD_RUNS, seed=SEED) for each in rolling.BAD]
    mean = sum(shares) / len(shares)
    with capsys.disabled():
        print(f"\nbad rolling updates, {len(shares)} cells, {BAD_RUNS} runs each, caught within 5 min: {mean:.3f}")
    assert mean >= 0.75
