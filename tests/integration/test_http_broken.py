"""A walk that ends with an error of this project's own."""

import asyncio
from dataclasses import replace

import httpx

from jobs.engine import Engine
from jobs.settings import Settings
from jobs.world import build
from service.app import create_app
from tests.integration.stack import API, TOKEN, Stack


def test_a_walk_that_breaks_is_answered_500_with_its_run_and_without_a_trace(stack: Stack) -> None:
    """INTERNAL_ERROR, never a stack trace; the run is not lost: its record says running, for the sweep to take up."""

    def broken(_: Settings) -> Engine:
        raise RuntimeError("planted in the test")

    app = create_app(replace(build(stack.environ), new_engine=broken))

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://host", headers=headers) as client:
            answer = await client.post(f"{API}/run")
        await app.state.web.close()
        return answer

    answer = asyncio.run(ask())
    body = answer.json()
    assert (answer.status_code, body["success"], body["error_code"]) == (500, False, "INTERNAL_ERROR")
    assert answer.headers["Location"] == f"{API}/runs/{body['run_id']}"
    assert "planted" not in answer.text
    assert "Traceback" not in answer.text
    assert stack.run(body["run_id"]).status == "running"
