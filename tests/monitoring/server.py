"""A monitoring program on a loopback port of its own, as a process that does not outlive the test runner."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.controlplane.plane import _DIE_WITH_PARENT, free_ports

BINARIES = {
    "prometheus": ("prometheus",),
    "promtool": ("promtool",),
    "alertmanager": ("alertmanager", "prometheus-alertmanager"),
}


def find(program: str) -> str | None:
    """The path of a program's binary, whose name depends on who packages it; None where it is not installed."""
    return next((path for name in BINARIES[program] if (path := shutil.which(name))), None)


class MonitoringError(Exception):
    """A monitoring program, or a request to it, failed."""


class Server:
    """One such program; a context manager. It keeps its port and its data over `stop` and `start`.

    Start it in a thread that lives as long as it shall: the kernel kills it with that thread.
    """

    program: str

    def __init__(self, directory: Path) -> None:
        (self._port,) = free_ports(1)
        self._dir = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def arguments(self) -> list[str]:
        """The command line without the program."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it; on return it is ready.

        Raises:
            MonitoringError: it ended or was not ready in time; the message has its log's tail.
        """
        if not (binary := find(self.program)):
            raise MonitoringError(f"{self.program} is not installed")
        launcher = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*launcher, binary, *self.arguments()],
                cwd=self._dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.until(self._is_ready, "be ready")
        except BaseException:
            self.__exit__()
            raise

    def stop(self) -> None:
        """Ask it to end, as a cluster would, and wait until it has; a frozen one is thawed for that."""
        self.thaw()
        self._running.terminate()
        self._running.wait(timeout=20)

    def kill(self) -> None:
        """End it at once: Alertmanager then forgets the silences of the last minutes."""
        self._running.kill()
        self._running.wait()

    def freeze(self) -> None:
        """Stop it with SIGSTOP; on return it has stopped. Its connections stay open and silent."""
        self._running.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._running.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        self._running.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """Return what it has logged so far."""
        return self._log.read_text(errors="replace")

    def api(self, method: str, path: str, body: Any = None, *, timeout_s: float = 10) -> Any:
        """Make a request and return the decoded answer, or its text where it is not JSON.

        Raises:
            MonitoringError: the status is 300 or more.
            OSError: no answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout_s)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            with connection.getresponse() as response:
                answer = response.read().decode()
                if response.status >= 300:
                    raise MonitoringError(f"{method} {path}: {response.status} {answer.strip()}")
                return json.loads(answer) if response.headers.get_content_type() == "application/json" else answer
        finally:
            connection.close()

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = 90) -> None:
        """Ask every 20 ms until the answer is true. It blocks.

        Raises:
            MonitoringError: the program ended, or it was not true in time.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            code = self._running.poll()
            if code is not None or time.monotonic() > deadline:
                how = f"did not {what} within {timeout_s} s" if code is None else f"ended with {code}"
                tail = "\n".join(self.log().splitlines()[-20:])
                raise MonitoringError(f"{self.program} {how}; its log ends:\n{tail}")
            time.sleep(0.02)

    @property
    def _log(self) -> Path:
        return self._dir / f"{self.program}.log"

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if not self._process:
            raise MonitoringError(f"{self.program} was never started")
        return self._process

    def _is_ready(self) -> bool:
        try:
            self.api("GET", "/-/ready", timeout_s=2)
        except (OSError, http.client.HTTPException, MonitoringError):
            return False
        return True
