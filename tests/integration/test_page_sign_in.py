"""Who may see the operator's page and press its buttons: the cookie, its end, forms from elsewhere (SECURITY.md)."""

import sys
import time
from http.cookies import SimpleCookie

import httpx
import pytest

from console.session import Session, anonymous, begin
from jobs import keys
from tests.integration.page import Here, Person, words
from tests.integration.stack import API, TOKEN, Stack
from wordpress.demo_network import DemoNetwork

COOKIE = "all_sites_cron"
PAGES = ("/", "/runs", "/runs/0123456789abcdef", "/sites", "/sites/1")


def cookie(answer: httpx.Response) -> SimpleCookie:
    return SimpleCookie(answer.headers["set-cookie"])


def bearing(session: Session) -> dict[str, str]:
    """Headers of who has it."""
    return {"Cookie": f"{COOKIE}={session.value}"}


@pytest.mark.parametrize("path", PAGES)
def test_a_stranger_is_asked_to_sign_in_and_comes_back(web: Stack, sites: DemoNetwork, path: str) -> None:
    """Every page sends them to the form, and the form to the page they wanted."""
    person = Person(web)
    asked = person.get(path, page=1)
    assert (asked.status_code, asked.headers["location"]) == (303, f"/sign-in?next={path}%3Fpage%3D1")
    form = person.get(asked.headers["location"])
    assert f'value="{path}?page=1"' in form.text
    answer = person.post("/sign-in", token=TOKEN, next=f"{path}?page=1")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{path}?page=1")
    assert person.get(path).status_code in (200, 404)


@pytest.mark.parametrize("there", ["//evil.example/", "/\\evil.example", "https://evil.example", "", "/\tx", "/a\r\nb"])
def test_signing_in_leads_nowhere_else(web: Stack, there: str) -> None:
    """Only to an address on this host."""
    answer = Person(web).post("/sign-in", token=TOKEN, next=there)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_the_cookie_proves_the_token_and_does_not_hold_it(web: Stack) -> None:
    """HttpOnly, SameSite=Strict, for the host and twelve hours; another one each time."""
    answers = [Person(web).post("/sign-in", token=f" {TOKEN}\n") for _ in range(2)]
    first, second = (cookie(answer)[COOKIE] for answer in answers)
    assert (first["httponly"], first["samesite"], first["path"], first["domain"]) == (True, "strict", "/", "")
    assert int(first["max-age"]) in range(43190, 43201)
    assert first["secure"] == ""
    assert first.value != second.value
    assert TOKEN not in str(answers[0].headers)


@pytest.mark.parametrize(
    ("client", "said", "secure"),
    [
        ("10.0.0.9", "https", True),
        ("10.0.0.9", "http, https", True),
        ("10.0.0.9", "https, http", False),
        ("10.0.0.9", "", False),
        ("192.0.2.1", "https", False),
    ],
)
def test_the_cookie_is_for_https_where_a_trusted_proxy_says_so(
    stack: Stack, client: str, said: str, secure: bool
) -> None:
    """Then browsers send it by https only, and no other host can set it; it signs in under that name alone."""
    visitor = Here(stack, client, trusted_proxies="10.0.0.0/8")
    proxied = {"X-Forwarded-Proto": said}
    answer = visitor.ask("POST", "/sign-in", proxied, token=TOKEN)
    name, morsel = next(iter(cookie(answer).items()))
    assert (name, morsel["secure"]) == (f"__Host-{COOKIE}" if secure else COOKIE, secure or "")
    for sent, expected in ((name, "/"), (f"x{name}", None)):
        headers = {**proxied, "Cookie": f"{sent}={morsel.value}"}
        assert visitor.ask("GET", "/sign-in", headers).headers.get("location") == expected


def test_wrong_tokens_count_in_the_one_limiter(web: Stack) -> None:
    """The form says what is wrong; the eleventh in a minute is 429, for the API as well."""
    person = Person(web)
    wrong = [person.sign_in(f"wrong-{n}") for n in range(11)]
    assert [answer.status_code for answer in wrong] == [403] * 10 + [429]
    assert "The token is not valid." in words(wrong[0])
    assert int(wrong[-1].headers["retry-after"]) in range(1, 61)
    assert "Too many wrong tokens." in words(wrong[-1])
    assert web.client.get(f"{API}/sites/1", headers={"Authorization": "Bearer wrong"}).status_code == 429
    assert not any("wrong-" in answer.text for answer in wrong)


def test_an_empty_form_is_told_what_to_do(web: Stack) -> None:
    """It is not counted as a wrong token."""
    assert "Type or paste a token." in words(Person(web).sign_in(""))
    assert not web.redis.keys(f"{keys.ROOT}wrong_tokens*")


def forged() -> dict[str, str]:
    """Cookies that prove nothing, by what is wrong with them."""
    good = begin("default", "run", TOKEN)
    hour_ago = Session("default", "run", int(time.time()) - 3600, good.seed, good.key)
    later = f"{good.expires + 9999}.{good.seed}.{good.value.rpartition('.')[2]}"
    return {
        "expired": hour_ago.value,
        "prolonged": later,
        "of another token": begin("default", "run", "another").value,
        "of nobody": anonymous().value,
        "a form's": f"{good.expires}.{good.seed}.{good.csrf}",
        "the token": TOKEN,
        "no number": "1_0.x.y",
        "empty": "",
    }


