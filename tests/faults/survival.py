"""One seeded run with one fault, and what has to hold afterwards, whatever the fault was."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from redis import Redis

from jobs import keys
from tests.faults.deployment import SITES, Deployment, watched_network
from tests.faults.kinds import KINDS, NEED_A_HORSE, Fault, cut, short_cut, web_killed
from tests.integration.horses import begin, repeats, until_called
from wordpress.demo_network import DemoNetwork, running

# Of the sites are triggered when the fault comes: it may come before any, and after all where no horse has to be there.
FIRST, LAST, PAST = -0.1, 0.95, 1.1
END_SECONDS = 90  # for the run and whatever has to expire before it goes on
SETTLE_SECONDS = 30  # until RQ has given a dead worker's job to another and that has ended
# DESIGN.md: what RQ itself keeps without TTL. An intermediate list is as short as there are workers.
RQ_PERSISTENT = ("rq:queues", "rq:workers", "rq:finished:", "rq:queue:", "rq:results:")


@dataclass(frozen=True)
class Survival:
    """What came of a fault. `broken`: the invariants that did not hold, in words.

    `recovery`: seconds, the longest pause from the fault on in which no new site was triggered; None if none was left.
    """

    seed: int
    kind: str
    fault: Fault
    missed: int
    repeated: int
    recovery: float | None
    broken: tuple[str, ...]

    def __str__(self) -> str:
        after = "nothing left to trigger" if self.recovery is None else f"recovery {self.recovery:.2f} s"
        figures = f"missed {self.missed}, repeated {self.repeated} (at most {self.fault.most_repeats}), {after}"
        return "; ".join([f"seed {self.seed}: {self.fault.what}: {figures}", *self.broken])


def survive(seed: int, folder: Path, *, brief: bool = False) -> Survival:
    """Begin a run, do the seed's fault at the seed's moment, look at what is left. `brief`: cuts of at most 5 s.

    Nine seeds in a row have all kinds. Raises AssertionError when the deployment does not start or the run not end.
    """
    rng, kind = random.Random(seed), KINDS[seed % len(KINDS)]
    network, watched = watched_network(rng)
    share = rng.uniform(FIRST, LAST if kind in NEED_A_HORSE else PAST)
    workers, moment = rng.choice((1, 2)), round(min(max(0, share), 1) * SITES)
    with running(network), Deployment(folder, network, workers) as deployment:
        run_id = deployment.begin_here() if kind is web_killed else begin(deployment.stack)
        until_called(network, moment)
        at = network.clock()
        fault = (short_cut if brief and kind is cut else kind)(deployment, rng)
        fault = fault._replace(what=f"{fault.what}, {workers} worker{'s' * (workers > 1)}, after {moment} triggers")
        deployment.stack.ended(run_id, END_SECONDS)
        times = [at, *(first for first in watched.firsts if first > at)]
        recovery = max((after - before for before, after in pairwise(times)), default=None)
        missed, repeated = SITES - network.sites.stats()["ran_sites"], repeats(network)
        broken = (
            *_wrong_with_the_run(deployment, network, run_id, repeated, fault),
            *_needs_a_human(deployment, network),
        )
    return Survival(seed, kind.__name__, fault, missed, repeated, recovery, broken)


def _wrong_with_the_run(
    deployment: Deployment, network: DemoNetwork, run_id: str, repeated: int, fault: Fault
) -> Iterator[str]:
    """Every public site at least once and no other, few twice; a run that succeeded with all, and a free lock."""
    run, stats = deployment.stack.run(run_id), network.sites.stats()
    if (run.status, run.count) != ("succeeded", SITES):
        yield f"the run is {run.status} {run.reason}: {run.figures}"
    if stats["ran_sites"] != SITES:
        yield f"{stats['ran_sites']} of {SITES} sites were triggered"
    if stats["wrong_calls"] or stats["excluded_called"]:
        yield f"{stats['wrong_calls']} wrong calls, {stats['excluded_called']} of sites that must not be called"
    if repeated > fault.most_repeats:
        yield f"{repeated} triggers were repeated"
    if deployment.stack.redis.exists(keys.LOCK, keys.ACTIVE):
        yield "the lock is not free"


def _needs_a_human(deployment: Deployment, network: DemoNetwork) -> Iterator[str]:
    """The next run succeeds, every process that nobody ended lives, nothing stays in Redis for ever."""
    deployment.stack.wait_for_answer("web", deployment.web, deployment.stack.client, "/livez")
    for site in network.sites.all:
        site.latency_ms = 0
    network.arm()
    again = deployment.stack.ended(begin(deployment.stack), END_SECONDS)
    if again.status != "succeeded" or network.sites.stats()["ran_sites"] != SITES:
        yield f"the next run is {again.status} {again.reason}: {again.figures}"
    deadline = time.monotonic() + SETTLE_SECONDS
    while (immortal := _immortal(deployment.stack.redis)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if immortal:
        yield f"keys without TTL: {immortal}"
    if ended := deployment.ended_by_themselves():
        yield f"ended by themselves: {ended}"


def _immortal(redis: Redis) -> list[str]:
    """Keys that would stay for ever; RQ has none for a job while it waits or runs."""
    names = [key.decode() for key in redis.scan_iter("*") if redis.ttl(key) == -1]
    return [name for name in names if not name.startswith((*keys.PERSISTENT, *RQ_PERSISTENT))]
