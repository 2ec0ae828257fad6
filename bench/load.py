"""A flood of `defer=1`: so many callers, each at once again, against the web process, a worker and 60 demo sites.

python -m bench.load [callers] [seconds]
"""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from redis import Redis

from jobs import keys
from service.embedded import EmbeddedValkey
from tests.integration.stack import API, TOKEN, Stack, free_port
from wordpress.demo_network import DemoNetwork, running

COOLDOWN = 5
REQUEST = f"POST {API}/run?defer=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()


@dataclass
class Flood:
    """What came of it. `statuses`: of the answers. `seconds`: each call's, in order of its end.

    `rss`: bytes of the web process each half second. `connections`: the most it had to Redis. `starts`: of the runs, s.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    connections: int = 0
    starts: list[float] = field(default_factory=list)

    @property
    def growth(self) -> int:
        """Bytes, from a third of the time to its end."""
        return self.rss[-1] - self.rss[len(self.rss) // 3]

    @property
    def gaps(self) -> list[float]:
        """Seconds from the start of one run to the next."""
        return [after - before for before, after in zip(self.starts, self.starts[1:], strict=False)]


def flood(stack: Stack, callers: int, seconds: float) -> Flood:
    """Flood a stack whose web process and worker run; its Redis is reached over TCP."""
    seen, port = Flood(), int(stack.redis_url.rpartition(":")[2].partition("/")[0])
    web = psutil.Process(stack.processes[0].pid)

    async def call(ends: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        while time.monotonic() < ends:
            began = time.monotonic()
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            await reader.readexactly(int(length))
            seen.statuses[int(head[9:12])] += 1
            seen.seconds.append(time.monotonic() - began)
        writer.close()

    async def watch(ends: float) -> None:
        while time.monotonic() < ends:
            seen.rss.append(web.memory_info().rss)
            to_redis = [each for each in web.net_connections() if each.raddr and each.raddr.port == port]
            seen.connections = max(seen.connections, len(to_redis))
            await asyncio.sleep(0.5)

    async def everybody() -> None:
        ends = time.monotonic() + seconds
        await asyncio.gather(watch(ends), *(call(ends) for _ in range(callers)))

    asyncio.run(everybody())
    ids = [run_id.decode() for run_id in stack.redis.zrange(keys.RUNS, 0, -1) if isinstance(run_id, bytes)]
    seen.starts = sorted(started / 1000 for run_id in ids if (started := stack.ended(run_id).started_ms))
    return seen


def main(callers: int = 500, seconds: float = 30) -> None:
    """Run it and print the figures."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey.start(Path(folder) / "v", port) as server:
        Redis.from_url(server.url).ping()
        stack = Stack(server.url, Path(folder))
        try:
            with running(DemoNetwork.plain(60, addresses=4)) as network:
                stack.use(network)
                stack.set(rate_limit_seconds=COOLDOWN)
                stack.web()
                stack.worker()
                seen = flood(stack, callers, seconds)
        finally:
            stack.close()
    calls = sorted(seen.seconds)
    print(f"{callers} callers, {seconds:g} s: {len(calls) / seconds:.0f} answers a second, {dict(seen.statuses)}")
    print(f"p50 {calls[len(calls) // 2] * 1000:.0f} ms, p99 {calls[len(calls) * 99 // 100] * 1000:.0f} ms")
    print(f"runs started {[f'+{gap:.1f} s' for gap in seen.gaps]} apart, cooldown {COOLDOWN} s")
    print(f"web process: {seen.rss[-1] / 1e6:.0f} MB, grew {seen.growth / 1e6:.1f} MB in the last two thirds, ", end="")
    print(f"at most {seen.connections} connections to Redis")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
