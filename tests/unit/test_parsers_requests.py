"""Whatever a caller, a site or the plugin has sent: read, or refused as documented; nothing else comes of it."""

import asyncio
import json
from typing import Any
from urllib.parse import quote_plus, urlencode

import fakeredis
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection, Request

from jobs import lifecycle
from jobs.engine import Result
from jobs.outcomes import Outcome
from jobs.settings import BOOLEAN_WORDS
from jobs.trigger import judge
from service import parameters
from service.answers import RestError
from service.auth import authenticate, client_address
from service.ga import MOST_CHARACTERS, command, summary
from service.paths import NAMESPACE, REST, normalise
from tests.unit.fakes import settings
from tests.unit.odd_texts import from_bytes, held, odd, one_line

TOKEN = "hunter2-Ж"
OPEN = settings(auth_token=TOKEN, auth_tokens="reader:read:reading")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd, inner, max_size=3),
    max_leaves=5,
)


def refused(error: RestError, status: int, *codes: str) -> None:
    """As WordPress's REST API refuses, fit for a header, a JSON body and a line of a log."""
    assert error.status == status
    assert error.code in codes
    answer = error.answer()
    one_line(answer.body["message"])
    assert answer.render(ga=False).body
    assert bytes(answer.render(ga=True).body).endswith(b"\n")


def entered(made: Any, headers: list[bytes], parameter: str, scope: Any = "run") -> str | RestError:
    """The name of who may enter, or why not."""
    raw = [(b"authorization", value) for value in headers]
    request = HTTPConnection({"type": "http", "headers": raw, "client": ("203.0.113.7", 1)})

    async def ask() -> str:
        async with fakeredis.FakeAsyncRedis() as redis:
            return await authenticate(request, parameter, scope, made, redis)

    try:
        return asyncio.run(ask())
    except RestError as error:
        return error


shown = st.sampled_from([TOKEN, "reading", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), ""]) | from_bytes
schemes = st.sampled_from(["Bearer ", "bearer  ", "BEARER\t", "Basic ", "", "Bearer"])


@held
@given(headers=st.lists(st.tuples(schemes, shown), max_size=2), parameter=shown)
def test_only_the_token_itself_opens(headers: list[tuple[str, str]], parameter: str) -> None:
    """Whatever stands in the header and in `token=`; the first bearer header decides, else the parameter."""
    sent = [(scheme + token).encode("utf-8", "surrogateescape") for scheme, token in headers]
    bearers = [value[7:].strip() for value in sent if value[:7].lower() == b"bearer "]
    decides = (bearers or [parameter.encode("utf-8", "surrogateescape").strip()])[0]
    if decides == TOKEN.encode():
        assert entered(OPEN, sent, parameter) == "default"
    else:
        error = entered(OPEN, sent, parameter)
        assert isinstance(error, RestError)
        missing = (401, "all_sites_cron_auth_missing")
        refused(error, *(missing if not decides else (403, "all_sites_cron_auth_invalid")))
        assert TOKEN not in error.message


@held
@given(token=from_bytes)
@example(token=" padded\n")
def test_every_token_that_can_be_set_opens_as_it_was_set(token: str) -> None:
    """In the header and as a parameter, white space around it or not; one of white space alone opens nothing."""
    made = settings(auth_token=token or "x")
    raw = (token or "x").encode("utf-8", "surrogateescape")
    found = entered(made, [b"Bearer " + raw], ""), entered(made, [], token or "x")
    if raw.strip():
        assert found == ("default", "default")
    else:
        assert all(isinstance(error, RestError) and error.status == 401 for error in found)


@held
@given(
    peer=st.sampled_from(["10.0.0.1", "::1", "fe80::1%eth0", "unix", "203.0.113.7"]),
    forwarded=st.lists(odd | odd.map(lambda text: 100 * text) | st.ip_addresses().map(str), max_size=4),
)
def test_a_callers_address_is_short_whatever_was_forwarded(peer: str, forwarded: list[str]) -> None:
    """It becomes part of a key in Redis."""
    value = ",".join(forwarded).encode("utf-8", "replace")
    made = HTTPConnection({"type": "http", "headers": [(b"x-forwarded-for", value)], "client": (peer, 1)})
    assert 0 < len(client_address(made, settings(trusted_proxies="10.0.0.0/8,::1").trusted_proxies)) <= 64


def posted(body: bytes, kind: str) -> dict[str, str] | RestError:
    """What a POST brings."""
    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode("latin-1", "replace"))]}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        return asyncio.run(parameters.sent(Request(scope, receive)))
    except RestError as error:
        return error


JSON, FORM = "application/json", "application/x-www-form-urlencoded"


@held
@given(
    body=st.binary() | (values | st.dictionaries(odd, values | odd)).map(lambda value: json.dumps(value).encode()),
    kind=st.sampled_from([JSON, FORM, "text/plain"]) | odd,
)
@example(body=b'{"ga": "half a pair: \\ud800"}', kind=JSON)
@example(body=b"[" * 60_000, kind=JSON)
@example(body=b'{"ga":' + b"9" * 5000 + b"}", kind=JSON)
def test_any_body_is_parameters_or_named_as_wrong(body: bytes, kind: str) -> None:
    """Text by name, which can be written as UTF-8 if it was JSON."""
    sent = posted(body, kind)
    if isinstance(sent, RestError):
        refused(sent, 400, "rest_invalid_param")
        assert kind.partition(";")[0].strip().lower() == JSON
    else:
        assert all(isinstance(part, str) for pair in sent.items() for part in pair)
        errors = "surrogateescape" if kind == FORM else "strict"
        assert all(value.encode("utf-8", errors) or not value for value in sent.values())


