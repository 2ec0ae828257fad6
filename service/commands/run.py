"""`run`: one press of the button from the command line."""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

import httpx
from redis.exceptions import RedisError

from jobs import admission, runs
from jobs.admission import Trigger
from jobs.errors import RedisUnavailable, Refused
from jobs.redis_connection import unavailable
from jobs.world import World
from service import answers
from service.answers import Answer
from service.commands.environment import AUTH, BUSY, OK, SOME_FAILED, UNREACHABLE, USAGE, complain, world
from service.ga import command
from service.paths import NAMESPACE, REST

POLL_SECONDS = 0.5
FINAL = runs.FINAL


def run(*, defer: bool, ga: bool, wait: bool, quiet_if_busy: bool, service: str | None) -> int:
    """Trigger a run, here or at a service; the exit code."""
    if service:
        code = _at_service(service, defer=defer, ga=ga, wait=wait)
    else:
        code = _here(world(), defer=defer, ga=ga, wait=wait)
    return OK if quiet_if_busy and code == BUSY else code


def _show(answer: Answer, *, ga: bool) -> None:
    body = {**answer.body, **({"run_id": answer.run_id} if answer.run_id else {})}
    sys.stdout.write(command(answer.kind, answer.line) if ga else json.dumps(body, ensure_ascii=False) + "\n")


def _here(world: World, *, defer: bool, ga: bool, wait: bool) -> int:
    settings = world.settings
    trigger = Trigger("defer" if defer else "here", "redis" if defer else "cli", "cli", settings.rate_limit_seconds)
    arguments, walker = admission.request(trigger)
    try:
        admitted = admission.decide(world.scripts.admit(arguments), trigger, walker)
        if admitted.what != "started":
            answer = answers.queued(admitted, redis_queue=True)
            if not wait:
                _show(answer, ga=ga)
                return OK
            while not (ended := runs.read(world.redis, admitted.run_id)).final:
                time.sleep(POLL_SECONDS)
        else:
            ended = _walk(world, admitted)
    except Refused as refused:
        _show(answers.refusal(refused), ga=ga)
        return BUSY
    except RedisError as error:
        if not unavailable(error):
            raise
        _show(answers.refusal(RedisUnavailable(f"Redis is not available ({error}); nothing is lost.")), ga=ga)
        return UNREACHABLE
    answer = answers.finished(ended) if ended.final else answers.still_running(ended.id, ended.mode)
    _show(answer, ga=ga)
    return OK if ended.status == "succeeded" or not ended.final else SOME_FAILED


def _walk(world: World, admitted: admission.Admitted) -> runs.Run:
    """Walk until the end; SIGINT and SIGTERM drain the walk and leave the run to the workers."""
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: asked.append(number))
    world.walk(admitted.run_id, admitted.walker, stop=lambda: bool(asked))
    return runs.read(world.redis, admitted.run_id)


def _at_service(service: str, *, defer: bool, ga: bool, wait: bool) -> int:
    """Ask a running service; its token is AUTH_TOKEN of the environment."""
    token = os.environ.get("ALL_SITES_CRON_AUTH_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    base = service if f"{REST}/" in service else service.rstrip("/") + REST + NAMESPACE
    query = {"defer": "1"} if defer else {}
    try:
        with httpx.Client(headers=headers, timeout=httpx.Timeout(30.0, read=None)) as client:
            response = client.post(f"{base.rstrip('/').removesuffix('/run')}/run", params=query)
            body = _body(response)
            if wait and response.status_code == 202:
                where = urljoin(str(response.url), response.headers["Location"])
                while (body := _body(client.get(where).raise_for_status()))["status"] not in FINAL:
                    time.sleep(POLL_SECONDS)
    except (httpx.HTTPError, ValueError) as error:
        complain(f"{service} cannot be asked: {error}")
        return UNREACHABLE
    return _report(response.status_code, body, ga=ga)


def _body(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    if not isinstance(body, dict):
        raise ValueError(f"answered {response.status_code} without a JSON object")  # noqa: TRY004 - not a caller's type
    return body


def _report(status: int, body: Mapping[str, Any], *, ga: bool) -> int:
    message = str(body.get("message") or "")
    if status in (401, 403) or str(body.get("code", "")).startswith("all_sites_cron_auth"):
        code = AUTH
    elif status in (409, 429) or (status == 503 and body.get("error") == "deactivated"):
        code = BUSY
    elif status in (502, 503, 504):
        code = UNREACHABLE
    elif status == 400:
        code = USAGE
    else:
        well = body.get("success", body.get("status") in ("succeeded", "queued", "running"))
        code = OK if status < 400 and well else SOME_FAILED
    if ga:
        line = message or f"Running wp-cron on {body.get('count', 0)} sites"
        sys.stdout.write(command("notice" if code == OK else "warning" if code == SOME_FAILED else "error", line))
    else:
        sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")
    return code
