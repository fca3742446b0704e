"""The sequential test: its published values, and what its validity rests on."""

import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.judge import concurrent, historical
from watchdog.judge.blocks import Counts
from watchdog.judge.concurrent import ConcurrentSettings, ConcurrentState
from watchdog.judge.eprocess import BETS, Design, Evidence, advance, bar, bets, growth_beside, mirrored_bets
from watchdog.judge.historical import HistoricalSettings

VALUES = json.loads((Path(__file__).parent / "eprocess_values.json").read_text())
FORMS = {"A_grid_p05": (0.05, 0.0), "B_grid_rho1": (0.0, 1.0), "C_grid_p005_rho12": (0.005, 1.2)}

FOUR = tuple[float, float, float, float]
S1 = [(0, 0, 140, 1, 1), (22, 2, 118, 0, 1), (61, 5, 76, 0, 1), (104, 9, 31, 0, 1), (133, 10, 9, 0, 1)]
S1 += [(148, 13, 0, 0, 0), (151, 12, 0, 0, 0)]
S2 = [(40, 0, 110, 1, 1), (75, 1, 75, 0, 1), (110, 0, 40, 0, 1), (150, 1, 0, 0, 0), (149, 0, 0, 0, 0)]
S2 += [(152, 47, 0, 0, 0), (147, 44, 0, 0, 0), (150, 45, 0, 0, 0), (151, 45, 0, 0, 0)]
S3 = [(0, 0, 0, 0, 0), (1500, 75, 0, 0, 0), (1480, 80, 0, 0, 0), (1510, 70, 0, 0, 0), (1490, 78, 0, 0, 0)]
S3 += [(1500, 76, 0, 0, 0), (1502, 75, 0, 0, 0), (1498, 77, 0, 0, 0)]
S4 = [(0, 0, 14, 0, 1), (7, 7, 0, 0, 0), (15, 15, 0, 0, 0), (14, 14, 0, 0, 0), (16, 16, 0, 0, 0)]


def log_mean(values: tuple[float, ...]) -> float:
    top = max(values)
    return top + math.log(math.fsum(math.exp(each - top) for each in values) / len(values))


def one_block(four: FOUR, tolerance: float, ratio: float, *, mirrored: bool = False) -> float:
    total, bad, stable_total, stable_bad = four
    found = (mirrored_bets if mirrored else bets)(tolerance)
    return log_mean(
        growth_beside(found, total=total, bad=bad, stable_total=stable_total, stable_bad=stable_bad, ratio=ratio)
    )


def stream(
    blocks: list[tuple[int, int, int, int, int]], *, design: Design, base: float = 0.0056
) -> tuple[list[float], list[float], list[int]]:
    beside, alone, started = ConcurrentState(), Evidence(), False
    one, two, onsets = [], [], []
    for index, (n, e, ns, es, live) in enumerate(blocks, start=1):
        started = started or n > 0
        beside = concurrent.step(
            beside,
            Counts(n, e),
            Counts(ns, es),
            ConcurrentSettings(design=design),
            index=index,
            old_live=bool(live),
            started=started,
        )
        settings = HistoricalSettings(design=design, base=base)
        alone = historical.step(alone, Counts(n, e), settings, index=index, started=started)
        one.append(beside.evidence.log_e)
        two.append(alone.log_e)
        onsets.append(alone.onset or 0)
    return one, two, onsets


# Published values


