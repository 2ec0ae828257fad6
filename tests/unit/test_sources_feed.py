"""Sites from an http(s) address, served by real servers on loopback."""

import datetime as dt
import ipaddress
import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from jobs.addresses import AddressGuard
from jobs.errors import SettingsError, SourceError
from jobs.sites import Site
from jobs.sources import Source, open_source
from jobs.sources.feed import FeedSource
from jobs.trigger import USER_AGENT
from tests.unavailable import unavailable
from tests.unit.web_server import Handler, Serve, Server

LOOPBACK = AddressGuard([ipaddress.ip_network("127.0.0.1/32"), ipaddress.ip_network("::1/128")])


Connect = Callable[..., FeedSource]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A feed source of this address, some of its limits lowered; closed after the test."""
    made: list[FeedSource] = []

    def connect(
        url: str, guard: AddressGuard = LOOPBACK, token: str | None = None, verify: bool | str = True, **limits: float
    ) -> FeedSource:
        limited: type[FeedSource] = type("Limited", (FeedSource,), limits)
        made.append(limited(url, token=token, guard=guard, verify=verify))
        return made[-1]

    yield connect
    for source in made:
        source.close()


def urls(source: Source, after: str = "", size: int = 50) -> list[str]:
    return [site.url for page in source.pages(after, size) for site in page.sites]


def page(*ids: int, following: object = None) -> dict[str, object]:
    return {"version": 1, "sites": [{"id": i, "url": f"http://s{i}.example/"} for i in ids], "next": following}


def network(ids: range) -> Callable[[Handler], None]:
    """A feed as it should be."""

    def answer(handler: Handler) -> None:
        query = parse_qs(urlsplit(handler.path).query)
        after, limit = int(query["after"][0]), int(query["limit"][0])
        found = [i for i in ids if i > after][:limit]
        handler.reply(json.dumps(page(*found, following=found[-1] if found and found[-1] != ids[-1] else None)))

    return answer


def test_a_feed_is_paged_by_id(serve: Serve, connect: Connect) -> None:
    """Each page is asked for behind the last one, until `next` is null."""
    server = serve(network(range(8, 13)))
    source = connect(f"{server.url}/feed?network=2")
    pages = list(source.pages("", 2))
    assert [[site.id for site in page.sites] for page in pages] == [["8", "9"], ["10", "11"], ["12"]]
    assert pages[0].sites[0] == Site("8", "http://s8.example")
    assert [path for path, _ in server.asked] == [f"/feed?network=2&after={i}&limit=2" for i in (0, 9, 11)]
    assert urls(source, pages[1].cursor, 2) == ["http://s12.example"]
    assert urls(source, Site("10", "").key) == ["http://s11.example", "http://s12.example"]
    assert source.remaining("") is None
    assert (source.problems.count, source.warnings) == (0, [])


def test_the_request_says_what_it_wants(serve: Serve, connect: Connect) -> None:
    """JSON, uncompressed, with the token as bearer token; Host is the name of the URL, not the pinned address."""
    server = serve(page(1))
    urls(connect(server.url.replace("127.0.0.1", "localhost") + "/feed", token="s3cret"))
    ((_, headers),) = server.asked
    assert headers["Authorization"] == "Bearer s3cret"
    assert headers["User-Agent"] == USER_AGENT
    assert (headers["Accept"], headers["Accept-Encoding"]) == ("application/json", "identity")
    assert headers["Host"] == f"localhost:{server.server_port}"


def test_without_a_token_none_is_sent(serve: Serve, connect: Connect) -> None:
    """And cookies never are."""
    server = serve(lambda handler: handler.reply(json.dumps(page(1)), Set_Cookie="a=b; Path=/"))
    source = connect(server.url)
    assert urls(source) == urls(source) == ["http://s1.example"]
    assert not {"Authorization", "Cookie"} & (server.asked[0][1].keys() | server.asked[1][1].keys())


def test_a_feed_that_ignores_limit_is_cut_into_pages(serve: Serve, connect: Connect) -> None:
    """The cursor of each is its own last site's."""
    pages = list(connect(serve(page(1, 2, 3, 4, 5)).url).pages("", 2))
    assert [len(page.sites) for page in pages] == [2, 2, 1]
    assert [page.cursor for page in pages] == [Site(i, "").key for i in ("2", "4", "5")]


