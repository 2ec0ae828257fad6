"""The commands that look: trigger, status, sites, config, check (CONTRACT sections 7 and 8)."""

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.integration.odd_servers import certificate
from tests.integration.stack import TOKEN, Stack
from wordpress.demo_network import DemoNetwork, running
from wordpress.demo_sites import Behaviour, DemoSite

QUICK = {"request_timeout": 1, "max_retries": 0}


@pytest.fixture
def troubled(stack: Stack) -> Iterator[DemoNetwork]:
    """Sites 1 to 7 by their behaviour, 8 excluded; one that redirects to TLS that nobody trusts."""
    kinds = [
        Behaviour.OK,
        Behaviour.ERROR500,
        Behaviour.HANG,
        Behaviour.DEAD,
        Behaviour.RESET,
        Behaviour.REDIRECT,
        Behaviour.REDIRECT_HTTPS,
        Behaviour.OK,
    ]
    host = "127.0.0.1"
    sites = [DemoSite(id=n, host=host, path=f"/s{n}/", behaviour=kind) for n, kind in enumerate(kinds, 1)]
    sites[7].archived = True
    context, _ = certificate(stack.folder, host)
    with running(DemoNetwork(sites, [host], tls={host: context})) as network:
        stack.use(network)
        stack.set(**QUICK)
        yield network


TRIGGERED = [
    (1, 0, ["answer    200 after ", "outcome   dispatched", "The server took the call"]),
    (2, 1, ["answer    500 after ", "outcome   failed: http_5xx", "error log"]),
    (3, 0, ["answer    none after ", "outcome   timeout", "REQUEST_TIMEOUT"]),
    (4, 1, ["outcome   failed: connect", "Nothing listens there"]),
    (5, 1, ["outcome   failed: reset", "closed the connection without an answer"]),
    (6, 1, ["answer    302 after ", "outcome   failed: redirect", "/moved-6/", "Put the address that answers"]),
]


@pytest.mark.parametrize(("number", "code", "texts"), TRIGGERED)
def test_trigger_says_what_was_seen_what_it_means_and_what_to_do(
    stack: Stack, troubled: DemoNetwork, number: int, code: int, texts: list[str]
) -> None:
    """By id; the address that was called is shown."""
    done = stack.command("trigger", str(number))
    site = troubled.sites.by_id[number]
    assert done.returncode == code
    for text in (f"site      {number}  {site.url}", f"POST {site.url}/wp-cron.php?doing_wp_cron", *texts):
        assert text in done.stdout
    assert f"address   127.0.0.1 port {site.port}, no TLS" in done.stdout
    assert site.calls == (0 if site.behaviour is Behaviour.DEAD else 1)


@pytest.mark.parametrize("slash", ["", "/"])
def test_trigger_finds_a_site_by_its_url(stack: Stack, troubled: DemoNetwork, slash: str) -> None:
    site = troubled.sites.by_id[1]
    done = stack.command("trigger", site.url.upper().replace("/S1", "/s1") + slash)
    assert done.returncode == 0
    assert "site      1  " in done.stdout
    assert (site.calls, site.ran) == (1, 1)


@pytest.mark.parametrize("wanted", ["99", "8", "http://127.0.0.1/elsewhere", "\x1b[31mred", "[bold]1[/bold]"])
def test_trigger_calls_no_site_that_a_run_would_not(stack: Stack, troubled: DemoNetwork, wanted: str) -> None:
    """Unknown and excluded ones are exit code 2, with the command that lists the others."""
    done = stack.command("trigger", wanted)
    assert (done.returncode, done.stdout) == (2, "")
    assert repr(wanted) in done.stderr
    assert "all-sites-cron sites" in done.stderr
    assert "\x1b" not in done.stderr
    assert troubled.stats()["calls"] == 0


def test_trigger_names_what_blocks_a_site_and_calls_nothing(stack: Stack, troubled: DemoNetwork) -> None:
    done = stack.command("trigger", "1", ALL_SITES_CRON_ALLOWED_NETWORKS="10.0.0.0/8")
    assert done.returncode == 1
    assert "outcome   failed: blocked (127.0.0.1 is not public; ALL_SITES_CRON_ALLOWED_NETWORKS=127.0.0.1/32" in (
        done.stdout
    )
    assert "does not call private addresses unless told so" in done.stdout
    assert troubled.stats()["calls"] == 0


