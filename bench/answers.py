"""How quickly the service answers, and the command line starts: `python -m bench.answers [rounds] [P8 P13]`.

P8: `defer=1` with the Procfile's uvicorn (uvloop, httptools), beside a Starlette route that does nothing, served alike;
wrk calls. P13: `--help`, beside an interpreter that does nothing.
"""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.figures import HEAD, Figure, in_turns, machine
from bench.queue import deployment, sites
from jobs import keys
from tests.integration.stack import API, TOKEN, Stack, free_port

SECONDS = 3


def empty() -> Starlette:
    """An application that does nothing."""

    async def nothing(request: Request) -> Response:
        return Response()

    return Starlette(routes=[Route(f"{API}/run", nothing, methods=["GET", "POST"])])


@contextmanager
def beside(stack: Stack) -> Iterator[int]:
    """The empty application, served with the Procfile's options; its port."""
    port = free_port()
    line = "uvicorn bench.answers:empty --factory --http service.connections:Bounded --host 127.0.0.1 --no-access-log"
    process = stack.start("empty", command=f"{line} --no-proxy-headers --port {port}")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        stack.wait_for_answer("empty", process, client, f"{API}/run")
    yield port


def called(port: int, callers: int) -> float:
    """Answers a second that so many callers get."""
    command = ["wrk", "-t1", f"-c{callers}", f"-d{SECONDS}s", "-H", f"Authorization: Bearer {TOKEN}"]
    said = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{API}/run?defer=1"], check=True, capture_output=True, text=True
    ).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate
    return float(rate[1])


def p8(rounds: int) -> Iterator[Figure]:
    """Joining, refusing and admitting."""
    for callers in (16, 64):
        for word, cooldown in (("joins", 0), ("in the cooldown", 3600)):
            with deployment() as stack, beside(stack) as port:
                stack.set(rate_limit_seconds=cooldown)
                sites(stack, 1, 1)
                stack.web()
                run_id = stack.trigger(defer=1).json()["run_id"]  # which waits, as there is no worker
                if cooldown:
                    forget(stack, run_id)
                ours, nothing = (partial(_a_call, at, callers) for at in (stack.port, port))
                turns = in_turns(rounds, {"ours": ours, "empty": nothing})
                assert stack.redis.zcard(keys.RUNS) == 1
            yield Figure(
                "P8", f"`defer=1` {word}, {callers} callers: x an empty route", turns.ratios("empty", "ours"), 0.2
            )
        with deployment() as stack, beside(stack) as port:
            sites(stack, 1, 1)
            stack.web()
            ratios, beside_it = [], ""
            for _ in range(rounds):
                with ending(stack):
                    rate = called(stack.port, callers)
                admitted = admissions(stack)
                ratios.append(admitted / SECONDS / called(port, callers))
                beside_it = f"{admitted / SECONDS:.0f} admitted of {rate:.0f} answers a second"
        yield Figure("P8", f"`defer=1` admits, {callers} callers: x an empty route", ratios, 0.1, beside=beside_it)


def _a_call(port: int, callers: int) -> float:
    return 1 / called(port, callers)


def forget(stack: Stack, run_id: str) -> None:
    """As if the queued run had ended."""
    stack.redis.delete(keys.ACTIVE, keys.run(run_id))


def admissions(stack: Stack) -> int:
    """Runs admitted since the last call."""
    return int(stack.redis.getset("bench:admitted", 0) or 0)


@contextmanager
def ending(stack: Stack) -> Iterator[None]:
    """End whatever run is admitted, as often as it can be done."""
    script = stack.redis.register_script(
        "local id = redis.call('GET', KEYS[1]) if id then redis.call('INCR', KEYS[3])"
        " redis.call('DEL', KEYS[1], KEYS[2], KEYS[4] .. id) end"
    )
    over = threading.Event()

    def end() -> None:
        while not over.is_set():
            script(keys=[keys.ACTIVE, "rq:queue:all-sites-cron", "bench:admitted", keys.RUN])

    thread = threading.Thread(target=end)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def p13(rounds: int) -> Figure:
    """`python -m service --help`."""

    def started(*arguments: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    turns = in_turns(
        4 * rounds, {"help": lambda: started("-m", "service", "--help"), "pass": lambda: started("-c", "pass")}
    )
    return Figure("P13", "`python -m service --help`: x `python -c pass`", turns.ratios("help", "pass"), 6, most=True)


def main(rounds: int = 5, *names: str) -> None:
    print(machine(), HEAD, sep="\n")
    if "P8" in (names or ["P8"]):
        for figure in p8(rounds):
            print(figure.row(), flush=True)
    if "P13" in (names or ["P13"]):
        print(p13(rounds).row(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 5, *sys.argv[2:])
