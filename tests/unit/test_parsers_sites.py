"""Whatever a list of sites, a feed or a schedule holds: no entry is lost without a word, no error but a named one."""

import csv
import io
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.addresses import AddressGuard, parse_networks
from jobs.errors import SourceError
from jobs.mysql import Database
from jobs.sites import NEVER, BadUrl, normalise_url
from jobs.sources import Source
from jobs.sources.database import DatabaseSource
from jobs.sources.entries import FLAGS, Kind, due_of
from jobs.sources.feed import FeedSource
from jobs.sources.listing import FileSource
from tests.unit.odd_texts import held, odd, one_line
from tests.unit.web_server import Handler, Server

hosts = st.sampled_from(
    ["a.example", "B.Example.", "[::1]", "[::ffff:1.2.3.4]", "a_b", "bücher.example", "xn--a", "xn--"]
)
urls = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https", "HTTP", "ftp"]),
    hosts | odd,
    st.sampled_from(["", ":80", ":443", ":8080", ":0", ":", ":99999", ":٣"]),
    st.sampled_from(["", "/", "/a", "//a//", "/a?b", "/#", "/%20", "/é"]) | odd,
)
numbers = st.sampled_from([0, 1, 2, -1, 10**19, 10**20, 10**400]) | st.integers(0, 300)
values = st.recursive(
    st.none() | st.booleans() | numbers | numbers.map(str) | st.floats() | odd | urls,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(odd, inner, max_size=2),
    max_leaves=4,
)
sites = st.fixed_dictionaries(
    {"url": urls},
    optional=dict.fromkeys(("id", "blog_id", "siteurl", "next_due", *FLAGS), numbers | values),
)
entries = st.lists(
    sites | st.fixed_dictionaries({"id": numbers, "url": urls, "next_due": numbers}) | values, max_size=6
)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def told(source: Source, size: int = 3) -> tuple[int, str]:
    """How many entries became a site, are among the problems or left out by a flag; the error that ended it, or ""."""
    served, error = 0, ""
    try:
        for page in source.pages("", size):
            served += len(page.sites)
    except SourceError as caught:
        error = one_line(caught)
    assert all(one_line(problem) for problem in source.problems.first)
    return served + source.problems.count + source.excluded.total(), error


def listed(content: bytes, kind: Kind) -> tuple[int, str]:
    """The same of a file."""
    with TemporaryDirectory() as folder:
        path = Path(folder, f"sites.{kind}")
        path.write_bytes(content)
        with closing(FileSource(path, kind)) as source:
            return told(source)


@held
@given(
    content=st.binary() | odd.map(lambda text: text.encode("utf-8", "surrogatepass")),
    kind=st.sampled_from(get_args(Kind)),
)
def test_bytes_of_any_kind_are_sites_problems_or_a_named_error(content: bytes, kind: Kind) -> None:
    """Nothing but a SourceError leaves a file, whatever is in it."""
    listed(content, kind)


def test_the_name_of_a_file_is_told_whatever_bytes_it_has() -> None:
    """Also one that is no UTF-8."""
    with closing(FileSource(Path("/nowhere", "a\udcff.csv"), "csv")) as source:
        assert told(source)[1].startswith("a.csv: ")


@held
@given(
    lines=st.lists((odd | urls).map(lambda line: line.replace("\n", "")), max_size=8),
    ends=st.sampled_from(["\n", "\r\n"]),
)
@example(lines=["\ufeff"], ends="\n")
def test_every_line_of_text_is_a_site_or_a_problem(lines: list[str], ends: str) -> None:
    """But empty ones and comments."""
    content = ends.join(lines).encode("utf-8", "surrogatepass")
    full = [line for line in (line.strip() for line in lines) if line and not line.startswith("#")]
    count, error = listed(b"\xef\xbb\xbf" + content, "txt")
    assert count == len(full)
    assert not error or error.startswith("not one usable site")