def test_trigger_follows_the_redirect_that_a_run_follows(stack: Stack, troubled: DemoNetwork) -> None:
    """And never says TLS was verified when it was not."""
    site = troubled.sites.by_id[7]
    done = stack.command("trigger", "7")
    assert done.returncode == 1
    assert "outcome   failed: tls" in done.stdout
    assert "SSL_VERIFY" in done.stdout
    done = stack.command("trigger", "7", ALL_SITES_CRON_SSL_VERIFY="false")
    assert done.returncode == 0
    assert "outcome   dispatched" in done.stdout
    assert "TLS verified" not in done.stdout
    assert f"port {troubled.tls_port}, TLS not verified" in done.stdout
    assert site.ran == 1
    done = stack.command("trigger", "7", ALL_SITES_CRON_SSL_VERIFY=str(stack.folder / "odd.pem"))
    assert "TLS verified" in done.stdout


def test_trigger_takes_any_address_where_no_list_is_set_and_no_id(stack: Stack, troubled: DemoNetwork) -> None:
    del stack.environ["ALL_SITES_CRON_SITES"]
    site = troubled.sites.by_id[1]
    assert stack.command("trigger", site.url).returncode == 0
    assert site.ran == 1
    done = stack.command("trigger", "1")
    assert done.returncode == 2
    assert "ALL_SITES_CRON_SITES is not set" in done.stderr


def test_trigger_with_a_source_that_cannot_be_read_is_exit_code_69(stack: Stack) -> None:
    done = stack.command("trigger", "1", ALL_SITES_CRON_SITES="/nowhere/sites.csv")
    assert done.returncode == 69
    assert "/nowhere/sites.csv" in done.stderr


def test_status_tells_idle_from_cooling_down_and_shows_the_last_runs(stack: Stack, network: DemoNetwork) -> None:
    idle = stack.command("status")
    assert idle.returncode == 0
    assert "No run is queued or running." in idle.stdout
    assert "Cooldown: over" in idle.stdout
    assert "Workers: 0; jobs waiting in the queue all-sites-cron: 0" in idle.stdout
    queued = stack.command("run", "--defer")
    assert queued.returncode == 0
    waiting = stack.command("status").stdout
    assert "is queued: 0 of 0 listed so far sites" in waiting
    assert "jobs waiting in the queue all-sites-cron: 1" in waiting
    assert stack.command("run").returncode == 0
    after = stack.command("status").stdout
    assert "No run is queued or running." in after
    assert " s left" in after
    assert "succeeded  120 sites, 120 dispatched, 0 timeouts, 0 errors" in after
    assert stack.command("status", REDIS_URL="redis://127.0.0.1:1").returncode == 69


def test_sites_lists_what_a_run_would_call_and_calls_nothing(stack: Stack, troubled: DemoNetwork) -> None:
    done = stack.command("sites")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"{n}\t{troubled.sites.by_id[n].url}" for n in range(1, 8)]
    assert "7 public sites, 0 bad entries" in done.stderr
    assert troubled.stats()["calls"] == 0


def test_sites_check_names_those_that_cannot_be_called(stack: Stack) -> None:
    path = stack.folder / "some.txt"
    path.write_text("http://127.0.0.1:1/a\nhttp://10.1.2.3/\nhttp://nowhere.invalid/\njavascript:1\n")
    stack.set(sites=path)
    done = stack.command("sites", "--check")
    assert done.returncode == 1
    lines = {line.split("\t")[1]: line.split("\t")[2:] for line in done.stdout.splitlines()}
    assert lines["http://127.0.0.1:1/a"] == []
    assert "ALL_SITES_CRON_ALLOWED_NETWORKS=10.1.2.3/32" in lines["http://10.1.2.3"][0]
    assert "nowhere.invalid cannot be resolved" in lines["http://nowhere.invalid"][0]
    assert "some.txt line 4" in done.stderr
    assert "3 public sites, 1 bad entries, 2 cannot be called" in done.stderr
    assert stack.command("sites", ALL_SITES_CRON_SITES="").returncode == 2
    assert stack.command("sites", ALL_SITES_CRON_SITES="/nowhere.csv").returncode == 69


@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_list_says_cannot_change_the_terminal(stack: Stack, terminal: bool) -> None:
    """Markup, emoji names, escape sequences and bidi marks come out as they stand, or not at all."""
    path = stack.folder / "odd.txt"
    good = "http://127.0.0.1:1/:smile:/[bold]x[/bold]"
    path.write_text(
        f"{good}\nhttp://127.0.0.1:1/\x1b[31mred\nhttp://127.0.0.1:1/\u202egnp.exe\nhttp://\x9b31m.example/\n"
    )
    stack.set(sites=path, max_retries=0)
    force = {"FORCE_COLOR": "1", "TERM": "xterm-256color"} if terminal else {}
    listed = stack.command("sites", **force)
    triggered = stack.command("trigger", good, **force)
    checked = stack.command("check", **force)
    ran = stack.command("run")
    assert f"\t{good}" in listed.stdout
    assert f"{good}/wp-cron.php" in triggered.stdout
    assert good in ran.stdout
    for done in (listed, triggered, checked, ran):
        for wicked in ("\x1b[31mred", "\u202e", "\x9b", "\U0001f604"):
            assert wicked not in done.stdout + done.stderr


