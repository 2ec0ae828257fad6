"""action.yml and `run --ga` when sites, or a service, say what a runner would take for commands or Markdown."""

import html
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.ga import summary
from tests.integration.action import act
from tests.integration.odd_servers import redirecting, serving
from tests.integration.stack import TOKEN, Stack

NASTY = [
    "::add-mask::mask",
    "\n::error::injected",
    "\r\n::set-output name=a::b",
    "##[group]x",
    "#\u200b#[add-mask]mask",
    "%0A::error::injected",
    "\u202etxt.exe\u2066",
    "`code` | cell | <img src=x onerror=y> &lt; [a](javascript:b) **b** www.evil.example",
    "\x1b[31mred\x07\x85\u2028",
]


def failing(texts: list[str]) -> list[dict[str, Any]]:
    return [
        {"site_id": text, "url": f"http://h/{text}", "outcome": "failed", "reason": text, "detail": text}
        for text in texts
    ]


RUN = {"run_id": "abc123", "status": "partial", "count": 9, "dispatched": 0, "errors": 9, "failing_total": 9}
VIEW = {**RUN, "message": NASTY[1], "outcomes": {"dispatched": 1, NASTY[7]: 2}, "failing": failing(NASTY)}
Answer = Callable[[socket.socket, str], None]


