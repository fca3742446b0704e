"""The control plane itself: etcd, kube-apiserver, kube-controller-manager and kwok on loopback.

Tests of a program that writes to clusters are worth as much as the cluster they run on. This one is real:
RBAC, admission, validation, generations, watches, the controllers and the audit log are Kubernetes' own.
Only the kubelet is played (kwok, see stages.yaml), and there is no scheduler: pods name their node.

Each component is killed by the kernel when the thread that started it ends (PR_SET_PDEATHSIG, on Linux), so a
test runner that dies hard leaves nothing behind. Each also has a session of its own: a Ctrl-C at the terminal
reaches the runner only, which then stops them.
"""

import base64
import contextlib
import functools
import http.client
import json
import os
import random
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from tests.controlplane.build import COMMAND, find

Json = dict[str, Any]

# Set the death signal, then become the component: the pid stays, and nothing runs between fork and exec in
# a runner that may have threads, as a preexec_fn would. A runner that died even before is noticed, too.
_DIE_WITH_PARENT = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the test runner is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

# Every component runs in the plane's directory. TaintNodesByCondition is off as there is no node-lifecycle
# controller to take the taint of new nodes off again. The audit log is not rotated: tests read all of it.
_FLAGS = {
    "etcd": """
        --data-dir=etcd --unsafe-no-fsync --quota-backend-bytes=8589934592 --log-level=warn
        --listen-client-urls=http://127.0.0.1:{etcd} --advertise-client-urls=http://127.0.0.1:{etcd}
        --listen-peer-urls=http://127.0.0.1:{peer} --initial-advertise-peer-urls=http://127.0.0.1:{peer}
        --initial-cluster=default=http://127.0.0.1:{peer}""",
    "kube-apiserver": """
        --etcd-servers=http://127.0.0.1:{etcd} --bind-address=127.0.0.1 --secure-port={port}
        --tls-cert-file=server.crt --tls-private-key-file=server.key --token-auth-file=tokens.csv
        --service-account-key-file=accounts.key --service-account-signing-key-file=accounts.key
        --service-account-issuer=https://kubernetes.default.svc --authorization-mode=RBAC
        --service-cluster-ip-range=10.96.0.0/16 --endpoint-reconciler-type=none
        --disable-admission-plugins=TaintNodesByCondition
        --audit-policy-file=audit-policy.json --audit-log-path=audit.log --audit-log-maxsize=0
        --audit-log-mode=batch --audit-log-batch-max-wait=200ms""",
    "kube-controller-manager": """
        --kubeconfig=kcm.kubeconfig --leader-elect=false --secure-port=0
        --controllers=deployment-controller,replicaset-controller,garbage-collector-controller,\
namespace-controller,serviceaccount-controller,endpointslice-controller
        --kube-api-qps=500 --kube-api-burst=1000
        --concurrent-deployment-syncs=10 --concurrent-replicaset-syncs=10""",
    "kwok": """
        --kubeconfig=kwok.kubeconfig --config=stages.yaml --manage-all-nodes=true
        --node-lease-duration-seconds=0 --cidr=10.0.0.0/16""",
}

_AUDIT_POLICY = """{
    "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
    {"level": "Request", "verbs": ["create", "update", "patch", "delete", "deletecollection"],
     "resources": [{"group": "apps"}, {"group": "events.k8s.io"}]},
    {"level": "Metadata"}]}"""

# CA and server in one. Key usage and key identifier are what Python's strict verification asks of a CA.
_CERTIFICATE = """
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = test-control-plane
[extensions]
basicConstraints = critical, CA:TRUE
keyUsage = critical, digitalSignature, keyCertSign
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
subjectAltName = IP:127.0.0.1, DNS:localhost
"""

_KEPT = 8
"""Connections that are kept; every write leaves one more, and takes none."""

_Asked = tuple[str, str, str | None, dict[str, str]]
"""A request: method, path, body and headers."""

