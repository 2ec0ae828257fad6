"""What the operator's page makes of figures: durations, bars, how far a run is (console/page.py)."""

from dataclasses import replace

import pytest

from console import page
from jobs.outcomes import Outcome
from jobs.runs import Run, parse
from jobs.updates import Release

NOW = 1_800_000_000


def run(seconds: float | None = None, sites: int = 100, **outcomes: int) -> Run:
    """A run that began a minute ago and lists so many sites; ended after `seconds`, if given."""
    made = parse("0" * 16, {b"status": b"running", b"queued_ms": b"0"})
    counts = {Outcome[name.upper()]: n for name, n in outcomes.items()}
    started = (NOW - 60) * 1000
    ended = None if seconds is None else started + int(seconds * 1000)
    made = replace(made, started_ms=started, ended_ms=ended, sites=sites, all_listed=True, counts=counts)
    return made if ended is None else replace(made, status="partial")


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (-1, "0.0 s"),
        (0.04, "0.0 s"),
        (4.26, "4.3 s"),
        (9.96, "10.0 s"),
        (10, "10 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (3605, "1 h"),
        (86400 * 3 + 3600 * 4 + 59, "3 d 4 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(length: float, words: str) -> None:
    """Tenths only under ten seconds."""
    assert page.duration(length) == words


def test_a_run_under_way_has_its_rate_and_what_is_left() -> None:
    """By its average; nothing is foretold before all sites are listed, or anything was done."""
    assert page.progress(run(dispatched=30), NOW) == (0.5, 140)
    assert page.progress(replace(run(dispatched=30), all_listed=False), NOW) == (0.5, None)
    assert page.progress(run(), NOW) == (0.0, None)
    assert page.progress(replace(run(), started_ms=None), NOW) == (0.0, None)
    assert page.progress(replace(run(dispatched=30), started_ms=NOW * 1000 + 900), NOW) == (30.0, 2)
    assert page.progress(run(20, dispatched=100), NOW) == (5.0, None)


def test_bars_are_as_high_as_runs_were_long() -> None:
    """The newest on the right, the longest highest; parts stand on each other and a small one is seen."""
    newest, older, oldest = page.bars([run(10, dispatched=999, http_5xx=1), run(5, timeout=2), run()])
    assert [newest.x, older.x, oldest.x] == [380, 360, 340]
    assert newest.parts == {"dispatched": (9.1, 70.9), "failed": (6.1, 3)}
    assert older.parts == {"timeout": (44.5, 35.5)}
    assert oldest.parts == {"none": (77, 3)}
    assert page.bars([]) == []


def test_bars_stay_within_the_chart() -> None:
    """Also where each kind of outcome is there and all but one are few."""
    (bar,) = page.bars([run(1, dispatched=9999, timeout=1, http_5xx=1, not_due=1)])
    assert all(y >= 0 and y + height <= page.HEIGHT for y, height in bar.parts.values())


@pytest.mark.parametrize(("version", "told"), [("99.0", True), ("1.0", False), ("0", False)])
def test_a_newer_version_is_told_on_every_page(version: str, told: bool) -> None:
    """With a link to it; one that is not newer is not."""
    known = {"session": None, "required": True, "version": "3.0.0", "path": "/"}
    facts = {"status": 404, "message": "-", "params": (), "newest": Release(version, "https://a.example/new")}
    html = page.render("error.html", **known, **facts)
    assert ('<a href="https://a.example/new" rel="noreferrer">99.0 is newer</a>' in html) is told