@pytest.mark.parametrize("form", "ABC")
def test_the_bets_are_the_published_ones(form: str) -> None:
    tolerance = {"A": 0.05, "B": 0.0, "C": 0.005}[form]
    assert bets(tolerance).stakes == pytest.approx(VALUES["grids"][form], rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", VALUES["single_block"], ids=lambda case: f"{case['n_c']}-{case['e_c']}-{case['e_s']}")
def test_the_evidence_of_one_block_is_the_published_one(case: dict[str, float], form: str) -> None:
    four = (case["n_c"], case["e_c"], case["n_s"], case["e_s"])
    assert one_block(four, *FORMS[form]) == pytest.approx(case[form], rel=1e-9, abs=1e-9)


def uniform(n: float, e: float, share: float) -> float:
    """The closed form of a uniform prior on [share, 1] (docs/design/statistics.md §2)."""
    lb = math.lgamma(e + 1) + math.lgamma(n - e + 1) - math.lgamma(n + 2)
    logs = [
        math.lgamma(n + 2) - math.lgamma(k + 1) - math.lgamma(n + 2 - k) + k * math.log(share)
        + (n + 1 - k) * math.log1p(-share)
        for k in range(int(e) + 1)
    ]  # fmt: skip
    tail = log_mean(tuple(logs)) + math.log(len(logs))
    return lb + tail - math.log1p(-share) - e * math.log(share) - (n - e) * math.log1p(-share)


@pytest.mark.parametrize("case", VALUES["single_block"], ids=lambda case: f"{case['n_c']}-{case['e_c']}-{case['e_s']}")
def test_the_published_closed_form_is_reproduced(case: dict[str, float]) -> None:
    if case["n_c"]:
        assert uniform(case["n_c"], case["e_c"], 0.05) == pytest.approx(case["A_uniform_p05"], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("case", VALUES["single_block"], ids=lambda case: f"{case['n_c']}-{case['e_c']}-{case['e_s']}")
def test_the_published_closed_form_beside_stable_pods_is_reproduced(case: dict[str, float]) -> None:
    """Of all that failed the candidate has its share of the requests, where it is as good."""
    requests = case["n_c"] + case["n_s"]
    if case["n_c"] and case["n_s"]:
        found = uniform(case["e_c"] + case["e_s"], case["e_c"], case["n_c"] / requests)
        assert found == pytest.approx(case["B_uniform_rho1"], rel=1e-9, abs=1e-9)
    else:
        assert case["B_uniform_rho1"] == 0, "with nobody beside there is nothing to compare"


@given(st.integers(1, 200), st.integers(1, 1800), st.integers(0, 40), st.integers(0, 40))
def test_ten_bets_say_much_the_same_as_all_of_the_closed_form(n: int, ns: int, e: int, es: int) -> None:
    """Where the bets speak for a breach, a prior over all alternatives does, too; ten points cost little beside it."""
    e, es = min(e, n), min(es, ns)
    grid = one_block((n, e, ns, es), 0.0, 1.0)
    closed = uniform(e + es, e, n / (n + ns))
    if grid > bar(0.01):
        assert closed > bar(0.01) / 2
    if closed > 4 * bar(0.01):
        assert grid > bar(0.01)


@pytest.mark.parametrize(
    ("design", "expected"),
    [
        (Design(bar=bar(0.01), blocks=1e-9), (-0.544304, -0.570868, 2.300154, 11.816655, 16.892909, 27.802533)),
        (
            Design(bar=bar(0.01), blocks=3, phi=1.5),
            (-0.501895, -0.527063, 0.753350, 3.399721, 6.377051, 9.439520),
        ),
        (
            Design(bar=bar(0.01), blocks=3, phi=3, m_cap=20),
            (-0.374862, -0.399418, 0.339492, 2.698018, 4.385084, 7.394673),
        ),
    ],
    ids=["plain", "tempered", "no history"],
)
def test_streams_against_the_stable_pods_are_the_published_ones(design: Design, expected: tuple[float, ...]) -> None:
    given = [(10, 0, 90, 1, 1), (12, 0, 88, 0, 1), (9, 4, 91, 1, 1), (11, 5, 90, 0, 1), (10, 6, 90, 2, 1)]
    assert stream([*given, (10, 7, 90, 1, 1)], design=design)[0] == pytest.approx(expected, abs=6e-7)


def test_merged_polls_are_the_published_ones() -> None:
    given = [(1, 1, 9, 0, 1), (2, 2, 8, 0, 1), (1, 1, 9, 0, 1), (2, 1, 9, 0, 1), (1, 1, 12, 0, 1), (3, 3, 9, 0, 1)]
    found = stream(given, design=Design(bar=bar(0.01), blocks=3, phi=1.5))[0]
    assert found == pytest.approx((0, 0, 2.202996, 2.202996, 4.592504, 4.592504), abs=6e-7)


@pytest.mark.parametrize(
    ("blocks", "base", "design", "beside", "alone", "onsets"),
    [
        (
            S1,
            0.0056,
            Design(bar=bar(0.005), phi=1.5),
            [0, 0.953773, 2.897073, 4.103639, 4.103639, 4.103639, 4.103639],
            [0, 0.013495, 1.358211, 3.522943, 5.789391, 8.215544, 10.680567],
            [0, 2, 2, 2, 2, 2, 2],
        ),
        (
            S2,
            0.0056,
            Design(bar=bar(0.005), phi=1.5),
            [-0.572386, -0.541218, *[-0.565025] * 7],
            [-0.570369, -0.660739, -0.751001, -0.803570, -0.847387, -0.537253, 0.910210, 3.284951, 5.841852],
            [1, 2, 3, 4, 5, 6, 6, 6, 6],
        ),
        (
            S3,
            0.005,
            Design(bar=bar(0.01), phi=3, m_cap=20),
            [0] * 8,
            [0, -0.309925, -0.182898, -0.066540, 0.183631, 0.471888, 0.799007, 1.198872],
            [0, *[2] * 7],
        ),
        (
            S4,
            0.0073,
            Design(bar=bar(0.005), phi=1.5),
            [0] * 5,
            [0, 1.006522, 3.039224, 5.319325, 7.688964],
            [0, *[2] * 4],
        ),
    ],
    ids=["S1", "S2", "S3", "S4"],
)
def test_streams_of_both_controls_are_the_published_ones(
    blocks: list[tuple[int, int, int, int, int]],
    base: float,
    design: Design,
    beside: list[float],
    alone: list[float],
    onsets: list[int],
) -> None:
    found = stream(blocks, design=design, base=base)
    assert found[0] == pytest.approx(beside, abs=1e-6)
    assert found[1] == pytest.approx(alone, abs=1e-6)
    assert found[2] == onsets


# Validity


def chances(n: int, p: float) -> list[float]:
    return [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("sizes", [(8, 72), (20, 20)])
@pytest.mark.parametrize("stable", [0, 0.001, 0.01, 0.1, 0.3, 0.6])
def test_at_the_edge_of_the_null_the_mean_is_at_most_one(sizes: tuple[int, int], stable: float, mirrored: bool) -> None:
    n, ns = sizes
    candidate, beside = chances(n, min(1.0, 0.005 + 1.2 * stable)), chances(ns, stable)
    mean = math.fsum(
        candidate[e] * beside[es] * math.exp(one_block((n, e, ns, es), 0.005, 1.2, mirrored=mirrored))
        for e, es in itertools.product(range(n + 1), range(ns + 1))
    )
    assert mean <= 1 + 1e-12


@pytest.mark.parametrize("phi", [2, 5, 10])
def test_clusters_of_failures_up_to_phi_keep_the_mean(phi: int) -> None:
    tempered, plain = 0.0, 0.0
    for clusters, chance in enumerate(chances(12, 0.05)):
        found = growth_beside(bets(0.05), total=12 * phi, bad=clusters * phi, stable_total=0, stable_bad=0, ratio=0)
        tempered += chance * math.exp(log_mean(tuple(each / phi for each in found)))
        plain += chance * math.exp(log_mean(found))
    assert tempered <= 1 + 1e-12 < plain


@given(st.integers(1, 10**9), st.integers(0, 10**9), st.floats(0, 1), st.floats(0, 1))
def test_more_failures_are_more_evidence_and_nothing_overflows(n: int, ns: int, share: float, stable: float) -> None:
    low = math.floor(n * share)
    fewer, more = (one_block((n, e, ns, math.floor(ns * stable)), 0.005, 1.2) for e in (low, min(n, low + 1)))
    assert math.isfinite(fewer)
    assert more >= fewer


@pytest.mark.parametrize("four", [(0, 0, 90, 3), (50, 20, 0, 0), (0, 0, 0, 0)])
def test_nothing_on_one_side_is_no_evidence(four: FOUR) -> None:
    assert one_block(four, 0.005, 1.2) == 0


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
def test_polls_are_merged_without_losing_or_doubling_a_request(polls: list[tuple[int, int]]) -> None:
    settings = ConcurrentSettings(design=Design(bar=bar(0.01)))
    state, taken = ConcurrentState(), Counts()
    for index, (n, ns) in enumerate(polls, start=1):
        before = state.candidate + Counts(n, 0)
        state = concurrent.step(state, Counts(n, 0), Counts(ns, 0), settings, index=index, old_live=True, started=True)
        taken += before if state.candidate == Counts() else Counts()
        assert state.stable.total < concurrent.LEAST
    assert taken + state.candidate == Counts(sum(n for n, _ in polls), 0)


@given(st.floats(4, 8), st.integers(0, 300))
def test_no_single_block_decides(blocks: float, idle: int) -> None:
    design, evidence = Design(bar=bar(0.01), blocks=blocks), Evidence()
    for index in range(1, idle + 1):
        evidence = advance(evidence, [0.0] * BETS, design, index=index)
    assert advance(evidence, [1e9] * BETS, design, index=idle + 1).log_e < design.bar


def test_past_the_horizon_a_new_onset_has_no_weight_and_the_cap_stays() -> None:
    design, evidence = Design(bar=bar(0.01), horizon=3), Evidence()
    for index in range(1, 6):
        evidence = advance(evidence, [0.0] * BETS, design, index=index)
        assert evidence.log_e == pytest.approx(0, abs=1e-12)
    after = [advance(evidence, [50.0] * BETS, design, index=6)]
    after.append(advance(after[0], [50.0] * BETS, design, index=7))
    last = math.log(0.5 / (3 * (1 / 2 + 1 / 3)))
    assert after[1].log_e - after[0].log_e == pytest.approx((design.bar - last) / 4)


def test_the_mirrored_bets_find_a_candidate_that_is_not_worse() -> None:
    settings = ConcurrentSettings(design=Design(bar=bar(0.01), phi=1.5), mirrored=True)
    good, bad = ConcurrentState(), ConcurrentState()
    for index in range(1, 81):
        common = {"index": index, "old_live": True, "started": True}
        good = concurrent.step(good, Counts(500, 2), Counts(500, 2), settings, **common)  # type: ignore[arg-type]
        bad = concurrent.step(bad, Counts(500, 10), Counts(500, 2), settings, **common)  # type: ignore[arg-type]
    assert good.evidence.log_e > settings.design.bar > 0 > bad.evidence.log_e
