"""What all commands share: their options, and the way from words to values."""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import click
import msgspec

from watchdog import config as configuration
from watchdog.cli import logs
from watchdog.cli.output import CANNOT, NOT_DONE, USAGE, Form, print_failure
from watchdog.config import Config
from watchdog.errors import ClusterError, ConfigError, NotFound, Unanswered, UsageError, WatchdogError
from watchdog.objects import WorkloadRef, is_name

Command = Callable[..., Any]


class Common(msgspec.Struct, frozen=True):
    """The common options, and the configuration they led to."""

    config: Config
    config_path: str | None
    form: Form
    kubeconfig: str | None
    context: str | None


class Workload(click.ParamType[WorkloadRef]):
    """``NAMESPACE/NAME``."""

    name = "NAMESPACE/NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> WorkloadRef:
        """Split it."""
        namespace, _, name = str(value).partition("/")
        if not is_name(namespace) or not is_name(name):
            self.fail(f"{value!r} is not NAMESPACE/NAME, such as shop/web", param, ctx)
        return WorkloadRef(namespace, name)


class Words(click.ParamType[str]):
    """Free text; what is not UTF-8 is replaced, since no record could hold it."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Replace what cannot be encoded, and drop the space around it."""
        return str(value).encode(errors="replace").decode().strip()


class Duration(click.ParamType[float]):
    """A duration such as ``300s``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        try:
            return float(configuration.duration(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def common(command: Command) -> Command:
    """Add the common options; they may stand before or after the subcommand's name, and the later one holds."""
    for option in (
        click.option("--context", metavar="NAME", help="Context of the kubeconfig."),
        click.option("--kubeconfig", metavar="FILE", help="Kubeconfig; else kubectl's order, then the pod's account."),
        click.option("--output", type=click.Choice([form.value for form in Form]), help="Output form [default: text]."),
        click.option("--config", "config_file", metavar="FILE", help="Configuration file."),
    ):
        command = option(command)
    return command


def runs(action: Callable[..., Coroutine[Any, Any, int]]) -> Command:
    """Make a click callback of a coroutine that takes `Common` first and gives an exit code.

    Errors that have a name end in one line and their exit code; everything else is the caller's.
    """

    @wraps(action)
    @click.pass_context
    def callback(ctx: click.Context, /, **given: Any) -> int:
        outer = ctx.parent.params if ctx.parent else {}
        options = {key: given.pop(key) or outer.get(key) for key in ("config_file", "output", "kubeconfig", "context")}
        form = Form(options["output"] or Form.TEXT)
        try:
            path = configuration.find(options["config_file"])
            loaded = configuration.load(path)
            logs.set_up(loaded.log)
            shared = Common(loaded, str(path) if path else None, form, options["kubeconfig"], options["context"])
            return asyncio.run(until_terminated(action(shared, **given)))
        except WatchdogError as error:
            print_failure(error, form, command=ctx.command.name or "")
            return exit_code(error)
        finally:
            logging.shutdown()

    return callback


async def until_terminated(action: Coroutine[Any, Any, int]) -> int:
    """Run an action; SIGTERM cancels it as SIGINT does, so that a write that is under way is brought to an end."""
    task = asyncio.current_task()
    if task and threading.current_thread() is threading.main_thread():  # only there Python takes signals
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await action


def exit_code(error: WatchdogError) -> int:
    """What an error means to whoever called us.

    A name that does not exist was mistyped, a write that was refused is not done, and the rest cannot be reached.
    """
    if isinstance(error, ConfigError | UsageError | NotFound):
        return USAGE
    if isinstance(error, ClusterError) and not isinstance(error, Unanswered) and error.operation.startswith("patch "):
        return NOT_DONE
    return CANNOT
