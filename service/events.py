"""`GET …/runs/{run_id}/events`: a run as Server-Sent Events, until it has ended (CONTRACT section 1)."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

from redis.exceptions import RedisError
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jobs.errors import RunNotFound
from jobs.runs import Run
from service import answers
from service.answers import RestError
from service.rest import Call
from service.web import POLL_SECONDS, Web

SEND_SECONDS = 30.0  # for one event; a reader that takes none for so long is hung up on


async def events(call: Call) -> Response:
    """A run now and after each change: events `run` with the data of …/runs/{run_id}, at its end an event `end`."""
    run_id = call.request.path_params["run_id"]
    await call.web.run(run_id)  # 404, 503
    if call.web.streams.locked():
        raise RestError(503, "rest_too_many_streams", "Too many streams are open; poll the run.", {"Retry-After": "10"})
    return _Stream(_changes(call.web, run_id), sep="\n", send_timeout=SEND_SECONDS, shutdown_grace_period=1.0)


class _Stream(EventSourceResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(SendTimeoutError):  # uvicorn then hangs up, with one line in the log
            await super().__call__(scope, receive, send)


async def _changes(web: Web, run_id: str) -> AsyncIterator[Mapping[str, str]]:
    """While Redis is away, or nothing has changed, nothing is sent but a comment each 15 s.

    Without an end when the web process is told to stop, or the run's record expires.
    """
    shown: Run | None = None
    async with web.streams:
        with suppress(RunNotFound):
            while not web.stopping.is_set():
                with suppress(RedisError):
                    if (run := await web.latest(run_id)) != shown:
                        shown = run
                        yield {"event": "run", "data": json.dumps(answers.run_view(run))}
                if shown and shown.final:
                    yield {"event": "end", "data": shown.status}
                    return
                await asyncio.sleep(POLL_SECONDS)
