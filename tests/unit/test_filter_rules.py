"""The rules of filters that need no process (CONTRACT section 6)."""

from typing import Any

import pytest

from jobs import filters
from jobs.errors import FilterError, SettingsError
from jobs.filters import add_action, add_filter
from jobs.sites import Site
from tests.unit.fakes import settings

A, B, C = (Site(number, f"https://{number}.example") for number in ("1", "2", "3"))
URL = "https://1.example/shop/wp-cron.php?doing_wp_cron"
CAP, TIMEOUT = "all_sites_cron_number_of_sites", "all_sites_cron_request_timeout"


@pytest.fixture(autouse=True)
def _nothing_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts without filters, and leaves none."""
    monkeypatch.setattr(filters, "_added", {})


def no_objection(_: object) -> None:
    """Whatever a filter gives back is right."""


def test_a_filter_without_functions_gives_back_its_value() -> None:
    """And settings, sites and requests are what they were."""
    made = settings()
    assert filters.apply(CAP, 5, check=no_objection) == 5
    assert filters.settings_after(made, filters.PER_WALK) == made
    assert filters.sites_after((A, B)) == (A, B)
    assert filters.request_after(A, URL) == (URL, [])


def test_priority_decides_then_the_order_of_registration() -> None:
    """10 unless said otherwise; negative ones are early, as in WordPress."""
    for letter, priority in (("c", None), ("d", None), ("e", 11), ("a", -1), ("b", 9)):
        add_filter(CAP, f"{{}}{letter}".format, *([] if priority is None else [priority]))
    assert filters.apply(CAP, "", check=no_objection) == "abcde"


def test_every_value_on_the_way_is_checked() -> None:
    """The function that gave back a wrong value is named, not the one that would stumble over it."""

    def first(now: int) -> None:
        return None

    add_filter(CAP, first)
    add_filter(CAP, lambda now: now + 1)
    with pytest.raises(FilterError, match=r"number_of_sites \(.*first\) gave back None"):
        filters.settings_after(settings(), [CAP])


def test_an_action_is_called_with_what_there_is() -> None:
    """Every function of it; nobody reads what they return."""
    heard: list[object] = []
    add_action(filters.SITE_PROCESSED, lambda *told: heard.append(told))
    add_action(filters.SITE_PROCESSED, lambda *told: heard.append(len(told)))
    filters.act(filters.SITE_PROCESSED, A, "failed", "dns", "no such name")
    assert heard == [(A, "failed", "dns", "no such name"), 4]


@pytest.mark.parametrize("name", ["host", "port", "db"])
def test_where_redis_is_is_no_filter_any_more(name: str) -> None:
    """The plugin's three are an error that names REDIS_URL."""
    with pytest.raises(SettingsError, match="REDIS_URL"):
        add_filter(f"all_sites_cron_redis_{name}", str)


@pytest.mark.parametrize(
    ("name", "near"), [("all_sites_cron_number_of_site", CAP), ("https_ssl_verify", "https_local_ssl_verify")]
)
def test_an_unknown_name_names_the_nearest(name: str, near: str) -> None:
    """As an unknown setting does."""
    with pytest.raises(SettingsError, match=rf"no filter {name!r}; did you mean {near}\?"):
        add_filter(name, int)


def test_a_name_that_is_near_to_none_is_an_error_all_the_same() -> None:
    """Without a guess."""
    with pytest.raises(SettingsError, match=r"There is no filter 'xyz'$"):
        add_filter("xyz", int)


def test_legacy_names_are_warned_about_with_the_new_ones() -> None:
    """One line for each that is used."""
    assert filters.warnings() == []
    add_filter("dss_cron_request_timeout", float)
    add_filter("dss_cron_number_of_sites", int)
    add_filter("dss_cron_number_of_sites", int)
    add_filter(CAP, int)
    assert [text.split()[-1] for text in filters.warnings()] == [f"{CAP}.", f"{TIMEOUT}."]


