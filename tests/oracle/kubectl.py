"""The real `kubectl rollout undo`, asked what it makes of a history.

A server on loopback plays just enough of an API server; many histories live in one, each in a namespace of its own, so
that kubectl reads the discovery documents once and then takes them from its cache.
"""

import contextlib
import copy
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.controlplane import build
from tests.oracle.histories import History, Json
from tests.unit import json_patch

OLDEST = (1, 24)
_AT_ONCE = 70
"""Deployments for one call: each takes four requests, and after 300 kubectl slows itself down."""


class Did(StrEnum):
    """What kubectl did."""

    PATCHED = "patched"
    SKIPPED = "skipped"
    NO_HISTORY = "no history"
    NO_REVISION = "revision not found"
    PAUSED = "paused"
    FAILED = "failed"


_WORDS = {
    "skipped rollback": Did.SKIPPED,
    "no rollout history found": Did.NO_HISTORY,
    "unable to find specified revision": Did.NO_REVISION,
    "cannot rollback a paused deployment": Did.PAUSED,
}


@dataclass(frozen=True)
class Answer:
    """What kubectl did with a history, and where it patched: the Deployment as it is then."""

    did: Did
    deployment: Json | None
    said: str


@dataclass(frozen=True)
class Kubectl:
    """One kubectl."""

    path: Path
    version: str


def find() -> list[Kubectl]:
    """Every distinct kubectl that can be found: the control plane's, those on PATH, those of $KUBECTL_ORACLES.

    Beside the kubectl on PATH some distributions put one for each minor version, and make the first a dispatcher
    between them, which is no kubectl of its own.
    """
    candidates = [built] if (built := build.find()[0].get("kubectl")) else []
    candidates += map(Path, filter(None, os.environ.get("KUBECTL_ORACLES", "").split(":")))
    folders = [Path(folder) for folder in os.get_exec_path()]
    if on_path := shutil.which("kubectl"):
        candidates.append(Path(on_path))
        folders.append(Path(on_path).resolve().parent)
    for folder in dict.fromkeys(folders):
        candidates += sorted(path for path in folder.glob("kubectl.1.*") if os.access(path, os.X_OK))
    found: dict[str, Kubectl] = {}
    for path in dict.fromkeys(path.resolve() for path in candidates):
        version = _version(path)
        numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
        if numbers >= OLDEST and not version.endswith("-dispatcher"):
            found.setdefault(version, Kubectl(path, version))
    return list(found.values())


def _version(path: Path) -> str:
    command = [str(path), "version", "--client", "--output=json"]
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "PATH": os.environ.get("PATH", "")}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, timeout=20, check=True)
            version: str = json.loads(done.stdout)["clientVersion"]["gitVersion"]
        except (OSError, subprocess.SubprocessError, ValueError, LookupError):
            return ""
    return version


