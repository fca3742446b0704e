"""A whole cluster in this process."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import yaml
from aiohttp import web

from watchdog.sandbox.admission import admit
from watchdog.sandbox.api import Api
from watchdog.sandbox.controllers import Controllers
from watchdog.sandbox.reviews import Accounts
from watchdog.sandbox.store import Store

_NODE = {"metadata": {"name": "node-0"}, "spec": {}}


class Part(Protocol):
    """Something that lives with the cluster: a controller, a kubelet."""

    async def run(self, store: Store) -> None:
        """Work until cancelled."""


class Sandbox:
    """A running cluster; `start` makes one.

    Args:
        store: its objects.
        controllers: what works on them.
        url: where its API is, without a slash at the end.
    """

    def __init__(self, store: Store, controllers: Controllers, url: str) -> None:
        self.store = store
        self.controllers = controllers
        self.url = url

    def write_kubeconfig(self, path: Path, *, token: str = "") -> Path:
        """Write what kubectl and the service need to find the API; without a token its user is the administrator."""
        user = {"token": token} if token else {}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "sandbox",
            "clusters": [{"name": "sandbox", "cluster": {"server": self.url}}],
            "users": [{"name": "sandbox", "user": user}],
            "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "sandbox"}}],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def create_namespace(self, name: str) -> None:
        """Create a namespace, with the account that pods have by default."""
        self.store.create("namespaces", {"metadata": {"name": name}})
        self.store.create("serviceaccounts", {"metadata": {"name": "default"}}, namespace=name)


@asynccontextmanager
async def start(
    *parts: Part, port: int = 0, namespaces: Iterable[str] = ("default",), accounts: Accounts | None = None
) -> AsyncIterator[Sandbox]:
    """Run a cluster for as long as the context lasts: its API on 127.0.0.1, its controllers, and `parts`.

    Args:
        parts: what else lives in it, above all the kubelet that makes pods ready.
        port: where the API listens; 0 takes a free one.
        namespaces: to begin with.
        accounts: whose tokens are known; without it every request is the administrator's.

    Raises:
        OSError: the port is taken.
        ExceptionGroup: one of the parts failed.
    """
    store, controllers = Store(admit=admit), Controllers()
    runner = web.AppRunner(
        Api(store, accounts or Accounts()).application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=0.01,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        sandbox = Sandbox(store, controllers, f"http://127.0.0.1:{runner.addresses[0][1]}")
        store.create("nodes", _NODE)
        for namespace in namespaces:
            sandbox.create_namespace(namespace)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part.run(store)) for part in (controllers, *parts)]
            yield sandbox
            for task in tasks:
                task.cancel()
    finally:
        await runner.cleanup()
