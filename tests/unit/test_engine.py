"""The engine against real servers on loopback: what is sent, and how each way to end is told apart."""

import contextlib
import datetime as dt
import http.client
import io
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from jobs.engine import CurlEngine, Result

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
CLOSE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
PATH = "/wp-cron.php?doing_wp_cron"

Handler = Callable[[socket.socket], object]
Serve = Callable[..., int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers: `serve(handler, host="127.0.0.1", context=None) -> port`; a thread for each connection."""
    opened: list[socket.socket] = []

    def run(listener: socket.socket, handler: Handler, context: ssl.SSLContext | None) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            opened.append(connection)
            threading.Thread(target=handle, args=(connection, handler, context), daemon=True).start()

    def handle(connection: socket.socket, handler: Handler, context: ssl.SSLContext | None) -> None:
        with contextlib.suppress(OSError), connection:
            peer = context.wrap_socket(connection, server_side=True) if context else connection
            with peer:
                opened.append(peer)
                handler(peer)

    def start(handler: Handler, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> int:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, 0), family=family, backlog=512)
        opened.append(listener)
        threading.Thread(target=run, args=(listener, handler, context), daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield start
    for each in opened:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@pytest.fixture
def engine() -> Iterator[CurlEngine]:
    with contextlib.closing(CurlEngine(timeout=10, user_agent="all-sites-cron/3.0.0")) as engine:
        yield engine


@pytest.fixture
def hasty() -> Iterator[CurlEngine]:
    """One that gives up after 0.3 s."""
    with contextlib.closing(CurlEngine(timeout=0.3, user_agent="x")) as engine:
        yield engine


def finish(engine: CurlEngine, count: int = 1) -> list[Result]:
    results: list[Result] = []
    end = time.monotonic() + 20
    while len(results) < count:
        assert time.monotonic() < end, f"{len(results)} of {count} ended"
        results += engine.poll(0.5)
    return results


def trigger(engine: CurlEngine, port: int, **options: str) -> Result:
    """One trigger to 127.0.0.1, from start to end."""
    scheme, host = options.get("scheme", "http"), options.get("host", "site.example")
    engine.start("tag", f"{scheme}://{host}:{port}{PATH}", options.get("address", "127.0.0.1"))
    (result,) = finish(engine)
    return result


def request(peer: socket.socket) -> bytes:
    """Read one request head; empty if the peer is gone."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = peer.recv(4096)
        if not data:
            return head
        head += data
    return head


def answering(*answers: bytes) -> Handler:
    """A handler that answers the first requests of a connection so, and then closes it."""

    def handler(peer: socket.socket) -> None:
        for answer in answers:
            if request(peer):
                peer.sendall(answer)

    return handler


def recording(heads: list[bytes], answer: bytes = OK) -> Handler:
    def handler(peer: socket.socket) -> None:
        while head := request(peer):
            heads.append(head)
            peer.sendall(answer)

    return handler


def reset(peer: socket.socket) -> None:
    """Close with a TCP reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def stay(peer: socket.socket) -> None:
    """Read, and say nothing until the other side hangs up."""
    while peer.recv(4096):
        pass


# What is sent


def test_a_trigger_is_a_post_with_an_empty_body(engine: CurlEngine, serve: Serve) -> None:
    """Byte for byte: wp-cron.php dies on a body, and needs the value of doing_wp_cron empty."""
    heads: list[bytes] = []
    port = serve(recording(heads))
    result = trigger(engine, port)
    assert (result.tag, result.status, result.error) == ("tag", 200, None)
    assert heads == [
        b"POST /wp-cron.php?doing_wp_cron HTTP/1.1\r\n"
        b"Host: site.example:%d\r\n"
        b"User-Agent: all-sites-cron/3.0.0\r\n"
        b"Accept: */*\r\n"
        b"Content-Length: 0\r\n\r\n" % port
    ]


def test_headers_are_sent_beside_and_instead_of_the_usual_ones(engine: CurlEngine, serve: Serve) -> None:
    """Basic auth and another Host for one trigger; the next on the same handle has neither."""
    heads: list[bytes] = []
    port = serve(recording(heads))
    engine.start(1, f"http://site.example:{port}/", "127.0.0.1", ["Authorization: Basic eDp5", "Host: other.example"])
    finish(engine)
    trigger(engine, port)
    parsed = [http.client.parse_headers(io.BytesIO(head.partition(b"\r\n")[2])) for head in heads]
    assert [(head["Host"], head["Authorization"]) for head in parsed] == [
        ("other.example", "Basic eDp5"),
        (f"site.example:{port}", None),
    ]


def test_a_cookie_is_never_sent_back(engine: CurlEngine, serve: Serve) -> None:
    """What one answer sets, no later trigger carries, on the same or another connection."""
    heads: list[bytes] = []
    port = serve(recording(heads, b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n"))
    for _ in range(3):
        trigger(engine, port)
    assert len(heads) == 3
    assert not any(b"cookie" in head.lower() for head in heads)


def test_proxies_of_the_environment_are_ignored(
    engine: CurlEngine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would choose the address, and the guard would have judged for nothing."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert trigger(engine, serve(recording([]))).status == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.77", "::1"])
def test_the_pinned_address_is_reached(engine: CurlEngine, serve: Serve, address: str) -> None:
    """A name that resolves nowhere reaches the address that was judged; Host keeps the name."""
    heads: list[bytes] = []
    port = serve(recording(heads), host=address)
    assert trigger(engine, port, host="nowhere.invalid", address=address).status == 200
    assert f"Host: nowhere.invalid:{port}\r\n".encode() in heads[0]


def test_another_pin_is_another_connection(engine: CurlEngine, serve: Serve) -> None:
    """A kept connection is not used for a host whose address has changed since."""
    port = serve(recording([]))
    assert trigger(engine, port).status == 200
    assert trigger(engine, port, address="127.0.0.99").error == "connect"


def test_only_http_and_https_are_spoken(engine: CurlEngine, tmp_path: Path) -> None:
    """Not file:, not gopher:, whatever else lets them in."""
    (tmp_path / "secret").write_text("x")
    engine.start(1, f"file://{tmp_path}/secret", "127.0.0.1")
    engine.start(2, "gopher://127.0.0.1:1/", "127.0.0.1")
    assert [(r.status, r.error, r.passing) for r in finish(engine, 2)] == [(0, "connect", False)] * 2


# How it ends


def test_a_name_instead_of_an_address_is_dns(engine: CurlEngine) -> None:
    """curl's own resolver is not meant to be used; where it is, its failure is called so."""
    result = trigger(engine, 1, address="x" * 64)
    assert (result.status, result.error, result.passing) == (0, "dns", True)


def test_a_refused_connection_is_connect(engine: CurlEngine) -> None:
    """It may pass; the detail is for a person."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        result = trigger(engine, unheard.getsockname()[1])
    assert (result.status, result.error, result.passing) == (0, "connect", True)
    assert "Could not connect" in result.detail


def test_no_answer_in_time_is_timeout(hasty: CurlEngine, serve: Serve) -> None:
    """The request was sent: the site may be working on it, so trying again is not for the engine to suggest."""
    result = trigger(hasty, serve(stay))
    assert (result.status, result.error, result.passing) == (0, "timeout", False)
    assert result.seconds > 0.25


def test_an_answer_without_end_is_timeout(hasty: CurlEngine, serve: Serve) -> None:
    """A body that drips does not hold the slot longer than the timeout."""

    def drip(peer: socket.socket) -> None:
        request(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            peer.sendall(b".")
            time.sleep(0.01)

    assert trigger(hasty, serve(drip)).error == "timeout"


def test_a_handshake_that_hangs_is_tls(hasty: CurlEngine, serve: Serve) -> None:
    """Connected but nothing sent: it may pass."""
    result = trigger(hasty, serve(stay), scheme="https")
    assert (result.error, result.passing) == ("tls", True)


def test_a_connect_that_hangs_is_connect(hasty: CurlEngine) -> None:
    """A listener whose backlog is full drops the SYN: no connection within the timeout."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        result = trigger(hasty, listener.getsockname()[1])
    assert (result.error, result.passing) == ("connect", True)


def cut_after_the_request(peer: socket.socket) -> None:
    request(peer)
    reset(peer)


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(cut_after_the_request, id="reset"),
        pytest.param(request, id="closed"),
        pytest.param(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), id="cut short"),
        pytest.param(answering(b"\x00\xff\xfe garbage\r\n\r\n"), id="garbage"),
        pytest.param(answering(b"SSH-2.0-OpenSSH_9.2\r\n"), id="another protocol"),
        pytest.param(answering(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), id="bad length"),
        pytest.param(answering(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 900_000 + b"\r\n\r\n"), id="header flood"),
    ],
)
def test_no_proper_answer_after_sending_is_reset(engine: CurlEngine, serve: Serve, handler: Handler) -> None:
    """The request was sent and no status can be trusted."""
    result = trigger(engine, serve(handler))
    assert (result.status, result.error, result.passing) == (0, "reset", False)
    assert result.detail


