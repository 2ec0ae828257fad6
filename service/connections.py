"""A caller's connection to the web process, bounded where uvicorn 0.54 is not.

uvicorn --http service.connections:Bounded

It waits for ever for the rest of a request's head, and with httptools takes one of any size.
"""

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Protocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as Protocol  # httptools' where installed, else h11's

HEAD_SECONDS = 10.0  # from the connection, or the first byte of a further request, to the end of the request's head
MOST_BYTES = 262_144  # of a head; of what comes behind it and is no further head


class Bounded(Protocol):
    """uvicorn's HTTP/1.1 protocol, which hangs up on who sends too slowly or too much; the body is the handler's."""

    cycle: Any  # of the request that came last; None before
    _late: asyncio.TimerHandle | None = None
    _bytes = 0  # since the last head was complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait on while there is no complete head; then the answer takes the time it takes."""
        before = self.cycle
        super().data_received(data)
        self._bytes = self._bytes + len(data) if self.cycle is before else 0
        if self._bytes > MOST_BYTES:
            self._refuse(f"The request is larger than {MOST_BYTES} bytes.")
        elif self.cycle is None or self.cycle.response_complete:
            self._wait()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self._refuse, f"No request within {HEAD_SECONDS:g} s.")

    def _stop_waiting(self) -> None:
        if self._late:
            self._late.cancel()
            self._late = None

    def _refuse(self, text: str) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.send_400_response(text)
        self.transport.close()
