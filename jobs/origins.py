"""What a walker learns of an origin server while it walks: whether it is down."""

from dataclasses import dataclass

DOWN_AFTER = 3  # sites in a row that got no connection


@dataclass(slots=True, eq=False)
class Origin:
    """An origin server: a resolved address and port. `busy`: triggers in flight to it, by this walker.

    `unreached`: sites in a row that got no connection. `closed_until`: the clock's time before which nothing is sent.
    `probing`: the one trigger in flight finds out whether a server that was down still is.
    """

    address: str
    port: int
    busy: int = 0
    unreached: int = 0
    closed_until: float = 0.0
    probing: bool = False

    @property
    def down(self) -> bool:
        """It takes no connections, as far as is known."""
        return self.unreached >= DOWN_AFTER

    def note(self, *, unreached: bool, anew: bool) -> None:
        """A trigger has ended. `anew`: it was its site's first; retries of a dead site do not make its server down."""
        self.busy -= 1
        if not unreached:
            self.unreached, self.closed_until, self.probing = 0, 0.0, False
        elif anew:
            self.unreached += 1