def test_a_page_of_hidden_sites_is_passed_over(serve: Serve, connect: Connect) -> None:
    """`next` may lie behind the last site of a page, and a page may be empty; a page given on never is."""
    answers = [page(following=20), page(21, following="30"), page()]
    answers[0]["sites"] = [{"id": 3, "url": "http://c.example", "public": 0}]
    server: Server = serve(lambda handler: handler.reply(json.dumps(answers[len(server.asked) - 1])))
    pages = list(connect(server.url).pages("", 9))
    assert [(len(page.sites), page.cursor) for page in pages] == [(1, Site("21", "").key)]
    assert [parse_qs(urlsplit(path).query)["after"] for path, _ in server.asked] == [["0"], ["20"], ["30"]]


def test_bad_entries_of_a_page_are_named_and_left_out(serve: Serve, connect: Connect) -> None:
    """By page and number."""
    answer = page(121, 122)
    wrong: list[object] = ["x", {"id": 123, "url": "javascript:1"}, {"url": "http://a.example"}]
    wrong += [{"id": 124, "url": "http://s121.example"}, {"id": 125, "url": "http://x.example/\r\nA: b"}]
    wrong += [{"id": 126, "url": "http://me:hunter2@x.example"}, {"id": 127, "url": "http://münchen.example"}]
    answer["sites"] += wrong  # type: ignore[operator]
    source = connect(serve(answer).url)
    assert urls(source, Site("120", "").key) == [
        "http://s121.example",
        "http://s122.example",
        "http://xn--mnchen-3ya.example",
    ]
    assert source.problems.first[:5] == [
        "feed page after=120 entry 3: is not an object",
        'feed page after=120 entry 4: "javascript:1" must start with http:// or https://',
        'feed page after=120 entry 5: "http://a.example" has no id',
        'feed page after=120 entry 6: "http://s121.example" is listed twice; entry 1 is kept',
        'feed page after=120 entry 7: "http://x.example/A: b" contains white space or a control character',
    ]
    assert source.problems.first[5].startswith("feed page after=120 entry 8: ")
    assert "hunter2" not in source.problems.first[5]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"sites": []}, "answers in version None of the format; this program reads version 1"),
        ({"version": 2, "sites": []}, "answers in version 2 of the format; this program reads version 1"),
        ({"version": 1}, 'has no list "sites"'),
        (page(1, 3, 2, following=2), "loops; the page after=0 with ids up to 3 has next=2"),
        (page(1, 2, following=1), "loops; the page after=0 with ids up to 2 has next=1"),
        (page(following=0), "loops; the page after=0 with ids up to 0 has next=0"),
        (page(1, following="abc"), 'next is "abc", not a number'),
        (page(1, following=1), "feed page after=1: id 1 is not above 1"),
        (
            {"version": 1, "sites": [{"id": 1, "url": "x"}], "next": None},
            "not one usable site; feed page after=0 entry 1",
        ),
    ],
)
def test_a_feed_that_breaks_its_own_rules_is_a_source_error(
    serve: Serve, connect: Connect, answer: object, error: str
) -> None:
    """An unknown version, ids that do not rise, a cursor that does not advance."""
    with pytest.raises(SourceError) as caught:
        urls(connect(serve(answer).url))
    assert error in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content_type", "body"),
    [
        (
            "sites",
            "application/json",
            '\ufeff\n[{"blog_id":"12","url":"http://b.example/"},{"blog_id":"5","url":"http://a.example/"}]',
        ),
        (
            "sites",
            "text/plain",
            '[{"blog_id":"12","url":"http://b.example/"},{"blog_id":"5","url":"http://a.example/"}]',
        ),
        ("sites", "text/csv; charset=utf-8", "blog_id,url\n12,http://b.example\n5,http://a.example\n"),
        ("sites.csv", "text/plain", "blog_id,url\n12,http://b.example\n5,http://a.example\n"),
        ("sites.txt", "text/plain", "http://b.example\nhttp://a.example\n"),
    ],
)
def test_a_complete_list_is_sorted_here_and_asked_for_once(
    serve: Serve, connect: Connect, name: str, content_type: str, body: str
) -> None:
    """JSON, CSV and text are what the files are; `after` is honoured here."""
    server = serve(lambda handler: handler.reply(body, content_type))
    source = connect(f"{server.url}/{name}")
    pages = list(source.pages("", 1))
    assert [page.sites[0].url for page in pages] == ["http://a.example", "http://b.example"]
    assert urls(source, pages[0].cursor) == ["http://b.example"]
    assert (source.remaining(""), source.remaining(pages[0].cursor)) == (2, 1)
    assert len(source.warnings) == (not name.endswith(".txt"))
    assert len(server.asked) == 1


