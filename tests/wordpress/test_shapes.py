"""Networks of other shapes than one domain with sub-directories: one run over all of them, by the feed."""

import socket
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import pytest

from jobs.runs import Run
from service.embedded import EmbeddedValkey
from tests.integration.stack import Stack
from tests.unit.loopback import request, serving
from tests.unit.test_engine_tls import Authority
from tests.wordpress.feed_plugin import CONSTANT, PATH, TOKEN, installed
from tests.wordpress.network import WordPressNetwork

pytestmark = [pytest.mark.wordpress, pytest.mark.timeout(300)]
MAPPED, SECURE = 2, 3  # site ids
# What a host behind a TLS proxy has in wp-config.php.
BEHIND_PROXY = "if ( 'https' === ( $_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '' ) ) { $_SERVER['HTTPS'] = 'on'; }"


class Walked(NamedTuple):
    """What a run came to. `called`: the Host headers the proxy and the mapped address got; `log`: nginx's."""

    run: Run
    ran: dict[int, int]
    public: set[int]
    called: list[str]
    log: str


@pytest.fixture(scope="module")
def walked(wordpress: WordPressNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walked]:
    """One run over a network of its own with a mapped domain, a siteurl that is not home, and https by a proxy."""
    assert wordpress.public_ids()  # the network of the session: without it, these tests are left out
    folder = tmp_path_factory.mktemp("shapes")
    authority, heads = Authority(folder), list[bytes]()
    with WordPressNetwork() as network, serving() as serve, installed(network, CONSTANT + BEHIND_PROXY):

        def forward(peer: socket.socket, more: bytes = b"") -> None:
            heads.append(request(peer))
            with socket.create_connection(("127.0.0.1", network.port)) as nginx:
                nginx.sendall(heads[-1].removesuffix(b"\r\n") + more + b"Connection: close\r\n\r\n")
                while data := nginx.recv(65536):
                    peer.sendall(data)

        def proxy(peer: socket.socket) -> None:
            forward(peer, b"X-Forwarded-Proto: https\r\n")

        mapped = f"127.0.0.2:{serve(forward, '127.0.0.2')}"
        secure = f"127.0.0.3:{serve(proxy, '127.0.0.3', authority.context('127.0.0.3'))}"
        move(network, MAPPED, mapped, f"http://{mapped}")
        move(network, SECURE, secure, f"https://{secure}")
        network.database.query(f"UPDATE wp_options SET option_value = '{network.url}wp' WHERE option_name = 'siteurl'")
        network.arm()
        with EmbeddedValkey.start(folder / "valkey") as server, closing(Stack(server.url, folder)) as stack:
            stack.set(sites=network.url + PATH, feed_token=TOKEN, ssl_verify=authority.file)
            stack.web()
            run = stack.run(stack.trigger().json()["run_id"])
        network.wait_idle()
        hosts = [line[6:].decode() for head in heads for line in head.split(b"\r\n") if line.startswith(b"Host: ")]
        log = (network.directory / "access.log").read_text()
        yield Walked(run, network.ran(), network.public_ids(), sorted(hosts), log)


def move(network: WordPressNetwork, site: int, domain: str, url: str) -> None:
    """Give the site a domain of its own, as Network Admin > Sites > Edit does."""
    network.database.query(
        f"UPDATE wp_blogs SET domain = '{domain}', path = '/' WHERE blog_id = {site};"
        f"UPDATE wp_{site}_options SET option_value = '{url}' WHERE option_name IN ('siteurl', 'home')"
    )


def test_every_public_sites_event_ran_once(walked: Walked) -> None:
    """Whatever its shape; no excluded site's did."""
    assert (walked.run.status, walked.run.count) == ("succeeded", 60)
    assert walked.ran == dict.fromkeys(walked.public, 1)


def test_a_mapped_domain_and_an_https_site_are_called_under_their_own_names(walked: Walked) -> None:
    """Each once, at its own address, which WordPress finds the site by; https with the certificate verified."""
    assert [host.partition(":")[0] for host in walked.called] == ["127.0.0.2", "127.0.0.3"]


def test_wordpress_in_its_own_directory_is_called_at_siteurl_not_home(walked: Walked) -> None:
    """wp-cron.php lies where WordPress does."""
    called = [line.split('"')[1].split()[1] for line in walked.log.splitlines() if '"POST ' in line]
    assert called.count("/wp/wp-cron.php?doing_wp_cron") == 1
    assert called.count("/wp-cron.php?doing_wp_cron") == len(walked.called)  # what was passed on for the other two