@pytest.mark.parametrize("status", [204, 302, 404, 429, 500, 503])
def test_a_status_is_reported_as_it_is(engine: CurlEngine, serve: Serve, status: int) -> None:
    """What it means is the walker's business."""
    result = trigger(engine, serve(answering(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)))
    assert (result.status, result.error, result.detail) == (status, None, "")
    assert (result.redirect_url, result.retry_after) == (None, None)


def test_a_redirect_is_reported_and_not_followed(engine: CurlEngine, serve: Serve) -> None:
    """One request only; the target comes back absolute."""
    heads: list[bytes] = []
    port = serve(recording(heads, b"HTTP/1.1 301 Moved\r\nLocation: /wp/wp-cron.php\r\nContent-Length: 0\r\n\r\n"))
    result = trigger(engine, port)
    assert (result.status, result.redirect_url) == (301, f"http://site.example:{port}/wp/wp-cron.php")
    assert len(heads) == 1


def test_a_redirect_target_is_safe_to_print(engine: CurlEngine, serve: Serve) -> None:
    """Bytes that are no ASCII and control characters do not get through, nor more than 2,000 characters."""
    location = b"http://x/\xff\x1b[31m" + b"a" * 5000
    result = trigger(engine, serve(answering(b"HTTP/1.1 302 F\r\nLocation: " + location + b"\r\n\r\n")))
    assert result.redirect_url is not None
    assert result.redirect_url.isprintable()
    assert len(result.redirect_url) == 2000


