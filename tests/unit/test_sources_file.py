"""Sites from files: what `wp site list` prints, and what people make of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobs.addresses import AddressGuard
from jobs.errors import SettingsError, SourceError
from jobs.sites import Site, id_from_url
from jobs.sources import Source, open_source

Make = Callable[[str, str | bytes], Source]
HEADER = "blog_id,url,public,archived,deleted,spam\n"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A source of a file with this name and content."""
    made: list[Source] = []

    def make(name: str, content: str | bytes) -> Source:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        made.append(open_source(str(path), feed_token=None, guard=AddressGuard()))
        return made[-1]

    yield make
    for source in made:
        source.close()


def urls(source: Source, after: str = "", size: int = 50) -> list[str]:
    return [site.url for page in source.pages(after, size) for site in page.sites]


def problems(source: Source) -> list[str]:
    return source.problems.first


def test_text_is_one_address_a_line(make: Make) -> None:
    """Blank lines, comments, a BOM and CRLF do no harm; the order is that of the addresses."""
    source = make(
        "sites.txt", b"\xef\xbb\xbfhttp://b.example\r\n\r\n  # closed: http://c.example\r\nHTTP://A.example/\r\n"
    )
    assert urls(source) == ["http://a.example", "http://b.example"]
    assert problems(source) == source.warnings == []


def test_sites_without_ids_get_one_from_their_address(make: Make) -> None:
    """The id is the same in each run."""
    source = make("sites.txt", "http://münchen.example")
    url = "http://xn--mnchen-3ya.example"
    assert [page.sites for page in source.pages("", 9)] == [(Site(id_from_url(url), url),)]


def test_csv_is_read_as_wp_site_list_prints_it(make: Make) -> None:
    """Only sites with public 1 and archived, deleted, spam 0 are served, in the order of their numbers."""
    rows = "10,http://ten.example/,1,0,0,0\n2,http://two.example/,1,0,0,0\n3,http://c.example/,0,0,0,0\n"
    rows += "4,http://d.example/,1,1,0,0\n5,http://e.example/,1,0,1,0\n6,http://f.example/,1,0,0,1\n"
    rows += '7,http://g.example/,-1,0,0,0\n8,"http://eight.example/",,,,\n'
    source = make("sites.csv", HEADER + rows)
    assert [page.sites for page in source.pages("", 9)] == [
        (Site("2", "http://two.example"), Site("8", "http://eight.example"), Site("10", "http://ten.example"))
    ]
    assert problems(source) == source.warnings == []


def test_json_is_read_as_wp_site_list_prints_it(make: Make) -> None:
    """Flags and ids may be strings, numbers or booleans."""
    entries = [
        {"blog_id": "1", "url": "http://a.example/", "public": "1", "archived": "0", "deleted": "0", "spam": "0"},
        {"blog_id": 2, "url": "http://b.example/", "public": True, "archived": False, "deleted": 0, "spam": None},
        {"blog_id": 3, "url": "http://c.example/", "public": False},
        {"id": 4, "url": "http://d.example/", "archived": 1},
    ]
    source = make("sites.JSON", json.dumps(entries, indent=2))
    assert urls(source) == ["http://a.example", "http://b.example"]
    assert problems(source) == source.warnings == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("s.csv", "blog_id,url\n1,http://a.example"), ("s.json", '[{"id": 1, "url": "http://a.example"}]')],
)
def test_a_list_without_flags_is_taken_as_filtered_with_a_warning(make: Make, name: str, content: str) -> None:
    """One warning, and the sites are served."""
    source = make(name, content)
    assert urls(source) == ["http://a.example"]
    assert source.warnings == [f"{name}: no column public, archived, deleted or spam: taken as already filtered"]


def test_siteurl_wins_over_url(make: Make) -> None:
    """`url` is the home address, under which WordPress need not be installed."""
    source = make("s.csv", "id,url,siteurl\n1,http://a.example,http://a.example/wp\n2,http://b.example,\n")
    assert urls(source) == ["http://a.example/wp", "http://b.example"]


