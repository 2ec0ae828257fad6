"""What became of one trigger: one outcome a site, one byte in Redis (CONTRACT section 5)."""

from enum import StrEnum


class Outcome(StrEnum):
    """The byte each outcome is kept as."""

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
        return _OTHER_KINDS.get(self, "failed")

    @property
    def reason(self) -> str | None:
        """Why it failed or was skipped, as callers see it; None for the other kinds."""
        return self.name.lower() if self.kind in ("failed", "skipped") else None


OPEN = "."  # a site that has no outcome yet
_OTHER_KINDS = {Outcome.DISPATCHED: "dispatched", Outcome.TIMEOUT: "timeout"}
_OTHER_KINDS |= dict.fromkeys((Outcome.NOT_DUE, Outcome.HOST_DOWN), "skipped")
ERRORS = frozenset(Outcome) - {Outcome.DISPATCHED, Outcome.TIMEOUT, Outcome.NOT_DUE}
