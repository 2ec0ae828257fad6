"""GitHub Actions text: one workflow command, safe whatever is in its message (CONTRACT section 8)."""

from collections.abc import Mapping
from typing import Any, Literal

from jobs.plain_text import plain

Kind = Literal["notice", "warning", "error"]
MOST_CHARACTERS = 4000
MOST_ROWS = 50  # with cells as long as they can be 200 KB; GitHub takes 1 MiB


def command(kind: Kind, message: str) -> str:
    """`::kind::message` and one newline.

    Data is escaped as actions/toolkit does (`%`, CR, LF in that order); the old form `##[`, which the runner
    finds anywhere in a line, is broken up; control and bidi characters are removed; the length is capped.
    """
    lines = message.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    text = "\n".join(plain(line, MOST_CHARACTERS) for line in lines)[:MOST_CHARACTERS]
    return f"::{kind}::{text.replace('%', '%25').replace(chr(13), '%0D').replace(chr(10), '%0A')}\n"


def summary(run: Mapping[str, Any]) -> str:
    """Markdown for $GITHUB_STEP_SUMMARY of a run as `…/runs/{run_id}` shows it, or of what `/run` answered.

    action.yml, which runs without this project, makes the same.
    """
    status = run.get("status") or run.get("error") or run.get("error_code") or run.get("code") or "succeeded"
    figures = {"run": run.get("run_id"), "sites": run.get("count"), **run.get("outcomes", {})}
    figures |= {name: n for name, n in (run.get("verification") or {}).items() if name != "status"}
    failing = [[site.get(name) for name in ("url", "outcome", "reason", "detail")] for site in run.get("failing", ())]
    lines = [f"### WordPress cron: {_cell(status)}\n", _cell(run.get("message")) + "\n"]
    for head, rows in (
        (["", ""], list(figures.items())),
        (["site", "outcome", "reason", "detail"], failing[:MOST_ROWS]),
    ):
        table = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
        lines += [f"| {' | '.join(row)} |" for row in table if rows] + [""]
    return "\n".join(lines)


def _cell(value: object) -> str:
    """Text in which nothing is Markdown, HTML or a link: all but letters and digits are entities."""
    shown = plain("" if value is None else str(value))
    return "".join(c if c.isalnum() or c in " -" else f"&#{ord(c)};" for c in shown)
