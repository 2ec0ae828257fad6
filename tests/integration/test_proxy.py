"""nginx in front, with deploy/nginx.conf as an operator includes it beside WordPress."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest

from tests.integration.processes import until
from tests.integration.stack import API, ROOT, TOKEN, Stack, free_port
from tests.unavailable import unavailable
from wordpress.demo_network import DemoNetwork

SERVER = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ }}
http {{
	access_log off;
	client_body_temp_path {folder}/body;
	proxy_temp_path {folder}/proxy;
	fastcgi_temp_path {folder}/fastcgi;
	uwsgi_temp_path {folder}/uwsgi;
	scgi_temp_path {folder}/scgi;
	server {{
		listen 127.0.0.1:{port};
		include {folder}/included.conf;
		location ~ \\.php$ {{ return 200 "php"; }}
		location / {{ return 200 "WordPress"; }}
	}}
}}
"""


class Nginx:
    """A running nginx. `upstream`: the port that the included file's 8000 stands for."""

    def __init__(self, folder: Path, upstream: int) -> None:
        self.port = free_port()
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        assert text.count("127.0.0.1:8000;") == 1
        (folder / "included.conf").write_text(text.replace("127.0.0.1:8000;", f"127.0.0.1:{upstream};"))
        (folder / "nginx.conf").write_text(SERVER.format(folder=folder, port=self.port))
        command = ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
        with (folder / "nginx.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.log = folder / "nginx.log"

    def listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def caller(self, address: str, token: str = TOKEN) -> httpx.Client:
        """Somebody who calls from that address."""
        transport = httpx.HTTPTransport(local_address=address)
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, transport=transport, timeout=30)


@pytest.fixture
def upstream(stack: Stack) -> int:
    return stack.port


@pytest.fixture
def nginx(tmp_path: Path, upstream: int) -> Iterator[Nginx]:
    if not shutil.which("nginx"):
        unavailable("nginx is not installed: run `make test-system`", os.environ.get("CI", ""))
    made = Nginx(tmp_path, upstream)
    try:
        until(made.listens)
        yield made
    finally:
        made.process.terminate()
        made.process.wait(10)


@pytest.fixture
def web(stack: Stack, few: DemoNetwork) -> Stack:
    stack.set(trusted_proxies="127.0.0.1", rate_limit_seconds=0)
    stack.web()
    return stack


@pytest.mark.parametrize("base", ["", "/blogs/shop"])
def test_the_old_addresses_reach_the_service(web: Stack, nginx: Nginx, base: str) -> None:
    """Of the main site and of one in a sub-directory; the place of the run is one that the caller can reach."""
    with nginx.caller("127.0.0.1") as caller:
        for namespace in ("all-sites-cron", "dss-cron"):
            answer = caller.get(f"{base}/wp-json/{namespace}/v1/run")
            assert (answer.status_code, answer.json()["count"]) == (200, 12)
            assert caller.get(answer.headers["location"]).json()["status"] == "succeeded"


def test_the_rest_is_left_to_wordpress(web: Stack, nginx: Nginx) -> None:
    """Its own REST API, its PHP and its pages."""
    with nginx.caller("127.0.0.1") as caller:
        for path in ("/", "/wp-json/wp/v2/posts", "/wp-json/all-sites-cron-feed/v1/sites", "/readyz"):
            assert caller.get(path).text == "WordPress"
        assert caller.get("/wp-cron.php").text == "php"


def test_wrong_tokens_are_counted_by_caller_whatever_that_says(web: Stack, nginx: Nginx) -> None:
    """Ten a minute; one who invents hops is still the one that nginx saw, and shuts nobody else out."""
    with nginx.caller("127.0.0.2", "wrong") as guesser, nginx.caller("127.0.0.3", "wrong") as other:
        run = f"{API}/run"
        codes = [guesser.get(run, headers={"X-Forwarded-For": f"198.51.100.{n}"}).status_code for n in range(11)]
        assert codes == [403] * 10 + [429]
        assert other.get(run).status_code == 403


class Dripping:
    """A server that sends the head and one event, and the rest only when it is told to."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.go_on = Event()
        self.thread = Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                with client:
                    if not client.recv(65536):
                        continue
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: first\n\n")
                    in_time = self.go_on.wait(10)
                    client.sendall(b"data: second\n\n" if in_time else b"data: the first was kept back\n\n")

    def close(self) -> None:
        self.go_on.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()


class TestEvents:
    """The stream of a run's events."""

    @pytest.fixture
    def dripping(self) -> Iterator[Dripping]:
        made = Dripping()
        yield made
        made.close()

    @pytest.fixture
    def upstream(self, dripping: Dripping) -> int:
        return dripping.port

    def test_an_event_is_passed_on_when_it_comes(self, dripping: Dripping, nginx: Nginx) -> None:
        """Not kept back until a buffer is full or the run has ended."""
        with (
            nginx.caller("127.0.0.1") as caller,
            caller.stream("GET", f"{API}/runs/0123456789abcdef/events") as answer,
        ):
            lines = answer.iter_lines()
            assert next(lines) == "data: first"
            dripping.go_on.set()
            assert [line for line in lines if line] == ["data: second"]


def test_nginx_is_content_with_the_file(nginx: Nginx) -> None:
    """It says nothing at its start."""
    assert not re.search("emerg|warn", nginx.log.read_text())
