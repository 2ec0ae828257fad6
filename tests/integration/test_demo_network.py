"""The demo network obeys core's rules for wp-cron.php, misbehaves as told, and counts rightly what ran.

Every request goes over a real socket, written by hand where a client would not send it.
"""

import contextlib
import csv
import gc
import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from wordpress.demo_connection import HUGE_BYTES
from wordpress.demo_network import DemoNetwork, bind_all, running
from wordpress.demo_sites import Behaviour, DemoSite

RIGHT = "wp-cron.php?doing_wp_cron"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def network(clock: Clock) -> Iterator[DemoNetwork]:
    """A main site (1), two sites (2, 3), one archived (4) on 127.0.0.1."""
    paths = ("/", "/site-02/", "/site-03/", "/site-04/")
    sites = [DemoSite(id=number, host="127.0.0.1", path=path) for number, path in enumerate(paths, 1)]
    sites[3].archived = True
    with running(DemoNetwork(sites, clock=clock)) as network:
        yield network


def connect(network: DemoNetwork, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((address, network.port), timeout=5)


def send(peer: socket.socket, network: DemoNetwork, method: str = "POST", headers: str = "") -> None:
    """A right call of site 2 on a bare socket."""
    peer.sendall(f"{method} /site-02/{RIGHT} HTTP/1.1\r\nHost: 127.0.0.1:{network.port}\r\n{headers}\r\n".encode())


def everything(peer: socket.socket) -> bytes:
    return b"".join(iter(lambda: peer.recv(65536), b""))


def ask(
    network: DemoNetwork, path: str, method: str = "POST", **more: Any
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", network.port, timeout=5)
    try:
        connection.request(method, path, **more)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def trigger(network: DemoNetwork, path: str = "/site-02/" + RIGHT, method: str = "POST", **more: Any) -> int:
    return ask(network, path, method, **more)[0]


def ran(network: DemoNetwork) -> list[int]:
    return [site.id for site in network.sites.all if site.ran]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "did not become true"
        time.sleep(0.002)


# Rules of core


@pytest.mark.parametrize("method", ["POST", "GET", "HEAD"])
@pytest.mark.parametrize("query", ["?doing_wp_cron", "?doing_wp_cron=", "?doing_wp_cron=0", "", "?other=1"])
def test_a_right_call_runs_the_site_whatever_the_method(network: DemoNetwork, method: str, query: str) -> None:
    assert trigger(network, f"/site-02/wp-cron.php{query}", method) == 200
    assert ran(network) == [2]
    assert network.stats()["wrong_calls"] == 0


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/site-02/wp-cron.php?doing_wp_cron=1700000000.1234567890123456789012", {}),
        ("/site-02/wp-cron.php?doing_wp_cron&doing_wp_cron=1", {}),
        ("/site-02/" + RIGHT, {"body": b"x"}),
        (
            "/site-02/" + RIGHT,
            {"body": iter([b"x"]), "encode_chunked": True, "headers": {"Transfer-Encoding": "chunked"}},
        ),
        ("/site-02/" + RIGHT, {"headers": {"Host": "elsewhere.example"}}),
        ("/site-02/" + RIGHT, {"headers": {"Host": "127.0.0.1"}}),
    ],
    ids=["value", "last value", "body", "chunked body", "host", "host without port"],
)
def test_a_wrong_call_is_answered_200_and_runs_nothing(network: DemoNetwork, path: str, more: dict[str, Any]) -> None:
    assert trigger(network, path, **more) == 200
    assert ran(network) == []
    assert network.stats()["wrong_calls"] == network.stats()["calls"] == 1


