"""Webhooks under load: `python -m benchmarks.webhooks`. Whatever is sent must be held, and what was answered tells how.

A process of its own posts webhooks at a steady rate, as several Alertmanagers would: some connections are kept, others
are new each time. The whole service runs, on one workload in memory; held is what it has attributed in the end. The
second time silent connections fill the server's limit, and slow ones send a byte a second.
"""

import argparse
import asyncio
import datetime as dt
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import msgspec

from tests.component.fake_api import write_kubeconfig
from tests.component.world import World
from watchdog.alertmanager import read_webhook
from watchdog.config import Server
from watchdog.kube import Reviews, connect
from watchdog.web.server import serve

TOKEN = "of-the-benchmark"  # noqa: S105
ALERTS = 5


def webhook(number: int) -> bytes:
    """One webhook, whose alerts nobody has told before."""
    alert = {
        "status": "firing",
        "startsAt": dt.datetime.now(dt.UTC).isoformat(),
        "labels": {"alertname": "Errors", "namespace": "shop", "deployment": "web", "instance": "10.0.0.1:9090"},
        "annotations": {"summary": "x" * 400},
    }
    found = [{**alert, "fingerprint": f"{number * ALERTS + index:016x}"} for index in range(ALERTS)]
    return json.dumps({"version": "4", "status": "firing", "receiver": "watchdog", "alerts": found}).encode()


async def load(port: int, *, rate: float, seconds: float) -> None:
    """Post at a rate, and print what came back as JSON; what is not answered 200 is repeated, as Alertmanager does."""
    took: list[float] = []
    again = 0
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as kept,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as new,
        asyncio.TaskGroup() as group,
    ):

        async def post(number: int) -> None:
            nonlocal again
            session, body = (kept, new)[number % 2], webhook(number)
            began = time.perf_counter()
            while True:
                try:
                    async with session.post(
                        f"http://127.0.0.1:{port}/alerts", data=body, headers={"Authorization": f"Bearer {TOKEN}"}
                    ) as response:
                        if response.status == 200:
                            took.append(time.perf_counter() - began)
                            return
                except aiohttp.ClientError:
                    pass
                again += 1
                await asyncio.sleep(0.2)

        began = time.perf_counter()
        for number in range(round(rate * seconds)):
            group.create_task(post(number))
            await asyncio.sleep(max(0.0, began + (number + 1) / rate - time.perf_counter()))
    print(json.dumps({"took": took, "again": again}))


async def lean(port: int) -> None:
    """Hold silent connections beyond any limit, and some that send a byte a second."""
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(600)]
    while True:
        for _, writer in held[:50]:
            if not writer.is_closing():
                writer.write(b"P")
        await asyncio.sleep(1)


async def measured(*, rate: float, seconds: float, leaning: bool) -> str:
    """Serve, have it loaded, and say what was held."""
    service = World().start()
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "alerts"
        file.write_text(TOKEN)
        settings = Server(listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", alerts_token_files=(str(file),))
        kubeconfig = str(write_kubeconfig(Path(directory), "http://127.0.0.1:9"))
        metrics = service.context.metrics.exposition
        async with (
            connect(kubeconfig=kubeconfig) as transport,
            serve(settings, service, Reviews(transport), read_webhook, metrics, request_s=5) as ports,
        ):
            tasks = [asyncio.create_task(service.run())]
            if leaning:
                tasks.append(asyncio.create_task(lean(ports.api)))
            arguments = ("--load", str(ports.api), "--rate", str(rate), "--seconds", str(seconds))
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.webhooks", *arguments, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
            await asyncio.sleep(1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    told = msgspec.json.decode(out)
    sent = round(rate * seconds) * ALERTS
    ordered = sorted(told["took"])
    lines = metrics()[0].decode().splitlines()
    held = sum(float(line.split()[-1]) for line in lines if line.startswith("rollback_watchdog_alerts_total{"))
    return (
        f"{rate:g}/s for {seconds:g} s{', leaning' if leaning else ''}: {sent} alerts sent, {held:.0f} held, "
        f"{told['again']} repeated; median {1000 * statistics.median(ordered):.1f} ms, "
        f"99 % {1000 * ordered[len(ordered) * 99 // 100]:.1f} ms, most {1000 * ordered[-1]:.0f} ms"
    )


async def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--load", type=int, help="port to post to; only the load")
    parser.add_argument("--rate", type=float, default=200.0, help="webhooks per second")
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    if given.load:
        await load(given.load, rate=given.rate, seconds=given.seconds)
        return
    for leaning in (False, True):
        print(await measured(rate=given.rate, seconds=given.seconds, leaning=leaning), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
