"""What the presets forgive, as docs/decisions.md says."""

import re
from pathlib import Path

import pytest

from benchmarks import presets
from watchdog.config import Sensitivity
from watchdog.judge.sequential import Controls

PAGE = (Path(__file__).parents[2] / "docs/decisions.md").read_text()


def told(row: str) -> list[str]:
    """The cells of a row of the page."""
    (cells,) = re.findall(rf"^\| {re.escape(row)} \|(.*)\|$", PAGE, re.MULTILINE)
    return [cell.strip() for cell in cells.split("|")]


@pytest.mark.parametrize("after_s", presets.AFTER_S)
def test_the_longest_blip_that_each_preset_forgives_is_the_documented_one(after_s: int) -> None:
    found = [presets.forgiven_s(each, after_s=after_s) for each in Sensitivity]
    assert told(f"{after_s} s after Ready") == list(map(str, found))
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("row", "controls"), [("rolling, both controls", Controls.BOTH), ("one control", Controls.HISTORICAL)]
)
def test_only_at_quick_one_block_ever_decides_and_only_after_a_long_pause(row: str, controls: Controls) -> None:
    found = [presets.alone_from(each, controls) for each in Sensitivity]
    assert told(row) == [str(each or "never") for each in found]
    assert (found[0] or 0) > 20


def test_a_start_up_blip_of_30_s_is_forgiven_but_at_quick() -> None:
    family = "each new pod 100 % × 30 s"
    undone = [presets.false(family, each, runs=5, seed=1)[0] for each in Sensitivity]
    assert undone[0] > 0
    assert undone[1:] == [0, 0]
