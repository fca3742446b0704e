"""The composition root: the only place that knows every part and puts them together."""

import datetime as dt
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from watchdog.config import Config, Signal, Source
from watchdog.engine.act import Actor
from watchdog.engine.fleet import Match, match_all
from watchdog.engine.observation import read_snapshot
from watchdog.engine.verify import Patience
from watchdog.errors import ClusterError, ConfigError, Unanswered
from watchdog.kube import KubeCluster, Reviews, connect
from watchdog.kube.proxy import SCHEME, ServiceProxy
from watchdog.kube.reading import read_list
from watchdog.kube.transport import Transport
from watchdog.kube.watching import WatchSettings
from watchdog.model import MANAGER
from watchdog.objects import Deployment, Snapshot, WorkloadRef
from watchdog.ports import Signals
from watchdog.records import RecordStore

if TYPE_CHECKING:  # most commands need none of these, and importing them takes as long as an undo
    from watchdog.alertmanager import Send as Peer
    from watchdog.metrics import Channel
    from watchdog.notify import ChannelClient
    from watchdog.prometheus import PrometheusClient, PrometheusSignals, Send
    from watchdog.scrape import PodSignals


class Parts(msgspec.Struct, frozen=True):
    """What a command works with; what lies outside the cluster is opened when it is asked for."""

    config: Config
    transport: Transport
    cluster: KubeCluster
    reviews: Reviews
    actor: Actor
    request_s: float
    stack: AsyncExitStack

    async def caller(self) -> str:
        """Who we are to the API server, for the audit trail; an API server too old to say does not stop an undo."""
        try:
            return (await self.reviews.whoami(timeout_s=self.request_s)).username or "unknown"
        except ClusterError:
            return "unknown"

    async def snapshot(self, ref: WorkloadRef) -> Snapshot:
        """Read a Deployment and what its selector finds."""
        return await read_snapshot(self.cluster, ref, timeout_s=self.request_s)

    def records(self, namespace: str = "") -> RecordStore:
        """The records; their namespace is the one named, else the configured one, else that of the service."""
        return RecordStore(
            self.cluster,
            namespace=namespace or records_namespace(self.config),
            kind=self.config.records.kind,
            now=lambda: dt.datetime.now(dt.UTC),
        )

    async def deployments(self, namespace: str) -> tuple[Deployment, ...]:
        """List the Deployments of a namespace."""
        path, operation = f"/apis/apps/v1/namespaces/{namespace}/deployments", f"list deployments {namespace}"
        found, _ = await read_list(self.transport, path, Deployment, operation=operation, timeout_s=self.request_s)
        return found

    async def match(self, ref: WorkloadRef) -> Match | None:
        """The one policy that is about a workload, and its part in it."""
        return match_all(self.config.policies, await self.deployments(ref.namespace))[0].get(ref)

    async def prometheus(
        self, url: str = "", *, observe: Callable[[str, float], None] = lambda _outcome, _seconds: None
    ) -> "PrometheusClient":
        """Prometheus, at a URL or where the configuration says.

        Raises:
            ConfigError: neither names a place, or there is no way there.
        """
        from watchdog import prometheus

        settings = msgspec.structs.replace(self.config.prometheus, url=url or self.config.prometheus.url)
        if not settings.url:
            pods = ", as pods know no past" if self.config.source is Source.PODS else ""
            raise ConfigError("prometheus.url", f"missing; set it, or give --prometheus URL{pods}")
        send = _through(ServiceProxy(self.transport, settings.url)) if settings.url.startswith(SCHEME) else None
        return await self.stack.enter_async_context(
            prometheus.connect(settings, clock=time.time, observe=observe, send=send)
        )

    def signals(self, client: "PrometheusClient") -> "PrometheusSignals":
        """The judge's questions to a Prometheus."""
        from watchdog.prometheus import PrometheusSignals

        settings = self.config.prometheus
        return PrometheusSignals(client, step_s=settings.step, delay_s=settings.delay)

    async def pods(
        self,
        *,
        signals: Iterable[Signal] = (),
        observe: Callable[[str, float], None] = lambda _outcome, _seconds: None,
    ) -> "PodSignals":
        """The judge's questions to the pods themselves: for these signals and those of the policies."""
        from watchdog import scrape

        settings = self.config.scrape
        signals = [*signals, *(signal for policy in self.config.policies for signal in policy.signals.values())]
        get = await self.stack.enter_async_context(scrape.connect(concurrency=settings.concurrency))
        return scrape.PodSignals(get, settings=settings, want=scrape.wanted(signals), clock=time.time, observe=observe)

    async def source(self, *, observe: Callable[[str, float], None]) -> Signals | None:
        """Where the service reads counters; None where nothing of the kind is configured. Raises `ConfigError`."""
        if self.config.source is Source.PODS:
            return await self.pods(observe=observe)
        return self.signals(await self.prometheus(observe=observe)) if self.config.prometheus.url else None

    def alertmanagers(self) -> "dict[str, Peer]":
        """Every Alertmanager peer."""
        from watchdog.alertmanager import http_peers

        settings = self.config.alertmanager
        proxied = [url for url in settings.urls if url.startswith(SCHEME)]
        return {**http_peers(settings), **{url: _peer(ServiceProxy(self.transport, url)) for url in proxied}}

    def channels(self) -> "dict[Channel, ChannelClient]":
        """Every channel that is configured."""
        from watchdog.notify import CHANNELS

        found = {channel: client for channel, make in CHANNELS.items() if (client := make(self.config))}
        for client in found.values():
            self.stack.push_async_callback(client.close)
        return found