def service(view: Any, *, status: str = "202 Accepted", location: str = "/runs/abc123", **queued: Any) -> Answer:
    """A service whose run is `view`."""

    def answer(peer: socket.socket, head: str) -> None:
        post = head.startswith("POST")
        body = json.dumps(
            {"success": True, "run_id": "abc123", "status": "queued", **queued} if post else view
        ).encode()
        first = status if post else "200 OK"
        peer.sendall(f"HTTP/1.1 {first}\r\nLocation: {location}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    return answer


def assert_harmless(printed: str) -> None:
    """One workflow command and nothing that a runner would take for another."""
    assert printed.startswith(("::notice::", "::warning::", "::error::"))
    assert printed.rstrip("\n").splitlines() == [printed.rstrip("\n")]
    assert "##[" not in printed
    assert not set(printed) & set("\r\x1b\x07\x85\u2028\u202e\u2066\u200b")


def assert_plain_markdown(text: str) -> None:
    """Nothing in it is Markdown but the table and the heading."""
    assert len(text.encode()) < 1024 * 1024
    for line in text.splitlines():
        row = line.removeprefix("### ").strip("|")
        assert not set(row.replace(" | ", "").replace(":", "", 1)) & set("`<>*[]()_\\|~:.@"), line
    for name in ("::add-mask", "##[", "onerror=", "www."):
        assert name not in text


def test_hostile_names_in_a_run_are_data_of_the_one_annotation(tmp_path: Path) -> None:
    """The first three are in the annotation, all are in the summary, none is a command or Markdown."""
    for number in range(len(NASTY)):
        view = {**VIEW, "failing": failing(NASTY[number:])}
        with serving(service(view)) as server:
            done = act(tmp_path, url=server.url, token="t0ken", wait="true")
        assert (done.code, done.stderr, done.masks) == (0, "", ["t0ken"])
        assert_harmless(done.annotation)
        assert done.annotation.startswith("::warning::Completed with 9 error(s): Error for http://h/")
        assert_plain_markdown(done.summary)
        assert done.outputs == {"run-id": "abc123", "status": "partial", "count": "9", "dispatched": "0", "errors": "9"}


def test_the_summary_is_that_of_the_command_line(tmp_path: Path) -> None:
    """action.yml runs without this project; the two are kept the same by this."""
    with serving(service(VIEW)) as server:
        done = act(tmp_path, url=server.url, wait="true")
    assert done.summary == summary(VIEW)
    assert_plain_markdown(done.summary)
    cells = html.unescape(done.summary)
    assert "`code` | cell | <img src=x onerror=y>" in cells
    assert "http://h/::add-mask::mask" in cells


@pytest.mark.parametrize("text", NASTY)
def test_a_summary_of_a_thousand_long_names_stays_small(text: str) -> None:
    """GitHub takes 1 MiB a step; what is cut is still a table."""
    long = summary({**RUN, "failing": failing([text * 100] * 1000)})
    assert_plain_markdown(long)
    assert all(line.startswith("| ") and line.endswith(" |") for line in long.splitlines()[4:] if line)


HOSTILE = [
    {"run_id": "a\nstatus=succeeded"},
    {"status": "failed\nrun-id=x", "message": "\n::error::injected"},
    {"status": "failed", "count": "9\nx=1", "message": "##[error]x\r\n"},
    {"status": ["failed"], "failing": "none", "outcomes": 3, "message": {"a": 1}},
    {"status": "succeeded", "count": "1\n::error::injected"},
    {"status": "cancelled", "failing": [1, None, {"url": 1}]},
    {"status": "failed", "outcomes": {"\n::error::x" * 1000: 1}},
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_service_gets_no_command_and_no_output_through(tmp_path: Path, hostile: dict[str, Any]) -> None:
    """Outputs are words and numbers, one line each, whatever the JSON has in their places."""
    with serving(service({**VIEW, **hostile}, run_id=hostile.get("run_id", "abc123"))) as server:
        done = act(tmp_path, url=server.url, wait="true", timeout="1")
    assert_harmless(done.annotation)
    assert_plain_markdown(done.summary)
    assert done.stderr == ""
    assert set(done.outputs) == {"run-id", "status", "count", "dispatched", "errors"}
    assert done.outputs["run-id"] in ("", "abc123")


ODD = [
    b"HTTP/1.1 500 ::error::x\r\nContent-Length: 13\r\n\r\n##[error]html",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    b"\n::error::x\r\n\r\n",
    b"HTTP/1.1 ##[error]x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 31\r\n\r\n" + b'{"error_code": ["##[error]\\n"]}',
    redirecting("http://127.0.0.1:1/"),
]


@pytest.mark.parametrize("answer", ODD, ids=range(len(ODD)))
def test_an_answer_that_is_no_services_fails_the_step(tmp_path: Path, answer: bytes) -> None:
    """With one harmless error, no traceback."""
    with serving(answer) as server:
        done = act(tmp_path, url=server.url, token=TOKEN)
    assert (done.code, done.outputs["status"], done.stderr) == (1, "error", "")
    assert done.annotation.startswith("::error::The ")
    assert_harmless(done.annotation)


def test_the_token_goes_to_no_other_host(tmp_path: Path) -> None:
    """Neither by a redirect nor by a Location; and it is in a header, not in the address."""
    with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as thief:
        for answer in (redirecting(thief.url), service(VIEW, location=f"{thief.url}/runs/x")):
            with serving(answer) as server:
                done = act(tmp_path, url=server.url, token=TOKEN, wait="true")
            assert done.code == 1
            assert f"Authorization: Bearer {TOKEN}" in server.heads[0]
            assert TOKEN not in server.heads[0].splitlines()[0]
        assert thief.heads == []


def test_what_sites_say_passes_a_real_run_as_data(stack: Stack) -> None:
    """In their addresses as far as a URL may, and in what they answer; by the action and by `run --ga`."""
    targets = ["##[group]x", "::add-mask::mask", "`|<img>%0A::error::x", "x##[add-mask]mask"]
    with serving(redirecting(f"http://elsewhere.invalid/{targets[0]}")) as odd:
        lines = [
            f"{odd.url}/::add-mask::mask/%0A::error::x",
            f"{odd.url}/%23%23[group]x/*_()~@a",
            "##[error]x",
            "x\u202e|<",
        ]
        path = stack.folder / "sites.txt"
        path.write_text("\n".join(["http://##[error]x/", *lines]))
        stack.set(sites=path, rate_limit_seconds=0, max_retries=0)
        stack.web()
        done = act(stack.folder, url=str(stack.client.base_url), token=TOKEN, defer="false")
        file = stack.folder / "summary.md"
        here = stack.command("run", "--ga", GITHUB_STEP_SUMMARY=str(file))
    assert (done.outputs["status"], here.returncode) == ("partial", 1)
    assert done.annotation == here.stdout.rstrip("\n")
    assert_harmless(done.annotation)
    assert "##[" not in here.stderr
    assert not [line for line in here.stderr.splitlines() if line.lstrip().startswith("::")]
    for text in (done.summary, file.read_text()):
        assert_plain_markdown(text)
        assert "/::add-mask::mask/%0A::error::x" in html.unescape(text)
