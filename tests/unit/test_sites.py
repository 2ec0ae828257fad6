"""The address of a site: what is taken, how it is written, and what is refused."""

import hashlib

import pytest

from jobs.sites import BadUrl, Site, id_from_url, normalise_url


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("http://example.org", "http://example.org"),
        ("HTTP://EXAMPLE.org/", "http://example.org"),
        (" \thttps://example.org/sub/ ", "https://example.org/sub"),
        ("https://example.org/a//", "https://example.org/a"),
        ("http://example.org:80/", "http://example.org"),
        ("https://example.org:443/a", "https://example.org/a"),
        ("http://example.org:443", "http://example.org:443"),
        ("http://example.org:/", "http://example.org"),
        ("http://example.org:8080/Sub", "http://example.org:8080/Sub"),
        ("http://under_score.example.org", "http://under_score.example.org"),
        ("http://münchen.example", "http://xn--mnchen-3ya.example"),
        ("http://faß.example", "http://xn--fa-hia.example"),
        ("http://example。org", "http://example.org"),
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("http://[::1]:8001/a", "http://[::1]:8001/a"),
        ("http://[2001:DB8:0::1]/", "http://[2001:db8::1]"),
        ("http://example.org/caf%C3%A9", "http://example.org/caf%C3%A9"),
    ],
)
def test_an_address_has_one_way_to_be_written(given: str, normal: str) -> None:
    """Case, default port, trailing slashes and international names do not make two sites of one."""
    assert normalise_url(given) == normal
    assert normalise_url(normal) == normal


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("javascript:alert(1)", "must start with http:// or https://"),
        ("ftp://example.org", "must start with http:// or https://"),
        ("//example.org", "must start with http:// or https://"),
        ("example.org", "must start with http:// or https://"),
        ("", "must start with http:// or https://"),
        ("http://user@example.org", "user name or password"),
        ("http://good.example\\@evil.example", "user name or password"),
        ("http://example.org\r\nX-Injected: 1", "control character"),
        ("http://exam\tple.org", "control character"),
        ("http://exam ple.org", "white space"),
        ("http://example.org/\x7f", "control character"),
        ("http://example.org/?x=1", "query"),
        ("http://example.org/#top", "fragment"),
        ("http:///path", "no host name"),
        ("http:example.org", "no host name"),
        ("http://:80/", "no host name"),
        ("http://a..b", "cannot exist"),
        ("http://" + "a" * 64 + ".example", "cannot exist"),
        ("http://" + "ä" * 500 + ".example", "cannot exist"),
        ("http://a\u202eb.example", "cannot exist"),
        ("http://\ud800.example", "cannot exist"),
        ("http://a*b.example", "character that no name has"),
        ("http://good.example\\evil", "character that no name has"),
        ("http://example.org:0", "port 0"),
        ("http://example.org:65536", "not a URL"),
        ("http://example.org:+80", "not a URL"),
        ("http://[::1", "not a URL"),
        ("http://[::1]evil.example", "cannot exist"),
        ("http://evil[::1]", "cannot exist"),
        ("http://[v1.fe]", "cannot exist"),
        ("http://[fe80::1%25eth0]", "cannot exist"),
        ("http://example.org/ä", "percent-encoded"),
        ("http://example.org/a<b", "character in its path"),
        ("http://example.org/" + "a" * 2000, "longer than 2000"),
    ],
)
def test_what_no_trigger_may_be_sent_to_is_refused(given: str, why: str) -> None:
    """Whatever is no plain http(s) address is a BadUrl that says why."""
    with pytest.raises(BadUrl, match=why):
        normalise_url(given)


@pytest.mark.parametrize(
    "given", ["http://me:hunter2@example.org", "http://me:hunter2/x@example.org", "http://me:hunter2℀@example.org"]
)
def test_a_refusal_does_not_repeat_a_password(given: str) -> None:
    """Not even where the URL parser's own message does."""
    with pytest.raises(BadUrl) as caught:
        normalise_url(given)
    assert "hunter2" not in str(caught.value)


def test_sites_with_ids_are_ordered_as_numbers() -> None:
    """Site 10 comes behind site 9, up to the longest id a database may hold."""
    ids = ["1", "9", "10", "100", "18446744073709551615"]
    assert sorted((Site(i, "http://a.example") for i in reversed(ids)), key=lambda site: site.key) == [
        Site(i, "http://a.example") for i in ids
    ]


def test_a_site_without_an_id_is_ordered_by_its_address() -> None:
    """Its id is made of the address, so that it stays the same from run to run."""
    url = "http://a.example"
    site = Site(id_from_url(url), url)
    assert site.id == "u-" + hashlib.sha256(url.encode()).hexdigest()[:12]
    assert site.key == url
