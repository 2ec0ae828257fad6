"""How soon a walk goes on after what ended its walkers: each with a server, a web process and workers of its own.

python -m bench.recovery [rounds]
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from rq.registry import FailedJobRegistry

from jobs.rq_jobs import AllowedJob
from tests.integration.horses import begin, calls, horse, kill, late_sites, running, until_called, untouched
from tests.integration.own_redis import Own
from tests.integration.processes import lives, until
from tests.integration.stack import Stack
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import DemoSite

SITES, CALLED = 300, 40  # sites of a run; how many of them were called before the fault
PATIENCE = 30  # seconds until a round is given up

Worker = subprocess.Popen[bytes]
Figures = dict[str, float]


@contextmanager
def deployment() -> Iterator[tuple[Stack, DemoNetwork]]:
    """Default settings but for CONCURRENCY 10; sites that take 100 ms; no worker yet."""
    with tempfile.TemporaryDirectory() as folder, running(late_sites(SITES)) as network:
        own = Own(Path(folder))
        try:
            own.stack.use(network)
            own.stack.set(concurrency=10, rate_limit_seconds=0)
            own.stack.web()
            yield own.stack, network
        finally:
            own.close()


def seconds(condition: Callable[[], bool]) -> float:
    """How long it takes to become true."""
    began = time.monotonic()
    until(condition, PATIENCE)
    return time.monotonic() - began


def called(sites: list[DemoSite]) -> Callable[[], bool]:
    """Whether one of the sites was."""
    return lambda: any(site.calls for site in sites)


def finished(stack: Stack, network: DemoNetwork, run_id: str) -> None:
    """The run ends well and no site was left out."""
    assert stack.ended(run_id, 60).status == "succeeded"
    assert network.stats()["ran_sites"] == SITES


def killed_worker(stack: Stack, network: DemoNetwork, standby: int) -> tuple[str, list[DemoSite]]:
    """SIGKILL of a worker and its horse, which others help; the run and the sites it had claimed and not called."""
    worker = stack.worker()
    for _ in range(standby):
        stack.worker()
    run_id = begin(stack)
    until(lambda: stack.log("worker").count("walker joined") == 1 + standby)
    until_called(network, CALLED)
    kill(worker.pid, horse(worker))
    return run_id, untouched(stack, network, run_id, worker)


def standby(stack: Stack, network: DemoNetwork) -> Figures:
    """Another worker walks meanwhile."""
    run_id, left = killed_worker(stack, network, 1)
    figure = seconds(called(left))
    finished(stack, network, run_id)
    return {"SIGKILL, a standby worker: kill → one of its sites called": figure}


def started(stack: Stack, network: DemoNetwork, wait: float) -> tuple[float, float]:
    """No other worker; one is started `wait` seconds after the kill. From its start: any site, one of the killed's."""
    run_id, left = killed_worker(stack, network, 0)
    before = calls(network)
    time.sleep(wait)
    stack.start("worker")
    began = time.monotonic()
    anyone = seconds(lambda: calls(network) > before)
    until(called(left), PATIENCE)
    figures = anyone, time.monotonic() - began
    finished(stack, network, run_id)
    return figures


def started_at_once(stack: Stack, network: DemoNetwork) -> Figures:
    """The lease has yet to run out."""
    anyone, left = started(stack, network, 0)
    name = "SIGKILL, no other worker, one started at once: start → "
    return {f"{name}a site of the run called": anyone, f"{name}one of the killed worker's": left}


def started_later(stack: Stack, network: DemoNetwork) -> Figures:
    """As a platform does that restarts with a delay."""
    return {"the same, started after 6 s: start → one of the killed worker's": started(stack, network, 6)[1]}


def told_to_end(stack: Stack, network: DemoNetwork) -> Figures:
    """SIGTERM to web, both workers and their horses at once; then all are started again."""
    workers = [stack.worker(), stack.worker()]
    run_id = begin(stack)
    until(lambda: stack.log("worker").count("walker joined") == len(workers))
    until_called(network, CALLED)
    everybody = [process.pid for process in stack.processes] + [horse(worker) for worker in workers]
    for pid in everybody:
        os.kill(pid, signal.SIGTERM)

    def ended() -> bool:
        return all(process.poll() is not None for process in stack.processes) and not any(map(lives, everybody))

    gone = seconds(ended)
    assert FailedJobRegistry("all-sites-cron", connection=stack.redis, job_class=AllowedJob).count == 0
    before = calls(network)
    stack.start("web")
    stack.start("worker")
    again = seconds(lambda: calls(network) > before)
    finished(stack, network, run_id)
    assert calls(network) == SITES
    return {"SIGTERM to everything: → the last process gone": gone, "started again: start → a site called": again}


def three_crashes(stack: Stack, network: DemoNetwork) -> Figures:
    """The walker is killed each time it walks; its worker lives on."""
    worker = stack.worker()
    run_id = begin(stack)
    gaps = []
    for number in (1, 2, 3):
        gaps.append(seconds(lambda: stack.log("worker").count("walker joined") == number))  # noqa: B023 - called at once
        kill(horse(worker))
    end = seconds(lambda: stack.run(run_id).final)
    run = stack.run(run_id)
    assert (run.status, run.reason, worker.poll()) == ("failed", "crashed_3_times", None)
    return {"SIGKILL of the horse: → the next walks": max(gaps[1:]), "the third: → the run is failed": end}


def main(rounds: int = 5) -> None:
    """Run them interleaved and print the table."""
    seen: dict[str, list[float]] = {}
    for number in range(rounds):
        for scenario in (standby, started_at_once, started_later, told_to_end, three_crashes):
            with deployment() as (stack, network):
                for name, figure in scenario(stack, network).items():
                    seen.setdefault(name, []).append(figure)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    print("| What | min | median | max |\n| --- | --- | --- | --- |")
    for name, figures in seen.items():
        print(f"| {name} | {min(figures):.1f} s | {median(figures):.1f} s | {max(figures):.1f} s |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
