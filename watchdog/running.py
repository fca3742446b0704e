"""The service, put together: the composition root's other half, which commands do not need to load."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from watchdog.alertmanager import Alertmanagers, read_webhook
from watchdog.app import assemble, patience_of
from watchdog.config import Config
from watchdog.engine.context import Context, Ports
from watchdog.engine.service import WatchdogService, utc_now
from watchdog.engine.switching import Switcher
from watchdog.judge.blocks import BlindReason
from watchdog.metrics import Metrics
from watchdog.web.server import serve

_OUTCOMES = {"unreachable": BlindReason.UNREACHABLE, "partial": BlindReason.PARTIAL}


@asynccontextmanager
async def running(config: Config, *, kubeconfig: str | None, context: str | None) -> AsyncIterator[WatchdogService]:
    """Put the service together, HTTP included; whoever is given it runs it.

    Raises:
        ConfigError: a part cannot be made as it is configured.
    """
    async with assemble(config, kubeconfig=kubeconfig, context=context) as parts:
        metrics = Metrics()

        def observe(outcome: str, _: float) -> None:
            metrics.query(_OUTCOMES.get(outcome))

        ports = Ports(
            cluster=parts.cluster,
            store=parts.records(),
            actor=parts.actor,
            signals=await parts.source(observe=observe),
            alerts=Alertmanagers(parts.alertmanagers()) if config.alertmanager.urls else None,
            channels=parts.channels(),
            switcher=Switcher(parts.cluster, parts.cluster, patience=patience_of(config), now=utc_now),
        )
        service = WatchdogService(Context(config, ports, metrics, now=utc_now), parts.cluster, parts.cluster)
        async with serve(
            config.server, service, parts.reviews, read_webhook, metrics.exposition, request_s=parts.request_s
        ):
            yield service
