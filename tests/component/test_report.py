"""The example pipeline's script against the route that it posts to."""

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.component.backend import FakeBackend, serving, token_file
from watchdog.config import Server
from watchdog.decide.evaluations import Posted
from watchdog.errors import UsageError
from watchdog.kube.transport import Transport
from watchdog.objects import WorkloadRef

SCRIPT = Path(__file__).parents[2] / "examples/agent-api/tests/evaluation/report.py"
IMAGE = "ghcr.io/acme/agent-api:0a1b2c@sha256:" + "ab" * 32


async def report(port: int, results: Path) -> tuple[int, str]:
    """Run the script as the workflow does; give its code and what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPT), str(results), "production/agent-api-canary", IMAGE),
        env={**os.environ, "WATCHDOG_URL": f"http://127.0.0.1:{port}/", "WATCHDOG_TOKEN": "hidden"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_what_the_pipeline_sends_is_what_the_service_takes(transport: Transport, tmp_path: Path) -> None:
    backend, results = FakeBackend(), tmp_path / "results.json"
    results.write_text(json.dumps({"bad": 2, "total": 10, "score": 0.8, "id": "7-1", "model": "m"}))
    async with serving(backend, transport, Server(api_token_files=(token_file(tmp_path, "api", "hidden"),))) as served:
        assert await report(served.ports.api, results) == (
            0,
            "2 bad of 10 answers reported for production/agent-api-canary\n",
        )
        backend.refusal = UsageError("policy 'agent-api' takes no evaluations: write it")
        code, output = await report(served.ports.api, results)
    assert backend.posted == [
        (WorkloadRef("production", "agent-api-canary"), Posted(id="7-1", total=10, bad=2, image=IMAGE))
    ]
    assert (code, "takes no evaluations: write it" in output, "hidden" in output) == (1, True, False)
