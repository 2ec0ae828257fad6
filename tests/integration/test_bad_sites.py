"""Sites that misbehave, and addresses that may not be called, over a whole run (CONTRACT section 5)."""

import dataclasses
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from structlog.testing import capture_logs

from jobs import admission
from jobs.admission import Trigger
from jobs.runs import Failure, Run
from jobs.settings import Settings
from jobs.world import World, build
from tests.integration.odd_servers import OK, Names, certificate, redirecting, serving, walked
from tests.integration.stack import Stack, environ_of
from wordpress.demo_network import DemoNetwork, running
from wordpress.demo_sites import Behaviour, DemoSite, plain_sites

LOOPBACK = "127.0.0.1"


def world_of(stack: Stack, *urls: str, **settings: object) -> World:
    """A world of these sites, which waits a second for an answer and tries nothing again."""
    path = stack.folder / "these.txt"
    path.write_text("".join(f"{url}\n" for url in urls))
    settings = {"request_timeout": 1, "max_retries": 0, "rate_limit_seconds": 0, **settings}
    return build(environ_of(stack, sites=path, **settings))


@contextmanager
def one_site(behaviour: Behaviour, **fields: str) -> Iterator[tuple[DemoNetwork, DemoSite]]:
    """A demo network of one site that behaves so."""
    site = DemoSite(id=1, host=LOOPBACK, behaviour=behaviour, **fields)  # type: ignore[arg-type]
    with running(DemoNetwork([site])) as network:
        yield network, site


def only_failure(run: Run) -> Failure:
    assert run.count == 1
    (failure,) = run.failures
    return failure


@pytest.mark.parametrize("behaviour", [Behaviour.HUGE, Behaviour.HUGE_CHUNKED])
def test_a_site_that_answers_64_mib_is_dispatched_and_not_read_into_memory(stack: Stack, behaviour: Behaviour) -> None:
    sites = plain_sites(12, [LOOPBACK])
    for site in sites:
        site.behaviour = behaviour
    me = psutil.Process(os.getpid())
    with running(DemoNetwork(sites)) as network:
        world = world_of(stack, *(site.url for site in network.sites.all), origin_concurrency=12, request_timeout=30)
        before = peak = me.memory_info().rss

        def measure() -> None:
            nonlocal peak
            peak = max(peak, me.memory_info().rss)

        run = walked(world, each_turn=measure)
        stats = network.stats()
    assert (run.status, run.total("dispatched")) == ("succeeded", 12)
    assert stats["ran_sites"] == 12
    assert peak - before < 20 * 1024 * 1024


def test_a_site_that_never_answers_is_a_timeout_neither_an_error_nor_sent_again(stack: Stack) -> None:
    with one_site(Behaviour.HANG) as (_, site):
        run = walked(world_of(stack, site.url, max_retries=3))
        calls = site.calls
    assert (run.status, run.total("timeout"), run.errors, run.retries) == ("succeeded", 1, 0, 0)
    assert (only_failure(run).outcome, only_failure(run).reason) == ("timeout", None)
    assert calls == 1


ELSEWHERE = [
    pytest.param("127.0.0.2", "http", "/wp-cron.php", id="another host"),
    pytest.param("127.0.0.2", "https", "/wp-cron.php", id="another host, https"),
    pytest.param(LOOPBACK, "https", "/other/wp-cron.php", id="another path"),
    pytest.param(LOOPBACK, "https", "/wp-login.php", id="a login"),
    pytest.param(LOOPBACK, "http", "/wp-cron.php", id="no https"),
]


@pytest.mark.parametrize(("host", "scheme", "path"), ELSEWHERE)
def test_any_other_redirect_fails_names_its_target_and_is_not_followed(
    stack: Stack, host: str, scheme: str, path: str
) -> None:
    context, authority = certificate(stack.folder, host)
    with serving(OK, host, context if scheme == "https" else None) as other:
        target = f"{scheme}://{other.netloc}{path}"
        with one_site(Behaviour.REDIRECT, redirect_to=target) as (_, site):
            run = walked(world_of(stack, site.url, ssl_verify=authority))
    assert (run.status, only_failure(run).reason) == ("partial", "redirect")
    assert f"{target}?doing_wp_cron" in only_failure(run).detail
    assert other.heads == []


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 ", b"\x00\xff no HTTP\r\n\r\n"])
def test_a_site_that_hangs_up_or_speaks_no_http_is_a_reset_and_sent_once(stack: Stack, answer: bytes) -> None:
    def hangs_up(peer: socket.socket, _head: str) -> None:
        peer.sendall(answer)
        peer.close()

    with serving(hangs_up) as server:
        run = walked(world_of(stack, server.url, max_retries=3))
    assert (run.status, only_failure(run).reason) == ("partial", "reset")
    assert len(server.heads) == 1


