"""Take the picture of the operator's page that README.md shows.

python -m tests.browser.screenshot docs/page.png
"""

import sys
import tempfile
from pathlib import Path

from service.embedded import EmbeddedValkey
from tests.browser.chromium import Tab, browser
from tests.integration.processes import until
from tests.integration.stack import TOKEN, Stack
from wordpress.demo_network import DemoNetwork, loopback_addresses, running
from wordpress.demo_sites import Behaviour, plain_sites

LATENCY_MS = 60.0
PAST = ((), (11,), (), (5, 11, 40), (), (11,), (11, 40))  # which sites failed in the runs before


def main(path: Path) -> None:
    """A network with two failing sites, seven runs, and an eighth half done."""
    addresses = loopback_addresses(4)
    network = DemoNetwork(plain_sites(400, addresses, LATENCY_MS), addresses)
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey.start(Path(folder) / "v") as valkey:
        stack = Stack(valkey.url, Path(folder))
        try:
            with running(network):
                stack.use(network)
                stack.set(rate_limit_seconds=0, max_retries=0, origin_concurrency=20)
                stack.web()
                stack.worker()
                _photograph(stack, network, path)
        finally:
            stack.close()


def _photograph(stack: Stack, network: DemoNetwork, path: Path) -> None:
    for number, failing in enumerate(PAST):
        for site in network.sites.all:
            site.behaviour = Behaviour.NOT_FOUND if site.id in failing else Behaviour.OK
            site.latency_ms = LATENCY_MS * (1 + number % 3) / 3
        stack.trigger()
    for site in network.sites.all:
        site.latency_ms = 5 * LATENCY_MS
    with browser() as chromium:
        tab = Tab(chromium, stack.port, viewport={"width": 1000, "height": 1240})
        tab.open("/")
        tab.sign_in(TOKEN)
        calls = network.sites.calls
        stack.trigger(defer=1)
        until(lambda: network.sites.calls > calls, 30)
        tab.open("/")
        tab.page.wait_for_function("() => document.querySelector('progress').value > 150")
        tab.page.screenshot(path=path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