def test_an_empty_chunked_body_is_no_body(network: DemoNetwork) -> None:
    trigger(network, body=iter([]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert ran(network) == [2]


def test_an_unknown_path_runs_the_main_site(network: DemoNetwork) -> None:
    assert trigger(network, "/no-such-site/" + RIGHT) == 200
    assert ran(network) == [1]
    assert network.stats()["wrong_calls"] == 1


def test_an_excluded_site_runs_and_is_reported(network: DemoNetwork) -> None:
    trigger(network, "/site-04/" + RIGHT)
    assert ran(network) == [4]
    assert network.stats()["excluded_called"] == 1
    assert network.stats()["ran_sites"] == 0


def test_only_wp_cron_runs_anything(network: DemoNetwork) -> None:
    assert trigger(network, "/site-02/") == 200
    assert trigger(network, "/site-02/cron.php") == 404
    assert ran(network) == []
    assert network.stats()["calls"] == 0


def test_a_second_call_finds_nothing_due(network: DemoNetwork) -> None:
    network.arm(events=3)
    for _ in range(2):
        trigger(network)
    stats = network.stats()
    assert (stats["events_run"], stats["calls"], stats["events_run_twice"]) == (3, 2, 0)


def test_a_lock_keeps_calls_out_for_60_seconds(network: DemoNetwork, clock: Clock) -> None:
    network.sites.by_id[2].locked_at = clock.now
    clock.now += 59.9
    trigger(network)
    assert ran(network) == []
    clock.now += 0.1
    trigger(network)
    assert ran(network) == [2]


def test_a_run_under_way_holds_the_lock_and_has_unscheduled_its_event(network: DemoNetwork) -> None:
    site = network.sites.by_id[2]
    site.event_ms = 60_000
    network.arm(events=2)
    trigger(network)
    until(lambda: site.locked_at is not None)
    assert (site.due, site.ran) == (1, 0)
    trigger(network)
    assert (site.due, site.ran) == (1, 0)


def test_events_run_one_after_another_after_the_answer(network: DemoNetwork) -> None:
    site = network.sites.by_id[2]
    site.event_ms = 5
    network.arm(events=4)
    trigger(network)
    until(lambda: site.locked_at is None and site.ran == 4)
    assert site.due == 0


def test_a_run_that_lost_its_lock_ends_after_its_event() -> None:
    site, later = DemoSite(id=1, host="x"), list[Callable[[], None]]()

    def call_later(_seconds: float, function: Callable[..., None], *args: Any) -> None:
        later.append(lambda: function(*args))

    site.event_ms = 1
    site.arm(3)
    site.run_due_events(0, call_later)
    site.run_due_events(60, call_later)
    later[0]()
    assert (site.ran, site.due, len(later)) == (1, 1, 2)


def test_an_event_that_ends_after_arming_anew_is_not_counted(network: DemoNetwork) -> None:
    site, later = network.sites.by_id[2], list[Callable[[], None]]()
    site.event_ms = 1
    site.run_due_events(0, lambda _seconds, function, *args: later.append(lambda: function(*args)))
    network.arm()
    later[0]()
    assert (site.ran, site.due) == (0, 1)


# Behaviours


def test_busy_answers_503_so_many_times_and_then_runs(network: DemoNetwork) -> None:
    site = network.sites.by_id[2]
    site.behaviour, site.busy_calls, site.retry_after = Behaviour.BUSY503, 2, 7
    answers = [ask(network, "/site-02/" + RIGHT) for _ in range(3)]
    assert [status for status, _, _ in answers] == [503, 503, 200]
    assert answers[0][2]["Retry-After"] == "7"
    assert site.ran == 1


@pytest.mark.parametrize(("behaviour", "status"), [(Behaviour.ERROR500, 500), (Behaviour.NOT_FOUND, 404)])
def test_an_error_runs_nothing(network: DemoNetwork, behaviour: Behaviour, status: int) -> None:
    network.sites.by_id[2].behaviour = behaviour
    assert trigger(network) == status
    assert ran(network) == []


def test_reset_is_a_reset(network: DemoNetwork) -> None:
    network.sites.by_id[2].behaviour = Behaviour.RESET
    with connect(network) as peer:
        send(peer, network)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
    assert network.sites.by_id[2].calls == 1
    assert ran(network) == []


def test_garbage_is_not_http(network: DemoNetwork) -> None:
    network.sites.by_id[2].behaviour = Behaviour.GARBAGE
    with pytest.raises(http.client.BadStatusLine):
        trigger(network)


@pytest.mark.parametrize("behaviour", [Behaviour.HUGE, Behaviour.HUGE_CHUNKED])
def test_huge_sends_64_mib_and_runs(network: DemoNetwork, behaviour: Behaviour) -> None:
    network.sites.by_id[2].behaviour = behaviour
    status, body, _ = ask(network, "/site-02/" + RIGHT)
    assert (status, len(body), ran(network)) == (200, HUGE_BYTES, [2])


def test_huge_stops_when_the_peer_hangs_up(network: DemoNetwork) -> None:
    network.sites.by_id[2].behaviour = Behaviour.HUGE
    with connect(network) as peer:
        send(peer, network)
        assert peer.recv(1000)
        assert network.stats()["in_flight"] == 1
    until(lambda: network.stats()["in_flight"] == 0)


def test_a_hanging_site_is_in_flight_until_the_caller_hangs_up(network: DemoNetwork) -> None:
    network.sites.by_id[2].behaviour = Behaviour.HANG
    peers = [connect(network) for _ in range(3)]
    for peer in peers:
        send(peer, network)
    until(lambda: network.stats()["in_flight"] == 3)
    for peer in peers:
        peer.close()
    until(lambda: network.stats()["in_flight"] == 0)
    stats = network.stats()
    assert stats["max_in_flight"] == 3
    assert stats["max_in_flight_by_origin"] == {f"127.0.0.1:{network.port}": 3}
    assert ran(network) == []


def test_who_hangs_up_before_the_answer_has_triggered_nothing(network: DemoNetwork) -> None:
    network.sites.by_id[2].latency_ms = 60_000
    with connect(network) as peer:
        send(peer, network)
        until(lambda: network.stats()["in_flight"] == 1)
        (connection,) = network.connections
    until(lambda: network.stats()["in_flight"] == 0)
    assert connection.timer is not None
    assert connection.timer.cancelled()


def test_a_slow_site_answers_late_and_runs(network: DemoNetwork) -> None:
    network.sites.by_id[2].latency_ms = 30
    begin = time.monotonic()
    assert trigger(network) == 200
    assert time.monotonic() - begin >= 0.03
    assert ran(network) == [2]


def test_a_dead_site_refuses_connections() -> None:
    sites = [DemoSite(id=1, host="127.0.0.1"), DemoSite(id=2, host="127.0.0.1", path="/b/", behaviour=Behaviour.DEAD)]
    with running(DemoNetwork(sites)) as network:
        dead = network.sites.by_id[2]
        assert dead.port != network.port
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((dead.host, dead.port), timeout=5)


def test_a_redirect_elsewhere_leads_to_a_wrong_call_on_another_host() -> None:
    sites = [
        DemoSite(id=n, host=f"127.0.0.{n + 1}", behaviour=b) for n, b in ((1, Behaviour.REDIRECT), (2, Behaviour.OK))
    ]
    with running(DemoNetwork(sites, ["127.0.0.2", "127.0.0.3"])) as network:
        connection = http.client.HTTPConnection(sites[0].host, sites[0].port, timeout=5)
        connection.request("POST", "/" + RIGHT)
        answer = connection.getresponse()
        connection.close()
        assert answer.status == 302
        assert answer.headers["Location"] == f"{sites[1].url}/moved-1/{RIGHT}"
        assert ran(network) == []


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of a server with a certificate for 127.0.0.1, and of a client that trusts it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "demo")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    encoding = serialization.Encoding.PEM
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file.write_bytes(key.private_bytes(encoding, pkcs8, plain) + certificate.public_bytes(encoding))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cafile=file)