def test_a_site_that_cuts_the_connection_with_rst_is_a_reset(stack: Stack) -> None:
    with one_site(Behaviour.RESET) as (_, site):
        run = walked(world_of(stack, site.url, max_retries=3))
        calls = site.calls
    assert (run.status, only_failure(run).reason, calls) == ("partial", "reset", 1)


def test_a_bad_certificate_is_tls_and_the_site_is_not_called_unless_told_so(stack: Stack) -> None:
    context, _ = certificate(stack.folder, LOOPBACK)
    site = DemoSite(id=1, host=LOOPBACK, scheme="https")
    with running(DemoNetwork([site], [LOOPBACK], tls={LOOPBACK: context})):
        run = walked(world_of(stack, site.url, max_retries=3))
        assert (run.status, only_failure(run).reason) == ("partial", "tls")
        assert "certificate" in only_failure(run).detail
        assert site.calls == 0
        run = walked(world_of(stack, site.url, ssl_verify="false"))
        assert (run.status, run.total("dispatched"), site.ran) == ("succeeded", 1, 1)


def test_an_idn_name_is_looked_up_and_asked_for_by_its_a_label(stack: Stack) -> None:
    names = Names({"xn--bcher-kva.example": LOOPBACK})
    with serving(OK) as server:
        run = walked(world_of(stack, f"http://BÜCHER.example:{server.port}/"), names)
    assert run.status == "succeeded"
    assert names.asked == ["xn--bcher-kva.example"]
    assert f"\r\nHost: xn--bcher-kva.example:{server.port}\r\n" in server.heads[0]


PRIVATE = [
    ("http://metadata.example", {"metadata.example": "169.254.169.254"}, "169.254.169.254"),
    ("http://169.254.169.254", {}, "169.254.169.254"),
    ("http://inside.example", {"inside.example": LOOPBACK}, LOOPBACK),
    ("http://2130706433", {}, LOOPBACK),
    ("http://0x7f.1", {}, LOOPBACK),
    ("http://127.0.0.1", {}, LOOPBACK),
    ("http://[::ffff:127.0.0.1]", {}, LOOPBACK),
]


@pytest.mark.parametrize(("url", "table", "address"), PRIVATE)
def test_a_name_of_a_private_address_is_blocked_and_the_text_says_what_would_allow_it(
    stack: Stack, url: str, table: dict[str, str], address: str
) -> None:
    """Nothing connects to it, whatever way it is written."""
    del stack.environ["ALL_SITES_CRON_ALLOWED_NETWORKS"]
    with serving(OK) as server:
        run = walked(world_of(stack, f"{url}:{server.port}", max_retries=3), Names(table))
    assert (run.status, only_failure(run).reason, run.retries) == ("partial", "blocked", 0)
    assert address in only_failure(run).detail
    assert f"ALL_SITES_CRON_ALLOWED_NETWORKS={address}/32" in only_failure(run).detail
    assert server.heads == []


def test_what_the_text_of_a_blocked_site_names_is_what_allows_it(stack: Stack) -> None:
    del stack.environ["ALL_SITES_CRON_ALLOWED_NETWORKS"]
    with serving(OK) as server:
        blocked = walked(world_of(stack, server.url))
        setting = only_failure(blocked).detail.rpartition("ALL_SITES_CRON_ALLOWED_NETWORKS=")[2].split()[0]
        assert walked(world_of(stack, server.url, allowed_networks=setting)).status == "succeeded"


def test_a_redirect_from_http_to_https_of_the_same_host_is_followed_once_as_post_with_the_query(stack: Stack) -> None:
    context, authority = certificate(stack.folder, LOOPBACK)
    site = DemoSite(id=1, host=LOOPBACK, path="/blog/", behaviour=Behaviour.REDIRECT_HTTPS)
    main = DemoSite(id=2, host=LOOPBACK)
    with running(DemoNetwork([main, site], [LOOPBACK], tls={LOOPBACK: context})) as network:
        run = walked(world_of(stack, site.url, ssl_verify=authority))
        stats = network.stats()
    assert (run.status, run.total("dispatched"), run.count) == ("succeeded", 1, 1)
    assert (site.calls, site.ran, stats["wrong_calls"]) == (2, 1, 0)


def test_a_second_redirect_is_not_followed(stack: Stack) -> None:
    context, authority = certificate(stack.folder, LOOPBACK)
    with serving(lambda peer, head: peer.sendall(redirecting("/wp-cron.php")), context=context) as secure:
        target = f"https://{secure.netloc}/wp-cron.php?doing_wp_cron"
        with serving(redirecting(target, "301 Moved Permanently")) as plain:
            run = walked(world_of(stack, plain.url, ssl_verify=authority))
    assert (run.status, only_failure(run).reason) == ("partial", "redirect")
    assert [head.split("\r\n")[0] for head in secure.heads] == ["POST /wp-cron.php?doing_wp_cron HTTP/1.1"]