def _through(proxy: ServiceProxy) -> "Send":
    from watchdog.prometheus import HttpAnswer, Unreachable

    async def send(path: str, form: Mapping[str, str], *, timeout_s: float) -> HttpAnswer:
        try:
            status, body, date = await proxy.ask("POST", path, form=form, timeout_s=timeout_s)
        except Unanswered as error:
            raise Unreachable(str(error)) from error
        return HttpAnswer(status, body, date)

    return send


def _peer(proxy: ServiceProxy) -> "Peer":
    async def send(method: str, path: str, timeout_s: float) -> tuple[int, bytes]:
        status, body, _ = await proxy.ask(method, path, timeout_s=timeout_s)
        return status, body

    return send


def records_namespace(config: Config) -> str:
    """Where the service keeps its records."""
    return config.records.namespace or os.environ.get("POD_NAMESPACE") or MANAGER


def patience_of(config: Config) -> Patience:
    """How long an action waits."""
    return Patience(
        request_s=config.kubernetes.request_timeout,
        observed_s=config.rollback.observed_within,
        verify_s=config.rollback.timeout,
    )


@asynccontextmanager
async def assemble(
    config: Config,
    *,
    kubeconfig: str | None,
    context: str | None,
    verify_s: float | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Parts]:
    """Put the parts together and take them apart afterwards.

    Args:
        kubeconfig: path of a kubeconfig, or None for kubectl's order.
        context: a context in it.
        verify_s: how long an action may take in all, instead of the configured time.
        progress: told how far an action is.

    Raises:
        ConfigError: there is no way to a cluster.
    """
    settings = config.kubernetes
    async with connect(kubeconfig=kubeconfig, context=context) as transport, AsyncExitStack() as stack:
        cluster = KubeCluster(
            transport,
            watching=WatchSettings(
                request_s=settings.request_timeout,
                watch_s=settings.watch_timeout,
                inactivity_s=settings.watch_inactivity,
            ),
        )
        patience = patience_of(config)
        if verify_s is not None:
            patience = msgspec.structs.replace(patience, verify_s=verify_s)
        actor = Actor(cluster, patience=patience, now=lambda: dt.datetime.now(dt.UTC), progress=progress)
        yield Parts(config, transport, cluster, Reviews(transport), actor, settings.request_timeout, stack)
