"""What the health of a large network costs a real Redis."""

import json

from redis import Redis

from jobs import keys
from jobs.scripts import Scripts
from jobs.settings import load

SITES, BATCH = 20_000, 500


def test_the_health_of_a_site_takes_about_a_hundred_bytes(redis_url: str) -> None:
    """All of them, with URLs of 35 characters: `used_memory` after a verification of each, over that before."""
    with Redis.from_url(redis_url) as redis:
        scripts = Scripts(redis, load({"REDIS_URL": redis_url}).settings)
        redis.hset(keys.run("0" * 16), "status", "succeeded")
        redis.expire(keys.run("0" * 16), 60)
        before = redis.info("memory")["used_memory"]
        for first in range(1, SITES + 1, BATCH):
            sites = [[str(n), f"https://site{n:06}.network.example"] for n in range(first, first + BATCH)]
            head = json.dumps(sites)
            redis.rpush(keys.unverified("0" * 16), head)
            assert scripts.verify(id="0" * 16, head=head, results=[[*site, "verified"] for site in sites])
        taken = (redis.info("memory")["used_memory"] - before) / SITES
        assert redis.hlen(keys.site("150")) == 100
    assert 20 < taken <= 110