def test_a_redirect_to_https_leads_to_the_same_site(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    site = DemoSite(id=1, host="127.0.0.1", path="/a/", behaviour=Behaviour.REDIRECT_HTTPS)
    with running(DemoNetwork([site], tls={"127.0.0.1": tls[0]})) as network:
        status, _, headers = ask(network, "/a/" + RIGHT)
        assert (status, site.ran) == (301, 0)
        assert headers["Location"] == f"https://127.0.0.1:{network.tls_port}/a/{RIGHT}"
        connection = http.client.HTTPSConnection("127.0.0.1", network.tls_port, timeout=5, context=tls[1])
        connection.request("POST", "/a/" + RIGHT)
        assert connection.getresponse().status == 200
        connection.close()
        assert site.ran == 1
        assert network.stats()["wrong_calls"] == 0


def test_an_https_site_is_listed_on_the_tls_port(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    site = DemoSite(id=1, host="127.0.0.1", scheme="https")
    with running(DemoNetwork([site], tls={"127.0.0.1": tls[0]})) as network:
        assert site.url == f"https://127.0.0.1:{network.tls_port}"


# HTTP


def test_requests_in_pieces_and_pipelined_are_answered_in_order(network: DemoNetwork) -> None:
    network.sites.by_id[2].latency_ms = 20
    network.sites.by_id[3].behaviour = Behaviour.ERROR500
    host = f"Host: 127.0.0.1:{network.port}\r\n"
    first = f"POST /site-02/{RIGHT} HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n"
    second = f"GET /site-03/{RIGHT} HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
    with connect(network) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for letter in first[:40]:
            peer.sendall(letter.encode())
        peer.sendall((first[40:] + second).encode())
        answer = everything(peer)
    assert [line for line in answer.split(b"\r\n") if b"HTTP/1.1" in line] == [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 500 Internal Server Error",
    ]


@pytest.mark.parametrize("behaviour", [Behaviour.OK, Behaviour.BUSY503, Behaviour.HUGE, Behaviour.HUGE_CHUNKED])
def test_the_answer_to_head_has_no_body(network: DemoNetwork, behaviour: Behaviour) -> None:
    network.sites.by_id[2].behaviour = behaviour
    with connect(network) as peer:
        send(peer, network, "HEAD", "Connection: close\r\n")
        head, _, body = everything(peer).partition(b"\r\n\r\n")
    assert (head[:9], body) == (b"HTTP/1.1 ", b"")


@pytest.mark.parametrize("junk", [b"junk\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"])
def test_what_is_no_request_is_refused(network: DemoNetwork, junk: bytes) -> None:
    with connect(network) as peer:
        peer.sendall(junk)
        assert peer.recv(100).startswith(b"HTTP/1.1 400")


def test_http_1_0_is_answered_and_closed(network: DemoNetwork) -> None:
    with connect(network) as peer:
        peer.sendall(f"GET /site-02/{RIGHT} HTTP/1.0\r\nHost: 127.0.0.1:{network.port}\r\n\r\n".encode())
        answer = everything(peer)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert ran(network) == [2]


# Control paths and layout


def control(network: DemoNetwork, path: str, method: str = "GET") -> Any:
    status, body, _ = ask(network, "/_demo/" + path, method)
    assert status == 200
    return json.loads(body) if body.startswith((b"{", b"[")) else body.decode()


def test_the_site_list_has_every_site_with_its_flags(network: DemoNetwork) -> None:
    rows = list(csv.DictReader(control(network, "sites.csv").splitlines()))
    assert rows == control(network, "sites.json")
    assert rows[3] == {
        "blog_id": "4",
        "url": f"http://127.0.0.1:{network.port}/site-04/",
        "public": "1",
        "archived": "1",
        "deleted": "0",
        "spam": "0",
    }
    assert control(network, "sites.txt").split() == [site.url for site in network.sites.all[:3]]


def test_the_feed_pages_public_sites_by_id(network: DemoNetwork) -> None:
    first, last = control(network, "feed?limit=2"), control(network, "feed?after=2&limit=2")
    assert ([site["id"] for site in first["sites"]], first["next"]) == ([1, 2], 2)
    assert control(network, "feed?limit=3")["next"] is None
    assert last == {"version": 1, "sites": [{"id": 3, "url": network.sites.by_id[3].url}], "next": None}


def test_arming_makes_every_site_due_and_clears_counts(network: DemoNetwork) -> None:
    trigger(network)
    trigger(network, "/x/" + RIGHT)
    trigger(network, "/site-04/" + RIGHT)
    before = control(network, "stats")
    assert (before["calls"], before["due_sites"], before["ran_sites"], before["events_run"]) == (3, 1, 2, 3)
    after = control(network, "arm?events=5", "POST")
    assert (
        after
        == control(network, "stats")
        == {
            "public_sites": 3,
            "due_sites": 3,
            "ran_sites": 0,
            "events_run": 0,
            "events_run_twice": 0,
            "excluded_called": 0,
            "wrong_calls": 0,
            "calls": 0,
            "in_flight": 0,
            "max_in_flight": 0,
            "max_in_flight_by_origin": {},
        }
    )
    assert control(network, "stats?sites=1")["sites"]["2"] == {"calls": 0, "ran": 0, "due": 5}


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "arm", 404), ("GET", "x", 404), ("GET", "feed?after=x", 400)]
)
def test_a_wrong_control_call_is_refused(network: DemoNetwork, method: str, path: str, status: int) -> None:
    assert trigger(network, "/_demo/" + path, method) == status


