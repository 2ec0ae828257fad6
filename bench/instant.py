"""nginx as a network whose sites answer at once: every 127.x.y.z, a new connection each, and its own count."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.integration.stack import free_port

CONF = """
daemon off; worker_processes {workers}; pid {folder}/nginx.pid; error_log {folder}/error.log;
worker_rlimit_nofile 20000;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_timeout {keepalive}; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen {port} backlog=4096 reuseport{tls}; return 200 ""; }}
  server {{ listen 127.0.0.1:{status}; location = /status {{ stub_status; }} }}
}}
"""


@dataclass
class Instant:
    """`port`: where it listens, on every address. `asked`: how often it was asked at `status` for its count."""

    port: int
    status: int
    asked: int = 0

    @property
    def requests(self) -> int:
        """How many it has answered so far, these questions left out."""
        numbers = httpx.get(f"http://127.0.0.1:{self.status}/status").text.splitlines()[2].split()
        self.asked += 1
        return int(numbers[2]) - self.asked

    def addresses(self, count: int) -> list[str]:
        """So many different ones."""
        return [f"127.0.{i // 250}.{i % 250 + 1}" for i in range(count)]


@contextmanager
def instant(folder: Path, *, workers: int = 1, certificate: Path | None = None) -> Iterator[Instant]:
    """`certificate`: a file with it and its key; then it speaks TLS, and keeps no session."""
    port, status = free_port(), free_port()
    tls = ""
    if certificate:
        tls = f" ssl; ssl_certificate {certificate}; ssl_certificate_key {certificate}; ssl_session_tickets off"
    conf = folder / "nginx.conf"
    conf.write_text(CONF.format(folder=folder, port=port, status=status, workers=workers, tls=tls, keepalive=0))
    process = subprocess.Popen(["nginx", "-c", conf, "-e", folder / "error.log", "-p", folder])
    target = Instant(port, status)
    try:
        for _ in range(200):
            with suppress(httpx.TransportError):
                _ = target.requests
                break
            time.sleep(0.02)
        else:
            raise SystemExit((folder / "error.log").read_text())
        yield target
    finally:
        process.terminate()
        process.wait()