class Oracle:
    """Answers for histories; may be asked from several threads."""

    def __init__(self, url: str, home: Path, shelves: dict[str, "_Shelf"]) -> None:
        self._url = url
        self._home = home
        self._shelves = shelves
        self._numbers = itertools.count(1)

    def ask(self, kubectl: Kubectl, histories: Sequence[History]) -> list[Answer]:
        """Let a kubectl undo each of these histories.

        A call takes 80 ms of processor time whatever it is about, and one call undoes many Deployments, as long as all
        go to the same `--to-revision`: hence all of those at once.
        """
        shelves = [self._put(history) for history in histories]
        asked = defaultdict[int | None, list[_Shelf]](list)
        for shelf in shelves:
            asked[shelf.history.to_revision].append(shelf)
        answers: dict[str, Answer] = {}
        for to_revision, alike in asked.items():
            for first in range(0, len(alike), _AT_ONCE):
                answers |= self._undo(kubectl, alike[first : first + _AT_ONCE], to_revision)
        return [answers[shelf.name] for shelf in shelves]

    def _put(self, history: History) -> "_Shelf":
        shelf = _Shelf(f"h{next(self._numbers)}", history)
        self._shelves[shelf.name] = shelf
        return shelf

    def _undo(self, kubectl: Kubectl, shelves: Sequence["_Shelf"], to_revision: int | None) -> dict[str, Answer]:
        """Make one call.

        Successes are told by the Deployment's name and by the patch that came. What kubectl says of failures does not
        always name the Deployment, but says one line for each, in their order.
        """
        wanted = {"apiVersion": "v1", "kind": "List", "items": [shelf.deployment for shelf in shelves]}
        command = [str(kubectl.path), f"--server={self._url}", "rollout", "undo", "--filename=-"]
        command += [] if to_revision is None else [f"--to-revision={to_revision}"]
        done = subprocess.run(
            command,
            input=json.dumps(wanted),
            env={"HOME": str(self._home), "KUBECACHEDIR": f"{self._home}/{kubectl.version}"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        said = dict(line.removeprefix("deployment.apps/").split(" ", 1) for line in done.stdout.splitlines())
        failed = [shelf for shelf in shelves if shelf.name not in said]
        lines = [line for line in done.stderr.splitlines() if not line.startswith("Warning: ")]
        failures = dict(zip((shelf.name for shelf in failed), lines, strict=True))
        assert all(f'"{name}"' in line for name, line in failures.items() if '"' in line), done
        answers = {}
        for shelf in shelves:
            words = said.get(shelf.name) or failures[shelf.name]
            answers[shelf.name] = Answer(what_it_did(words, patched=shelf.patched is not None), shelf.patched, words)
        return answers


def what_it_did(said: str, *, patched: bool) -> Did:
    """Tell it from kubectl's words, and from whether a patch came."""
    found = next((did for words, did in _WORDS.items() if words in said), Did.FAILED)
    return Did.PATCHED if patched and found is Did.FAILED else found


def select(history: History, selector: str) -> list[Json]:
    """The ReplicaSets that the text of a label selector finds, as the API server's list does."""
    requirements = re.findall(r"(?:[^,(]|\([^)]*\))+", selector)
    return [
        item
        for item in history.replicasets
        if all(_holds(text.strip(), item["metadata"].get("labels", {})) for text in requirements)
    ]


def _holds(requirement: str, labels: dict[str, str]) -> bool:
    if found := re.fullmatch(r"(\S+) (in|notin) \((.*)\)", requirement):
        key, operator, values = found.groups()
        return (labels.get(key) in values.split(",")) == (operator == "in")
    if requirement.startswith("!"):
        return requirement[1:] not in labels
    key, equals, value = requirement.partition("=")
    return labels.get(key) == value if equals else key in labels


class _Shelf:
    """One history as it is served under a name and in a namespace of its own, and what becomes of its Deployment."""

    def __init__(self, name: str, history: History) -> None:
        self.name = name
        self.history = history
        self.deployment = copy.deepcopy(history.deployment)
        self.deployment["metadata"] |= {"name": name, "namespace": name}
        self.patched: Json | None = None


_DISCOVERY: Json = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {
                "name": "apps",
                "versions": [{"groupVersion": "apps/v1", "version": "v1"}],
                "preferredVersion": {"groupVersion": "apps/v1", "version": "v1"},
            }
        ],
    },
    "/apis/apps/v1": {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": "apps/v1",
        "resources": [
            {
                "name": f"{kind.lower()}s",
                "singularName": kind.lower(),
                "namespaced": True,
                "kind": kind,
                "verbs": ["get", "list", "patch"],
            }
            for kind in ("Deployment", "ReplicaSet")
        ],
    },
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextlib.contextmanager
def oracle() -> Iterator[Oracle]:
    """Play the API server for the length of the block."""
    shelves: dict[str, _Shelf] = {}

    class Api(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one piece: head and body apart would meet Nagle's algorithm, 40 ms each

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            if address.path in _DISCOVERY:
                return self._send(200, _DISCOVERY[address.path])
            match address.path.split("/")[4:]:
                case [_, name, "deployments", _] if name in shelves:
                    return self._send(200, shelves[name].deployment)
                case [_, name, "replicasets"] if name in shelves:
                    (selector,) = parse_qs(address.query)["labelSelector"]
                    items = select(shelves[name].history, selector)
                    metadata = {"resourceVersion": "7000"}
                    kind = {"kind": "ReplicaSetList", "apiVersion": "apps/v1"}
                    return self._send(200, {**kind, "metadata": metadata, "items": items})
            return self._send(404, {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})

        def do_PATCH(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            place = shelves[self.path.split("/")[5]]
            place.patched = json_patch.apply(json.dumps(body).encode(), place.deployment)
            self._send(200, place.patched)

        def _send(self, status: int, body: Json) -> None:
            content = json.dumps(body).encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with _Server(("127.0.0.1", 0), Api) as server, tempfile.TemporaryDirectory() as home:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield Oracle(f"http://127.0.0.1:{server.server_port}", Path(home), shelves)
        finally:
            server.shutdown()
            thread.join()
