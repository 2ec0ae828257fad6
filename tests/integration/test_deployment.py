"""The Procfile in an environment that has only requirements.txt: honcho starts it, and a deferred run ends well."""

import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from jobs import keys
from service.commands.environment import UNREACHABLE
from tests.integration.horses import begin
from tests.integration.processes import until
from tests.integration.stack import ROOT, Stack
from wordpress.demo_network import DemoNetwork


@pytest.fixture(scope="session")
def bare_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a virtual environment in which `pip install -r requirements.txt` was all that was done."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = ["bin/pip", "install", "--quiet", "--require-hashes", "-r", str(ROOT / "requirements.txt")]
    subprocess.run(install, check=True, cwd=folder)
    return folder / "bin"


@pytest.fixture
def bare(stack: Stack, bare_bin: Path) -> Stack:
    """The stack, its processes started in the bare environment; nothing of the tests' own is in their reach."""
    own = Path(sys.executable).parent
    others = [part for part in os.environ["PATH"].split(":") if part and Path(part) != own]
    stack.environ["PATH"] = ":".join([str(bare_bin), *others])
    stack.environ.pop("PYTHONPATH", None)
    return stack


def honcho(stack: Stack) -> subprocess.Popen[bytes]:
    """`honcho start`, by the tests' own honcho."""
    return stack.start("honcho", command=f"{sys.executable} -m honcho start --no-colour")


def all_listen(stack: Stack) -> bool:
    """Whether web and worker are there."""
    with suppress(httpx.TransportError):
        return bool(stack.client.get("/readyz").json().get("workers") == 1)
    return False


def self_signed(folder: Path) -> ssl.SSLContext:
    """A TLS server's context whose certificate nobody knows and that names another host, as Heroku's Redis has."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = folder / "redis.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


@contextmanager
def tls_front(path: str, context: ssl.SSLContext) -> Iterator[str]:
    """The rediss:// address of a proxy that ends TLS before the server at the socket `path`."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(raw: socket.socket) -> None:
        with (
            suppress(OSError),
            context.wrap_socket(raw, server_side=True) as client,
            socket.socket(socket.AF_UNIX) as server,
        ):
            server.connect(path)
            back = Thread(target=pump, args=(server, client), daemon=True)
            back.start()
            pump(client, server)
            back.join()

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=accept, args=(listener,))
        thread.start()
        try:
            yield f"rediss://127.0.0.1:{listener.getsockname()[1]}/0"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def rediss(bare: Stack, tmp_path: Path) -> Iterator[Stack]:
    """The bare stack on a server behind a self-signed certificate."""
    with tls_front(bare.redis_url.removeprefix("unix://").partition("?")[0], self_signed(tmp_path)) as url:
        bare.environ["REDIS_URL"] = url
        yield bare


def run_ends_well(stack: Stack, network: DemoNetwork) -> None:
    process = honcho(stack)
    until(lambda: all_listen(stack) or process.poll() is not None, 30)
    assert process.poll() is None, stack.log("honcho")
    assert stack.ended(begin(stack)).status == "succeeded"
    assert network.stats()["ran_sites"] == 120
    assert process.poll() is None, stack.log("honcho")


def test_honcho_runs_the_procfile_with_only_the_requirements(bare: Stack, network: DemoNetwork) -> None:
    """`honcho start` and a REDIS_URL: all is up, the release check passes, a deferred run succeeds, the clock waits."""
    bare.set(schedule="0 0 1 1 *")
    run_ends_well(bare, network)
    until(lambda: "the site source lists 120 public sites" in bare.log("honcho"))
    until(lambda: bare.redis.exists(keys.CLOCK) == 1)


def test_a_server_with_a_self_signed_certificate_works_unverified(rediss: Stack, network: DemoNetwork) -> None:
    """rediss:// with ALL_SITES_CRON_REDIS_TLS_VERIFY=false: the same, and the log says that it is unverified."""
    rediss.set(redis_tls_verify="false")
    run_ends_well(rediss, network)
    assert "the certificate of the Redis server is not verified" in rediss.log("honcho")


def test_a_server_with_a_self_signed_certificate_is_refused_otherwise(rediss: Stack, network: DemoNetwork) -> None:
    """Verified, nothing stays up; the log names the reason, and `check` also the setting that would allow it."""
    rediss.set(redis_tls_verify="true")
    process = honcho(rediss)
    assert process.wait(30) != 0
    assert "certificate verify failed: self-signed certificate" in rediss.log("honcho")
    check = rediss.start("check", command="python -m service check")
    assert check.wait(30) == UNREACHABLE
    assert "certificate verify failed: self-signed certificate" in rediss.log("check")
    assert "Set ALL_SITES_CRON_REDIS_TLS_VERIFY to its CA's path, or to false" in rediss.log("check")


def test_the_release_check_ends_where_the_platform_waits_for_it(bare: Stack, network: DemoNetwork) -> None:
    """Heroku's release phase waits for the line to end; only under honcho, which ends with it, does it stay."""
    line = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())["release"]
    run = subprocess.run(["bash", "-c", line], cwd=ROOT, env=bare.environ, capture_output=True, timeout=30, check=False)
    assert run.returncode == 0, run.stderr


def test_the_procfile_gives_the_worker_no_address_of_redis() -> None:
    """Its command line is in the process list: REDIS_URL, which may have a password, comes from the environment."""
    lines = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    assert set(lines) == {"web", "worker", "clock", "release"}
    assert "--url" not in lines["worker"]
    assert "REDIS_URL" not in lines["worker"]


def test_app_json_describes_the_deployment() -> None:
    """Heroku reads formation, add-on, buildpack and the three settings that a deployment cannot do without."""
    app = json.loads((ROOT / "app.json").read_text())
    assert app["formation"] == {name: {"quantity": 1} for name in ("web", "worker", "clock")}
    assert app["addons"] == ["heroku-redis:mini"]
    assert app["buildpacks"] == [{"url": "heroku/python"}]
    env = app["env"]
    assert env["ALL_SITES_CRON_AUTH_TOKEN"]["generator"] == "secret"
    assert env["ALL_SITES_CRON_SITES"]["required"] is True
    assert env["ALL_SITES_CRON_REDIS_TLS_VERIFY"]["value"] == "false"
    assert (ROOT / ".python-version").read_text().strip() == "3.11"
