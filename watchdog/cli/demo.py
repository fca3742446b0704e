"""``demo``: a bad version under real HTTP traffic, undone before your eyes; nothing else installed."""

import asyncio

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from watchdog.cli import logs
from watchdog.cli.output import BREACH, GOOD
from watchdog.config import Log, LogLevel
from watchdog.demo.play import play
from watchdog.demo.scenarios import SCENARIOS, Scenario
from watchdog.demo.view import View

_DEFAULT = "bad-rolling"


def _list(ctx: click.Context, _: click.Parameter, wanted: object) -> None:
    if wanted:
        for scenario in SCENARIOS.values():
            click.echo(f"{scenario.name:<14} {scenario.sentence}")
        ctx.exit()


@click.command(short_help="Show the service at work on a cluster in this process.")
@click.option("--scenario", type=click.Choice(list(SCENARIOS)), default=_DEFAULT, help="What is played.")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="Say what there is.")
@click.option("--fast", is_flag=True, help="As short as can be.")
def demo(scenario: str, *, fast: bool) -> int:
    """Play a rollout on a cluster in this process, with real HTTP traffic and the real service.

    Exits with 0 if it ended as promised, by the record and the cluster, else with 1.
    """
    logs.set_up(Log(level=LogLevel.ERROR))
    return asyncio.run(_demo(SCENARIOS[scenario], fast=fast))


async def _demo(scenario: Scenario, *, fast: bool) -> int:
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(f"The configuration, in short times:\n\n{scenario.config(fast=fast)}", style="dim"))
    view = View(console, scenario)
    if console.is_terminal:
        with Live(console=console, refresh_per_second=8, vertical_overflow="visible") as live:
            view.attach(live)
            ended = await play(scenario, fast=fast, say=view.say, look=view.look)
    else:
        ended = await play(scenario, fast=fast, say=view.say, look=view.look)
    view.conclude(ended)
    return BREACH if ended.wrong else GOOD
