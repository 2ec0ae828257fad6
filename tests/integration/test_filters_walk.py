"""Filters of a walk (sites, requests, what became of them), and what becomes of filters that are wrong.

CONTRACT section 6, "Filters".
"""

import json

import pytest

from tests.integration.filter_rig import install, list_sites, use_filters, write
from tests.integration.horses import begin, calls
from tests.integration.odd_servers import OK, serving
from tests.integration.stack import ROOT, Stack
from wordpress.demo_network import DemoNetwork
from wordpress.demo_sites import Behaviour


def test_sites_that_a_filter_drops_are_not_called(stack: Stack, few: DemoNetwork) -> None:
    """They do not count as sites of the run, in none of its pages."""
    use_filters(
        stack, "add_filter('all_sites_cron_sites', lambda sites: [s for s in sites if s.id not in ('3', '5', '12')])"
    )
    stack.set(batch_size=5)
    stack.web()
    answer = stack.trigger().json()
    assert (answer["success"], answer["count"]) == (True, 9)
    assert [site.id for site in few.sites.all if not site.calls] == [3, 5, 12]


def test_dropping_every_site_leaves_an_empty_network(stack: Stack, few: DemoNetwork) -> None:
    """The answer is that of a network without public sites."""
    use_filters(stack, "add_filter('all_sites_cron_sites', lambda sites: [])")
    stack.web()
    assert stack.trigger().json()["message"] == "No public sites found in the network"
    assert calls(few) == 0


def test_sites_are_called_in_the_order_of_the_filter(stack: Stack) -> None:
    """Of each page."""
    with serving(OK) as server:
        list_sites(stack, [f"{server.url}/{name}" for name in "abcdef"])
        use_filters(stack, "add_filter('all_sites_cron_sites', lambda sites: sites[::-1])")
        stack.set(batch_size=4, concurrency=1)
        stack.web()
        assert stack.trigger().json()["dispatched"] == 6
        assert [head.split("/")[1] for head in server.heads] == list("dcbafe")


def test_with_a_cap_no_site_starves_however_a_filter_orders_them(stack: Stack, few: DemoNetwork) -> None:
    """Each run takes the next ids, in the filter's order; what is dropped does not count."""
    use_filters(stack, "add_filter('all_sites_cron_sites', lambda sites: [s for s in reversed(sites) if s.id != '2'])")
    stack.set(number_of_sites=4, batch_size=10, rate_limit_seconds=0)
    stack.web()
    assert [stack.trigger().json()["count"] for _ in range(3)] == [4, 4, 3]
    assert [site.calls for site in few.sites.all] == [1, 0, *[1] * 10]
    assert stack.trigger().json()["count"] == 4
    assert [site.id for site in few.sites.all if site.calls == 2] == [1, 3, 4, 5]


ARGS = """
def args(args, site):
    if site.id == "2":
        args["headers"] |= {"User-Agent": "known to the WAF", "X-Site": site.url}
        return {**args, "auth": ("me", "sésame"), "host": "inside.example", "path": "/blog/wp-cron.php"}
    return args

add_filter("all_sites_cron_request_args", args)
"""


def test_a_filter_changes_the_request_of_a_site(stack: Stack) -> None:
    """Headers, User-Agent, Basic auth (RFC 7617, UTF-8), Host and path; of no other site."""
    with serving(OK) as plain, serving(OK) as behind:
        list_sites(stack, [plain.url, f"{behind.url}/in"])
        use_filters(stack, ARGS)
        stack.web()
        assert stack.trigger().json()["dispatched"] == 2
        stack.command("trigger", "2")
        first, again = behind.heads
        (other,) = plain.heads
    assert first == again
    request, *headers = first.splitlines()
    assert request == "POST /blog/wp-cron.php?doing_wp_cron HTTP/1.1"
    assert {
        "Host: inside.example",
        "User-Agent: known to the WAF",
        f"X-Site: {behind.url}/in",
        "Authorization: Basic bWU6c8Opc2FtZQ==",
    } <= set(headers)
    assert sum(line.lower().startswith(("host:", "user-agent:")) for line in headers) == 2
    assert other.startswith("POST /wp-cron.php?doing_wp_cron HTTP/1.1")
    assert "User-Agent: all-sites-cron/" in other
    assert "uthorization" not in other


