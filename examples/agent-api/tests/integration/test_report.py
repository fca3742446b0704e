"""Telling the watchdog of an evaluation, over HTTP as its contract says."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

SCRIPT = Path(__file__).parents[1] / "evaluation" / "report.py"
RESULTS = {"bad": 2, "total": 10, "score": 0.8, "id": "7-1", "model": "m"}


async def report(tmp_path: Path, answer: int) -> tuple[int, str, list[tuple[str, str, dict[str, Any]]]]:
    """Run the script against a watchdog that answers so; give its code, its output and what it sent."""
    taken: list[tuple[str, str, dict[str, Any]]] = []

    async def take(request: web.Request) -> web.Response:
        taken.append((request.path, request.headers["Authorization"], await request.json()))
        return web.Response(status=answer)

    app = web.Application()
    app.router.add_post("/{tail:.*}", take)
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    async with TestServer(app) as server:
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                str(SCRIPT),
                str(tmp_path / "results.json"),
                "production/agent-api-canary",
                "agent-api:v2",
            ),
            env={**os.environ, "WATCHDOG_URL": str(server.make_url("/")), "WATCHDOG_TOKEN": "hidden"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode is not None
    return process.returncode, output.decode(), taken


async def test_the_counts_reach_the_watchdog_with_image_and_id(tmp_path: Path) -> None:
    code, _, taken = await report(tmp_path, 202)
    assert code == 0
    about = {"namespace": "production", "deployment": "agent-api-canary", "image": "agent-api:v2"}
    assert taken == [("/evaluations", "Bearer hidden", {**about, "bad": 2, "total": 10, "id": "7-1"})]


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_a_refusal_fails_and_does_not_show_the_token(tmp_path: Path, status: int) -> None:
    code, output, _ = await report(tmp_path, status)
    assert code == 1
    assert str(status) in output
    assert "hidden" not in output
