"""What a page of the operator's costs with 100,000 sites and 1,000 runs, beside the same with 45 of each.

python -m bench.page [rounds]

The web process on this machine's own Valkey; each page is asked for by turns, with few and with many, and its time is
the median over the rounds. The ratio is what counts.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import httpx

from service.embedded import EmbeddedValkey
from tests.integration.page import Person, plant
from tests.integration.stack import Stack

FEW, MANY = (45, 45), (1000, 100_000)  # runs, sites
PAGES = ("/", "/runs?page=2", f"/runs/{7:016x}", "/sites", "/sites?state=overdue&page=2", "/sites/7")
SEARCH = "/sites?q=nowhere"  # looks at all of few, and at 1,000 of many


def seconds(person: httpx.Client, path: str) -> float:
    """One page."""
    started = time.perf_counter()
    person.get(path).raise_for_status()
    return time.perf_counter() - started


def main(rounds: int) -> None:
    """Two deployments side by side."""
    with tempfile.TemporaryDirectory() as folder:
        servers = [EmbeddedValkey.start(Path(folder) / name) for name in ("few", "many")]
        stacks = [Stack(server.url, Path(folder)) for server in servers]
        people: list[httpx.Client] = []
        try:
            for stack, (runs, sites) in zip(stacks, (FEW, MANY), strict=True):
                stack.web()
                plant(stack, runs, sites)
                guest = Person(stack)
                guest.sign_in()
                people.append(httpx.Client(base_url=guest.origin, cookies=guest.cookies))
            print(f"{'page':<28} {'few':>8} {'many':>8}  many/few")
            for path in (*PAGES, SEARCH):
                pairs = [[seconds(person, path) for person in people] for _ in range(rounds)]
                few, many = (median(times) * 1000 for times in zip(*pairs, strict=True))
                print(f"{path:<28} {few:>5.1f} ms {many:>5.1f} ms  {many / few:.2f}")
        finally:
            for person in people:
                person.close()
            for stack in stacks:
                stack.close()
            for server in servers:
                server.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 31)
