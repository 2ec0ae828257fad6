"""Servers that answer as no WordPress would, a walk in the test's own process, and certificates nobody trusts."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from jobs import admission, runs
from jobs.admission import Trigger
from jobs.resolver import Resolver
from jobs.runs import Run
from jobs.walker import Walker
from jobs.world import World

Answer = Callable[[socket.socket, str], None]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass
class OddServer:
    """`heads`: the requests it read, each with its headers. `netloc`: where it listens."""

    netloc: str
    heads: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.netloc}"

    @property
    def port(self) -> int:
        return int(self.netloc.rpartition(":")[2])


@contextlib.contextmanager
def serving(
    answer: Answer | bytes, host: str = "127.0.0.1", context: ssl.SSLContext | None = None, port: int = 0
) -> Iterator[OddServer]:
    """A server on loopback: `answer(connection, head)` follows each request; bytes are the answer as it stands."""
    listener = socket.create_server((host, port))
    server = OddServer(f"{host}:{listener.getsockname()[1]}")
    opened = [listener]

    def talk(raw: socket.socket) -> None:
        with contextlib.suppress(OSError), raw:
            peer = context.wrap_socket(raw, server_side=True) if context else raw
            with peer:
                while head := _head(peer):
                    server.heads.append(head)
                    if isinstance(answer, bytes):
                        peer.sendall(answer)
                    else:
                        answer(peer, head)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                opened.append(listener.accept()[0])
                threading.Thread(target=talk, args=(opened[-1],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        for one in opened:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def _head(peer: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        if not (chunk := peer.recv(1)):
            return ""
        data += chunk
    return data.decode("latin-1")


def redirecting(target: str, status: str = "302 Found") -> bytes:
    """An answer that points elsewhere."""
    return f"HTTP/1.1 {status}\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()


def certificate(folder: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context with a certificate signed by itself, and the file that would make it trusted."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "odd")])
    now = datetime.now(UTC)
    alternative: list[x509.GeneralName] = [
        x509.IPAddress(ip_address(each)) if each[0].isdigit() else x509.DNSName(each) for each in names
    ]
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(1))
        .not_valid_after(now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "odd.pem"
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*private))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context, file


@dataclass
class Names:
    """A `getaddrinfo` that knows `table` (a name, or `name:port`) and nothing else. `asked`: the names."""

    table: Mapping[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __call__(self, host: str, port: int, **_: object) -> list[Any]:
        self.asked.append(host)
        if ip := self.table.get(f"{host}:{port}") or self.table.get(host):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def walked(world: World, names: Names | None = None, each_turn: Callable[[], object] = lambda: None) -> Run:
    """A sync run in this process, from its admission to its record; `each_turn` is called at each turn of its loop."""
    trigger = Trigger("here", "sync", "test", world.settings.rate_limit_seconds)
    arguments, name = admission.request(trigger)
    admitted = admission.decide(world.scripts.admit(arguments), trigger, name)
    engine = world.new_engine(world.settings)
    resolver = Resolver(world.guard, wake=engine.wake, getaddrinfo=names or Names())

    def stop() -> bool:
        each_turn()
        return False

    try:
        Walker(
            admitted.run_id, name, world.settings, world.scripts, world.open_source, engine, resolver, stop=stop
        ).walk()
    finally:
        resolver.close()
        engine.close()
    return runs.read(world.redis, admitted.run_id)