@pytest.mark.parametrize(("value", "seconds"), [(b"12", 12), (b"soon", None), (b"0", None)])
def test_retry_after_is_in_seconds(engine: CurlEngine, serve: Serve, value: bytes, seconds: int | None) -> None:
    """None where it is missing, no number or zero."""
    answer = b"HTTP/1.1 503 Busy\r\nRetry-After: " + value + b"\r\nContent-Length: 0\r\n\r\n"
    assert trigger(engine, serve(answering(answer))).retry_after == seconds


def test_a_retry_after_date_becomes_seconds(engine: CurlEngine, serve: Serve) -> None:
    """RFC 9110 section 10.2.3 allows both forms."""
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=90)
    date = later.strftime("%a, %d %b %Y %H:%M:%S GMT").encode()
    result = trigger(engine, serve(answering(b"HTTP/1.1 429 Busy\r\nRetry-After: " + date + b"\r\n\r\n")))
    assert result.retry_after is not None
    assert 60 < result.retry_after <= 90


def test_64_mib_of_body_are_not_read(engine: CurlEngine, serve: Serve) -> None:
    """After 64 KiB the connection is cut; the status counts."""
    written = 0
    over = threading.Event()

    def flood(peer: socket.socket) -> None:
        nonlocal written
        request(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")
        try:
            while written < 67108864:
                written += peer.send(bytes(65536))
        finally:
            over.set()

    result = trigger(engine, serve(flood))
    assert (result.status, result.error) == (200, None)
    assert over.wait(10)
    assert written < 16 * 1024 * 1024  # what the kernel's buffers take


def test_64_kib_of_body_are_read_and_the_connection_kept(engine: CurlEngine, serve: Serve) -> None:
    """Exactly the cap is no failure."""
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + bytes(65536)
    connections: list[socket.socket] = []

    def handler(peer: socket.socket) -> None:
        connections.append(peer)
        answering(body, body)(peer)

    port = serve(handler)
    assert [trigger(engine, port).status, trigger(engine, port).status] == [200, 200]
    assert len(connections) == 1


# Many at once


def test_200_are_in_flight_at_once(engine: CurlEngine, serve: Serve) -> None:
    """A server that answers nobody before it holds 200 requests, answers all of them."""
    barrier = threading.Barrier(200, timeout=10)

    def handler(peer: socket.socket) -> None:
        request(peer)
        barrier.wait()
        peer.sendall(CLOSE)

    port = serve(handler)
    for i in range(200):
        engine.start(i, f"http://site{i}.example:{port}{PATH}", "127.0.0.1")
    assert engine.in_flight == 200
    results = finish(engine, 200)
    assert sorted(result.tag for result in results) == list(range(200))  # type: ignore[type-var]
    assert {result.status for result in results} == {200}
    assert engine.in_flight == 0


def test_sites_of_one_host_share_a_connection(engine: CurlEngine, serve: Serve) -> None:
    """A subdirectory network needs one handshake, not one a site."""
    connections: list[socket.socket] = []

    def handler(peer: socket.socket) -> None:
        connections.append(peer)
        recording([])(peer)

    port = serve(handler)
    for _ in range(5):
        trigger(engine, port)
    assert len(connections) == 1


def test_a_kept_connection_that_died_is_replaced(engine: CurlEngine, serve: Serve) -> None:
    """The server's keep-alive ran out just as the next trigger was sent: it goes over a fresh connection."""
    heads: list[bytes] = []

    def handler(peer: socket.socket) -> None:
        heads.append(request(peer))
        peer.sendall(OK)
        request(peer)

    port = serve(handler)
    assert [trigger(engine, port).status for _ in range(3)] == [200, 200, 200]
    assert len(heads) == 3


def test_idle_connections_are_bounded(engine: CurlEngine, serve: Serve) -> None:
    """400 hosts that would keep their connections leave at most 256 open."""
    port = serve(recording([]))
    for i in range(400):
        engine.start(i, f"http://site{i}.example:{port}{PATH}", "127.0.0.1")
        if engine.in_flight == 50:
            finish(engine, 50)
    assert engine.in_flight == 0
    ours = [c for c in psutil.Process().net_connections() if c.raddr and c.raddr.port == port]
    assert 0 < sum(c.status == psutil.CONN_ESTABLISHED for c in ours) <= 256


# Waiting


def test_poll_without_wait_returns_at_once(engine: CurlEngine, serve: Serve) -> None:
    """0 = do not wait, in flight or not."""
    assert engine.poll(0) == []
    engine.start(1, f"http://site.example:{serve(stay)}/", "127.0.0.1")
    assert engine.poll(0) == []
    assert engine.in_flight == 1


def test_wake_ends_a_running_poll(engine: CurlEngine) -> None:
    """From another thread, though nothing has ended; without it this would wait for a minute."""
    began = time.monotonic()
    threading.Timer(0.05, engine.wake).start()
    assert engine.poll(60) == []
    assert time.monotonic() - began < 30


def test_a_wake_before_poll_is_not_lost(engine: CurlEngine) -> None:
    """Several make one poll return early; the next one waits again."""
    for _ in range(3):
        engine.wake()
    began = time.monotonic()
    assert engine.poll(60) == []
    assert time.monotonic() - began < 30
    began = time.monotonic()
    assert engine.poll(0.05) == []
    assert time.monotonic() - began > 0.04


def test_any_number_of_wakes_is_taken(engine: CurlEngine) -> None:
    """Far more than the socket holds neither block nor fail while nobody polls."""
    for _ in range(10_000):
        engine.wake()
    assert engine.poll(60) == []


def test_close_drops_what_is_in_flight(serve: Serve) -> None:
    """The server sees the connection end; a wake that comes late does no harm."""
    ended = threading.Event()
    begun = threading.Event()

    def handler(peer: socket.socket) -> None:
        request(peer)
        begun.set()
        with contextlib.suppress(OSError):
            stay(peer)
        ended.set()

    engine = CurlEngine(timeout=10, user_agent="x")
    engine.start(1, f"http://site.example:{serve(handler)}/", "127.0.0.1")
    while not begun.is_set():
        engine.poll(0.01)
    engine.close()
    assert ended.wait(10)
    engine.wake()
    assert engine.in_flight == 0


# TLS


class Authority:
    """A certificate authority for one test run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throw-away authority")])
        self.file = folder / "authority.pem"
        self.file.write_bytes(self._signed(self.name, self.key, [], 1).public_bytes(serialization.Encoding.PEM))

    def context(self, *names: str, days: int = 1, own: bool = False, common_name: str = "site") -> ssl.SSLContext:
        """A server's certificate for these names, ending in `days`; `own`: signed by itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        certificate = self._signed(subject, key, names, days, own)
        file = self.folder / f"{certificate.serial_number}.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: list[str] | tuple[str, ...],
        days: int,
        own: bool = False,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        alternative: list[x509.GeneralName] = [
            x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
        ]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if own else self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=9))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
        )
        if alternative:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        return builder.sign(key if own else self.key, hashes.SHA256())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusting(authority: Authority) -> Iterator[CurlEngine]:
    """An engine that trusts the throw-away authority only."""
    with contextlib.closing(CurlEngine(timeout=10, user_agent="x", verify=str(authority.file))) as engine:
        yield engine