@pytest.mark.parametrize(
    ("name", "value", "field", "meant"),
    [
        (CAP, 7, "number_of_sites", 7),
        (CAP, "7", "number_of_sites", 7),
        (TIMEOUT, 2.5, "request_timeout", 2.5),
        (TIMEOUT, 0.01, "request_timeout", 1),
        (TIMEOUT, 0, "request_timeout", 1),
        ("all_sites_cron_rate_limit_seconds", -1, "rate_limit_seconds", -1),
        ("all_sites_cron_redis_max_retries", 0, "max_retries", 0),
        ("all_sites_cron_use_redis_queue", False, "use_redis_queue", False),
        ("all_sites_cron_use_redis_queue", 0, "use_redis_queue", False),
        ("https_local_ssl_verify", "no", "ssl_verify", False),
        ("https_local_ssl_verify", __file__, "ssl_verify", __file__),
        ("all_sites_cron_require_auth", False, "auth_required", False),
    ],
)
def test_a_value_may_be_what_the_setting_may_be(name: str, value: object, field: str, meant: object) -> None:
    """Python's own types and the texts of the environment; the plugin's timeout under 1 s is raised."""
    add_filter(name, lambda now: value)
    assert getattr(filters.settings_after(settings(), [name]), field) == meant


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (CAP, -1),
        (CAP, 1.5),
        (CAP, None),
        (CAP, [1]),
        (CAP, True),
        (TIMEOUT, "soon"),
        (TIMEOUT, 301),
        (TIMEOUT, float("nan")),
        ("all_sites_cron_batch_size", 0),
        ("all_sites_cron_redis_max_retries", 11),
        ("all_sites_cron_use_redis_queue", 2),
        ("all_sites_cron_redis_queue_key", "a b"),
        ("https_local_ssl_verify", "/no/such/bundle.pem"),
        ("all_sites_cron_require_auth", "maybe"),
    ],
)
def test_a_value_that_the_setting_may_not_be_is_named(name: str, value: object) -> None:
    """With the filter, the function and the value."""
    add_filter(name, lambda now: value)
    with pytest.raises(FilterError) as caught:
        filters.settings_after(settings(), [name])
    assert str(caught.value).startswith(f"the filter {name} (test_filter_rules.")
    assert f" gave back {value!r}: " in str(caught.value)


def test_whether_a_token_is_needed_is_told_as_it_stands() -> None:
    """`auto` means yes, so the filter gets True."""
    heard: list[object] = []

    def listen(now: bool) -> bool:
        heard.append(now)
        return now

    add_filter("all_sites_cron_require_auth", listen)
    assert filters.auth_required(settings())
    assert not filters.auth_required(settings(require_auth="false"))
    assert heard == [True, False]


@pytest.mark.parametrize("given", [[], [B], [C, A, B], (B, A)])
def test_a_page_may_be_cut_and_reordered(given: list[Site] | tuple[Site, ...]) -> None:
    """As a list or a tuple."""
    add_filter(filters.SITES, lambda sites: given)
    assert filters.sites_after((A, B, C)) == list(given)


@pytest.mark.parametrize("given", [None, "1", [A, A], [A, Site("9", "https://else.example")], [["1"]], {A: 1}, [{}]])
def test_a_page_may_not_become_anything_else(given: object) -> None:
    """No site twice, none from elsewhere, no other type, be it one that cannot be in a set."""
    add_filter(filters.SITES, lambda sites: given)
    with pytest.raises(FilterError, match=r"all_sites_cron_sites .* must be a list of sites of this page, each once"):
        filters.sites_after((A, B, C))


def test_a_request_is_what_its_filters_make_of_it() -> None:
    """The query stays; Host and Basic auth become headers."""
    add_filter(filters.REQUEST_ARGS, lambda args, site: {**args, "headers": {"X-Id": site.id}, "auth": ("a", "b:c")})
    add_filter(filters.REQUEST_ARGS, lambda args, site: {**args, "host": "in.example", "path": args["path"][5:]})
    url, headers = filters.request_after(A, URL)
    assert url == "https://1.example/wp-cron.php?doing_wp_cron"
    assert headers == ["X-Id: 1", "Authorization: Basic YTpiOmM=", "Host: in.example"]


@pytest.mark.parametrize(
    "change",
    [
        {"headers": ["X-A: 1"]},
        {"headers": {"X-A": 1}},
        {"headers": {"X-A": "1\r\nX-B: 2"}},
        {"headers": {"X-\n": "1"}},
        {"auth": "me:secret"},
        {"auth": ("me",)},
        {"auth": ("me", None)},
        {"host": "a\nb"},
        {"path": ""},
        {"path": "wp-cron.php"},
        {"path": "/wp-cron.php?key=1"},
        {"path": "/wp cron.php"},
        {"path": "/wp-cron.php#x"},
        {"path": None},
        {"proxy": "elsewhere"},
    ],
)
def test_a_request_that_cannot_be_sent_is_named(change: dict[str, Any]) -> None:
    """Before anything is sent: no header smuggled in by a line break, no query in a path."""
    add_filter(filters.REQUEST_ARGS, lambda args, site: args | change)
    with pytest.raises(FilterError, match=r"the filter all_sites_cron_request_args .* gave back dict: "):
        filters.request_after(A, URL)


def test_no_password_is_told() -> None:
    """The value of request_args is not repeated in an error: it holds credentials."""
    add_filter(filters.REQUEST_ARGS, lambda args, site: {"auth": ("me", "s3cret")})
    with pytest.raises(FilterError) as caught:
        filters.request_after(A, URL)
    assert "s3cret" not in str(caught.value)
