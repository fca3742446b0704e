"""``evaluate``, as whoever calls it sees it: the published streams in, their values out, and bad rows named."""

import gzip
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.unit.test_eprocess import S1
from watchdog.cli import cli

HEADER = "time,candidate_total,candidate_bad,stable_total,stable_bad,stable_ready"
LOG_E = [0.0, 0.953773, 2.897073, 4.103639, 4.103639, 4.103639, 4.103639]
LOG_E_HISTORICAL = [0.0, 0.013495, 1.358211, 3.522943, 5.789391, 8.215544, 10.680567]
PUBLISHED = ("--baseline", "0.0056", "--phi", "1.5")


def csv(rows: Sequence[Sequence[int]]) -> str:
    return "\n".join([HEADER, *(",".join(map(str, (15 * at, *row))) for at, row in enumerate(rows, start=1))]) + "\n"


Said = tuple[int, list[dict[str, Any]], str]


def run(trace: Path, *words: str, given: str | None = None) -> Said:
    """Evaluate a file, which is given its text first."""
    if given is not None:
        trace.write_text(given)
    result = CliRunner().invoke(cli, ["evaluate", str(trace), *words, "--output", "json"], standalone_mode=False)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return result.return_value, lines, result.stderr


def piped(given: bytes, *words: str) -> Said:
    """Evaluate standard input, of a real process."""
    command = [sys.executable, "-m", "watchdog", "evaluate", "-", *words, "--output", "json"]
    done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=60)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace.csv"


def test_a_published_stream_gives_its_published_values_and_breaches_in_its_block(trace: Path) -> None:
    code, lines, _ = run(trace, *PUBLISHED, given=csv(S1))
    assert code == 1
    assert [line["log_e"] for line in lines[:-1]] == pytest.approx(LOG_E, abs=1e-6)
    assert [line["log_e_historical"] for line in lines[:-1]] == pytest.approx(LOG_E_HISTORICAL, abs=1e-6)
    assert [line["onset"] for line in lines[:-1]] == [None, 30, 30, 30, 30, 30, 30]
    assert [line["verdict"] for line in lines[:-1]] == ["insufficient"] * 4 + ["breach"] * 3
    assert lines[-1]["first_breach"] == 75


def test_a_packed_file_and_standard_input_say_the_same_as_the_file(trace: Path, tmp_path: Path) -> None:
    said = run(trace, *PUBLISHED, given=csv(S1))
    packed = tmp_path / "trace.csv.gz"
    packed.write_bytes(gzip.compress(trace.read_bytes()))
    assert run(packed, *PUBLISHED) == said
    assert piped(trace.read_bytes(), *PUBLISHED) == said
    assert piped(packed.read_bytes(), *PUBLISHED) == said


def test_without_a_baseline_the_concurrent_control_judges_with_all_of_alpha(trace: Path) -> None:
    bad = [(100, 12, 900, 4, 1)] * 8
    code, lines, _ = run(trace, "--phi", "1.5", given=csv(bad))
    assert code == 1
    assert lines[0]["log_e_historical"] is None
    first = next(line for line in lines if line["verdict"] == "breach")
    assert first["log_e"] >= 4.605170
    assert lines[-1]["first_breach"] == first["time"]


def test_without_phi_the_default_for_an_unknown_past_holds(trace: Path) -> None:
    given = csv([(100, 12, 900, 4, 1)] * 8)
    assert run(trace, given=given) == run(trace, "--phi", "3", "--m-cap", "20", given=given)
    assert run(trace, "--phi", "3", given=given) != run(trace, given=given)


def test_a_healthy_trace_ends_with_zero_and_no_breach(trace: Path) -> None:
    code, lines, _ = run(trace, *PUBLISHED, given=csv([(100, 1, 900, 5, 1)] * 200))
    assert (code, lines[-1]["first_breach"]) == (0, None)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("30,10,1,90", "line 3, stable_bad"),
        ("30,10,11,90,0,1", "line 3, candidate_bad"),
        ("30,ten,1,90,0,1", "line 3, candidate_total"),
        ("30,10,1,-90,0,1", "line 3, stable_total"),
        ("15,10,1,90,0,1", "line 3, time"),
        ("noon,10,1,90,0,1", "line 3, time"),
        ("30,10,1,90,0,yes", "line 3, stable_ready"),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_field(trace: Path, row: str, named: str) -> None:
    code, lines, said = run(trace, given=f"{HEADER}\n15,10,1,90,0,1\n{row}\n")
    assert code == 2
    assert named in said
    assert [line["time"] for line in lines if "time" in line] == [15], "what was good before it is judged"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--control", "historical"), "--baseline"),
        (("--tolerance", "2"), "--tolerance"),
    ],
)
def test_an_option_that_cannot_be_is_named_with_its_cure(trace: Path, words: tuple[str, ...], named: str) -> None:
    code, _, said = run(trace, *words, given=csv(S1))
    assert code == 2
    assert named in said


def test_a_file_that_is_not_there_is_named(trace: Path) -> None:
    code, _, said = run(trace)
    assert code == 2
    assert "trace.csv" in said


# -- cost --------------------------------------------------------------------------------------------------------------

MEASURED = (
    "import resource, sys\n"
    "from watchdog.cli import cli\n"
    "cli(['evaluate', '-', '--baseline', '0.004', '--output', 'json'], standalone_mode=False)\n"
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
)


def memory(rows: int) -> float:
    """Judge so many rows, and give the most memory that took, in MB."""
    command = [sys.executable, "-c", MEASURED]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(f"{HEADER}\n")
        for at in range(rows):
            process.stdin.write(f"{15 * at},{10 + at % 7},{at % 29 == 0:d},{90 + at % 11},{at % 3 == 0:d},1\n")
        process.stdin.close()
        return float(process.stderr.read()) / 1024


def test_a_long_trace_takes_no_more_memory_than_a_short_one() -> None:
    assert memory(200_000) - memory(20_000) < 16  # 2 MB here; kept rows would be 100 MB
