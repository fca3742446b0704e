"""The metrics of the fake pods. They come of real time and the pods' annotations alone: nothing is random."""

import contextlib
import http.client
import json
import threading
import time
import urllib.parse
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import msgspec

from tests.controlplane.plane import ApiError, ControlPlane, Json

SHARDS = 8

_POLL_S = 0.1
_QUIET_S = 2  # after so long without an event everything is listed again
_PODS = "/api/v1/pods?fieldSelector=status.phase%3DRunning"


class _Behaviour(msgspec.Struct):
    """How a pod behaves: by its annotations, and by what a test has set since."""

    rps: float
    errors: float
    saw_tooth: bool = False
    nan: bool = False
    serving: bool = True
    twice: bool = False


class _Pod(msgspec.Struct):
    """A pod that is or was ready, and what it has counted since it became so or was last restarted.

    `scrapes` counts for each Prometheus: where two scrape in turn, each would else meet one and the same worker.
    """

    uid: str
    restarts: int
    address: str
    told: _Behaviour
    bad_absent: bool
    ready: bool
    requests: float = 0
    bad: float = 0
    at: float = 0
    scrapes: Counter[str] = msgspec.field(default_factory=Counter)


class Exporter:
    """The metrics of all pods with the annotation `sim/rps`; a context manager. Pods are written `namespace/name`.

    Traffic begins when a pod becomes Ready and pauses while it is not; a restart begins the counters anew.
    """

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._pods: dict[str, _Pod] = {}
        self._overrides: list[tuple[str, dict[str, float]]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._threads = [
            threading.Thread(target=self._follow),
            threading.Thread(target=self._server.serve_forever, args=(0.02,)),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()

    # -- switches: they hold for the pods of a prefix, those to come too, until they are set otherwise ---------------

    def set(self, prefix: str, *, errors: float | None = None, rps: float | None = None) -> None:
        """Override the annotations of all pods whose `namespace/name` begins so."""
        changes = {"errors": errors, "rps": rps}
        self._override(prefix, **{name: value for name, value in changes.items() if value is not None})

    def saw_tooth(self, prefix: str, *, on: bool = True) -> None:
        """Answer scrapes in turn from two workers that count apart, as several processes behind one port do."""
        self._override(prefix, saw_tooth=on)

    def nan(self, prefix: str, *, on: bool = True) -> None:
        """Give NaN for every counter."""
        self._override(prefix, nan=on)

    def stop_serving(self, prefix: str, *, on: bool = True) -> None:
        """Let scrapes fail; the counters go on."""
        self._override(prefix, serving=not on)

    def twice(self, prefix: str, *, on: bool = True) -> None:
        """Have the same pods scraped by a second job, too."""
        self._override(prefix, twice=on)

    def _override(self, prefix: str, **changes: float) -> None:
        with self._lock:
            self._count()
            self._overrides.append((prefix, changes))

    # -- what Prometheus asks ------------------------------------------------------------------------------------------

    def targets(self) -> list[Json]:
        """The ready pods, in the form of `http_sd`."""
        with self._lock:
            return [
                {"targets": [self.address], "labels": {**labels, "__metrics_path__": f"/metrics/{key}"}}
                for key in self._pods
                for labels in self._labels(key)
            ]

    def scrape(self, key: str, by: str) -> str | None:
        """What a pod exposes now; None where it does not answer."""
        with self._lock:
            self._count()
            return self._exposition(key, {}, by) if self._labels(key) else None

    def scrape_shard(self, shard: int, by: str) -> str:
        """What the ready pods of a shard expose now, with the labels of their targets."""
        with self._lock:
            self._count()
            keys = [key for key in self._pods if zlib.crc32(key.encode()) % SHARDS == shard]
            return "".join(self._exposition(key, labels, by) or "" for key in keys for labels in self._labels(key))

    def _labels(self, key: str) -> list[dict[str, str]]:
        """The labels of a pod's targets; none while it is not ready."""
        pod, (namespace, name) = self._pods.get(key), key.split("/")
        if not pod or not pod.ready:
            return []
        labels = {"namespace": namespace, "pod": name, "container": "app", "instance": f"{pod.address}:8080"}
        return [{**labels, "job": job} for job in ("pods", "again")[: 1 + self._behaviour(key).twice]]

    def _exposition(self, key: str, labels: Mapping[str, str], by: str) -> str | None:
        """The same traffic in both customary shapes: a counter of errors, and a label that says how requests ended."""
        pod, behaviour = self._pods[key], self._behaviour(key)
        if not behaviour.serving:
            return None
        pod.scrapes[by] += 1
        share = (0.7, 0.3)[pod.scrapes[by] % 2] if behaviour.saw_tooth else 1
        total, bad = int(pod.requests * share), int(pod.bad * share)
        samples = [("agent_requests_total", {}, total), ("http_requests_total", {"code": "200"}, total - bad)]
        if bad or not pod.bad_absent:
            samples += [("agent_errors_total", {}, bad), ("http_requests_total", {"code": "500"}, bad)]
        return "".join(
            f"{name}{_matchers({**labels, **own})} {'NaN' if behaviour.nan else value}\n"
            for name, own, value in samples
        )

    # -- what happens meanwhile ----------------------------------------------------------------------------------------

    def _count(self) -> None:
        now = time.monotonic()
        for key, pod in self._pods.items():
            if pod.ready:
                behaviour = self._behaviour(key)
                requests = behaviour.rps * (now - pod.at)
                pod.requests += requests
                pod.bad += requests * behaviour.errors
            pod.at = now

    def _behaviour(self, key: str) -> _Behaviour:
        found = self._pods[key].told
        for prefix, changes in self._overrides:
            if key.startswith(prefix):
                found = msgspec.structs.replace(found, **changes)
        return found

    def _follow(self) -> None:
        while not self._stop.wait(_POLL_S):
            # A frozen or killed API server takes no pod from the network: what was known goes on.
            with contextlib.suppress(OSError, http.client.HTTPException, ApiError):
                listed = self._plane.api("GET", f"{_PODS}&resourceVersion=0", timeout_s=2)
                found = {_key(item): item for item in listed["items"]}
                self._take(found, gone=self._pods.keys() - found.keys())
                position = listed["metadata"]["resourceVersion"]
                for event in self._plane.watch(f"{_PODS}&resourceVersion={position}", timeout_s=_QUIET_S):
                    if event["type"] == "ERROR" or self._stop.is_set():
                        break
                    key = _key(event["object"])
                    if event["type"] == "DELETED":
                        self._take({}, gone=(key,))
                    else:
                        self._take({key: event["object"]})

    def _take(self, found: Mapping[str, Json], gone: Iterable[str] = ()) -> None:
        with self._lock:
            self._count()
            for key in gone:
                self._pods.pop(key, None)
            for key, item in found.items():
                if not (seen := _seen(item)):
                    continue
                known = self._pods.get(key)
                if known and (known.uid, known.restarts) == (seen.uid, seen.restarts):
                    known.ready = seen.ready
                else:
                    self._pods[key] = seen

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urllib.parse.urlsplit(self.path)
                kind, _, name = url.path[1:].partition("/")
                answer: str | None
                if kind == "sd":
                    answer = json.dumps(exporter.targets())
                elif kind == "shards":
                    answer = exporter.scrape_shard(int(name), url.query)
                else:
                    answer = exporter.scrape(name, url.query)
                self.send_response_only(503 if answer is None else 200)
                self.send_header("Content-Type", "application/json" if kind == "sd" else "text/plain")
                with contextlib.suppress(ConnectionError):  # who scrapes may hang up
                    self.end_headers()
                    self.wfile.write((answer or "").encode())

        return Handler


def _key(item: Json) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def _seen(item: Json) -> _Pod | None:
    """A pod as it begins; None where its annotations give it no traffic."""
    meta, status = item["metadata"], item["status"]
    annotations = meta.get("annotations", {})
    if "sim/rps" not in annotations:
        return None
    return _Pod(
        uid=meta["uid"],
        restarts=sum(container["restartCount"] for container in status.get("containerStatuses", [])),
        address=status.get("podIP", ""),
        told=_Behaviour(rps=float(annotations["sim/rps"]), errors=float(annotations.get("sim/errors", 0))),
        bad_absent=annotations.get("sim/bad-absent") == "true",
        ready=any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", [])),
        at=time.monotonic(),
    )


def _matchers(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
