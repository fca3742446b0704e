"""``demo``: a bad version under real HTTP traffic, undone before your eyes; nothing else installed.

What plays is loaded only here, because the production image leaves it out.
"""

import asyncio
import shutil
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from watchdog.cli import logs
from watchdog.cli.options import until_terminated
from watchdog.cli.output import BREACH, GOOD, USAGE, print_error
from watchdog.config import Log, LogLevel
from watchdog.errors import UsageError

if TYPE_CHECKING:
    from watchdog.demo.scenarios import Scenario

_DEFAULT = "bad-rolling"


@click.command(short_help="Show the service at work on a cluster in this process.")
@click.option("--scenario", "name", metavar="NAME", default=_DEFAULT, help="What is played; --list says what there is.")
@click.option("--list", "lists", is_flag=True, help="Say what there is.")
@click.option("--prometheus", "asks", is_flag=True, help="Judge by a program prometheus that scrapes the pods.")
@click.option("--fast", is_flag=True, help="As short as can be.")
def demo(name: str, *, lists: bool, asks: bool, fast: bool) -> int:
    """Play a rollout on a cluster in this process, with real HTTP traffic and the real service.

    Exits with 0 if it ended as promised, by the record and the cluster, else with 1.
    """
    logs.set_up(Log(level=LogLevel.ERROR))
    try:
        scenarios = _scenarios()
    except UsageError as error:
        print_error(str(error))
        return USAGE
    if name not in scenarios:
        print_error(f"there is no scenario {name}; there are {', '.join(scenarios)}")
        return USAGE
    if lists:
        for scenario in scenarios.values():
            click.echo(f"{scenario.name:<14} {scenario.sentence}")
        return GOOD
    try:
        return asyncio.run(until_terminated(_demo(scenarios[name], asks=asks, fast=fast)))
    except* UsageError as group:
        print_error(str(group.exceptions[0]))
    return USAGE


def _scenarios() -> Mapping[str, "Scenario"]:
    """What can be played.

    Raises:
        UsageError: this installation has no demonstration.
    """
    try:
        import_module("watchdog.sandbox")
        from watchdog.demo.scenarios import SCENARIOS
    except ModuleNotFoundError as error:
        if error.name not in ("watchdog.demo", "watchdog.sandbox"):
            raise
        raise UsageError("the demonstration is not in this image: type make demo in a clone of the project") from None
    return SCENARIOS


async def _demo(scenario: "Scenario", *, asks: bool, fast: bool) -> int:
    from watchdog.demo.play import play
    from watchdog.demo.prometheus import Prometheus
    from watchdog.demo.view import View

    console = Console(highlight=False, soft_wrap=True)
    prometheus = Prometheus() if asks else None
    text = scenario.config(fast=fast, prometheus=prometheus.url if prometheus else "")
    console.print(Text(f"The configuration, in short times:\n\n{text}", style="dim"))
    view = View(console, scenario)
    if console.is_terminal:
        with Live(console=console, refresh_per_second=8, vertical_overflow="visible") as live:
            view.attach(live)
            ended = await play(scenario, fast=fast, say=view.say, look=view.look, prometheus=prometheus)
    else:
        ended = await play(scenario, fast=fast, say=view.say, look=view.look, prometheus=prometheus)
    view.conclude(ended, program=_program())
    return BREACH if ended.wrong else GOOD


def _program() -> str:
    """This program, as it can be typed here: make runs it from a directory that is on no PATH."""
    name = "rollback-watchdog"
    if shutil.which(name):
        return name
    return sys.argv[0] if Path(sys.argv[0]).name == name else f"{sys.executable} -m watchdog"
