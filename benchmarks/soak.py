"""Memory and time of a long watch: `python -m benchmarks.soak`.

The whole service runs in this process over a town in memory, in virtual time: 30 rollouts of 10 pods under watch, read
every 15 s. Twenty of them bake for hours, the others pass after ten minutes and are replaced by the next version at
once. What the store holds is not counted, since it is another process.
"""

import argparse
import asyncio
import gc
import logging
import resource
import sys
import time
import tracemalloc

import looptime
import msgspec

from tests.component.town import House, Town
from watchdog.config import parse

MIB = 1024 * 1024
LONG, SHORT = 20, 10
NEXT_S = 720.0
EVERY_S = 300.0

SETTINGS = """
prometheus = {{url = "http://prometheus", step = "{step}s"}}
[[policies]]
name = "long"
namespaces = ["long"]
mode = "enforce"
rule = "{rule}"
bake = "12h"
max_watch = "24h"
signals.errors = {{bad = "errors_total", total = "requests_total"}}
[[policies]]
name = "short"
namespaces = ["short"]
mode = "enforce"
rule = "{rule}"
grace = "0s"
bake = "10m"
signals.errors = {{bad = "errors_total", total = "requests_total"}}
"""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """How it stands after some time.

    Args:
        minutes: since the rollouts began.
        held: bytes of Python's objects.
        resident: the most that the process ever held.
        watched: rollouts under watch.
        records: records in memory.
        cpu_ms: of this process, per step since the line before.
    """

    minutes: float
    held: int
    resident: int
    watched: int
    records: int
    cpu_ms: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=120, help="of virtual time [120]")
    parser.add_argument("--step", type=int, default=15, help="seconds of the grid [15]")
    parser.add_argument("--rule", choices=("sequential", "threshold"), default="sequential")
    parser.add_argument("--who", type=int, default=12, metavar="N", help="places that hold the most in the end [12]")
    parser.add_argument("--no-trace", action="store_true", help="time alone, without counting objects")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(soak(given))


async def soak(given: argparse.Namespace) -> None:
    """Live for so long, and print a line every five minutes."""
    town = Town(parse(SETTINGS.format(step=given.step, rule=given.rule)))
    for number in range(LONG):
        town.build("long", f"app-{number:02}")
    short = [town.build("short", f"app-{number:02}") for number in range(SHORT)]
    if not given.no_trace:
        tracemalloc.start()
    print("| minutes | MiB held | MiB resident at most | under watch | records in memory | CPU ms per step |")
    print("|---:|---:|---:|---:|---:|---:|")
    async with town.served() as service:
        await asyncio.sleep(1)
        for house in town.houses.values():
            town.deploy(house, "v2")
        tasks = [asyncio.create_task(_go_on(town, house, index)) for index, house in enumerate(short)]
        begun, before = asyncio.get_running_loop().time(), None
        for _ in range(round(given.minutes * 60 / EVERY_S)):
            cpu = time.process_time()
            await asyncio.sleep(EVERY_S)
            cpu = time.process_time() - cpu
            gc.collect()
            stored = sum(map(sys.getsizeof, town.texts.values()))
            seen = Seen(
                minutes=(asyncio.get_running_loop().time() - begun) / 60,
                held=0 if given.no_trace else tracemalloc.get_traced_memory()[0] - stored,
                resident=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                watched=len(service.rollouts()),
                records=len(service.context.records),
                cpu_ms=1000 * cpu * given.step / EVERY_S,
            )
            print(
                f"| {seen.minutes:.0f} | {seen.held / MIB:.2f} | {seen.resident / MIB:.1f} | {seen.watched} |"
                f" {seen.records} | {seen.cpu_ms:.1f} |",
                flush=True,
            )
            if seen.minutes >= 20 and before is None and not given.no_trace:
                before = tracemalloc.take_snapshot()
        if before is not None:
            _print_growth(before, tracemalloc.take_snapshot(), given.who)
        for task in tasks:
            task.cancel()


async def _go_on(town: Town, house: House, index: int) -> None:
    """Deploy the next version as soon as the one before has passed."""
    await asyncio.sleep(index * NEXT_S / SHORT)
    number = 3
    while True:
        await asyncio.sleep(NEXT_S)
        town.deploy(house, f"v{number}")
        number += 1


def _print_growth(before: tracemalloc.Snapshot, after: tracemalloc.Snapshot, most: int) -> None:
    """Say which lines of the service hold more than they did after the first bake."""
    print("\nWhat grew since minute 20:\n")
    ours = [tracemalloc.Filter(False, tracemalloc.__file__), tracemalloc.Filter(False, "*/records/form.py")]
    found = after.filter_traces(ours).compare_to(before.filter_traces(ours), "lineno")
    for each in sorted(found, key=lambda item: -item.size_diff)[:most]:
        frame = each.traceback[0]
        print(f"{each.size_diff / MIB:+8.2f} MiB  {each.count_diff:+9d}  {frame.filename}:{frame.lineno}")


if __name__ == "__main__":
    main()
