"""The window: which site is triggered when, and what becomes of batches."""

import json
from typing import Any

import pytest

from jobs.outcomes import Outcome
from jobs.scripts import Claimed
from tests.unit.fakes import urls
from tests.unit.window_rig import FRONT, Answer, MakeRig

# In flight


def test_a_slow_site_does_not_hold_up_the_others(rig: MakeRig) -> None:
    """The window slides on, across batches, while one site takes half a minute."""
    made = rig(lambda url: (30.0 if url == FRONT else 0.05, {}), concurrency=5, share=5)
    sites = urls(200)
    made.hold(sites[:50], sites[50:100], sites[100:150], sites[150:])
    made.run(5.0)
    assert [made.out(page).count(".") for page in range(4)] == [1, 0, 0, 0]
    assert made.clock.time < 1005.1


def test_concurrency_holds_and_is_used(rig: MakeRig) -> None:
    """Never more in flight in all, and as many while there is work."""
    made = rig(concurrency=7, share=100)
    made.hold(urls(100, addresses=10))
    made.run()
    assert made.engine.most[""] == 7
    assert made.clock.time - 1000 == pytest.approx(0.05 * 15, abs=0.01)


def test_the_share_of_an_origin_server_holds_and_is_used(rig: MakeRig) -> None:
    """However many sites it has: counted by resolved address and port."""
    made = rig(concurrency=50, share=3)
    made.hold(urls(60, addresses=2), [f"http://name-{i}.example:8001" for i in range(20)])
    made.run()
    most = dict(made.engine.most)
    assert (most.pop("") <= 9, most) == (True, {"127.0.0.1": 3, "127.0.0.2": 3, "127.0.0.9": 3})
    assert [made.out(page).count("d") for page in range(2)] == [60, 20]


def test_origin_servers_take_turns(rig: MakeRig) -> None:
    """One with many sites does not keep one with few waiting."""
    made = rig(concurrency=2, share=2)
    made.hold([f"http://127.0.0.1:8001/{i}" for i in range(30)], [f"http://127.0.0.2:8001/{i}" for i in range(3)])
    made.run()
    assert {address for _, _, address in made.engine.started[:2]} == {"127.0.0.1", "127.0.0.2"}
    assert [a for _, _, a in made.engine.started[:6]].count("127.0.0.2") == 3


def test_a_full_origin_server_leaves_the_slots_to_the_others(rig: MakeRig) -> None:
    """Slow sites of one server fill its share and no more."""
    made = rig(lambda url: (60.0 if "127.0.0.1:" in url else 0.05, {}), concurrency=10, share=4)
    made.hold([f"http://127.0.0.1:8001/{i}" for i in range(50)], [f"http://127.0.0.2:8001/{i}" for i in range(50)])
    made.run(5.0)
    assert (made.out(0).count("."), made.out(1).count("d")) == (50, 50)
    assert (made.window.using, made.engine.in_flight) == (4, 4)


def test_without_a_share_nothing_starts_and_with_one_it_goes_on(rig: MakeRig) -> None:
    """Shares change with every step."""
    made = rig(share=0)
    made.hold(urls(4))
    made.run(1.0)
    assert made.engine.started == []
    made.window.widen(1)
    made.run(0.12)
    assert len(made.engine.started) == 3
    made.window.widen(0)
    made.run(1.0)
    assert len(made.engine.started) == 3
    made.window.widen(2)
    made.run()
    assert made.out() == "dddd"


def test_a_share_that_shrank_holds_for_a_server_that_has_its_turn(rig: MakeRig) -> None:
    """Its sites wait until what is in flight has fallen below it."""
    made = rig(lambda url: (0.1 if url == FRONT else 1.0, {}), concurrency=2, share=8)
    made.hold(urls(8))
    made.run(0.05)
    assert made.engine.in_flight == 2
    made.window.widen(1)
    made.run(0.5)
    assert made.engine.in_flight == 1


def test_a_name_is_looked_up_once_for_all_its_sites(rig: MakeRig) -> None:
    """Its sites wait for the one answer."""
    made = rig()
    made.hold([f"http://blog.example/{i}" for i in range(20)])
    made.run()
    assert (made.looked_up, made.out()) == (["blog.example"], "d" * 20)


def test_sites_that_have_an_outcome_are_not_triggered_again(rig: MakeRig) -> None:
    """A batch that another walker began is gone on with."""
    made = rig()
    sites = urls(4)
    made.window.hold([Claimed(0, "w#1", [[str(i), url] for i, url in enumerate(sites)], "d.n.")])
    made.run()
    assert [url for _, url, _ in made.engine.started] == [sites[1], sites[3]]
    assert (made.out(), made.window.attempted) == ("ddnd", 2)


# Refusals and redirects


def test_a_blocked_address_is_not_called_and_named(rig: MakeRig) -> None:
    """With the ALLOWED_NETWORKS that would allow it; the cloud's metadata service is one such."""
    made = rig()
    made.hold(["http://169.254.169.254/latest", *urls(1)])
    made.run()
    assert (made.out(), made.window.attempted) == ("bd", 1)
    assert "169.254.169.254" in made.details[0]
    assert "ALL_SITES_CRON_ALLOWED_NETWORKS=169.254.169.254/32" in made.details[0]