def test_sni_host_and_certificate_keep_the_name(trusting: CurlEngine, serve: Serve, authority: Authority) -> None:
    """The pin changes where the connection goes and nothing of what is said or checked."""
    asked: list[str | None] = []
    heads: list[bytes] = []
    context = authority.context("nowhere.invalid")
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    port = serve(recording(heads), context=context)
    assert trigger(trusting, port, scheme="https", host="nowhere.invalid").status == 200
    assert asked == ["nowhere.invalid"]
    assert f"Host: nowhere.invalid:{port}\r\n".encode() in heads[0]


@pytest.mark.parametrize(
    ("names", "options"),
    [
        pytest.param(["other.example"], {}, id="another name"),
        pytest.param(["site.example"], {"own": True}, id="self-signed"),
        pytest.param(["site.example"], {"days": -1}, id="expired"),
        pytest.param(["127.0.0.1"], {}, id="the address instead of the name"),
    ],
)
def test_a_bad_certificate_is_tls_and_does_not_pass(
    trusting: CurlEngine, serve: Serve, authority: Authority, names: list[str], options: dict[str, int]
) -> None:
    """Trying again would not help, and nothing was sent."""
    heads: list[bytes] = []
    port = serve(recording(heads), context=authority.context(*names, **options))  # type: ignore[arg-type]
    result = trigger(trusting, port, scheme="https")
    assert (result.status, result.error, result.passing) == (0, "tls", False)
    assert "certificate" in result.detail
    assert heads == []