def test_flags_of_a_complete_list_are_honoured(serve: Serve, connect: Connect) -> None:
    """And its bad entries are named."""
    entries = [{"id": 1, "url": "http://a.example", "public": "0"}, {"id": 2, "url": "http://b.example", "public": "1"}]
    source = connect(serve([*entries, {"id": 3, "url": "c.example"}]).url)
    assert urls(source) == ["http://b.example"]
    assert source.problems.first[0] == 'feed entry 3: "c.example" must start with http:// or https://'


@pytest.mark.parametrize(
    ("content_type", "body", "error"),
    [
        (
            "text/html",
            "<h1>Log\x1b in</h1>" + "x" * 900,
            'is not JSON but "text/html": <h1>Log in</h1>' + "x" * 64 + "…",
        ),
        ("application/json", "", 'is not JSON but "application/json": '),
        ("application/json", "   ", 'is not JSON but "application/json": '),
        ("", "null", 'is not JSON but "": null'),
        ("application/json", '{"version": 1, "sites": [{"id"', "not complete, correct JSON"),
        ("application/json", '{"a":' * 100_000, "not complete, correct JSON"),
        ("application/json", b'{"\xff": 1}', "not complete, correct JSON"),
        ("application/json", '[{"id": 1', "feed entry 1: is not JSON"),
        ("text/plain", "Error: no database\n", 'not one usable site; feed line 1: "Error: no database" contains'),
    ],
)
def test_an_answer_that_is_no_list_is_a_source_error(
    serve: Serve, connect: Connect, content_type: str, body: str | bytes, error: str
) -> None:
    """It shows what came instead."""
    with pytest.raises(SourceError) as caught:
        urls(connect(serve(lambda handler: handler.reply(body, content_type)).url))
    assert error in str(caught.value)


@pytest.mark.parametrize("content_type", ["application/json", "text/csv", "text/plain", "image/png"])
def test_ten_megabytes_of_garbage_are_a_source_error(serve: Serve, connect: Connect, content_type: str) -> None:
    """Whatever they are called."""
    garbage = b"\xff" + os.urandom(10_000_000)
    with pytest.raises(SourceError) as caught:
        urls(connect(serve(lambda handler: handler.reply(garbage, content_type)).url))
    assert len(str(caught.value)) < 500


def test_a_compressed_answer_is_refused(serve: Serve, connect: Connect) -> None:
    """A small one may unpack to any size."""
    with pytest.raises(SourceError, match="is compressed"):
        urls(connect(serve(lambda handler: handler.reply("x", Content_Encoding="gzip")).url))


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, "answer 500$"), (404, "answer 404$"), (304, "answer 304$"), (204, "answer 204$")]
    + [(status, f"answer {status}; is ALL_SITES_CRON_FEED_TOKEN right") for status in (401, 403)],
)
def test_any_status_but_200_is_a_source_error(serve: Serve, connect: Connect, status: int, error: str) -> None:
    """401 and 403 point to the token."""
    with pytest.raises(SourceError, match=error):
        urls(connect(serve(lambda handler: handler.reply("", status=status)).url))


@pytest.mark.parametrize("where", ["nothing", "status", "headers", "body", "page"])
def test_an_answer_that_never_ends_is_cut_at_the_deadline(serve: Serve, connect: Connect, where: str) -> None:
    """However it drips: each single read is quick enough."""

    def answer(handler: Handler) -> None:
        if where == "nothing":
            assert isinstance(handler.server, Server)
            handler.server.stop.wait()
        if where in ("headers", "body", "page"):
            handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n")
        if where in ("body", "page"):
            handler.wfile.write(b"\r\n" + (b'{"version": 1, "sites": [' if where == "page" else b""))
        handler.drip({"body": b"http://a.example\n", "page": b" "}.get(where, b"X"))

    source = connect(serve(answer).url, deadline=0.3)
    with pytest.raises(SourceError, match=r"no complete answer within 0\.3 s"):
        urls(source)


