"""How a play looks: a live picture on a terminal, plain lines elsewhere."""

import time
from collections import defaultdict

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from watchdog.decide.record import Record
from watchdog.demo.play import Ended
from watchdog.demo.scenarios import NEW, Scenario
from watchdog.demo.stage import Shown, Stage

_STYLES = {"Ready": "green", "Terminating": "dim", "CrashLoopBackOff": "red", "Pending": "yellow"}
_BAD = 0.02
_LINES = 9


class View:
    """What a person sees.

    Args:
        console: where.
        scenario: what is played.
    """

    def __init__(self, console: Console, scenario: Scenario) -> None:
        self._console = console
        self._scenario = scenario
        self._begun = time.monotonic()
        self._lines: list[Text] = []
        self._live: Live | None = None

    def attach(self, live: Live) -> None:
        """Draw into a live display, instead of plain lines."""
        self._live = live

    def say(self, text: str) -> None:
        """Take a thing that happened."""
        line = Text.assemble((f"{time.monotonic() - self._begun:5.1f} s  ", "dim"), (text, _tone(text)))
        self._lines.append(line)
        if self._live is None:
            self._console.print(line)

    def look(self, stage: Stage) -> None:
        """Draw the stage."""
        if self._live is not None:
            self._live.update(self.picture(stage))

    def picture(self, stage: Stage) -> RenderableType:
        """The stage as it is now, and what happened of late."""
        return self.framed(self.scene(stage), lines=_LINES)

    def framed(self, scene: RenderableType, *, lines: int) -> RenderableType:
        """A scene in its frame, above the last lines of what happened by now."""
        title = Text(f" rollback-watchdog demo · {self._scenario.name} ", style="bold")
        body = Group(scene, Text(), *self._lines[-lines:])
        return Panel(body, title=title, title_align="left", border_style="blue", padding=(1, 2))

    def scene(self, stage: Stage) -> RenderableType:
        """The pods by track, and the verdict, as they are now."""
        table = Table(box=None, padding=(0, 2, 0, 0), expand=True)
        for column in ("track", "pod", "version", "state"):
            table.add_column(column, header_style="dim", no_wrap=True)
        for column in ("req/s", "failed"):
            table.add_column(column, justify="right", header_style="dim", no_wrap=True)
        tracks: dict[str, list[Shown]] = defaultdict(list)
        for pod in stage.pods():
            tracks["candidate" if pod.version == NEW else "stable"].append(pod)
        for track in ("stable", "candidate"):
            for number, pod in enumerate(tracks[track]):
                table.add_row(
                    Text(track if number == 0 else "", style="bold cyan" if track == "candidate" else "bold"),
                    Text(pod.name),
                    Text(pod.version.rpartition(":")[2]),
                    Text(pod.state, style=_STYLES.get(pod.state, "yellow")),
                    Text(f"{pod.rate:.0f}"),
                    _failed(pod),
                )
        return Group(table, Text(), _verdict(stage, stage.record()))

    def conclude(self, ended: Ended, *, program: str) -> None:
        """Say how it ended, and what to type next, with the program as it can be typed here."""
        self._console.print()
        self.sum_up(ended)
        self._console.print(Text(_NEXT.format(program=program)))

    def sum_up(self, ended: Ended) -> None:
        """Say how it ended."""
        out = self._console.print
        during, after = ended.during, ended.after
        numbers = f"Requests since v2 went out: {during.total} total, {during.failed} failed"
        if ended.record and ended.record.write_at:
            numbers += f", {after.failed} failed after the write was accepted"
        out(Text(f"{numbers}."))
        if ended.record:
            out(Text(f"Record: ConfigMap rollback-watchdog/rollback-watchdog-{ended.record.id}"))
        for each in ended.wrong:
            out(Text(f"Not as promised: {each}.", style="bold red"))
        if not ended.wrong:
            out(Text(f"As promised: {self._scenario.sentence}.", style="bold green"))


def _failed(pod: Shown) -> Text:
    if not pod.rate:
        return Text("–", style="dim")
    return Text(f"{100 * pod.errors:.1f} %", style="bold red" if pod.errors > _BAD else "green")


def _verdict(stage: Stage, record: Record | None) -> Text:
    """The verdict's numbers against their limits, as they are now."""
    line = Text.assemble(("verdict  ", "dim"))
    seen = stage.watchdog.poller.last(record.id) if record else None
    if record is None or seen is None:
        return line.append("no rollout under watch", style="dim")
    if record.outcome:
        return line.append(f"{record.outcome}", style="bold green").append(f" · record {record.id}", style="dim")
    found = seen.watch.verdicts(urgent=False)
    text = found[0].detail if found else "no signal"
    return line.append(f"{record.state}  ", style="bold").append(text, style=_tone(str(record.state)))


def _tone(text: str) -> str:
    if text.startswith(("verdict breach", "breach")):
        return "bold red"
    if text.startswith(("write accepted", "guard", "acting", "verifying")):
        return "bold yellow"
    return "bold green" if text.startswith(("outcome", "verified")) else ""


_NEXT = """
On your own cluster, where it only observes until you write another mode:
  {program} init NAMESPACE/NAME --prometheus URL > config.toml   # proposed from what the pods export
  {program} --config config.toml check --online   # rights, signals, what each policy sees
  {program} --config config.toml run
The smallest configuration, for a cluster without Prometheus:
  source = "pods"
  [[policies]]
  name = "web"
  namespaces = ["shop"]
  rule = "threshold"   # pods have no past, without which the rule sequential mostly asks
  [policies.signals.errors]
  bad = 'http_requests_total{{code=~"5.."}}'
  total = "http_requests_total\""""
