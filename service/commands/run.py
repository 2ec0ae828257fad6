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
from jobs.errors import RedisUnavailable, Refused, SettingsError
from jobs.redis_connection import unavailable
from jobs.runs import Failure
from jobs.settings import text_of
from jobs.sources.problems import masked
from jobs.world import World
from service import answers
from service.answers import Answer
from service.commands.environment import AUTH, BUSY, OK, SOME_FAILED, UNREACHABLE, USAGE, complain, world
from service.ga import Kind, command
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
    mode = "cli" if not defer else "redis" if settings.use_redis_queue else "deferred"
    trigger = Trigger("defer" if defer else "here", mode, "cli", settings.rate_limit_seconds)
    arguments, walker = admission.request(trigger)
    try:
        admitted = admission.decide(world.scripts.admit(arguments), trigger, walker)
        if admitted.what != "started":
            if not wait:
                _show(answers.queued(admitted, redis_queue=settings.use_redis_queue), ga=ga)
            if admitted.what == "queued" and not settings.use_redis_queue:
                _walk(world, admitted)
            if not wait:
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
    try:
        headers, base = _authorization(), _base(service)
    except SettingsError as error:
        complain(str(error))
        return USAGE
    query = {"defer": "1"} if defer else {}
    try:
        with httpx.Client(headers=headers, timeout=httpx.Timeout(30.0, read=None)) as client:
            response = client.post(f"{base.rstrip('/').removesuffix('/run')}/run", params=query)
            body = _body(response)
            if wait and response.status_code == 202:
                where = urljoin(str(response.url), response.headers["Location"])
                while (body := _body(client.get(where).raise_for_status()))["status"] not in FINAL:
                    time.sleep(POLL_SECONDS)
    except (httpx.HTTPError, ValueError, LookupError) as error:
        complain(f"{masked(service)} cannot be asked: {error}")
        return UNREACHABLE
    return _report(response.status_code, body, ga=ga)


def _authorization() -> dict[str, str]:
    token = text_of("auth_token", os.environ)
    if token and not (token.isascii() and token.isprintable()):
        raise SettingsError("ALL_SITES_CRON_AUTH_TOKEN has a character that an HTTP header may not have")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _base(service: str) -> str:
    try:
        url = httpx.URL(service)
        usable = url.scheme in ("http", "https") and url.host and not url.userinfo
    except httpx.InvalidURL:
        usable = False
    if not usable:
        raise SettingsError(f"--service is {masked(service)}; it must be an http(s) address without user and password")
    return service if f"{REST}/" in service else service.rstrip("/") + REST + NAMESPACE


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        text = f"the answer, {response.status_code}, is no JSON object; is this a service's address?"
        raise ValueError(text)  # noqa: TRY004 - not a caller's type
    return body


def _report(status: int, body: Mapping[str, Any], *, ga: bool) -> int:
    code = _code(status, body)
    sys.stdout.write(command(*_line(code, body)) if ga else json.dumps(body, ensure_ascii=False) + "\n")
    return code


def _code(status: int, body: Mapping[str, Any]) -> int:
    if status in (401, 403) or str(body.get("code", "")).startswith("all_sites_cron_auth"):
        return AUTH
    if status in (409, 429) or body.get("error") == "deactivated":
        return BUSY
    if status in (502, 503, 504) and "error_code" not in body:
        return UNREACHABLE
    if status == 400:
        return USAGE
    well = body.get("success", body.get("status") in ("succeeded", "queued", "running"))
    return OK if status < 400 and well else SOME_FAILED


def _line(code: int, body: Mapping[str, Any]) -> tuple[Kind, str]:
    """What the service says with `ga=1`; made here, so that nothing but one command is printed."""
    message = str(body.get("message") or "")
    if body.get("workers") == 0:
        return "warning", answers.QUEUED_FOR_NOBODY
    if code == OK:
        return "notice", message or f"Running wp-cron on {body.get('count', 0)} sites"
    if body.get("status") == "partial":
        return "warning", answers.partial_message(body["errors"], [Failure(**failure) for failure in body["failing"]])
    passing = body.get("error") == "locked" or body.get("error_code") in ("PARTIAL_FAILURE", "CANCELLED")
    return "warning" if passing else "error", message or f"The run ended as {body.get('status')}"
