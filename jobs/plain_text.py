"""Text that came from elsewhere, made fit to be shown on one line."""

import unicodedata

_REMOVED = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # control, bidi and other format marks, surrogates, line separators


def plain(text: str, limit: int = 200) -> str:
    """`text` without control, format and line-breaking characters, at most `limit` characters."""
    clean = "".join(c for c in text[: limit * 4] if unicodedata.category(c) not in _REMOVED)
    clean = clean.replace("##[", "## [")  # a command anywhere in a line of a GitHub Actions log
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
