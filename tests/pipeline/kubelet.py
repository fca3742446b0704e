"""A kubelet for the agent's pods: each is a process on a loopback address of its own, run as its manifest says.

It binds the pods of its namespaces to its node, gives the container its environment from ConfigMap, Secret and fields,
probes it, runs its preStop and ends it with SIGTERM. kwok leaves this node's pods alone (stages.yaml). What a pod calls
its IP is `10.x.y.z`, as the API refuses endpoints on loopback; the process listens on `127.x.y.z`.

Not done, and not needed by these pods: volumes, liveness probes, limits, and other containers than the first.
"""

import asyncio
import base64
import contextlib
import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.controlplane.plane import ControlPlane, Json
from tests.pipeline.api import Api, Status
from tests.pipeline.image import Image
from tests.pipeline.repository import Registry

NODE = "agents"

_NET = 64 + os.getpid() % 128  # so that two test runs on one machine have addresses of their own


class Kubelet:
    """Runs the pods of some namespaces.

    Args:
        plane: the control plane.
        registry: of the images.
        python: with the agent's packages.
        directory: for the pods' logs.
        namespaces: whose pods are run.
    """

    def __init__(
        self, plane: ControlPlane, *, registry: Registry, python: Path, directory: Path, namespaces: tuple[str, ...]
    ) -> None:
        self._api = Api(plane)
        self._registry = registry
        self._python = python
        self._directory = directory
        self._namespaces = namespaces
        self._images: dict[Path, asyncio.Task[Image]] = {}
        self._endings: dict[str, asyncio.Event] = {}
        self._numbers: Iterator[int] = itertools.count(1)
        self.running: dict[str, Json] = {}

    async def run(self) -> None:
        """Run pods until cancelled; all processes end with it."""
        try:
            async with self._api, aiohttp.ClientSession() as probes, asyncio.TaskGroup() as group:
                self._probes, self._group = probes, group
                for namespace in self._namespaces:
                    group.create_task(self._follow(namespace))
        finally:
            for loaded in self._images.values():
                if loaded.done() and not loaded.cancelled():
                    await loaded.result().end()

    def targets(self) -> list[Json]:
        """The running pods, in the form of `http_sd`."""
        return [
            {"targets": [f"{pod['address']}:8080"], "labels": {"namespace": pod["namespace"], "pod": pod["name"]}}
            for pod in self.running.values()
        ]

    async def _follow(self, namespace: str) -> None:
        async for kind, pod in self._api.follow(f"/api/v1/namespaces/{namespace}/pods"):
            uid = pod["metadata"]["uid"]
            if uid not in self._endings and kind != "DELETED":
                self._endings[uid] = asyncio.Event()
                self._group.create_task(self._live(pod, self._endings[uid]))
            if kind == "DELETED" or "deletionTimestamp" in pod["metadata"]:
                self._endings[uid].set()

    async def _live(self, pod: Json, ending: asyncio.Event) -> None:
        """One pod from its first to its last moment."""
        metadata, spec = pod["metadata"], pod["spec"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        await self._api.ask("POST", f"{path}/binding", {"metadata": {"name": metadata["name"]}, "target": target})
        status = Status(self._api, path, spec["containers"][0])
        await self._contain(pod, status, ending)
        uid = {"preconditions": {"uid": metadata["uid"]}}
        await self._api.ask("DELETE", path, {"gracePeriodSeconds": 0, **uid})

    async def _contain(self, pod: Json, status: "Status", ending: asyncio.Event) -> None:
        metadata, container = pod["metadata"], pod["spec"]["containers"][0]
        directory = self._registry.names.get(container["image"])
        env = await self._environment(metadata, container)
        if directory is None or env is None:
            await status.waiting("ErrImagePull" if directory is None else "CreateContainerConfigError")
            await ending.wait()
            return
        number = next(self._numbers)
        inside = f"10.{_NET}.{number // 250}.{number % 250 + 1}"
        env["HOST"] = outside(inside)
        image = await self._image(directory)
        for restarts in itertools.count():
            pid, exited = await image.start(f"{metadata['name']}-{restarts}", env, self._log(metadata["name"]))
            self.running[metadata["uid"]] = {**metadata, "address": env["HOST"]}
            await status.running(inside, restarts=restarts)
            probing = asyncio.create_task(self._probe(container, env["HOST"], status))
            deleted = asyncio.create_task(ending.wait())
            either: set[asyncio.Future[Any]] = {deleted, exited}
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                probing.cancel()
                deleted.cancel()
            if not exited.done():
                await self._stop(pod, pid, exited, status)
                return
            del self.running[metadata["uid"]]
            await status.crashed(restarts=restarts, code=exited.result())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), min(10, 2**restarts))
                return

    async def _stop(self, pod: Json, pid: int, exited: "asyncio.Future[int]", status: "Status") -> None:
        """End a process as a kubelet does: preStop, SIGTERM, and SIGKILL when its grace is over."""
        container = pod["spec"]["containers"][0]
        hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        if hook:
            await _hooked(hook)
        await status.ready(False)
        os.kill(pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(exited), pod["spec"]["terminationGracePeriodSeconds"])
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            await exited
        del self.running[pod["metadata"]["uid"]]

    async def _probe(self, container: Json, address: str, status: "Status") -> None:
        """The startup probe until it succeeds, then the readiness probe for ever."""
        startup, readiness = container["startupProbe"], container["readinessProbe"]
        for _ in range(startup["failureThreshold"] * 4):
            if await self._answers(startup, address):
                break
            await asyncio.sleep(startup["periodSeconds"] / 4)
        while True:
            await status.ready(await self._answers(readiness, address))
            await asyncio.sleep(readiness["periodSeconds"])

    async def _answers(self, probe: Json, address: str) -> bool:
        url = f"http://{address}:8080{probe['httpGet']['path']}"
        timeout = aiohttp.ClientTimeout(total=probe["timeoutSeconds"])
        try:
            async with self._probes.get(url, timeout=timeout) as response:
                return response.status < 400
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _image(self, directory: Path) -> Image:
        if directory not in self._images:
            self._images[directory] = asyncio.create_task(Image.load(self._python, directory))
            image = await self._images[directory]
            self._group.create_task(image.listen())
        return await asyncio.shield(self._images[directory])

    async def _environment(self, metadata: Json, container: Json) -> dict[str, str] | None:
        """What the container gets; None where a ConfigMap, a Secret or a key of it is missing."""
        base = f"/api/v1/namespaces/{metadata['namespace']}"
        found = {"PATH": os.environ["PATH"], "HOSTNAME": metadata["name"]}
        for source in container.get("envFrom", []):
            config = await self._api.ask("GET", f"{base}/configmaps/{source['configMapRef']['name']}")
            if config is None:
                return None
            found |= config["data"]
        for each in container.get("env", []):
            source = each.get("valueFrom", {})
            if field := source.get("fieldRef"):
                found[each["name"]] = _field(metadata, field["fieldPath"])
            elif reference := source.get("secretKeyRef"):
                secret = await self._api.ask("GET", f"{base}/secrets/{reference['name']}") or {"data": {}}
                if reference["key"] in secret["data"]:
                    found[each["name"]] = _decoded(secret["data"][reference["key"]])
                elif not reference.get("optional"):
                    return None
            else:
                found[each["name"]] = each["value"]
        return found

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"


def outside(address: str) -> str:
    """Where the pod of an address listens on this machine."""
    return f"127{address.removeprefix('10')}"


async def _hooked(command: list[str]) -> None:
    """Run a hook; it does not outlive us."""
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await process.wait()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise


def _field(metadata: Json, path: str) -> str:
    name = path.removeprefix("metadata.")
    if name.startswith("labels['"):
        return str(metadata["labels"][name[8:-2]])
    return str(metadata[name])


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()
