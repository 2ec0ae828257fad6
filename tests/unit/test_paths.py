"""The ways WordPress spells a REST address, brought to one, and what of them comes back in Location."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.paths import normalise

RUN = "/wp-json/all-sites-cron/v1/run"


@pytest.mark.parametrize(
    ("path", "query", "root"),
    [
        (RUN, "", "/wp-json"),
        (RUN + "/", "defer=1", "/wp-json"),
        ("/blog" + RUN, "", "/blog/wp-json"),
        ("/a/b" + RUN + "/", "", "/a/b/wp-json"),
        ("/index.php" + RUN, "", "/index.php/wp-json"),
        ("/", "rest_route=/all-sites-cron/v1/run", "/?rest_route="),
        ("/", "defer=1&rest_route=%2Fall-sites-cron%2Fv1%2Frun&ga=1", "/?rest_route="),
        ("/", "rest_route=/all-sites-cron/v1/run/", "/?rest_route="),
        ("/index.php", "rest_route=/all-sites-cron/v1/run", "/index.php?rest_route="),
        ("/blog/", "rest_route=/all-sites-cron/v1/run", "/blog/?rest_route="),
        ("//evil.example" + RUN, "", "/evil.example/wp-json"),
        ("//evil.example/", "rest_route=/all-sites-cron/v1/run", "/evil.example/?rest_route="),
    ],
)
def test_every_spelling_of_a_route_is_the_same_route(path: str, query: str, root: str) -> None:
    """With where the namespace begins for this caller, on this host."""
    assert normalise(path, query.encode()) == (RUN, root)


@pytest.mark.parametrize(
    ("path", "query", "one"),
    [
        ("/", "", "/"),
        ("", "", "/"),
        ("/livez", "", "/livez"),
        ("/livez/", "", "/livez"),
        ("/livez", "rest_route=/all-sites-cron/v1/run", "/livez"),
        ("/", "rest_route=", "/"),
        ("/", "other=/all-sites-cron/v1/run", "/"),
        ("/wp-json", "", "/wp-json"),
        ("/wp-json/", "", "/wp-json"),
        ("/wp-json/wp/v2/posts", "", "/wp-json/wp/v2/posts"),
        ("/wp-jsonp/all-sites-cron/v1/run", "", "/wp-jsonp/all-sites-cron/v1/run"),
        ("/", "rest_route=/dss-cron/v1/run", "/wp-json/dss-cron/v1/run"),
        (RUN + "s/abc/", "", RUN + "s/abc"),
    ],
)
def test_other_paths_stay_what_they_are(path: str, query: str, one: str) -> None:
    """A trailing slash aside; rest_route counts at a front page only."""
    assert normalise(path, query.encode())[0] == one


@given(path=st.text(), query=st.binary())
def test_any_path_gives_a_path_and_a_root_fit_for_a_header(path: str, query: bytes) -> None:
    """No other host, no line break, ASCII alone; whatever a caller sends."""
    one, root = normalise("/" + path, query)
    assert one.startswith("/")
    assert root.startswith("/")
    assert not root.startswith(("//", "/\\"))
    assert root.isascii()
    assert root.isprintable()