def test_an_action_hears_of_each_site_once(stack: Stack, few: DemoNetwork) -> None:
    """With the site, its outcome, its reason and a text; a site that was tried again too."""
    one, two, three = few.sites.all[:3]
    one.behaviour, two.behaviour, three.latency_ms = Behaviour.BUSY503, Behaviour.NOT_FOUND, 2500
    use_filters(
        stack,
        """
        import json

        def told(site, outcome, reason, detail):
            with Path(__file__).with_name("told").open("a") as file:
                print(json.dumps([int(site.id), site.url, outcome, reason, detail]), file=file)

        add_action("all_sites_cron_site_processed", told)
        """,
    )
    stack.set(request_timeout=1)
    stack.worker()
    stack.web()
    assert stack.ended(begin(stack)).retries == 1
    told = sorted(json.loads(line) for line in (stack.folder / "told").read_text().splitlines())
    assert [line[:3] for line in told] == [
        [site.id, site.url, {two: "failed", three: "timeout"}.get(site, "dispatched")] for site in few.sites.all
    ]
    assert [line[3] for line in told[:3]] == [None, "http_4xx", None]
    assert (told[0][4], told[1][4]) == ("", "answered 404")
    assert one.calls == 2


RAISES = "def broken(*_):\n    raise LookupError('no such key')\n\nadd_filter({!r}, broken)"


@pytest.mark.parametrize("name", ["sites", "request_args", "site_processed", "number_of_sites"])
def test_a_filter_that_raises_in_a_walk_fails_the_run_by_its_name(stack: Stack, few: DemoNetwork, name: str) -> None:
    """500 FILTER_ERROR, a failed run with reason `filter`; a run that sent nothing gives the cooldown back."""
    use_filters(stack, RAISES.format(f"all_sites_cron_{name}"))
    stack.web()
    answer = stack.trigger()
    body = answer.json()
    said = f"the filter all_sites_cron_{name} (mine.broken) raised LookupError('no such key')"
    assert (answer.status_code, body["error_code"], body["message"]) == (500, "FILTER_ERROR", said)
    run = stack.run(body["run_id"])
    assert (run.status, run.reason, run.message) == ("failed", "filter", said)
    sent = name == "site_processed"
    assert (calls(few) > 0) == sent
    assert stack.trigger(ga=1).text.startswith("::error::Rate limited" if sent else f"::error::{said}")


def test_a_filter_that_raises_in_a_worker_fails_the_run_by_its_name(stack: Stack, few: DemoNetwork) -> None:
    """As in the web process, with one line in the log."""
    stack.web()
    use_filters(stack, RAISES.format("all_sites_cron_request_args"))
    stack.worker()
    run = stack.ended(begin(stack))
    assert (run.status, run.reason, calls(few)) == ("failed", "filter", 0)
    assert "all_sites_cron_request_args (mine.broken)" in run.message
    assert stack.log("worker").count("a filter failed the run") == 1


LATER = """
asked = []

def broken(now):
    asked.append(now)
    return now if len(asked) == 1 else 1 // 0

add_filter({!r}, broken)
"""