def test_the_standard_network_has_every_trouble_and_is_the_same_each_time() -> None:
    def layout(network: DemoNetwork) -> list[tuple[object, ...]]:
        return [(s.id, s.host, s.path, s.behaviour, s.latency_ms, s.wanted) for s in network.sites.all]

    with running(DemoNetwork.standard()) as network:
        sites = [site for site in network.sites.all if site.wanted]
        assert len(sites) == network.stats()["public_sites"] == 60
        assert len(network.sites.all) == 68
        assert {s.host for s in sites} == {f"127.0.0.{n}" for n in range(2, 7)}
        assert len({s.url for s in network.sites.all}) == 68
        assert {s.behaviour.value for s in sites} == {"ok", "error500", "busy503", "reset", "redirect", "dead", "hang"}
        assert sum(s.latency_ms > 0 for s in sites) == 3
        assert layout(network) == layout(DemoNetwork.standard())
        assert layout(network) != layout(DemoNetwork.standard(seed=2))


def test_an_address_this_system_lacks_becomes_a_port_of_its_own() -> None:
    sites = [DemoSite(id=1, host="127.0.0.1"), DemoSite(id=2, host="192.0.2.1")]  # RFC 5737: nobody's address
    with running(DemoNetwork(sites, ["127.0.0.1", "192.0.2.1"])) as network:
        assert sites[1].host == "127.0.0.1"
        assert sites[1].port != network.port
        connection = http.client.HTTPConnection(sites[1].host, sites[1].port, timeout=5)
        connection.request("POST", "/" + RIGHT)
        assert connection.getresponse().status == 200
        connection.close()
        assert ran(network) == [2]