def test_pages_go_on_behind_a_cursor(make: Make) -> None:
    """Each page has `size` sites, the last what is left; any cursor or key can be gone on from."""
    source = make("s.csv", HEADER + "".join(f"{i},http://s{i}.example,1,0,0,0\n" for i in range(1, 8)))
    pages = list(source.pages("", 3))
    assert [len(page.sites) for page in pages] == [3, 3, 1]
    assert urls(source, pages[0].cursor, 3) == [f"http://s{i}.example" for i in range(4, 8)]
    assert urls(source, Site("5", "").key) == ["http://s6.example", "http://s7.example"]
    assert urls(source, pages[-1].cursor) == []
    assert [source.remaining(after) for after in ("", pages[0].cursor, pages[-1].cursor)] == [7, 4, 0]


def test_bad_entries_are_named_with_their_line_and_left_out(make: Make) -> None:
    """The good ones are served."""
    lines = [
        "http://a.example",
        "javascript:alert(1)",
        "http://b.example/\rX: 1",
        "nul\0.example",
        "x" * 65_536 + "http://x.example",
    ]
    source = make("s.txt", "\n".join([*lines, "http://c.example"]).encode() + b"\n\xff\xfe\n")
    assert urls(source) == ["http://a.example", "http://c.example"]
    assert problems(source) == [
        's.txt line 2: "javascript:alert(1)" must start with http:// or https://',
        's.txt line 3: "http://b.example/X: 1" contains white space or a control character',
        's.txt line 4: "nul.example" contains white space or a control character',
        "s.txt line 5: is longer than 65535 characters",
        "s.txt line 7: is not UTF-8",
    ]


def test_bad_rows_of_a_csv_file_spoil_no_other_row(make: Make) -> None:
    """A quote that is never closed costs its own line only."""
    rows = '1,"http://a.example,1,0,0,0\n2,http://b.example,1,0,0,0\n3,http://c.example\n\n'
    rows += "x,http://d.example,1,0,0,0\n0,http://e.example,1,0,0,0\n7,,1,0,0,0\n8,http://h.example,yes,0,0,0\n"
    source = make("s.csv", HEADER + rows)
    assert urls(source) == ["http://b.example"]
    assert problems(source) == [
        "s.csv line 2: is not CSV (unexpected end of data)",
        "s.csv line 4: has 2 columns, the first line 6",
        's.csv line 6: id is "x", not a number',
        "s.csv line 7: id is 0, not a positive number",
        "s.csv line 8: has no url",
        's.csv line 9: public is "yes", not a number',
    ]


def test_bad_entries_of_a_json_file_are_named_by_number(make: Make) -> None:
    """An entry that is no object, or has no text for an address."""
    source = make("s.json", '[{"url": "http://a.example"}, 12, {"url": 5}, {}, {"url": "http://\\ud800"}]')
    assert urls(source) == ["http://a.example"]
    assert problems(source)[:3] == [
        "s.json entry 2: is not an object",
        "s.json entry 3: has no url",
        "s.json entry 4: has no url",
    ]
    assert problems(source)[3].startswith('s.json entry 5: "http://" has a host name that cannot exist')


def test_the_first_of_two_equal_sites_is_kept(make: Make) -> None:
    """Equal by id, or by address as it is normally written."""
    rows = "1,http://a.example,1,0,0,0\n2,HTTP://A.example/,1,0,0,0\n01,http://c.example,1,0,0,0\n"
    source = make("s.csv", HEADER + rows)
    assert urls(source) == ["http://a.example"]
    assert problems(source) == [
        's.csv line 3: "http://a.example" is listed twice; line 2 is kept',
        "s.csv line 4: id 1 is listed twice; line 2 is kept",
    ]