@pytest.mark.parametrize("name", ["all_sites_cron_rate_limit_seconds", "all_sites_cron_require_auth"])
def test_a_filter_that_raises_at_admission_starts_nothing(stack: Stack, few: DemoNetwork, name: str) -> None:
    """500 FILTER_ERROR with its name: nobody is let in because a filter is broken."""
    use_filters(stack, LATER.format(name))
    stack.web()
    if name == "all_sites_cron_rate_limit_seconds":
        assert stack.trigger().status_code == 200
    few.arm()
    answer = stack.trigger()
    assert (answer.status_code, answer.json()["error_code"]) == (500, "FILTER_ERROR")
    assert f"the filter {name} (mine.broken) raised ZeroDivisionError" in answer.json()["message"]
    assert stack.trigger(ga=1).text.startswith(f"::error::the filter {name} ")
    assert calls(few) == 0
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("all_sites_cron_batch_size", "'many'", "gave back 'many': Input should be a valid integer"),
        ("all_sites_cron_number_of_sites", "None", "gave back None: must be one value, not NoneType"),
        ("all_sites_cron_sites", "None", "gave back None: must be a list of sites of this page, each once"),
        (
            "all_sites_cron_request_args",
            "('s3cret',)",
            "gave back tuple: must be a dict of headers, auth, host and path",
        ),
    ],
)
def test_a_value_of_a_wrong_type_is_named(stack: Stack, few: DemoNetwork, name: str, value: str, says: str) -> None:
    """It fails the run as an exception does, and nothing is called."""
    use_filters(stack, f"add_filter({name!r}, lambda *_: {value})")
    done = stack.command("run")
    body = json.loads(done.stdout)
    assert (done.returncode, body["error_code"], calls(few)) == (1, "FILTER_ERROR", 0)
    assert body["message"].startswith(f"the filter {name} (mine.<lambda>) {says}")
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "add_filter('all_sites_cron_redis_host', str)",
            "all_sites_cron_redis_host is not carried over from the plugin",
        ),
        ("add_filter('all_sites_cron_redis_port', str)", "set REDIS_URL instead"),
        ("add_filter('all_sites_cron_redis_db', str)", "set REDIS_URL instead"),
        ("add_filter('all_sites_cron_batchsize', int)", "did you mean all_sites_cron_batch_size?"),
        ("add_filter('dss_cron_batch_size', int)", "no filter 'dss_cron_batch_size'"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("1 //", "SyntaxError"),
        ("add_filter('all_sites_cron_redis_queue_key', lambda now: 'a b')", "gave back 'a b': String should match"),
        ("add_filter('all_sites_cron_use_redis_queue', lambda now: None)", "the filter all_sites_cron_use_redis_queue"),
    ],
)
def test_filters_that_cannot_be_used_stop_the_process(stack: Stack, code: str, says: str) -> None:
    """At its start, with a text that names them and no traceback."""
    use_filters(stack, code)
    assert stack.start("web").wait(20) == 1
    assert says in stack.log("web")
    assert "mine" in stack.log("web")
    assert "Traceback" not in stack.log("web")


def test_a_module_that_does_not_exist_stops_every_process(stack: Stack) -> None:
    """The text names it; the command line's exit code is that of wrong settings."""
    stack.set(filters="no_such_filters")
    said = "ALL_SITES_CRON_FILTERS=no_such_filters cannot be loaded: ModuleNotFoundError"
    processes = [stack.start(name) for name in ("web", "worker")]
    done = stack.command("run")
    assert (done.returncode, said in done.stderr) == (2, True)
    assert all(process.wait(20) for process in processes)
    assert all(said in stack.log(name) for name in ("web", "worker"))


def test_an_entry_point_that_cannot_be_loaded_is_named(stack: Stack) -> None:
    """By its name and what it points to."""
    install(stack, "mine = no_such_filters")
    assert stack.start("web").wait(20) == 1
    assert "the entry point mine = no_such_filters cannot be loaded" in stack.log("web")


def test_the_example_of_the_readme_works(stack: Stack, few: DemoNetwork) -> None:
    """As it stands there: a login before site 3, the User-Agent of every site, no site 7."""
    section = (ROOT / "README.md").read_text().split("\n## Filters\n")[1].split("\n## ")[0]
    code = section.split("```python\n")[1].split("```")[0]
    write(stack, "").with_name("my_filters.py").write_text(code)
    stack.environ["STAGING_PASSWORD"] = "open sesame"
    stack.set(filters="my_filters")
    with serving(OK) as behind:
        list_sites(stack, [behind.url if site.id == 3 else site.url for site in few.sites.all])
        stack.web()
        answer = stack.trigger().json()
        (head,) = behind.heads
    assert (answer["success"], answer["dispatched"]) == (True, 11)
    assert [site.id for site in few.sites.all if not site.calls] == [3, 7]
    assert "Authorization: Basic Y3JvbjpvcGVuIHNlc2FtZQ==" in head
    assert "User-Agent: all-sites-cron for example.org" in head
