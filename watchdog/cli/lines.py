"""What a gate shows while it runs: a line for each block on a log, one that changes on a terminal."""

from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from watchdog.cli.output import echo, printable
from watchdog.gate import GateRequest
from watchdog.gate.report import line
from watchdog.gate.tally import SignalNumbers


class Lines:
    """A line for each block, and one for everything else that changes, on standard output; or nothing.

    Args:
        quiet: nothing is shown.
    """

    def __init__(self, task: GateRequest, *, quiet: bool) -> None:
        self._task = task
        self._quiet = quiet
        self._said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def say(self, text: str) -> None:
        """Say what is waited for, when it changes."""
        if text != self._said:
            self._said = text
            self._print(text)

    def tell(self, numbers: tuple[SignalNumbers, ...]) -> None:
        """Show a block by the signal that is nearest to a breach."""
        policy = self._task.policy
        named = len(policy.signals) > 1
        self._block(line(numbers[0], step_s=self._task.step_s, bake_s=float(policy.bake), named=named))

    def _print(self, text: str) -> None:
        if not self._quiet:
            echo(text)

    def _block(self, text: str) -> None:
        self._print(text)


class LiveLine(Lines):
    """The same on a terminal, where the newest block stands in one line that changes."""

    def __init__(self, task: GateRequest, *, quiet: bool) -> None:
        super().__init__(task, quiet=quiet)
        self._live = Live(console=Console(highlight=False), auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _print(self, text: str) -> None:
        self._live.console.print(Text(printable(text)))

    def _block(self, text: str) -> None:
        self._live.update(Text(printable(text)), refresh=True)