def test_a_redirect_cannot_steer_to_a_private_address(stack: Stack) -> None:
    """The same name may have another address when it is looked up for the second port."""
    context, authority = certificate(stack.folder, "site.example")
    with serving(OK, "127.0.0.2", context) as inside:
        target = f"https://site.example:{inside.port}/wp-cron.php?doing_wp_cron"
        with serving(redirecting(target, "301 Moved Permanently")) as server:
            names = Names({f"site.example:{server.port}": LOOPBACK, f"site.example:{inside.port}": "127.0.0.2"})
            stack.set(allowed_networks="127.0.0.1/32")
            run = walked(world_of(stack, f"http://site.example:{server.port}", ssl_verify=authority), names)
    assert (run.status, only_failure(run).reason) == ("partial", "blocked")
    assert "127.0.0.2/32" in only_failure(run).detail
    assert (len(server.heads), inside.heads) == (1, [])


def test_a_cookie_is_never_sent_back(stack: Stack) -> None:
    """Neither to the site that set it nor to another of its host, on the same connection or a new one."""
    cookie = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1; Path=/\r\nContent-Length: 0\r\n\r\n"
    with serving(cookie) as server:
        world = world_of(stack, *(f"{server.url}/{name}" for name in "abc"), concurrency=1)
        assert [walked(world).status, walked(world).status] == ["succeeded"] * 2
    assert len(server.heads) == 6
    assert not any("cookie" in head.lower() for head in server.heads)


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_no_excluded_site_is_called_and_every_call_is_one_that_core_obeys(stack: Stack, kind: str) -> None:
    """Counted by the network, over a list that has the archived, spam, deleted and non-public sites, too."""
    sites = plain_sites(30, [LOOPBACK, "127.0.0.2"])
    for number, flags in enumerate([{"public": False}, {"archived": True}, {"deleted": True}, {"spam": True}] * 2):
        for name, value in flags.items():
            setattr(sites[3 + 3 * number], name, value)
    with running(DemoNetwork(sites, [LOOPBACK, "127.0.0.2"])) as network:
        path = stack.folder / f"all.{kind}"
        path.write_text(getattr(network.sites, kind)())
        done = stack.command("run", ALL_SITES_CRON_SITES=str(path))
        stats = network.stats()
    assert done.returncode == 0, done.stderr
    assert (stats["public_sites"], stats["ran_sites"], stats["events_run"], stats["calls"]) == (22, 22, 22, 22)
    assert (stats["wrong_calls"], stats["excluded_called"]) == (0, 0)


def test_the_control_a_wrong_call_runs_nothing_and_is_counted(stack: Stack, network: DemoNetwork) -> None:
    """So that the zeros of the other tests mean something: here the trigger has a value for doing_wp_cron."""
    world = world_of(stack, network.sites.all[0].url)

    def engine(settings: Settings) -> object:
        made = world.new_engine(settings)
        start = made.start
        made.start = lambda tag, url, address, headers=(): start(tag, f"{url}=1", address, headers)  # type: ignore[method-assign]
        return made

    run = walked(dataclasses.replace(world, new_engine=engine))  # type: ignore[arg-type]
    assert (run.status, run.total("dispatched")) == ("succeeded", 1)
    assert (network.stats()["wrong_calls"], network.stats()["ran_sites"]) == (1, 0)


def test_a_run_warns_of_twenty_failed_sites_and_then_counts(stack: Stack, network: DemoNetwork) -> None:
    """Whoever walks it: the walker that comes second finds twenty logged already."""
    for site in network.sites.all[:33]:
        site.behaviour = Behaviour.ERROR500
    world = build(environ_of(stack, max_retries=0, batch_size=10))
    trigger = Trigger("here", "sync", "test", 0)
    arguments, name = admission.request(trigger)
    with capture_logs() as lines:
        admitted = admission.decide(world.scripts.admit(arguments), trigger, name)
        world.walk(admitted.run_id, name, stop=iter([False] * 3 + [True] * 99).__next__)
        world.walk(admitted.run_id, "second", stop=lambda: False)
    run = stack.run(admitted.run_id)
    assert (run.status, run.errors) == ("partial", 33)
    warned = [line for line in lines if line["event"] == "site not dispatched"]
    assert len(warned) == 20
    assert {line["run_id"] for line in warned} == {run.id}
    assert [line["not_shown"] for line in lines if line["event"] == "more sites failed"] == [13]


def test_a_source_whose_name_is_no_utf8_fails_its_run_as_any_other(stack: Stack) -> None:
    """The server's JSON takes no half of a surrogate pair, which Python reads such bytes as."""
    run = walked(build(environ_of(stack, sites="/nowhere/\udcff.csv")))
    assert (run.status, run.reason) == ("failed", "source")
    assert "No such file" in run.message