_FIRST_PORT, _LAST_PORT, _SHARES = 20000, 32000, 16  # a share for each worker
_given: set[int] = set()


class ControlPlaneError(Exception):
    """The control plane, or a command given to it, failed."""


class ApiError(Exception):
    """The API server answered with this HTTP status; `body` is the Status object, or text if it sent none."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body


class ControlPlane:
    """One control plane with four nodes, node-0 to node-3; a context manager.

    `url`, `kubeconfig` (of `admin`, group system:masters), `token` (the same user's), `ca_file` and `kubectl`
    hold for the plane's life, over restarts of its components. Components are named as their binaries.
    """

    def __init__(self) -> None:
        self._binaries, missing = find()
        if missing:
            raise ControlPlaneError(f"{', '.join(missing)} not found: run `{COMMAND}` (about 6 minutes, once)")
        self._dir = Path(tempfile.mkdtemp(prefix="controlplane-"))
        self._ports = dict(zip(("port", "etcd", "peer"), free_ports(3), strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._idle: list[http.client.HTTPSConnection] = []
        self.token = secrets.token_hex(16)
        self.url = f"https://127.0.0.1:{self._ports['port']}"
        self.ca_file = self._dir / "server.crt"
        self.kubeconfig = self._dir / "admin.kubeconfig"
        self.kubectl = self._binaries["kubectl"]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything; on return pods of a new Deployment would become ready.

        Call it from a thread that lives as long as the plane: the components die with that thread.

        Raises:
            ControlPlaneError: a component ended or was not ready in time; the message has its log's tail.
        """
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        try:
            self._write_files()
            self._spawn("etcd")
            self._spawn("kube-apiserver")
            self._until("kube-apiserver", "answer /readyz", self._is_ready)
            self._spawn("kube-controller-manager")
            self._spawn("kwok")
            for index in range(4):
                self.api("POST", "/api/v1/nodes", {"metadata": {"name": f"node-{index}"}})
            self._until("kwok", "make the nodes ready", self._nodes_are_ready)
            self._until("kube-controller-manager", "make the ServiceAccount", lambda: self.exists(account))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill the components, frozen ones too, and delete their data."""
        while self._idle:
            self._idle.pop().close()
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        self._processes.clear()
        shutil.rmtree(self._dir, ignore_errors=True)

    def pid(self, component: str) -> int:
        """Return the process id of a component."""
        return self._processes[component].pid

    def log(self, component: str) -> str:
        """Return what a component has logged so far."""
        return (self._dir / f"{component}.log").read_text(errors="replace")

    def api(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        token: str | None = None,
        user_agent: str = "controlplane-tests",
        timeout_s: float = 10,
    ) -> Any:
        """Make a request, as the administrator unless a token is given; return the decoded answer.

        Raises:
            ApiError: the status is 400 or more.
            OSError: no answer; a TimeoutError, which is one, after `timeout_s` of silence.
        """
        headers = {"Content-Type": content_type, "User-Agent": user_agent}
        with self._open(method, path, body, headers, token or self.token, timeout_s) as response:
            return _decoded(response)

    def watch(self, path: str, *, timeout_s: float = 10) -> Iterator[Json]:
        """Yield the events of a watch until the server ends it or goes away; a 410 comes as an event, too.

        Raises:
            ApiError: the watch was refused.
            TimeoutError: nothing came for `timeout_s`.
        """
        path += ("&" if "?" in path else "?") + "watch=1"
        gone = (ConnectionError, ssl.SSLEOFError, http.client.IncompleteRead)
        with self._open("GET", path, None, {}, self.token, timeout_s) as response, contextlib.suppress(*gone):
            for line in response:
                yield json.loads(line)

    def exists(self, path: str) -> bool:
        """Say whether a GET of this path finds something."""
        try:
            self.api("GET", path)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def admin(self, *args: str, stdin: str | None = None) -> str:
        """Run the real kubectl as the administrator and return its standard output.

        Raises:
            ControlPlaneError: it failed; the message has its standard error.
        """
        command = [
            str(self.kubectl),
            f"--kubeconfig={self.kubeconfig}",
            f"--cache-dir={self._dir}/kubectl",
            *args,
        ]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise ControlPlaneError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def token_for(
        self, namespace: str, service_account: str, *, audience: str | None = None, duration: str = "1h"
    ) -> str:
        """Return a token of a ServiceAccount; one with an audience is good for that only, not for the API."""
        options = [f"--namespace={namespace}", f"--duration={duration}"]
        if audience:
            options.append(f"--audience={audience}")
        return self.admin("create", "token", service_account, *options).strip()

    def kubeconfig_for(
        self,
        namespace: str,
        service_account: str,
        *,
        audience: str | None = None,
        duration: str = "1h",
        server: str | None = None,
    ) -> Path:
        """Write a kubeconfig with a new token of a ServiceAccount; its default namespace is the account's.

        `server` is another URL than the plane's, such as that of a proxy before it.
        """
        token = self.token_for(namespace, service_account, audience=audience, duration=duration)
        path = self._dir / f"{namespace}-{service_account}-{secrets.token_hex(3)}.kubeconfig"
        self._write_kubeconfig(path, token, namespace, server or self.url)
        return path

    def audit(self, user: str | None = None) -> list[Json]:
        """Return the audit events so far in order, of one user (full name, or `admin`) or of all.

        Writes to apps and events.k8s.io have their body as `requestObject`, all else only the metadata. The
        log is written every 200 ms; a request of our own, which is left out, marks how far it has come.
        """
        log, mark = self._dir / "audit.log", f"audit-mark-{secrets.token_hex(8)}"
        begin = log.stat().st_size
        self.api("GET", "/version", user_agent=mark)
        self._until("kube-apiserver", "write its audit log", lambda: mark.encode() in _tail(log, begin))
        lines = log.read_text().rpartition("\n")[0].split("\n")
        wanted = f'"username":"{user}"' if user else ""
        return [json.loads(line) for line in lines if wanted in line and "audit-mark-" not in line]

    def freeze(self, component: str) -> None:
        """Stop a component with SIGSTOP; on return it has stopped. Its connections stay open and silent."""
        self._processes[component].send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid(component), os.WSTOPPED)

    def thaw(self, component: str) -> None:
        """Let a frozen component go on."""
        self._processes[component].send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self, component: str) -> Iterator[None]:
        """Keep a component frozen for the length of the block."""
        self.freeze(component)
        try:
            yield
        finally:
            self.thaw(component)

    def restart(self, component: str) -> None:
        """Kill a component with SIGKILL, start it with the same command line and wait for /readyz."""
        self._processes[component].kill()
        self._processes[component].wait()
        self._spawn(component)
        self._until(component, "answer /readyz", self._is_ready)

    @contextlib.contextmanager
    def _open(
        self, method: str, path: str, body: Any, headers: dict[str, str], token: str, timeout_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        text = None if body is None else json.dumps(body)
        asked = method, path, text, {**headers, "Authorization": f"Bearer {token}"}
        with contextlib.ExitStack() as stack:
            connection, response = self._ask(asked, timeout_s)
            stack.callback(connection.close)
            with response:
                if response.status >= 400:
                    raise ApiError(response.status, _decoded(response))
                yield response
                if response.isclosed() and not response.will_close and len(self._idle) < _KEPT:
                    stack.pop_all()
                    self._idle.append(connection)

    def _ask(self, asked: _Asked, timeout_s: float) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        """Ask over a connection that is open, as a handshake costs both sides more than most answers.

        What only reads is asked once more over a new one if the server had closed it meanwhile.
        """
        if asked[0] == "GET":
            with contextlib.suppress(IndexError, ConnectionError, ssl.SSLError, http.client.HTTPException):
                return _answered(self._idle.pop(), asked, timeout_s)
        return _answered(
            http.client.HTTPSConnection("127.0.0.1", self._ports["port"], timeout=timeout_s, context=self._tls),
            asked,
            timeout_s,
        )

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def _is_ready(self) -> bool:
        try:
            self.api("GET", "/readyz", timeout_s=2)
        except (OSError, http.client.HTTPException, ApiError):
            return False
        return True

    def _nodes_are_ready(self) -> bool:
        nodes = self.api("GET", "/api/v1/nodes")["items"]
        conditions = [{c["type"]: c["status"] for c in node["status"].get("conditions", [])} for node in nodes]
        return all(condition.get("Ready") == "True" for condition in conditions)

    def _until(self, component: str, what: str, condition: Callable[[], bool], timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            code = self._processes[component].poll()
            if code is not None or time.monotonic() > deadline:
                how = f"did not {what} within {timeout_s} s" if code is None else f"ended with {code}"
                tail = "\n".join(self.log(component).splitlines()[-20:])
                raise ControlPlaneError(f"{component} {how}; its log ends:\n{tail}")
            time.sleep(0.02)

    def _spawn(self, component: str) -> None:
        launcher = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
        command = [str(self._binaries[component]), *_FLAGS[component].format(**self._ports).split()]
        with (self._dir / f"{component}.log").open("ab") as log:
            self._processes[component] = subprocess.Popen(
                launcher + command,
                cwd=self._dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _write_files(self) -> None:
        (self._dir / "certificate.conf").write_text(_CERTIFICATE)
        (self._dir / "audit-policy.json").write_text(_AUDIT_POLICY)
        shutil.copy(Path(__file__).with_name("stages.yaml"), self._dir)
        self._openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out accounts.key")
        self._openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out server.key")
        self._openssl("req -x509 -key server.key -config certificate.conf -days 3650 -out server.crt")
        tokens = {"admin": self.token, "kcm": secrets.token_hex(16), "kwok": secrets.token_hex(16)}
        users = [f"{token},{user},{user},system:masters\n" for user, token in tokens.items()]
        (self._dir / "tokens.csv").write_text("".join(users))
        for user, token in tokens.items():
            self._write_kubeconfig(self._dir / f"{user}.kubeconfig", token, "default", self.url)

    def _openssl(self, arguments: str) -> None:
        if not (openssl := shutil.which("openssl")):
            raise ControlPlaneError("openssl makes the plane's certificate but is not on PATH: install it")
        command = [openssl, *arguments.split()]
        done = subprocess.run(command, cwd=self._dir, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ControlPlaneError(f"openssl {arguments}: {done.stderr}")

    def _write_kubeconfig(self, path: Path, token: str, namespace: str, server: str) -> None:
        ca = base64.b64encode(self.ca_file.read_bytes()).decode()
        context = {"cluster": "test", "user": "test", "namespace": namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": ca}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": context}],
            "current-context": "test",
        }
        path.write_text(json.dumps(config))  # JSON is YAML
        path.chmod(0o600)


def _answered(
    connection: http.client.HTTPSConnection, asked: _Asked, timeout_s: float
) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
    try:
        if connection.sock:
            connection.sock.settimeout(timeout_s)
        connection.request(*asked)
        return connection, connection.getresponse()
    except BaseException:
        connection.close()
        raise


def _decoded(response: http.client.HTTPResponse) -> Any:
    text = response.read().decode()
    return json.loads(text) if response.headers.get_content_type() == "application/json" else text


def _tail(path: Path, begin: int) -> bytes:
    with path.open("rb") as file:
        file.seek(begin)
        return file.read()


def free_ports(count: int) -> list[int]:
    """Return free ports that nobody was given before, in this process or in another worker of pytest-xdist.

    They lie below the ephemeral range, so that no client's socket takes one before the server does, or in a restart.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
    share = range(_FIRST_PORT + worker, _LAST_PORT, _SHARES)
    ports: list[int] = []
    for port in random.sample(share, len(share)):
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
        if len(ports) == count:
            _given.update(ports)
            return ports
    raise ControlPlaneError(f"fewer than {count} free ports of {len(share)}")
