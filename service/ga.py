"""GitHub Actions text: one workflow command, safe whatever is in its message (CONTRACT section 8)."""

from typing import Literal

from jobs.plain_text import plain

Kind = Literal["notice", "warning", "error"]
MOST_CHARACTERS = 4000


def command(kind: Kind, message: str) -> str:
    """`::kind::message` and one newline.

    Data is escaped as actions/toolkit does (`%`, CR, LF in that order); the old form `##[`, which the runner
    finds anywhere in a line, is broken up; control and bidi characters are removed; the length is capped.
    """
    lines = message.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    text = "\n".join(plain(line, MOST_CHARACTERS) for line in lines)[:MOST_CHARACTERS]
    text = text.replace("##[", "## [")
    return f"::{kind}::{text.replace('%', '%25').replace(chr(13), '%0D').replace(chr(10), '%0A')}\n"
