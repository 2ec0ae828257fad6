"""What became of one trigger: one outcome a site, one byte in Redis (CONTRACT section 5)."""

from enum import StrEnum


class Outcome(StrEnum):
    """The byte each outcome is kept as; `.` stands for a site that has none yet."""

    DISPATCHED = "d"
    TIMEOUT = "t"
    DNS = "n"
    CONNECT = "c"
    TLS = "l"
    REDIRECT = "r"
    HTTP_4XX = "4"
    HTTP_5XX = "5"
    RESET = "x"
    BLOCKED = "b"
    NOT_DUE = "s"
    HOST_DOWN = "h"

    @property
    def kind(self) -> str:
        """`dispatched`, `timeout`, `failed` or `skipped`."""
        if self in FAILED:
            return "failed"
        return {"d": "dispatched", "t": "timeout"}.get(self.value, "skipped")

    @property
    def reason(self) -> str | None:
        """Why it failed or was skipped, as callers see it; None for the other kinds."""
        return self.name.lower() if self.kind in ("failed", "skipped") else None


OPEN = "."
FAILED = frozenset(
    {
        Outcome.DNS,
        Outcome.CONNECT,
        Outcome.TLS,
        Outcome.REDIRECT,
        Outcome.HTTP_4XX,
        Outcome.HTTP_5XX,
        Outcome.RESET,
        Outcome.BLOCKED,
    }
)
ERRORS = FAILED | {Outcome.HOST_DOWN}
