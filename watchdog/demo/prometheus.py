"""A Prometheus that scrapes the sandbox's pods, and ends with the play.

It finds them over HTTP, because Debian's is built without the discovery of Kubernetes.
"""

import asyncio
import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from watchdog.demo.scenarios import NAMESPACE
from watchdog.errors import UsageError
from watchdog.sandbox.nodes import PORT_ANNOTATION
from watchdog.sandbox.store import Json, Store

_READY_S = 15.0
_ASKED_S = 0.05
_ENDS_S = 5.0
_SETTINGS, _LOG = "prometheus.json", "log"


class Prometheus:
    """A Prometheus that is not yet started.

    Raises:
        UsageError: the program is not installed.
    """

    def __init__(self) -> None:
        binary = shutil.which("prometheus")
        if binary is None:
            raise UsageError("--prometheus: there is no program prometheus on the PATH; without it the pods are read")
        self._binary = binary
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{self._address}"

    @asynccontextmanager
    async def scraping(self, store: Store) -> AsyncIterator[None]:
        """Run it for as long as the context lasts.

        Args:
            store: whose pods it scrapes.

        Raises:
            UsageError: it ended or was not ready in time; the message has its log's last line.
        """
        with tempfile.TemporaryDirectory(prefix="rollback-watchdog-") as directory:
            async with _discovery(store) as url:
                process = await self._start(Path(directory), url)
                try:
                    await self._until_ready(process, Path(directory))
                    yield
                finally:
                    await _end(process)

    async def _start(self, directory: Path, discovery: str) -> asyncio.subprocess.Process:
        job = {"job_name": "pods", "http_sd_configs": [{"url": discovery, "refresh_interval": "1s"}]}
        settings = {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": [job]}
        await asyncio.to_thread((directory / _SETTINGS).write_text, json.dumps(settings))  # JSON is YAML
        log = os.open(directory / _LOG, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                self._binary,
                f"--config.file={_SETTINGS}",
                "--storage.tsdb.path=data",
                f"--web.listen-address={self._address}",
                "--log.level=warn",
                cwd=directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for the demonstration, which then ends it
            )
        finally:
            os.close(log)

    async def _until_ready(self, process: asyncio.subprocess.Process, directory: Path) -> None:
        async with aiohttp.ClientSession() as session:
            for _ in range(round(_READY_S / _ASKED_S)):
                if await self._is_ready(session):
                    return
                if process.returncode is not None:
                    break
                await asyncio.sleep(_ASKED_S)
        how = "was not ready in time" if process.returncode is None else f"ended with {process.returncode}"
        log = await asyncio.to_thread((directory / _LOG).read_text, errors="replace")
        raise UsageError(f"--prometheus: it {how}: {''.join(log.splitlines()[-1:])}")

    async def _is_ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(_ENDS_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def _discovery(store: Store) -> AsyncIterator[str]:
    """Tell over HTTP where pods are, with the labels that every usual job gives them."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response([_target(pod) for pod in store.list("pods", NAMESPACE) if _is_found(pod)])

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def _is_found(pod: Json) -> bool:
    return "podIP" in pod.get("status", {}) and PORT_ANNOTATION in pod["metadata"].get("annotations", {})


def _target(pod: Json) -> Json:
    metadata = pod["metadata"]
    labels = {
        "namespace": metadata["namespace"],
        "pod": metadata["name"],
        "container": pod["spec"]["containers"][0]["name"],
    }
    return {"targets": [f"{pod['status']['podIP']}:{metadata['annotations'][PORT_ANNOTATION]}"], "labels": labels}