pairs = st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")), max_size=4)


@held
@given(sent=pairs)
def test_parameters_come_back_as_they_were_sent(sent: dict[str, str]) -> None:
    """In a query, a form and a JSON body alike."""
    assert parameters.form(urlencode(sent, quote_via=quote_plus).encode()) == sent
    assert posted(urlencode(sent).encode(), FORM) == sent
    assert posted(json.dumps(sent).encode(), JSON) == sent


def test_json_nested_as_deep_as_can_be_is_read_or_refused() -> None:
    """Whichever level is the last that Python reads: what is read can be used."""
    for levels in range(850, 1000):
        sent = posted(b'{"ga":' + b"[" * levels + b"]" * levels + b"}", JSON)
        assert isinstance(sent, RestError) or len(sent["ga"]) == 2 * levels


@held
@given(
    text=odd | st.integers().map(str) | st.sampled_from(["٣", "1_0", "+1", " 1", "1.0", "yes", "No", "0", "", "stuck"])
)
def test_a_parameter_is_of_its_kind_or_named_as_wrong(text: str) -> None:
    """A boolean, a number within its bounds, one of some words."""
    found: list[object] = []
    for read in (
        lambda: parameters.flag({"one": text}, "one"),
        lambda: parameters.read({"per_page": text}, "per_page"),
        lambda: parameters.read({"state": text}, "state"),
    ):
        try:
            found.append(read())
        except RestError as error:
            refused(error, 400, "rest_invalid_param")
            one_line(*error.params.values())
            found.append(None)
    words = BOOLEAN_WORDS.replace(" or", ",").split(", ")
    number = 50 if not text else int(text) if text.isascii() and text.isdecimal() and 0 < int(text) <= 100 else None
    assert found[0] == ((text.lower() in words[:4]) if not text or text.lower() in words else None)
    assert found[1:] == [number, text if text in ("failing", "overdue", "stuck") else None]


decoded = odd.map(lambda text: text.encode("utf-8", "replace").decode())  # as uvicorn does


@held
@given(
    path=st.lists(decoded | st.sampled_from([REST, NAMESPACE, "run", "index.php", ".."])).map("/".join),
    query=st.binary() | st.just(b"rest_route=/wp-json/x/"),
)
def test_a_path_that_was_brought_to_one_stays_so(path: str, query: bytes) -> None:
    """So that whoever reads it twice, reads the same."""
    one, _ = normalise("/" + path, query)
    assert normalise(one, b"")[0] == one


@held
@given(
    message=odd | odd.map(lambda text: 2000 * text),
    run=st.dictionaries(
        st.sampled_from(["status", "error", "run_id", "count", "message", "failing"]), odd | st.integers()
    ),
)
def test_workflow_text_of_anything_is_safe_and_short(message: str, run: dict[str, Any]) -> None:
    """No second command in a line, none of the old form, no line of a summary that a site has broken."""
    line = command("error", message)
    assert line.count("\n") == 1
    assert len(line) <= 3 * MOST_CHARACTERS + len("::error::\n")
    run["failing"] = [{"url": message, "detail": message}]
    table = summary(run)
    assert not {"##[", "<", "\r"} & {table[at : at + n] for at in range(len(table)) for n in (1, 3)} - {"###"}
    assert "\n::" not in table


whole = st.integers() | st.booleans() | st.none() | st.floats()


@held
@given(
    entry=st.binary()
    | values.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries({"timestamp": whole}, optional={"queued_at": whole, "retries": whole}).map(
        lambda job: json.dumps(job).encode()
    )
)
@example(entry=b"[" * 60_000)
def test_an_entry_of_the_plugins_queue_is_a_job_or_kept_as_malformed(entry: bytes) -> None:
    """As the plugin would say: an object with a whole number as its time."""
    try:
        job = json.loads(entry)
    except (ValueError, RecursionError):
        job = None
    whole = isinstance(job, dict) and type(job.get("timestamp")) is int
    assert lifecycle._is_job(entry) is (
        whole and all(type(job.get(name, 0)) is int for name in ("queued_at", "retries"))
    )


targets = st.builds(  # absolute, as curl makes them
    "{}{}{}{}".format,
    st.sampled_from(["https://", "http://", "ftp://"]),
    st.sampled_from(["a.example", "u:p@a.example", "u:p@b", "[::1", "a.example:99999"]) | odd,
    st.sampled_from(["/wp-cron.php", "/"]) | odd,
    st.sampled_from(["", "?doing_wp_cron", "?token=x", "#x"]),
)


@held
@given(
    status=st.sampled_from([301, 302, 307, 429, 503]) | st.integers(200, 599),
    target=st.none() | targets,
    after=st.none() | st.integers(0, 10**12),
    error=st.sampled_from([*9 * [None], "dns", "connect", "tls", "timeout", "reset"]),
    detail=odd,
)
@example(status=302, target="https://u:p@b/", after=None, error=None, detail="")
def test_any_answer_of_a_site_has_one_outcome(
    status: int, target: str | None, after: int | None, error: Any, detail: str
) -> None:
    """With a text that can be shown, and without what may be secret in the address it redirects to."""
    result = Result(tag=None, status=status, error=error, detail=detail, redirect_url=target, retry_after=after)
    verdict = judge(result, "http://a.example")
    assert isinstance(verdict.outcome, Outcome)
    assert not verdict.detail or one_line(verdict.detail)
    assert verdict.wait is None or verdict.wait <= 120
    assert verdict.follow in (None, "https://a.example") or str(verdict.follow).startswith("https://a.example:")
    assert "u:p@" not in verdict.detail or error
