"""The README's picture, from a real run of the demonstration: `python -m benchmarks.picture`.

It shows the pods as they were when the undo was accepted, and below them what happened until the end.
"""

import asyncio
import io
import sys
from pathlib import Path

from rich.console import Console, RenderableType

from watchdog.cli import logs
from watchdog.config import Log, LogLevel
from watchdog.demo.play import Ended, play
from watchdog.demo.scenarios import SCENARIOS
from watchdog.demo.stage import Stage
from watchdog.demo.view import View

PICTURE = Path(__file__).parents[1] / "docs" / "demo.svg"
SCENARIO = SCENARIOS["bad-rolling"]
WIDTH = 116


def main() -> int:
    """Play, draw, and write the picture if the play ended as promised."""
    logs.set_up(Log(level=LogLevel.ERROR))
    # The lines go to a console of their own: the recorded one holds the frame and the sum alone.
    view = View(Console(file=io.StringIO()), SCENARIO)
    scene, ended = asyncio.run(_played(view))
    if ended.wrong or scene is None:
        print("; ".join(ended.wrong) or "nothing was undone", file=sys.stderr)
        return 1
    console = Console(file=io.StringIO(), record=True, width=WIDTH, highlight=False)
    console.print(view.framed(scene, lines=20))
    View(console, SCENARIO).sum_up(ended)
    console.save_svg(str(PICTURE), title="make demo", unique_id="demo")
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")
    return 0


async def _played(view: View) -> tuple[RenderableType | None, Ended]:
    """The scene when the write was accepted, and the end."""
    scenes: list[RenderableType] = []

    def look(stage: Stage) -> None:
        record = stage.record()
        if record and record.writes and not scenes:
            scenes.append(view.scene(stage))

    ended = await play(SCENARIO, fast=False, say=view.say, look=look)
    return (scenes[0] if scenes else None), ended


if __name__ == "__main__":
    sys.exit(main())