def test_sites_without_an_id_are_walked_behind_those_with_one(make: Make) -> None:
    """Keys have one order, so that any of them can be gone on from."""
    entries = [{"url": "http://a.example"}, {"id": 2, "url": "http://b.example"}, {"id": "", "url": "http://c.example"}]
    source = make("s.json", json.dumps(entries))
    assert urls(source) == ["http://b.example", "http://a.example", "http://c.example"]
    assert urls(source, Site("2", "").key) == ["http://a.example", "http://c.example"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.txt", ""),
        ("s.txt", "# none yet\n"),
        ("s.csv", HEADER),
        ("s.csv", HEADER + "1,http://a.example,0,0,0,0\nx,y,z\n"),
        ("s.json", ""),
        ("s.json", " [ ] "),
        ("s.json", '[{"url": "http://a.example", "public": "0"}]'),
    ],
)
def test_no_public_site_is_no_error(make: Make, name: str, content: str) -> None:
    """There is nothing to page through."""
    source = make(name, content)
    assert list(source.pages("", 9)) == []
    assert source.remaining("") == 0


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("s.txt", "ftp://a.example\n", 's.txt line 1: "ftp://a.example" must start with'),
        ("s.csv", HEADER + "1,x,1,0,0,0\n", 's.csv line 2: "x" must start with'),
        ("s.csv", "name,public\na,1\n", 's.csv line 1: must name the columns, one of them "url" or "siteurl"'),
        ("s.csv", b"\xff\xfeu\0r\0l\0\n\0", "s.csv line 1: must name the columns"),
        ("s.json", '{"sites": []}', 's.json: is not a JSON array as `wp site list --format=json` prints it: {"sites"'),
        ("s.json", "PHP Notice:\x1b[1m \n[]", "prints it: PHP Notice:[1m []"),
        ("s.json", '[{"url": "http://a.example"}', "s.json entry 1: is not JSON, is cut off"),
        ("s.json", '[{"url": "http://a.example"},]', "s.json entry 2: is not JSON"),
        ("s.json", '[{"url": "http://a.example"},', "s.json entry 2: is not JSON"),
        ("s.json", '[{"url": "http://a.exa', "s.json entry 1: is not JSON"),
        ("s.json", '[{"url": "http://a.example"} {}]', "s.json entry 1: is not JSON"),
        ("s.json", '[{"url": "http://a.example"}][', "s.json: has something behind the end of its array: ["),
        ("s.json", '[{"url": "http://' + "a" * 140_000 + '"}]', "is not JSON, is cut off, or is over 65536"),
        ("s.json", "[" * 1_000_000, "s.json entry 1: is not JSON"),
        ("s.json", "[" + "9" * 1_000_000, "s.json entry 1: is not JSON"),
        ("s.json", b'[{"url": "\xff"}]', "s.json entry 1: is not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_a_source_error(make: Make, name: str, content: str | bytes, error: str) -> None:
    """Its text names the file and the place."""
    source = make(name, content)
    with pytest.raises(SourceError) as caught:
        list(source.pages("", 9))
    assert error in str(caught.value)


@pytest.mark.parametrize("name", ["s.txt", "s.csv", "s.json"])
def test_ten_megabytes_of_garbage_end_as_a_short_error(make: Make, name: str) -> None:
    """Whatever the bytes are."""
    source = make(name, os.urandom(10_000_000))
    with pytest.raises(SourceError) as caught:
        list(source.pages("", 9))
    assert len(str(caught.value)) < 500


def test_problems_are_counted_but_not_all_kept(make: Make) -> None:
    """A hundred are enough to see what is wrong, each at most 200 characters long."""
    source = make("s.txt", "http://a.example\n" + f"http://{'ä' * 900}\n" * 5000)
    assert urls(source) == ["http://a.example"]
    assert source.problems.count == 5000
    assert len(source.problems.first) == 100
    assert max(map(len, source.problems.first)) <= len("s.txt line 5000: ") + 200


@pytest.mark.parametrize(
    "url",
    ["http://me:hunter2@a.example", "http://me:hunter2/@x@a.example", "me:hunter2@a.example", "http://a/?k=hunter2"],
)
def test_a_problem_does_not_repeat_credentials(make: Make, url: str) -> None:
    """Neither user name and password nor a query."""
    source = make("s.txt", f"http://a.example\n{url}\n")
    assert urls(source) == ["http://a.example"]
    assert source.problems.count == 1
    assert "hunter2" not in problems(source)[0]


def test_a_file_is_read_once(make: Make) -> None:
    """A reading that is under way does not change; the next source of that file sees what is new."""
    source = make("s.txt", "http://a.example\nhttp://b.example\n")
    pages = source.pages("", 1)
    assert next(pages).sites[0].url == "http://a.example"
    assert urls(make("s.txt", "http://c.example\n")) == ["http://c.example"]
    assert [page.sites[0].url for page in pages] == ["http://b.example"]
    assert urls(source) == ["http://a.example", "http://b.example"]


def test_a_missing_file_is_a_source_error_when_it_is_read(tmp_path: Path) -> None:
    """It may be there by the time a run begins."""
    with closing(open_source(str(tmp_path / "s.txt"), feed_token=None, guard=AddressGuard())) as source:
        with pytest.raises(SourceError, match=r"No such file.*s\.txt"):
            urls(source)
        assert source.remaining("") is None
        (tmp_path / "s.txt").write_text("http://a.example")
        assert urls(source) == ["http://a.example"]


def test_a_pipe_or_folder_is_no_site_list(tmp_path: Path) -> None:
    """Reading a pipe might never end."""
    os.mkfifo(tmp_path / "p.txt")
    (tmp_path / "d.txt").mkdir()
    for name in ("p.txt", "d.txt"):
        source = open_source(str(tmp_path / name), feed_token=None, guard=AddressGuard())
        with closing(source), pytest.raises(SourceError, match="is not a file"):
            urls(source)


def test_a_file_over_256_mib_is_refused(make: Make, tmp_path: Path) -> None:
    """Before it is read."""
    source = make("s.txt", "")
    with (tmp_path / "s.txt").open("wb") as handle:
        handle.truncate(256 * 1024 * 1024 + 1)
    with pytest.raises(SourceError, match="is larger than 268435456 bytes"):
        urls(source)


@pytest.mark.parametrize("sites", ["mysqlx://me:hunter2@db/wp", "ftp://a.example/s.txt", "sites.xml", "sites", ""])
def test_a_source_of_another_kind_is_a_settings_error(sites: str) -> None:
    """It says what is allowed, and repeats no password."""
    with pytest.raises(
        SettingsError, match=r"file \.txt, \.csv or \.json, the http:// or https://.*, or mysql://"
    ) as caught:
        open_source(sites, feed_token=None, guard=AddressGuard())
    assert "hunter2" not in str(caught.value)


# VmHWM, kilobytes: unlike ru_maxrss it does not begin with the peak of the process that forked this one.
PEAK = """
import re, sys
from pathlib import Path
from jobs.addresses import AddressGuard
from jobs.sources import open_source
source = open_source(sys.argv[1], feed_token=None, guard=AddressGuard())
count = sum(len(page.sites) for page in source.pages("", 50))
print(count, re.search("VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.parametrize(("kind", "most"), [("csv", 200_000), ("json", 60_000)])
def test_memory_does_not_grow_with_the_network(tmp_path: Path, kind: str, most: int) -> None:
    """Reading 200,000 sites takes hardly more of it than reading 1,000."""
    peaks = []
    for count in (1_000, most):
        path = tmp_path / f"{count}.{kind}"
        with path.open("w") as handle:
            handle.write("blog_id,url,public" if kind == "csv" else "[")
            for i in range(1, count + 1):
                url = f"http://network.example/site-{i * 7919 % 1_000_003}/"
                entry = json.dumps({"blog_id": str(i), "url": url, "public": "1"})
                handle.write(f"\n{i},{url},1" if kind == "csv" else "," * (i > 1) + entry)
            handle.write("" if kind == "csv" else "]")
        ran = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
        found, peak = map(int, ran.stdout.split())
        assert found == count
        peaks.append(peak)
    print(peaks)
    assert peaks[1] < peaks[0] * 1.15
