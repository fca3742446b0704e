"""Decisions about rolling updates in known worlds, by the bars of docs/decisions.md.

Fixed seeds; every healthy cell is watched for 18 minutes, which is the rollout and a bake of 15. A third of the runs is
played here, all of them where the heavy tests run, too.
"""

from collections.abc import Iterable

import numpy as np
import pytest

from benchmarks import rolling
from benchmarks.canaries import decision
from watchdog.judge import concurrent
from watchdog.judge.blocks import Block, Counts
from watchdog.judge.sequential import Decision, SequentialSettings

RUNS = 100
SIZES = pytest.mark.parametrize(
    "share", [pytest.param(0.3, id="third"), pytest.param(1, id="all", marks=pytest.mark.heavy)]
)
ALERTED_RUNS = 25
BAD_RUNS = 20
SEED = 1
WATCHED_S = 18 * 60
STABLE_SHARE = 0.005


@SIZES
@pytest.mark.parametrize("family", rolling.HEALTHY)
def test_a_healthy_rolling_update_is_hardly_ever_undone(
    family: str, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = round(share * RUNS)
    worlds = rolling.HEALTHY[family]
    assert len(worlds) == 8
    results = [(each.name, rolling.run(each, runs=runs, seed=SEED, seconds=WATCHED_S)) for each in worlds]
    false = {name: int((found.acted_s > 0).sum()) for name, found in results}
    asked = sum(int((found.asked_s > 0).sum()) for _, found in results)
    with capsys.disabled():
        print(f"\n{family}, {runs} runs each, undone: {false}, asked about: {asked}")
    assert max(false.values()) <= 0.01 * runs


@SIZES
def test_under_an_alert_that_fires_all_the_time_a_healthy_rolling_update_is_undone_no_oftener_than_alpha_alert_says(
    share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = round(share * ALERTED_RUNS)
    undone = {}
    for family, worlds in rolling.HEALTHY.items():
        results = [rolling.run(each, runs=runs, seed=SEED, seconds=WATCHED_S, alert=True) for each in worlds]
        undone[family] = sum(int((found.acted_s > 0).sum()) for found in results) / (runs * len(worlds))
    with capsys.disabled():
        print(f"\nunder an alert, {runs} runs of each of eight cells, undone: {undone}")
    assert max(undone.values()) <= 0.05


def test_under_an_alert_a_version_as_bad_as_is_just_allowed_is_undone_no_oftener_than_alpha_alert_says() -> None:
    settings = SequentialSettings(step_s=15, base=0.003, phi_concurrent=1, phi_historical=1)
    limit = min(settings.limit, concurrent.TOLERANCE + concurrent.RATIO * STABLE_SHARE)

    def undone(*, alert: bool) -> int:
        rng = np.random.default_rng(SEED)
        return sum(
            decision(_just_allowed(rng, limit), settings, alert=alert)[0] is not Decision.NONE for _ in range(2 * RUNS)
        )

    assert undone(alert=False) <= undone(alert=True) <= 0.05 * 2 * RUNS


def _just_allowed(rng: np.random.Generator, limit: float) -> Iterable[Block]:
    for step in range(1, 241):
        candidate, stable = (Counts(20, int(rng.binomial(20, share))) for share in (limit, STABLE_SHARE))
        yield Block(step, candidate, stable, ready=True, old_live=True)


@SIZES
def test_three_quarters_of_bad_rolling_updates_are_caught_within_five_minutes(
    share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = round(share * BAD_RUNS)
    shares = [rolling.caught(each, runs=runs, seed=SEED) for each in rolling.BAD]
    mean = sum(shares) / len(shares)
    with capsys.disabled():
        print(f"\nbad rolling updates, {len(shares)} cells, {runs} runs each, caught within 5 min: {mean:.3f}")
    assert mean >= 0.75
