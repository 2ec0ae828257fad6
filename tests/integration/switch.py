"""A TCP proxy on loopback that leads to one server, and from some moment on to another: a failover's fixed address."""

import socket
from contextlib import suppress
from threading import Event, Thread


class Switch:
    """Passes on, both ways, what comes to `port`; new connections lead to `target`."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._open: list[socket.socket] = []
        self._passing = Event()
        self._passing.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection."""
        for each in self._open:
            with suppress(OSError):  # it has ended before
                each.shutdown(socket.SHUT_RDWR)

    def silence(self) -> None:
        """Pass nothing on, and lose nothing: what comes meanwhile leads on when it speaks again."""
        self._passing.clear()

    def speak(self) -> None:
        """Pass on again."""
        self._passing.set()

    def close(self) -> None:
        """End all of it."""
        self.speak()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept; close alone does not
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                near, _ = self._listener.accept()
                self._open.append(near)
                Thread(target=self._lead, args=(near,), daemon=True).start()

    def _lead(self, near: socket.socket) -> None:
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as far:
            self._open.append(far)
            back = Thread(target=self._pass, args=(far, near), daemon=True)
            back.start()
            self._pass(near, far)
            back.join()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._passing.wait()
                sink.sendall(data)
        self._passing.wait()
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
