"""A real Prometheus that scrapes nothing and knows a past that was written for it."""

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.monitoring.server import MonitoringError, Server, find

TOOL = "promtool"

Sample = tuple[str, Mapping[str, str], float, float]
"""Metric, labels, value, and its time in seconds since the epoch."""


class PastServer(Server):
    """One Prometheus with a past.

    Args:
        directory: for its configuration, data and log.
        samples: all that there is; those of one series in the order of their times.
    """

    program = "prometheus"

    def __init__(self, directory: Path, samples: Iterable[Sample]) -> None:
        super().__init__(directory)
        write(directory, samples)
        (directory / "prometheus.json").write_text('{"scrape_configs": []}')

    def arguments(self) -> list[str]:
        """The command line: nothing is too old to be kept."""
        return [
            "--config.file=prometheus.json",
            "--storage.tsdb.path=data",
            "--storage.tsdb.retention.time=100y",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
        ]


def write(directory: Path, samples: Iterable[Sample]) -> None:
    """Write a past into the data of a Prometheus that is to begin there.

    Raises:
        MonitoringError: the tool is not installed.
    """
    families: dict[str, list[str]] = {}
    for metric, labels, value, at in samples:
        inside = ",".join(f'{name}="{text}"' for name, text in labels.items())
        families.setdefault(metric, []).append(f"{metric}{{{inside}}} {value!r} {at:.3f}")
    lines = [line for family in families.values() for line in family]
    (directory / "past").write_text("\n".join([*lines, "# EOF\n"]))
    if not (tool := find(TOOL)):
        raise MonitoringError(f"{TOOL} is not installed; it comes with Prometheus")
    written = [tool, "tsdb", "create-blocks-from", "openmetrics", "past", "data"]
    subprocess.run(written, cwd=directory, check=True, capture_output=True)
