"""``run``: the service."""

import click

from watchdog.cli.options import Common, common, runs
from watchdog.cli.output import GOOD
from watchdog.errors import ConfigError
from watchdog.running import running


@click.command(short_help="Run the service.")
@common
@runs
async def run(shared: Common) -> int:
    """Watch rollouts, judge them and undo bad ones, until SIGTERM."""
    if not shared.config.policies:
        raise ConfigError("policies", "missing; write at least one [[policies]], or have one proposed with init")
    async with running(shared.config, kubeconfig=shared.kubeconfig, context=shared.context) as service:
        await service.run()
    return GOOD
