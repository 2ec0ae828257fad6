"""Texts that tend to break parsers, for hypothesis; and what a person may be told."""

import unicodedata

from hypothesis import settings
from hypothesis import strategies as st

held = settings(deadline=None)
ODD = "ab.:/@#?&=[]<>|%\"',;{}\\\0\t\n\r\x0b\x1c\x85\xa0\u2028\ufeffßİ。٣\u200d\U0001f600"


def text(wanted: str, others: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Of wanted characters, of others, and of both: a union of them as one alphabet has too few that are wanted."""
    return st.text(wanted) | st.text(others) | st.lists(st.sampled_from(wanted) | others).map("".join)


odd = text(ODD, st.characters(codec=None))
# What an environment variable or a header can hold: any bytes but NUL, as Python decodes them.
from_bytes = text(ODD.replace("\0", ""), st.characters(codec="utf-8", exclude_characters="\0")) | (
    st.binary().map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
)


def one_line(text: object) -> str:
    """What a person is told: not empty, on one line, fit for UTF-8."""
    assert str(text).encode()
    assert not [c for c in str(text) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    return str(text)
