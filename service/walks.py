"""Walks in the web process: threads, so that the event loop goes on answering."""

import asyncio
from collections.abc import Callable
from threading import Event, Thread

import structlog

from jobs.world import World

log = structlog.get_logger("all_sites_cron.web")


class Walks:
    """The walks under way in this process. `stop` drains all of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stop = Event()
        self._threads: dict[str, Thread] = {}

    def start(self, run_id: str, name: str) -> "asyncio.Future[str]":
        """Walk a run under `name` in a thread of its own; the future gives Walker.walk's status or its exception.

        The walk goes on when nobody waits for the future: a client that hangs up does not stop the run.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()

        def settle(deliver: Callable[[], None]) -> None:
            if not future.cancelled():
                deliver()

        def walk() -> None:
            try:
                status = self._world.walk(run_id, name, stop=self._stop.is_set)
            except Exception as error:
                log.exception("the walk ended with an error", run_id=run_id)
                loop.call_soon_threadsafe(settle, lambda error=error: future.set_exception(error))
            else:
                loop.call_soon_threadsafe(settle, lambda: future.set_result(status))
            finally:
                self._threads.pop(name, None)

        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is logged above
        thread = self._threads[name] = Thread(target=walk, name=f"walk-{run_id}", daemon=True)
        thread.start()
        return future

    def stop(self) -> None:
        """Ask every walk to drain; safe in a signal handler."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    async def ended(self) -> None:
        """Wait until no walk is left."""
        for thread in list(self._threads.values()):
            await asyncio.to_thread(thread.join)