def test_an_unknown_authority_is_refused_by_default(engine: CurlEngine, serve: Serve, authority: Authority) -> None:
    """verify=True is certifi's list."""
    port = serve(recording([]), context=authority.context("site.example"))
    result = trigger(engine, port, scheme="https")
    assert (result.error, result.passing) == ("tls", False)


def test_verification_can_be_switched_off(serve: Serve, authority: Authority) -> None:
    """verify=False takes an expired, self-signed certificate for another name."""
    port = serve(recording([]), context=authority.context("other.example", days=-1, own=True))
    with contextlib.closing(CurlEngine(timeout=10, user_agent="x", verify=False)) as engine:
        assert trigger(engine, port, scheme="https").status == 200


def cut_during_the_handshake(peer: socket.socket) -> None:
    peer.recv(4096)
    reset(peer)


def closed_during_the_handshake(peer: socket.socket) -> None:
    peer.recv(4096)


@pytest.mark.parametrize("handler", [cut_during_the_handshake, closed_during_the_handshake])
def test_a_handshake_cut_off_is_tls_and_may_pass(engine: CurlEngine, serve: Serve, handler: Handler) -> None:
    """An overloaded or restarting server does this."""
    result = trigger(engine, serve(handler), scheme="https")
    assert (result.status, result.error, result.passing) == (0, "tls", True)


def test_a_server_that_speaks_no_tls_does_not_pass(engine: CurlEngine, serve: Serve) -> None:
    """https to a plain port is a wrong address, not a bad moment."""
    result = trigger(engine, serve(lambda peer: peer.sendall(OK)), scheme="https")
    assert (result.error, result.passing) == ("tls", False)


def test_http_1_1_is_spoken_also_where_h2_is_offered(trusting: CurlEngine, serve: Serve, authority: Authority) -> None:
    """One trigger a connection gains nothing from HTTP/2."""
    context = authority.context("site.example")
    context.set_alpn_protocols(["h2", "http/1.1"])
    heads: list[bytes] = []
    assert trigger(trusting, serve(recording(heads), context=context), scheme="https").status == 200
    assert b" HTTP/1.1\r\n" in heads[0]


def test_the_authorities_are_read_once(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    """1,000 handshakes must not read the list 1,000 times: the second one does without the file."""
    port = serve(answering(CLOSE), context=authority.context("site.example"))
    file = tmp_path / "list.pem"
    file.write_bytes(authority.file.read_bytes())
    with contextlib.closing(CurlEngine(timeout=10, user_agent="x", verify=str(file))) as engine:
        assert trigger(engine, port, scheme="https").status == 200
        file.unlink()
        assert trigger(engine, port, scheme="https").status == 200


def test_a_detail_is_safe_to_print(trusting: CurlEngine, serve: Serve, authority: Authority) -> None:
    """curl quotes the certificate's name, which the site chose: no control characters, at most 200 in all."""
    context = authority.context(common_name="\x1b[31m\n::error::" + "\u00e9" * 20)
    result = trigger(trusting, serve(stay, context=context), scheme="https", host="x." * 100 + "example")
    assert "[31m?::error::" in result.detail
    assert result.detail.isprintable()
    assert len(result.detail) == 200
