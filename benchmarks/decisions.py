"""The decision beside others', in worlds where one knows who is to blame: `python -m benchmarks.decisions`.

Healthy and bad rollouts are drawn (`worlds`, `rolling`) and go through the shipped judge by its public interface, and
past threshold checkers with the semantics of others (`watchdog.backtest.competitors`). What the numbers do not show is
in docs/decisions.md.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec
from msgspec.structs import replace

from benchmarks import canaries, checkers, presets, rolling
from benchmarks.worlds import Numbers
from watchdog.backtest.competitors import PEERS
from watchdog.config import Sensitivity
from watchdog.judge import sequential
from watchdog.judge.blocks import Block, Counts
from watchdog.judge.sequential import Controls, SequentialSettings, SequentialState

OURS = "sequential"
MOST_FALSE = 0.01


class Row(msgspec.Struct):
    """One rule's results.

    Args:
        name: of the rule.
        false: runs rolled back, and all runs, of each healthy family.
        served: mean failures served in each bad cell.
        medians: seconds to the rollback there.
    """

    name: str
    false: dict[str, tuple[int, int]]
    served: list[float]
    medians: list[float]


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="of each cell [100]")
    parser.add_argument("--full", action="store_true", help="1,000 runs of each cell: some hours of a core")
    parser.add_argument("--seed", type=int, default=1, help="[1]")
    parser.add_argument("--cost", action="store_true", help="what judging costs, and nothing else")
    parser.add_argument("--presets", action="store_true", help="quick, balanced and patient, and nothing else")
    parser.add_argument("--only", choices=["canary", "rolling"], help="one part of it")
    asked = parser.parse_args()
    if asked.cost:
        print_cost()
        return
    runs = 1000 if asked.full else asked.runs
    if asked.presets:
        print_presets(runs, asked.seed)
        return
    print(f"{runs} runs of each cell, seed {asked.seed}, 95 % intervals by Wilson\n")
    if asked.only != "rolling":
        print_canaries(runs, asked.seed)
    if asked.only != "canary":
        print_rolling(runs, asked.seed)


def wilson(hits: int, runs: int, z: float = 1.959964) -> tuple[float, float]:
    """Give the 95 % interval of a share."""
    share, mean = hits / runs, 1 + z * z / runs
    half = z * math.sqrt(share * (1 - share) / runs + z * z / (4 * runs * runs))
    middle = share + z * z / (2 * runs)
    return max(0.0, (middle - half) / mean), min(1.0, (middle + half) / mean)


def percent(hits: int, runs: int) -> str:
    """Write a share with its interval."""
    low, high = wilson(hits, runs)
    return f"{hits / runs:.2%} ({low:.1%}–{high:.1%})"


def print_canaries(runs: int, seed: int) -> None:
    """Print the tables of canaries: ours, the peers, and the best of the grid."""
    others = (*PEERS, *checkers.GRID)
    rows = [Row(name, {}, [], []) for name in (OURS, *(each.name for each in others))]
    for family, worlds in canaries.HEALTHY.items():
        tally = [0] * len(rows)
        for world in worlds:
            seen, found = canaries.run(world, runs=runs, seed=seed)
            times = [found.acted_s, *canaries.checked(others, seen)]
            tally = [before + int((each > 0).sum()) for before, each in zip(tally, times, strict=True)]
        for row, hits in zip(rows, tally, strict=True):
            row.false[family] = (hits, runs * len(worlds))
    for world in canaries.BAD:
        seen, found = canaries.run(world, runs=runs, seed=seed)
        for row, each in zip(rows, [found.acted_s, *canaries.checked(others, seen)], strict=True):
            row.served.append(canaries.errors(world, seen, each))
            row.medians.append(canaries.median_s(world, each))
    peers = rows[1 : 1 + len(PEERS)]
    everywhere = best(rows[1:], canaries.HEALTHY)
    independent = best(rows[1:], ["independent failures"])
    shown = [rows[0], *peers]
    shown += [
        replace(each, name=f"best of the grid, {where}: {each.name}")
        for where, each in (("all families", everywhere), ("independent failures only", independent))
        if each
    ]
    print("False rollbacks of healthy canaries in an hour\n")
    print_table(
        ["rule", *canaries.HEALTHY], ([row.name, *(percent(*each) for each in row.false.values())] for row in shown)
    )
    print(
        "\nBad canaries: failures served until the rollback, geometric mean of 24 cells; cells whose median is never\n"
    )
    print_table(
        ["rule", "failures", "missed"],
        ([row.name, f"{canaries.geometric(row.served):.1f}", str(row.medians.count(math.inf))] for row in shown),
    )
    print("\nBad canaries, by `sequential`: median seconds to the rollback / mean failures served\n")
    cells = iter(zip(rows[0].medians, rows[0].served, strict=True))
    print_table(
        ["requests per second", *(f"{size:.1%}" for size in canaries.SIZES)],
        (
            [str(rps), *(f"{'–' if math.isinf(at) else f'{at:.0f}'} / {served:.0f}" for at, served in some)]
            for rps, some in ((rps, [next(cells) for _ in canaries.SIZES]) for rps in canaries.TRAFFIC)
        ),
    )
    _, late = canaries.run(canaries.LATE, runs=runs, seed=seed)
    print(f"\n{canaries.LATE.name}: median {canaries.median_s(canaries.LATE, late.acted_s):.0f} s")
    _, apart = canaries.run(canaries.APART, runs=6 * runs, seed=seed)
    print(f"{canaries.APART.name}: {int((apart.acted_s > 0).sum())} of {6 * runs} rolled back")


def print_rolling(runs: int, seed: int) -> None:
    """Print the tables of rolling updates, watched for an hour after their beginning."""
    print("\nHealthy rolling updates, watched for 65 min: acted upon, the worst cell, asked about\n")
    rows = []
    for family, worlds in (*rolling.HEALTHY.items(), *rolling.LOST.items()):
        results = [rolling.run(world, runs=runs, seed=seed, seconds=3900) for world in worlds]
        acted, asked = ([int((times > 0).sum()) for times in each] for each in _columns(results))
        whole = runs * len(worlds)
        rows.append([family, percent(sum(acted), whole), f"{max(acted) / runs:.2%}", percent(sum(asked), whole)])
    print_table(["family", "acted", "worst cell", "asked"], rows)
    topologies = len(rolling.BAD) // (len(canaries.TRAFFIC) * len(canaries.SIZES))
    few = max(runs // 5, 10)
    print(f"\nBad ones: share acted upon within 5 min of the first Ready, {topologies} topologies, {few} runs each\n")
    shares = {world.name: rolling.caught(world, runs=few, seed=seed) for world in rolling.BAD}
    rows = []
    for rps in canaries.TRAFFIC:
        cells = [
            [shares[world.name] for world in rolling.BAD if (world.rps, world.bad) == (rps, size)]
            for size in canaries.SIZES
        ]
        rows.append([str(rps), *(f"{sum(cell) / len(cell):.2f}" for cell in cells)])
    print_table(["requests per second", *(f"{size:.1%}" for size in canaries.SIZES)], rows)
    print(f"\nmean of all {len(shares)} cells: {sum(shares.values()) / len(shares):.3f}")


def print_presets(runs: int, seed: int) -> None:
    """Print the table of presets."""
    head = ["", *Sensitivity]
    print("Longest blip that is forgiven, all requests of the new version failing, in seconds\n")
    print_table(
        head,
        (
            [f"{after_s} s after Ready", *(str(presets.forgiven_s(each, after_s=after_s)) for each in Sensitivity)]
            for after_s in presets.AFTER_S
        ),
    )
    print("\nAfter idle blocks one block decides by itself, where all that it counts fails: from which block on\n")
    print_table(
        head,
        (
            [name, *(str(presets.alone_from(each, controls) or "never") for each in Sensitivity)]
            for name, controls in (("rolling, both controls", Controls.BOTH), ("one control", Controls.HISTORICAL))
        ),
    )
    print(f"\nMedian seconds from Ready to the undo, 4 pods that take 15 s, {runs} runs each\n")
    print_table(
        head,
        (
            [f"{bad:.1%} at {rps} rps"]
            + [
                f"{median:.0f}"
                for median in (presets.median_s(rps, bad, each, runs=runs, seed=seed) for each in Sensitivity)
            ]
            for rps, bad in presets.DETECTED
        ),
    )
    print(f"\nHealthy rolling updates that are undone within 25 min, {runs} runs of each of eight cells\n")
    print_table(
        head,
        (
            [family, *(percent(*presets.false(family, each, runs=runs, seed=seed)) for each in Sensitivity)]
            for family in rolling.HEALTHY
        ),
    )


def _columns(results: Sequence[canaries.Found]) -> tuple[list[Numbers], list[Numbers]]:
    return [each.acted_s for each in results], [each.asked_s for each in results]


def best(rows: Sequence[Row], families: Iterable[str]) -> Row | None:
    """Give the rule that serves the fewest failures among those with at most 1 % false rollbacks in every family."""
    wanted = list(families)
    fit = [row for row in rows if all(row.false[name][0] <= MOST_FALSE * row.false[name][1] for name in wanted)]
    return min(fit, key=lambda row: canaries.geometric(row.served), default=None)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table as Markdown."""
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def print_cost() -> None:
    """Print how many blocks a core judges in a second, with both controls."""
    rate = blocks_per_second()
    print(f"{rate:,.0f} blocks per second on one core, both controls")
    print(f"2,000 rollouts with a block each every 15 s: {2000 / 15 / rate:.2%} of a core")


def blocks_per_second(*, blocks: int = 20_000, clock: Callable[[], float] = time.process_time) -> float:
    """Time the judge on healthy rollouts of an hour with both controls."""
    frozen = SequentialSettings(step_s=15, controls=Controls.BOTH, base=0.005, phi_concurrent=1.5, phi_historical=1.5)
    begun, state = clock(), SequentialState()
    for index in range(blocks):
        step = index % 240 + 1
        state = SequentialState() if step == 1 else state
        block = Block(step, Counts(150, index % 7 == 0), Counts(1350, index % 13), ready=True, old_live=True)
        state = sequential.step(state, block, frozen)
    return blocks / (clock() - begun)


if __name__ == "__main__":
    main()
