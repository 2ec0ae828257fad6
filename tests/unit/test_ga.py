"""GitHub Actions text: whatever is in a message, one safe workflow command comes out (CONTRACT section 8)."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.ga import MOST_CHARACTERS, Kind, command

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
NASTY = st.text(st.sampled_from("#[:%\r\n\0\x1b\x85\u2028\u2029\u200b\ufeffa0DA25" + BIDI) | st.characters(codec=None))


def decoded(line: str) -> str:
    """What the runner makes of the data (actions/runner, ActionCommand.UnescapeData)."""
    return line.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")


@given(kind=st.sampled_from(["notice", "warning", "error"]), message=NASTY)
@example(kind="error", message="##\u200b[error]x")
@example(kind="error", message="x\n::set-output name=a::b\r\n##[endgroup]")
@example(kind="notice", message="###[[#")
@example(kind="notice", message="#" * MOST_CHARACTERS + "##[x")
def test_a_command_is_one_line_whatever_the_message(kind: Kind, message: str) -> None:
    """It starts with ::kind::, has no ##[ anywhere, no control or bidi character, and can be sent as UTF-8."""
    text = command(kind, message)
    assert text.endswith("\n")
    line = text[:-1]
    assert line.splitlines() in ([line], [])
    assert line.startswith(f"::{kind}::")
    assert "##[" not in line
    assert "##[" not in decoded(line)
    assert not [c for c in line if unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in BIDI]
    assert len(line) < 4 * MOST_CHARACTERS
    line.encode()


@given(message=st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), max_size=200))
def test_a_harmless_message_is_read_back_as_it_was(message: str) -> None:
    """Escaping loses nothing but what breaks up ##[."""
    line = command("notice", message).removeprefix("::notice::").removesuffix("\n")
    assert decoded(line) == message.replace("##[", "## [")


@pytest.mark.parametrize(
    ("message", "data"),
    [
        ("100 %", "100 %25"),
        ("%0A", "%250A"),
        ("a\nb", "a%0Ab"),
        ("a\r\nb\rc", "a%0Ab%0Ac"),
        ("%25\n", "%2525%0A"),
        ("::error::x", "::error::x"),
        ("##[error]x", "## [error]x"),
        ("\x1b[31mred\x07", "[31mred"),
        ("Zürich ✓ 東京", "Zürich ✓ 東京"),
        ("", ""),
    ],
)
def test_data_is_escaped_as_the_toolkit_does(message: str, data: str) -> None:
    """`%` first, then line ends; colons are data behind the second pair."""
    assert command("warning", message) == f"::warning::{data}\n"


def test_the_length_is_capped() -> None:
    """A megabyte is no annotation."""
    assert len(command("error", "x" * 1_000_000)) <= MOST_CHARACTERS + len("::error::\n")
    assert len(command("error", "x\n" * 1_000_000)) <= 3 * MOST_CHARACTERS + len("::error::\n")