def test_a_taken_port_is_an_error() -> None:
    taken = bind_all(["127.0.0.1"], 0)[0]
    with taken:
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            bind_all(["127.0.0.2", "127.0.0.1"], taken.getsockname()[1])


def test_it_listens_on_the_same_ports_again_after_a_stop() -> None:
    sites = [DemoSite(id=1, host="127.0.0.1"), DemoSite(id=2, host="192.0.2.1")]
    network = DemoNetwork(sites, ["127.0.0.1", "192.0.2.1"])
    with running(network):
        urls = [site.url for site in sites]
    with running(network):
        assert urls == [site.url for site in sites]
        for site in sites:
            socket.create_connection((site.host, site.port), timeout=5).close()


def test_a_stop_cuts_open_connections() -> None:
    site = DemoSite(id=1, host="127.0.0.1", behaviour=Behaviour.HANG)
    with running(DemoNetwork([site])) as network:
        peer = connect(network)
        peer.sendall(f"GET /wp-cron.php HTTP/1.1\r\nHost: 127.0.0.1:{network.port}\r\n\r\n".encode())
        until(lambda: network.stats()["in_flight"] == 1)
    with peer, pytest.raises(ConnectionResetError):
        peer.recv(1)


def test_a_stop_leaks_no_connection_that_is_just_being_accepted() -> None:
    for _ in range(20):
        with running(DemoNetwork([DemoSite(id=1, host="127.0.0.1")])) as network:
            connect(network).close()
    gc.collect()  # an unclosed socket warns now, and a warning fails the test


def test_a_stop_cuts_a_connection_in_its_tls_handshake(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with running(DemoNetwork([DemoSite(id=1, host="127.0.0.1")], tls={"127.0.0.1": tls[0]})) as network:
        hello = ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            tls[1].wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1").do_handshake()
        peer = socket.create_connection(("127.0.0.1", network.tls_port), timeout=5)
        peer.sendall(hello.read())
        assert peer.recv(1) == b"\x16"  # the server's half of the handshake
    with peer, contextlib.suppress(ConnectionResetError):
        everything(peer)


def test_two_sites_of_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="same id"):
        DemoNetwork([DemoSite(id=1, host="a"), DemoSite(id=1, host="b")])


def test_as_a_process_it_says_where_it_listens_and_ends_on_sigterm() -> None:
    code = "from wordpress.demo_network import DemoNetwork, run; run(DemoNetwork.plain(1000, 1000))"
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root)
    with process:
        try:
            assert process.stdout is not None
            place = json.loads(process.stdout.readline())
            assert place["ready"] is True
            with socket.create_connection(("127.0.3.233", place["port"]), timeout=5) as last:
                last.sendall(b"GET /_demo/stats HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b'"public_sites": 1000' in last.recv(65536)
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()
