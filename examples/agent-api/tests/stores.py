"""A real Redis and a real PostgreSQL on loopback ports of their own; nothing of the machine's own is touched.

python tests/stores.py DIRECTORY     # starts both, prints their URLs as shell assignments, stops on SIGTERM
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path


class MissingError(Exception):
    """A server is not installed; the message says which package has it."""


@contextlib.contextmanager
def redis_url(directory: Path) -> Iterator[str]:
    """Run a Redis and give its URL."""
    program = _find("redis-server", "redis-server")
    port = _free_port()
    flags = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(directory)]
    with _running([program, *flags], directory / "redis.log", lambda: _listens(port)):
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def postgres_url(directory: Path) -> Iterator[str]:
    """Run a PostgreSQL and give its URL. It refuses to run as root, so root runs it as the package's user or nobody."""
    initdb, program = (_find(name, "postgresql") for name in ("initdb", "postgres"))
    user = []
    home = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))  # where another user may come
    if os.geteuid() == 0:
        name = next((each.pw_name for each in pwd.getpwall() if each.pw_name == "postgres"), "nobody")
        shutil.chown(home, name)
        user = [_find("setpriv", "util-linux"), "--reuid", name, "--regid", pwd.getpwnam(name).pw_gid.__str__()]
        user += ["--clear-groups"]
    try:
        data, port = home / "data", _free_port()
        make = [*user, initdb, "--no-sync", "--auth=trust", "--username=agent", "--encoding=UTF8", "--locale=C"]
        subprocess.run([*make, f"--pgdata={data}"], check=True, capture_output=True, cwd="/")
        fast = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}
        settings = [f"--{name}={value}" for name, value in (fast | {"unix_socket_directories": ""}).items()]
        command = [*user, program, "-D", str(data), "-h", "127.0.0.1", "-p", str(port), *settings]
        # SIGINT is PostgreSQL's fast shutdown: it does not wait for its clients.
        with _running(command, directory / "postgres.log", lambda: _listens(port), end=signal.SIGINT):
            yield f"postgresql://agent@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _running(
    command: list[str], log: Path, ready: Callable[[], bool], *, end: signal.Signals = signal.SIGTERM
) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd="/")
    try:
        deadline = time.monotonic() + 20
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(end)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _find(program: str, package: str) -> str:
    places = [
        os.environ["PATH"],
        "/usr/sbin",
        *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)),
    ]
    if not (found := shutil.which(program, path=os.pathsep.join(places))):
        raise MissingError(f"{program} is not installed; on Debian it is in the package {package}")
    return found


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Run both until told to end."""
    for stop in (signal.SIGINT, signal.SIGTERM):  # handled and not blocked: Redis would inherit that, and never end
        signal.signal(stop, signal.default_int_handler)
    directory = Path(sys.argv[1])
    with (
        contextlib.suppress(KeyboardInterrupt),
        redis_url(directory) as sessions,
        postgres_url(directory) as transcripts,
    ):
        print(f"REDIS_URL={sessions}\nDATABASE_URL={transcripts}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
