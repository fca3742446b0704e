"""The command `rollback-watchdog`, run as a user does."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from watchdog.objects import WorkloadRef


class Done:
    """What a run of the command left."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.code = process.returncode
        self.out = process.stdout
        self.err = process.stderr

    @property
    def json(self) -> Any:
        """Its one JSON object."""
        return json.loads(self.out)

    @property
    def log(self) -> list[dict[str, Any]]:
        """Its log lines."""
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


class Command:
    """The command under one kubeconfig, mostly about one workload."""

    def __init__(self, kubeconfig: Path, workload: WorkloadRef) -> None:
        self._kubeconfig = kubeconfig
        self._workload = workload

    def __call__(self, *args: str) -> Done:
        """Run it with these arguments and the kubeconfig."""
        command = [sys.executable, "-m", "watchdog", *args, f"--kubeconfig={self._kubeconfig}"]
        return Done(subprocess.run(command, capture_output=True, text=True, timeout=60, check=False))

    def interrupted(self, when: Callable[[], object], *args: str) -> Done:
        """Run it, and end it with SIGTERM once something has happened."""
        command = [sys.executable, "-m", "watchdog", *args, f"--kubeconfig={self._kubeconfig}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            when()
            process.terminate()
            out, err = process.communicate(timeout=60)
        return Done(subprocess.CompletedProcess(command, process.returncode, out, err))

    def meanwhile(self, what: Callable[[], object], *args: str) -> Done:
        """Run it, do something once it has said its first line, and wait for its end."""
        command = [sys.executable, "-m", "watchdog", *args, f"--kubeconfig={self._kubeconfig}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert process.stderr
            late = threading.Timer(60, process.kill)
            late.start()
            first = process.stdout.readline()
            what()
            # Not `communicate`: it would miss what was read together with the first line.
            out, err = first + process.stdout.read(), process.stderr.read()
            late.cancel()
        return Done(subprocess.CompletedProcess(command, process.returncode, out, err))

    def rollback(self, *options: str) -> Done:
        """Run `rollback` of the workload."""
        return self("rollback", str(self._workload), *options)

    def history(self, *options: str) -> Done:
        """Run `history` of the workload."""
        return self("history", str(self._workload), *options)