def test_config_masks_secrets_and_names_where_a_value_came_from(stack: Stack) -> None:
    secret = stack.folder / "feed"
    secret.write_text("f33d-s3cret")
    stack.set(feed_token_file=secret, auth_tokens="ci:run:ci-s3cret", concurrency=7)
    done = stack.command(
        "config", REDIS_URL=stack.redis_url + "?password=redis-s3cret", DSS_CRON_RATE_LIMIT_SECONDS="30"
    )
    assert done.returncode == 0
    for line in (
        "ALL_SITES_CRON_CONCURRENCY=7  (ALL_SITES_CRON_CONCURRENCY)",
        "ALL_SITES_CRON_RATE_LIMIT_SECONDS=30  (DSS_CRON_RATE_LIMIT_SECONDS)",
        "ALL_SITES_CRON_FEED_TOKEN=****  (ALL_SITES_CRON_FEED_TOKEN_FILE)",
        "ALL_SITES_CRON_AUTH_TOKENS=****  (ALL_SITES_CRON_AUTH_TOKENS)",
        "REDIS_URL=****  (REDIS_URL)",
        "ALL_SITES_CRON_BATCH_SIZE=50  (default)",
    ):
        assert line in done.stdout.splitlines()
    assert "s3cret" not in done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert "DSS_CRON_RATE_LIMIT_SECONDS is the legacy name" in done.stderr


def test_config_warns_of_a_name_that_is_no_setting_with_the_nearest(stack: Stack) -> None:
    done = stack.command("config", ALL_SITES_CRON_CONCURENCY="7")
    assert done.returncode == 0
    assert "did you mean ALL_SITES_CRON_CONCURRENCY?" in done.stderr


def findings(stdout: str) -> dict[str, list[str]]:
    """Level → what was seen, each with its remedy where it has one."""
    found: dict[str, list[str]] = {"ok": [], "warning": [], "error": []}
    level = "ok"
    for line in stdout.splitlines():
        if line.startswith(" " * 8):
            found[level][-1] += line
        else:
            level, seen = line[:8].strip(), line[8:]
            found[level].append(seen)
    return found


def test_check_finds_nothing_wrong_with_a_deployment_that_works(stack: Stack, network: DemoNetwork) -> None:
    stack.worker()
    done = stack.command("check")
    found = findings(done.stdout)
    assert done.returncode == 0
    assert (found["warning"], found["error"]) == ([], [])
    assert [seen.split(",")[0] for seen in found["ok"]] == [
        "the settings are valid",
        "Redis answers",
        "1 workers listen",
        "the site source lists 120 public sites",
    ]
    assert network.stats()["calls"] == 0


def test_check_warns_with_a_remedy_of_what_does_not_stop_the_service(stack: Stack) -> None:
    """No worker, an eviction policy, a source that cannot be read."""
    stack.redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        done = stack.command("check", ALL_SITES_CRON_SITES="/nowhere.csv")
    finally:
        stack.redis.config_set("maxmemory-policy", "noeviction")
    assert done.returncode == 0
    eviction, worker, source = findings(done.stdout)["warning"]
    assert "allkeys-lru" in eviction
    assert "→ Set maxmemory-policy to noeviction" in eviction
    assert "no worker is listening" in worker
    assert "heroku ps:scale worker=1" in worker
    assert "/nowhere.csv" in source
    assert "→" in source


def test_check_warns_of_addresses_that_are_blocked_and_of_bad_entries(stack: Stack, network: DemoNetwork) -> None:
    path = stack.folder / "some.txt"
    path.write_text(f"{network.sites.all[0].url}\nhttp://10.1.2.3/\nnonsense\n")
    warnings = "\n".join(findings(stack.command("check", ALL_SITES_CRON_SITES=str(path)).stdout)["warning"])
    assert "http://10.1.2.3 cannot be called" in warnings
    assert "ALL_SITES_CRON_ALLOWED_NETWORKS=10.1.2.3/32" in warnings
    assert "1 bad entries, the first: some.txt line 3" in warnings


def test_check_ends_with_69_when_redis_cannot_be_asked(stack: Stack, network: DemoNetwork) -> None:
    done = stack.command("check", REDIS_URL="redis://:s3cret@127.0.0.1:1")
    assert done.returncode == 69
    (error,) = findings(done.stdout)["error"]
    assert "Redis cannot be asked" in error
    assert "→ Check REDIS_URL" in error
    assert "s3cret" not in done.stdout + done.stderr


def test_check_changes_nothing(stack: Stack, network: DemoNetwork) -> None:
    stack.command("check")
    with Redis.from_url(stack.redis_url) as redis:
        assert redis.keys("*") == []
