"""`run`: one press of the button from the command line."""

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import typer
from redis.exceptions import RedisError

from jobs import admission, filters, runs, verifier
from jobs.admission import Trigger
from jobs.errors import RedisUnavailable, Refused, SettingsError
from jobs.plain_text import plain
from jobs.redis_connection import unavailable
from jobs.settings import text_of
from jobs.sites import BadUrl, normalise_url
from jobs.sources.entries import masked
from jobs.world import World
from service import answers
from service.answers import Answer
from service.commands import sites
from service.commands.environment import AUTH, BUSY, OK, SOME_FAILED, UNREACHABLE, USAGE, complain, world
from service.ga import command, summary
from service.paths import NAMESPACE, REST

POLL_SECONDS = 0.5
SUMMARY = "GITHUB_STEP_SUMMARY"
CODES = {400: USAGE, 401: AUTH, 403: AUTH, 409: BUSY, 429: BUSY, 502: UNREACHABLE, 503: UNREACHABLE, 504: UNREACHABLE}


def run(*, defer: bool, ga: bool, wait: bool, quiet_if_busy: bool, dry_run: bool, service: str | None) -> int:
    """Trigger a run, here or at a service."""
    if dry_run:
        if service:
            raise SettingsError("--dry-run reads the list of sites here; it cannot be used with --service")
        return sites.dry_run()
    options = {"defer": defer, "ga": ga, "wait": wait}
    code = _at_service(service, **options) if service else _here(world(), **options)
    return OK if quiet_if_busy and code == BUSY else code


def _here(world: World, *, defer: bool, ga: bool, wait: bool) -> int:
    queue = world.settings.use_redis_queue
    mode = "cli" if not defer else "redis" if queue else "deferred"
    trigger = Trigger("defer" if defer else "here", mode, "cli", filters.cooldown(world.settings))
    arguments, walker = admission.request(trigger)
    ended, asked = None, Event()
    try:
        admitted = admission.decide(world.scripts.admit(arguments), trigger, walker)
        answered = admitted.what != "started" and not wait
        if answered:
            _report(answers.queued(admitted, redis_queue=queue), ga=ga)
        if admitted.what == "started" or (admitted.what == "queued" and not queue):
            for number in (signal.SIGINT, signal.SIGTERM):  # which drain the walk and leave the run to the workers
                signal.signal(number, lambda *_: asked.set())
            world.walk(admitted.run_id, admitted.walker, stop=asked.is_set)
        elif wait:
            while not runs.read(world.redis, admitted.run_id).final:
                time.sleep(POLL_SECONDS)
        if answered:
            return OK
        ended = runs.read(world.redis, admitted.run_id)
        answer = answers.finished(ended) if ended.final else answers.still_running(ended.id, ended.mode)
    except Refused as refused:
        answer = answers.refusal(refused)
    except RedisError as error:
        if not unavailable(error):
            raise
        answer = answers.refusal(RedisUnavailable(f"Redis is not available ({error}); nothing is lost."))
    code = _report(answer, ga=ga, view=answers.run_view(ended) if ended else None)
    # where no process sweeps, what is to follow earlier runs is done by the next one that is walked here
    while ended and not asked.is_set() and (name := world.scripts.sweep(**admission.fresh_job())[2]):
        verifier.follow_up(world, name, stop=asked.is_set)
    return code


def _at_service(service: str, *, defer: bool, ga: bool, wait: bool) -> int:
    """Ask a running service; its token is AUTH_TOKEN of the environment."""
    url, token = _run_url(service), text_of("auth_token", os.environ) or ""
    if not (token.isascii() and token.isprintable()):
        raise SettingsError("ALL_SITES_CRON_AUTH_TOKEN has a character that an HTTP header may not have")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(headers=headers, timeout=httpx.Timeout(30.0, read=None)) as client:
            response = client.post(url, params={"defer": int(defer)})
            body, view = _body(response), None
            if wait and response.status_code == 202:
                where = _of_same_origin(url, response.headers["Location"])
                while (body := _body(client.get(where).raise_for_status()))["status"] not in runs.FINAL:
                    time.sleep(POLL_SECONDS)
            elif ga and response.status_code == 200 and (place := response.headers.get("Location")):
                # with every failing site; the answer names three
                view = _body(client.get(_of_same_origin(url, place)))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError) as error:
        complain(f"{masked(service)} cannot be asked: {plain(str(error))}")
        return UNREACHABLE
    return _report(Answer(response.status_code, body), ga=ga, view=view)


def _run_url(service: str) -> str:
    """The address of the button, of a service given by its host, its namespace or that address itself."""
    try:
        base = normalise_url(service)
    except BadUrl:
        allowed = "an http(s) address without user, password and query"
        raise SettingsError(f"--service is {masked(service)}; it must be {allowed}") from None
    return base.removesuffix("/run") + "/run" if f"{REST}/" in base else f"{base}{REST}{NAMESPACE}/run"


def _of_same_origin(url: str, location: str) -> httpx.URL:
    """Where a service's answer points to, if that is itself; ValueError if it would have the token sent elsewhere."""
    asked = httpx.URL(url)
    place = asked.join(location)
    if (place.scheme, place.netloc) != (asked.scheme, asked.netloc):
        raise ValueError(f"its Location is {masked(str(place))}, another server's, where the token is not sent")
    return place


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        return {**response.json()}
    except (TypeError, ValueError):
        text = f"the answer, {response.status_code}, is no JSON object; is this a service's address?"
        raise ValueError(text) from None


def _report(answer: Answer, *, ga: bool, view: Mapping[str, Any] | None = None) -> int:
    """Print what a service answered, or would have; the exit code for it. `view`: its run, for the step summary."""
    text = command(*answers.told(answer.body)) if ga else json.dumps(answer.body, ensure_ascii=False) + "\n"
    typer.echo(text, nl=False)
    if ga and (path := os.environ.get(SUMMARY)):
        try:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(summary(view or answer.body))
        except OSError as error:
            complain(f"{SUMMARY} cannot be written: {error}", style="yellow")
    return _code(answer.status, answer.body)


def _code(status: int, body: Mapping[str, Any]) -> int:
    if str(body.get("code", "")).startswith("all_sites_cron_auth"):
        return AUTH
    if body.get("error") == "deactivated":
        return BUSY
    if status in CODES and "error_code" not in body:  # with one, the service was reached: it is the run that failed
        return CODES[status]
    well = body.get("success", body.get("status") in ("succeeded", "queued", "running"))
    return OK if status < 400 and well else SOME_FAILED