@held
@given(
    rows=st.lists(st.tuples(urls | odd, *(numbers | odd for _ in range(5))), max_size=6),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_every_row_of_csv_is_a_site_a_problem_or_left_out(rows: list[tuple[Any, ...]], quoting: Any) -> None:
    """One line is one row: a cell with a line break in it is as many entries, each of them told."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=quoting)
    writer.writerow(["url", "blog_id", *FLAGS])
    writer.writerows(rows)
    full = [
        line for line in (line.strip() for line in text.getvalue().split("\n")) if line and not line.startswith("#")
    ]
    count, error = listed(text.getvalue().encode("utf-8", "surrogatepass"), "csv")
    assert count == len(full) - 1
    assert not error or error.startswith("not one usable site")


@held
@given(array=entries, indent=st.sampled_from([None, 1]))
@example(array=[{"url": deep(500)}, {"id": deep(300), "url": "http://a.example"}], indent=None)
def test_every_entry_of_json_is_a_site_a_problem_or_left_out(array: list[Any], indent: int | None) -> None:
    """Whatever stands in the place of a number or an address."""
    count, error = listed(json.dumps(array, indent=indent).encode(), "json")
    assert count == len(array)
    assert not error or error.startswith("not one usable site")


class Feed:
    """A server whose answer is `body`, and sources that ask it."""

    def __init__(self, server: Server) -> None:
        self.body, self._url = b"", server.url
        server.answer = self._answer

    def _answer(self, handler: Handler) -> None:
        handler.reply(self.body)

    def source(self, body: Any) -> FeedSource:
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return FeedSource(self._url, token=None, guard=AddressGuard(parse_networks("127.0.0.0/8")), verify=False)


@pytest.fixture(scope="module")
def feed() -> Iterator[Feed]:
    """One server for all inputs."""
    with Server("127.0.0.1", lambda handler: None, None) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Feed(server)
        server.shutdown()
        thread.join()


pages = st.fixed_dictionaries(
    {"version": st.just(1) | values, "sites": entries | values, "next": st.none() | numbers | values},
    optional={"now": numbers | values},
)


@held
@given(body=st.binary() | st.binary().map(b"{%b}".__mod__) | pages | values)
def test_a_page_of_a_feed_ends_in_sites_or_in_a_named_error(feed: Feed, body: Any) -> None:
    """Nothing but a SourceError leaves it; a page in order tells of every entry."""
    with closing(feed.source(body)) as source:
        count, error = told(source)
        if not error and isinstance(body, dict):
            assert count == len(body["sites"])


moments = st.none() | st.sampled_from([0, -1, 10**11 - 1, 10**11, 10**19, -(10**19)]) | st.integers(0, 10**12)


@held
@given(listed=st.dictionaries(st.integers(1, 10**19), moments, max_size=8))
def test_a_page_of_a_feed_comes_back_as_it_was(feed: Feed, listed: dict[int, int | None]) -> None:
    """Its ids, addresses and due times; one behind the year 5138 never comes, one before 1970 has come."""
    given = [{"id": number, "url": f"http://s{number}.example", "next_due": due} for number, due in listed.items()]
    with closing(feed.source({"version": 1, "now": 1, "sites": given, "next": None})) as source:
        got = [(int(site.id), site.url, site.due) for page in source.pages("", 3) for site in page.sites]
    assert got == [
        (number, f"http://s{number}.example", NEVER if due is None or due >= 10**11 else max(due, 0))
        for number, due in sorted(listed.items())
    ]


states = st.fixed_dictionaries({"id": numbers, "next_due": numbers | st.none(), "locked": numbers | st.floats()})


@held
@given(
    body=st.fixed_dictionaries(
        {"version": st.just(1), "now": numbers | values, "states": st.lists(states | values, max_size=4)}
    )
    | values
)
def test_states_of_a_feed_are_moments_or_a_named_error(feed: Feed, body: Any) -> None:
    """Of sites that were asked for, within the years that a date can have."""
    with closing(feed.source(body)) as source:
        try:
            now, found = source.states(["1", "2", "u-0123456789ab"])
        except SourceError as error:
            one_line(error)
        else:
            assert found.keys() <= {"1", "2"}
            assert 0 <= now < 10**11
            assert all(0 <= s.locked < 10**11 and (0 <= s.due < 10**11 or s.due == NEVER) for s in found.values())


@pytest.mark.parametrize("page", ['"sites":[{"id":DEEP,"url":"http://a"}]', '"states":[DEEP]'])
def test_values_nested_as_deep_as_json_can_be_are_told_of(feed: Feed, page: str) -> None:
    """Whichever level is the last that Python reads: showing what is wrong takes no more levels than that."""
    for levels in range(1000, 850, -1):
        body = f'{{"version":1,"now":1,{page}}}'.replace("DEEP", "[" * levels + "]" * levels)
        with closing(feed.source(body.encode())) as source, pytest.raises(SourceError):
            list(source.pages("", 5) if "sites" in page else source.states(["1"]))


@held
@given(text=urls | odd)
def test_an_address_is_brought_to_one_form_or_refused(text: str) -> None:
    """Its form stays what it is when it is read again; it is ASCII, short, and has nothing secret."""
    try:
        url = normalise_url(text)
    except BadUrl as error:
        one_line(error)
    else:
        assert normalise_url(url) == url
        assert url.isascii()
        assert url.isprintable()
        assert not set("@?# ") & set(url)


def php(events: list[int], version: str) -> str:
    """The option `cron` as core serialises it."""
    items = [f'i:{at};a:1:{{s:9:"some_hook";a:0:{{}}}}' for at in events]
    keys = (
        ['s:7:"version";i:2;', *items]
        if version == "first"
        else [*items, 's:7:"version";i:2;'][: len(items) + bool(version)]
    )
    return f"a:{len(keys)}:{{{''.join(keys)}}}"


class Answers(DatabaseSource):
    """A database whose options are given."""

    def __init__(self, cron: str, lock: str) -> None:
        super().__init__(Database("u", "p", "h", 3306, "d"))
        self._given = {1: {"cron": cron, "_transient_doing_cron": lock}}

    def _options(self, *_: object) -> Any:
        return 1, self._given


@held
@given(events=st.lists(st.integers(-10, 10**11 - 1), max_size=3), version=st.sampled_from(["", "first", "last"]))
def test_the_first_event_of_a_schedule_is_its_due_time(events: list[int], version: str) -> None:
    """Wherever its version stands; a schedule without an event is never due."""
    _, states = Answers(php(events, version), "").states(["1"])
    assert states["1"].due == (max(events[0], 0) if events else NEVER)


@held
@given(cron=odd | st.text('a:0123{i;s"-٣}'), lock=odd | st.floats().map(str) | st.text("0123456789.eE-٣", max_size=20))
def test_any_text_in_the_place_of_a_schedule_is_some_moment(cron: str, lock: str) -> None:
    """Options are whatever a plugin wrote there."""
    _, states = Answers(cron, lock).states(["1"])
    assert 0 <= states["1"].due <= NEVER
    assert 0 <= states["1"].locked < 10**12


@held
@given(value=values)
def test_a_due_time_is_a_moment_or_refused(value: object) -> None:
    """NEVER behind the year 5138, as in a database."""
    try:
        assert 0 <= due_of(value) < 10**11 or due_of(value) == NEVER
    except SourceError as error:
        one_line(error)
