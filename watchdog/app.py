"""The composition root: the only place that knows every part and puts them together."""

import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from watchdog.config import Config
from watchdog.engine.act import Actor
from watchdog.engine.verify import Patience
from watchdog.errors import ClusterError
from watchdog.kube import KubeCluster, Reviews, connect
from watchdog.kube.watching import WatchSettings


class Parts(msgspec.Struct, frozen=True):
    """What a command works with."""

    cluster: KubeCluster
    reviews: Reviews
    actor: Actor
    request_s: float

    async def caller(self) -> str:
        """Who we are to the API server, for the audit trail; an API server too old to say does not stop an undo."""
        try:
            return (await self.reviews.whoami(timeout_s=self.request_s)).username or "unknown"
        except ClusterError:
            return "unknown"


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
        config: the configuration.
        kubeconfig: path of a kubeconfig, or None for kubectl's order.
        context: a context in it.
        verify_s: how long an action may take in all, instead of the configured time.
        progress: told how far an action is.

    Raises:
        ConfigError: there is no way to a cluster.
    """
    settings = config.kubernetes
    async with connect(kubeconfig=kubeconfig, context=context) as transport:
        cluster = KubeCluster(
            transport,
            watching=WatchSettings(
                request_s=settings.request_timeout,
                watch_s=settings.watch_timeout,
                inactivity_s=settings.watch_inactivity,
            ),
        )
        patience = Patience(
            request_s=settings.request_timeout,
            observed_s=config.rollback.observed_within,
            verify_s=config.rollback.timeout if verify_s is None else verify_s,
        )
        actor = Actor(cluster, patience=patience, now=lambda: dt.datetime.now(dt.UTC), progress=progress)
        yield Parts(cluster, Reviews(transport), actor, settings.request_timeout)