@pytest.mark.parametrize("what", forged())
def test_a_cookie_that_proves_nothing_signs_nobody_in(web: Stack, what: str) -> None:
    """Expired, changed, of another token: its owner is asked to sign in, the API says 401."""
    headers = {"Cookie": f"{COOKIE}={forged()[what]}"}
    person = Person(web)
    assert person.send("GET", "/", headers=headers).headers["location"] == "/sign-in?next=/"
    assert person.send("GET", f"{API}/runs", headers=headers).status_code == 401


def test_a_session_ends_with_its_token(stack: Stack) -> None:
    """Who changes the token signs everybody out; another token's sessions stay."""
    session, ci = begin("default", "run", TOKEN), begin("ci", "read", "of-ci")
    for token, then in ((TOKEN, ["/", "/"]), ("another", [None, "/"])):
        visitor = Here(stack, auth_token=token, auth_tokens="ci:read:of-ci")
        answers = [visitor.ask("GET", "/sign-in", bearing(each)) for each in (session, ci)]
        assert [answer.headers.get("location") for answer in answers] == then


def test_who_is_signed_in_reads_the_api_by_get_and_does_nothing_else(web: Stack, sites: DemoNetwork) -> None:
    """What the page's script asks for; a run needs a token, by GET as well. A wrong header beats the cookie."""
    person = Person(web)
    person.sign_in()
    assert person.get(f"{API}/runs").status_code == 200
    assert person.send("HEAD", "/metrics").status_code == 200
    assert person.send("GET", f"{API}/runs", headers={"Authorization": "Bearer wrong"}).status_code == 403
    for method, path in (("GET", "run"), ("POST", "run"), ("POST", "process-queue"), ("GET", "run?ga=1&defer=1")):
        assert person.send(method, f"{API}/{path}").status_code == 401
    assert web.redis.get(keys.ACTIVE) is None


def refuse(person: Person, path: str = "/", headers: dict[str, str] | None = None, **form: str) -> httpx.Response:
    return person.send("POST", path, form, headers)


def test_a_form_from_elsewhere_does_nothing(web: Stack, sites: DemoNetwork) -> None:
    """Without the session's own word, or sent by another site, a button presses nothing."""
    person, other = Person(web), Person(web)
    person.sign_in()
    other.sign_in()
    assert "too old" in words(refuse(person))
    assert "too old" in words(refuse(person, csrf=other.form["csrf"]))
    assert "too old" in words(refuse(person, csrf="\u00e9"))
    good = person.form["csrf"]
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
    ):
        for path in ("/", "/sign-out", "/sign-in"):
            answer = refuse(person, path, headers, csrf=good, token=TOKEN)
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert web.redis.get(keys.ACTIVE) is None
    origin = {"Sec-Fetch-Site": "same-origin", "Origin": "http://a-proxy-changed-host"}
    assert refuse(person, "/", origin, csrf=good).status_code == 303
    assert web.redis.get(keys.ACTIVE) is not None


def test_a_read_token_sees_and_may_not_press(stack: Stack, few: DemoNetwork) -> None:
    """No button is shown; one that is sent all the same is refused."""
    stack.set(auth_tokens="viewer:read:of-viewer")
    stack.web()
    person = Person(stack)
    page = person.sign_in("of-viewer")
    assert "viewer (may read only)" in page.text
    assert "Run now</button>" not in page.text
    for path in ("/", "/runs/0123456789abcdef"):
        answer = person.post(path)
        assert (answer.status_code, "may read, but not start or cancel runs" in words(answer)) == (403, True)
    assert stack.redis.get(keys.ACTIVE) is None


def test_signing_out_takes_the_cookie_away(web: Stack) -> None:
    """The next page asks again."""
    person = Person(web)
    person.sign_in()
    assert person.post("/sign-out").headers["location"] == "/sign-in"
    assert not person.cookies
    assert person.get("/").status_code == 303


def test_where_no_token_is_required_everybody_may_and_forms_are_guarded(stack: Stack, few: DemoNetwork) -> None:
    """No sign-in; a form still has to come from this page."""
    stack.set(require_auth="false")
    stack.web()
    person, other = Person(stack), Person(stack)
    page = person.get("/")
    assert (page.status_code, "Sign out" in page.text) == (200, False)
    assert person.get("/sign-in").headers["location"] == "/"
    other.get("/")
    assert refuse(person).status_code == 403
    assert refuse(person, csrf=other.form["csrf"]).status_code == 403
    assert stack.redis.get(keys.ACTIVE) is None
    assert person.post("/").status_code == 303
    assert stack.redis.get(keys.ACTIVE) is not None


def test_a_token_in_the_header_shows_the_page_too(web: Stack) -> None:
    """For scripts; it has no buttons, as there is no session."""
    answer = web.client.get("/")
    assert (answer.status_code, "Run now</button>" in answer.text) == (200, False)
    assert web.client.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 403


def test_without_its_extra_there_is_a_line_instead(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which says how to get the page; the API does not need it, and nobody is signed in."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    visitor = Here(stack)
    answer = visitor.ask("GET", "/", bearing(begin("default", "run", TOKEN)))
    assert (answer.status_code, "pip install '.[console]'" in answer.text) == (404, True)
    assert visitor.ask("GET", f"{API}/runs", bearing(begin("default", "run", TOKEN))).status_code == 401
    assert visitor.ask("GET", API).status_code == 200