def test_a_handshake_that_never_ends_is_cut_at_the_deadline(connect: Connect) -> None:
    """It takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = connect(f"https://127.0.0.1:{silent.getsockname()[1]}", deadline=0.3)
        with pytest.raises(SourceError, match=r"no complete answer within 0\.3 s"):
            urls(source)


@pytest.mark.parametrize(("start", "size"), [(b'{"version":', 20_000), (b"http://a.example\n#", 40_000)])
def test_an_endless_body_is_cut_at_its_size(serve: Serve, connect: Connect, start: bytes, size: int) -> None:
    """A page may be smaller than a complete list."""

    def answer(handler: Handler) -> None:
        handler.reply(start, "text/plain")
        while True:
            handler.wfile.write(b" " * 10_000)

    source = connect(serve(answer).url, page_bytes=20_000, list_bytes=40_000)
    with pytest.raises(SourceError, match=f"larger than {size} bytes"):
        urls(source)


def test_white_space_without_end_is_cut_too(serve: Serve, connect: Connect) -> None:
    """It is counted like anything else."""

    def answer(handler: Handler) -> None:
        handler.reply(b" ")
        while True:
            handler.wfile.write(b" " * 10_000)

    with pytest.raises(SourceError, match="larger than 20000 bytes"):
        urls(connect(serve(answer).url, page_bytes=20_000))


def test_pages_are_bounded(serve: Serve, connect: Connect) -> None:
    """A feed that always has one more is ended."""
    server = serve(network(range(1, 1_000_000)))
    with pytest.raises(SourceError, match="more than 5 pages"):
        urls(connect(server.url, most_pages=5), size=2)
    assert len(server.asked) == 5


def test_ids_of_a_page_may_stand_in_any_order(serve: Serve, connect: Connect) -> None:
    """They are given on in theirs; an id that stands twice is named."""
    source = connect(serve(page(3, 1, 3)).url)
    assert urls(source) == ["http://s1.example", "http://s3.example"]
    (problem,) = source.problems.first
    assert problem.endswith(': "http://s3.example" is listed twice; entry 1 is kept')


def test_redirects_are_followed_and_the_token_stays_at_its_origin(serve: Serve, connect: Connect) -> None:
    """Another port is another origin."""
    far = serve(page(1))
    moves = {"/a": "/b", "/b": f"{far.url}/c?after=0"}
    near = serve(lambda handler: handler.reply("", status=302, Location=moves[urlsplit(handler.path).path]))
    assert urls(connect(f"{near.url}/a", token="s3cret")) == ["http://s1.example"]
    assert [headers.get("Authorization") for _, headers in near.asked] == ["Bearer s3cret", "Bearer s3cret"]
    assert [(path, headers.get("Authorization")) for path, headers in far.asked] == [("/c?after=0", None)]


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("/again", "redirects more than 3 times"),
        ("ftp://a.example/", 'redirects to "ftp://a.example/"'),
        ("http://127.0.0.2:1/", "127.0.0.2 is not public; ALL_SITES_CRON_ALLOWED_NETWORKS=127.0.0.2/32"),
        ("http://[::ffff:10.0.0.1]/", "ALL_SITES_CRON_ALLOWED_NETWORKS=10.0.0.1/32 would allow it"),
        ("http://[::bad/", "feed: "),
    ],
)
def test_a_redirect_is_judged_as_the_first_address_was(
    serve: Serve, connect: Connect, location: str, error: str
) -> None:
    """By its scheme, its number and the address it leads to."""
    server = serve(lambda handler: handler.reply("", status=307, Location=location))
    with pytest.raises(SourceError) as caught:
        urls(connect(server.url))
    assert error in str(caught.value)
    assert len(server.asked) == (4 if location == "/again" else 1)


def test_an_address_inside_is_refused_before_anything_is_sent(serve: Serve, connect: Connect) -> None:
    """The error gives the setting that would allow it."""
    server = serve(page(1))
    with pytest.raises(
        SourceError, match=r"127\.0\.0\.1 is not public; ALL_SITES_CRON_ALLOWED_NETWORKS=127\.0\.0\.1/32 would allow"
    ):
        urls(connect(server.url, guard=AddressGuard()))
    assert server.asked == []


def test_a_name_with_an_allowed_and_a_refused_address_goes_to_the_allowed_one(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that was checked is the one connected to."""
    server = serve(page(1))
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0)) for ip in ("10.0.0.1", "127.0.0.1")]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **more: found if host == "feed.example" else real(host, *args, **more),
    )
    assert urls(connect(f"http://feed.example:{server.server_port}/")) == ["http://s1.example"]
    assert server.asked[0][1]["Host"] == f"feed.example:{server.server_port}"


