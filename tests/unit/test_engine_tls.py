"""The engine over TLS: what is checked, and which failures may pass."""

import contextlib
import datetime as dt
import socket
import ssl
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from jobs.engine import CurlEngine
from tests.unit.loopback import (
    CLOSE,
    OK,
    Handler,
    Serve,
    answering,
    recording,
    reset,
    serving,
    stay,
    trigger,
)


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
def serve() -> Iterator[Serve]:
    with serving() as serve:
        yield serve


@pytest.fixture
def engine() -> Iterator[CurlEngine]:
    with contextlib.closing(CurlEngine(timeout=10, user_agent="all-sites-cron/3.0.0")) as engine:
        yield engine


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
    assert "[31m::error::" in result.detail
    assert result.detail.isprintable()
    assert len(result.detail) == 200