def redirecting(targets: dict[str, str]) -> Answer:
    def answer(url: str) -> tuple[float, dict[str, Any]]:
        return 0.1, {"status": 301, "redirect_url": targets[url]} if url in targets else {}

    return answer


def test_a_redirect_to_https_is_followed_at_once(rig: MakeRig) -> None:
    """Same host, same path, another port; the site has one outcome and no failure."""
    https = "https://127.0.0.1:8443/site-0"
    made = rig(redirecting({FRONT: f"{https}/wp-cron.php?doing_wp_cron"}))
    made.hold(urls(1))
    made.run()
    assert [url for _, url, _ in made.engine.started] == [FRONT, https]
    assert (made.out(), made.settled) == ("d", [])


def test_a_second_redirect_is_a_failure(rig: MakeRig) -> None:
    """One is followed, whatever the second points to."""
    https = "https://127.0.0.1:8443/site-0"
    targets = {FRONT: f"{https}/wp-cron.php", https: "https://127.0.0.1/site-0/wp-cron.php"}
    made = rig(redirecting(targets))
    made.hold(urls(1))
    made.run()
    assert (len(made.engine.started), made.out()) == (2, "r")
    assert "https://127.0.0.1/site-0/wp-cron.php" in made.details[0]


@pytest.mark.parametrize("target", ["https://127.0.0.2/site-0/wp-cron.php", "https://127.0.0.1/wp-login.php", ""])
def test_other_redirects_are_not_followed(rig: MakeRig, target: str) -> None:
    """Another host, another path, no target."""
    made = rig(redirecting({FRONT: target}))
    made.hold(urls(1))
    made.run()
    assert (len(made.engine.started), made.out(), made.settled) == (1, "r", [(FRONT, Outcome.REDIRECT)])


# Batches


def test_a_lost_batch_is_forgotten(rig: MakeRig) -> None:
    """No new triggers, no retries; answers still to come free their slots and count for nothing."""
    made = rig(lambda _url: (0.5, {"status": 503}), concurrency=2, retries=3)
    made.hold(urls(20), urls(2, addresses=2))
    made.run(1.2)
    begun = len(made.engine.started)
    made.window.lose([0, 77])
    assert list(made.window.batches) == [1]
    made.run()
    assert [url for _, url, _ in made.engine.started[begun:] if "site-1" not in url and "site-0" not in url] == []
    assert made.out(1) == "55"
    assert len(made.settled) == 2
    assert (made.window.idle, made.window.using) == (True, 0)


def test_a_lost_batch_asks_for_no_retries(rig: MakeRig) -> None:
    """Neither for sites whose answer is still to come nor for those that wait in the retry lane."""
    made = rig(lambda url: (0.1 if url == FRONT else 1.0, {"error": "connect"}))
    made.hold(urls(2))
    made.run(0.5)
    assert made.window.next_retry is not None
    made.window.lose([0])
    for result in made.engine.poll(1.0):
        made.window.take(result)
    left: Any = (made.window.next_retry, made.window.retries_asked, made.window.idle)
    assert left == (None, 0, True)


def test_sites_of_lost_batches_do_not_count_as_held(rig: MakeRig) -> None:
    """Else a walker that gave all of its batches back, on many servers, would never want one again."""
    made = rig(concurrency=5, share=0)
    made.hold(urls(200, addresses=20), [f"http://name-{i}.example:8001" for i in range(9)])
    made.window.start_ready()
    assert made.window.wanted == 0
    made.window.lose([0, 1])
    assert made.window.wanted > 0
    assert made.window.idle
    made.window.widen(2)
    made.hold(urls(3, addresses=3))
    made.run()
    assert (made.out(), len(made.engine.started)) == ("ddd", 3)


def test_a_checkpoint_reports_what_changed_until_it_is_confirmed(rig: MakeRig) -> None:
    """Changed batches with their bytes and failures, the others merely as kept; done ones go when confirmed."""
    made = rig(lambda url: (5.0 if url.endswith("-3") else 0.1, {"status": 404} if url.endswith("-1") else {}))
    sites = urls(4)
    made.hold(sites[:2], sites[2:])
    assert made.window.checkpoint() == [{"p": 0, "t": "w#0"}, {"p": 1, "t": "w#1"}]
    made.run(1.0)
    report = made.window.checkpoint()
    assert [(entry["p"], entry["o"]) for entry in report] == [(0, "d4"), (1, "d.")]
    ((site, failure),) = report[0]["f"].items()
    assert (site, json.loads(failure)) == ("00001", [sites[1], "failed", "http_4xx", "answered 404"])
    assert made.window.checkpoint() == report, "until confirmed, it is told again"
    made.window.confirm()
    assert made.window.checkpoint() == [{"p": 1, "t": "w#1"}]


def test_wanted_keeps_the_slots_fed_and_does_not_hoard(rig: MakeRig) -> None:
    """A full window and some ahead; of one busy server's sites not without end."""
    made = rig(concurrency=50, share=8)
    assert made.window.wanted >= 50
    made.hold(urls(made.window.wanted, addresses=50))
    assert made.window.wanted == 0
    crowded = rig(concurrency=50, share=8)
    for page in range(100):
        if not crowded.window.wanted:
            break
        crowded.window.hold([Claimed(page, "w", [[str(i), url] for i, url in enumerate(urls(50))], "." * 50)])
        crowded.window.start_ready()
    assert 50 * len(crowded.window.batches) <= 2500