def test_a_name_that_does_not_exist_is_a_source_error(connect: Connect) -> None:
    """It is named."""
    with pytest.raises(SourceError, match=r"feed: nowhere\.invalid has no address"):
        urls(connect("http://nowhere.invalid/"))


def test_a_refused_connection_is_a_source_error(serve: Serve, connect: Connect) -> None:
    """With the reason."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(SourceError, match="refused"):
        urls(connect(f"http://127.0.0.1:{port}/"))


@pytest.fixture
def _ipv6() -> None:
    """Leaves the test out where there is no IPv6, but fails it with CI=1."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        unavailable(f"no IPv6 here: {error}", os.environ.get("CI", ""))


@pytest.mark.usefixtures("_ipv6")
def test_an_ipv6_address_is_asked(serve: Serve, connect: Connect) -> None:
    """In brackets, in the Host header too."""
    server = serve(page(1), "::1")
    assert urls(connect(server.url)) == ["http://s1.example"]
    assert server.asked[0][1]["Host"] == f"[::1]:{server.server_port}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for the name localhost, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*private))
    return path


def test_tls_verifies_the_name_of_the_url_not_the_pinned_address(
    serve: Serve, connect: Connect, certificate: Path
) -> None:
    """SSL_VERIFY may name the authority, or be false."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    server = serve(page(1), tls=tls)
    named = server.url.replace("127.0.0.1", "localhost")
    assert urls(connect(named, verify=str(certificate))) == ["http://s1.example"]
    assert urls(connect(server.url, verify=False)) == ["http://s1.example"]
    with pytest.raises(SourceError, match="certificate"):
        urls(connect(server.url, verify=str(certificate)))
    with pytest.raises(SourceError, match="certificate"):
        urls(connect(named))


def test_a_redirect_never_leaves_https(serve: Serve, connect: Connect, certificate: Path) -> None:
    """What came over TLS is believed; what it leads to must be as believable."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    plain = serve(page(1))
    server = serve(lambda handler: handler.reply("", status=302, Location=plain.url), tls=tls)
    with pytest.raises(SourceError, match="which is no https:// address"):
        urls(connect(server.url, verify=False))
    assert plain.asked == []


def test_a_drip_over_tls_is_cut_at_the_deadline(serve: Serve, connect: Connect, certificate: Path) -> None:
    """Headers too, where each single read is quick enough."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    source = connect(serve(lambda handler: handler.drip(b"X"), tls=tls).url, verify=False, deadline=0.3)
    with pytest.raises(SourceError, match=r"no complete answer within 0\.3 s"):
        urls(source)


@pytest.mark.parametrize(
    ("url", "more", "error"),
    [
        ("http://me:hunter2@a.example/feed", {}, 'SITES is "http://\\*\\*\\*@a.example/feed"; allowed is a host name'),
        ("http:///feed", {}, "allowed is a host name"),
        ("http://a.example:x/?k=hunter2", {}, "which is not a URL"),
        ("http://a.example/", {"feed_token": "hunter2\n"}, "FEED_TOKEN has a character"),
        ("https://a.example/", {"verify": "/no/such/file"}, "SSL_VERIFY is /no/such/file"),
    ],
)
def test_what_can_never_be_asked_is_a_settings_error(url: str, more: dict[str, Any], error: str) -> None:
    """Found when the source is opened, told without the secret."""
    with pytest.raises(SettingsError, match=error) as caught:
        open_source(url, **{"feed_token": None, "guard": LOOPBACK, **more})
    assert "hunter2" not in str(caught.value)
