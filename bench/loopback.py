"""Servers for figures: one process, every 127.x.y.z, many connections, answers when the bench wants them."""

import contextlib
import multiprocessing
import select
import socket
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """`serve` with a listener on every 127.x.y.z, in a process of its own; its port."""
    listener = socket.create_server(("", 0), backlog=4096)
    process = multiprocessing.get_context("fork").Process(target=serve, args=(listener,), daemon=True)
    process.start()
    try:
        yield listener.getsockname()[1]
    finally:
        process.kill()
        process.join()
        listener.close()


class Peers:
    """The connections of a listener."""

    def __init__(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listener, self._open = listener, dict[int, socket.socket]()
        self._epoll = select.epoll()
        self._epoll.register(listener, select.EPOLLIN)

    def wait(self, seconds: float | None) -> None:
        """Until something has come; epoll_wait rounds up to milliseconds, select does not."""
        select.select([self._epoll], [], [], seconds)

    def requests(self) -> Iterator[tuple[int, bytes]]:
        """(connection, what it sent) of all that has come; takes new connections on and lets go of closed ones."""
        for fd, _ in self._epoll.poll(0):
            if fd == self._listener.fileno():
                with contextlib.suppress(BlockingIOError):
                    while True:
                        peer, _ = self._listener.accept()
                        self._open[peer.fileno()] = peer
                        self._epoll.register(peer, select.EPOLLIN)
                continue
            data = b""
            with contextlib.suppress(ConnectionError):
                data = self._open[fd].recv(4096)
            if data:
                yield fd, data
            else:
                self._open.pop(fd).close()

    def answer(self, fd: int, text: bytes) -> None:
        """Send it, if the connection is still there."""
        with contextlib.suppress(KeyError, OSError):
            self._open[fd].send(text)
