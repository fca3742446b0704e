"""The sandbox in the place of the control plane, for tests that run on both."""

import asyncio
import contextlib
import http.client
import json
import secrets
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.controlplane.build import find
from tests.controlplane.plane import ApiError, ControlPlane
from watchdog.sandbox.cluster import start
from watchdog.sandbox.kubelet import ScriptedKubelet
from watchdog.sandbox.reviews import API_AUDIENCE, Account, Accounts
from watchdog.sandbox.rights import allowed


class SandboxPlane(ControlPlane):
    """As far as it goes, the same thing: `api`, `watch`, `exists`, `admin`; it has no audit log and one thread."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sandbox-")
        self._dir = Path(self._folder.name)
        self.token = ""
        self.kubeconfig = self._dir / "admin.kubeconfig"
        self.kubectl = find()[0].get("kubectl", Path("kubectl-is-missing"))
        self._accounts = Accounts(may=lambda user, attributes: allowed(self._store, user, attributes))
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="sandbox")

    def start(self) -> None:
        """Start it in a thread of its own, as tests block."""
        self._thread.start()
        assert self._up.wait(10), "the sandbox did not start"

    def stop(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._folder.cleanup()

    def restart(self, component: str) -> None:
        """Have the API server forget what changed; the rest has nothing in memory that a restart would lose."""
        if component != "kube-apiserver":
            raise NotImplementedError(f"the sandbox restarts no {component}")
        forgotten = threading.Event()

        def forget() -> None:
            self._store.forget()
            forgotten.set()

        self._loop.call_soon_threadsafe(forget)
        assert forgotten.wait(10), "the sandbox did not forget"

    def token_for(
        self, namespace: str, service_account: str, *, audience: str | None = None, duration: str = "1h"
    ) -> str:
        """Return a token that lasts as long as the sandbox."""
        token = secrets.token_hex(16)
        username = f"system:serviceaccount:{namespace}:{service_account}"
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        self._accounts.add(token, Account(username=username, groups=groups, audience=audience or API_AUDIENCE))
        return token

    def kubeconfig_for(
        self,
        namespace: str,
        service_account: str,
        *,
        audience: str | None = None,
        duration: str = "1h",
        server: str | None = None,
    ) -> Path:
        """Write a kubeconfig with a new token of a ServiceAccount; there is no other server."""
        token = self.token_for(namespace, service_account, audience=audience)
        return self._sandbox.write_kubeconfig(self._dir / f"{token}.kubeconfig", token=token)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with start(ScriptedKubelet(), accounts=self._accounts) as sandbox:
            self.url, self._store = sandbox.url, sandbox.store
            self._sandbox = sandbox
            sandbox.write_kubeconfig(self.kubeconfig)
            self._up.set()
            await self._over.wait()

    @contextlib.contextmanager
    def _open(
        self, method: str, path: str, body: Any, headers: dict[str, str], token: str, timeout_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(self.url).port, timeout=timeout_s)
        if token:
            headers = {**headers, "Authorization": f"Bearer {token}"}
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            with connection.getresponse() as response:
                if response.status >= 400:
                    raise ApiError(response.status, json.loads(response.read()))
                yield response
