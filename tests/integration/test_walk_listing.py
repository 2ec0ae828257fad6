"""The listing runs beside the walk: the first trigger leaves before the last page of the site list has come."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import parse_qs, urlsplit

from tests.integration.horses import begin, calls, running, until_called
from tests.integration.stack import Stack
from wordpress.demo_network import DemoNetwork


@contextmanager
def slow_feed(network: DemoNetwork, page_size: int, go_on: Event) -> Iterator[str]:
    """The address of a feed whose first page comes at once, and every other one only after `go_on`."""

    class Feed(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            after = int(parse_qs(urlsplit(self.path).query)["after"][0])
            if after:
                go_on.wait(20)
            body = json.dumps(network.sites.feed(after, page_size)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Feed) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/sites"
        finally:
            go_on.set()
            server.shutdown()
            thread.join()


def test_the_first_trigger_leaves_before_the_listing_ends(stack: Stack) -> None:
    """The sites of a feed's first page are all triggered while its second page is still awaited."""
    go_on = Event()
    with running(DemoNetwork.plain(120, addresses=4)) as network, slow_feed(network, 20, go_on) as feed:
        stack.set(sites=feed)
        stack.web()
        stack.worker()
        run_id = begin(stack)
        until_called(network, 20)
        run = stack.run(run_id)
        assert (run.status, run.all_listed, run.sites, calls(network)) == ("running", False, 20, 20)
        go_on.set()
        run = stack.ended(run_id)
        assert (run.status, run.count, network.stats()["ran_sites"]) == ("succeeded", 120, 120)
