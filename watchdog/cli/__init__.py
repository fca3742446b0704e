"""The command `rollback-watchdog`: one file per subcommand, each of which parses, calls and prints.

Exit codes: 0 good · 1 breach · 2 usage or configuration · 3 cannot judge or cannot reach · 4 not done. Python's own 1
for an unforeseen error would read as a breach, so such an error ends with 3. SIGINT ends with 130 and SIGTERM with 143,
after a write that was under way and what follows it.
"""

import asyncio
import itertools
import logging
import sys
from importlib import import_module

import click

from watchdog import __version__
from watchdog.cli.options import common
from watchdog.cli.output import CANNOT, GOOD, USAGE, print_error, print_json

# Each command and the file that holds it.
_COMMANDS = {
    "run": "run",
    "demo": "demo",
    "rollback": "rollback",
    "history": "history",
    "check": "check",
    "init": "init",
    "once": "once",
    "evaluate": "evaluate",
    "gate": "gate",
    "backtest": "backtest",
    "incidents": "incidents",
    "approve": "incidents",
    "dismiss": "incidents",
}


class _Commands(click.Group):
    """Imports a command when it is asked for: what the others need would take longer than most undos."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name them."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Give one by its name."""
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(f"watchdog.cli.{_COMMANDS[cmd_name]}"), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="rollback-watchdog")
@common
def cli(**_: object) -> None:
    """Undo bad rollouts of plain Kubernetes Deployments."""


def main() -> None:
    """Run the command and exit with its code."""
    code, failure = CANNOT, ""
    try:
        code = cli.main(prog_name="rollback-watchdog", standalone_mode=False) or GOOD
    except click.ClickException as error:
        error.show()
        code, failure = error.exit_code, error.format_message()
    except (KeyboardInterrupt, click.Abort, asyncio.CancelledError) as error:
        terminated = isinstance(error, asyncio.CancelledError)
        code, failure = (143 if terminated else 130), "interrupted; what the API server has accepted by now goes on"
        print_error(failure)
    except Exception:
        logging.getLogger(__name__).exception("unforeseen error", extra={"event": "unforeseen-error"})
        failure = "unforeseen error; the log has the traceback"
        print_error(failure)
    if failure and _wants_json(sys.argv):
        print_json(None, {"error": {"code": "usage" if code == USAGE else "aborted", "message": failure, "detail": ""}})
    sys.exit(code)


def _wants_json(words: list[str]) -> bool:
    """Whether JSON was asked for, in a command line that may be too wrong to be parsed."""
    return "--output=json" in words or ("--output", "json") in itertools.pairwise(words)
