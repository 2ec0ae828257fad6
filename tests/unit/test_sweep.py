"""The sweep, which loses no run; and what the scripts leave in Redis."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from jobs import keys
from jobs.admission import fresh_job
from tests.unit.fakes import Cron, changed

MakeCron = Callable[..., Cron]


def sweep(cron: Cron, **arguments: str) -> tuple[str, str]:
    return cron.scripts.sweep(**fresh_job(), **arguments)[:2]


def test_the_sweep_queues_a_run_again_that_nobody_has(cron: Cron) -> None:
    """A queued run without a job, a running one without a live walker; once, and no other."""
    assert sweep(cron) == ("none", "")
    run_id = cron.trigger().run_id
    assert sweep(cron) == ("fine", run_id)
    cron.redis.delete(f"rq:job:{cron.jobs()[0]}", "rq:queue:all-sites-cron")
    assert [sweep(cron), sweep(cron)] == [("enqueued", run_id), ("fine", run_id)]
    job = cron.redis.lpop("rq:queue:all-sites-cron").decode()
    cron.start(run_id, job)
    assert sweep(cron) == ("fine", run_id)
    cron.expire_leases(run_id, job)
    assert sweep(cron) == ("fine", run_id), "its spare still waits"
    cron.redis.delete("rq:queue:all-sites-cron")
    cron.redis.hset(keys.run(run_id), "spare_ms", 0)
    assert sweep(cron) == ("enqueued", run_id)


def test_the_sweep_gives_a_job_on_its_way_to_a_walker_a_moment(cron: Cron) -> None:
    """Between the queue and the walker's first word it is in neither."""
    run_id = cron.trigger().run_id
    cron.redis.lpop("rq:queue:all-sites-cron")
    assert sweep(cron) == ("fine", run_id)
    cron.redis.hset(keys.run(run_id), "spare_ms", cron.now() - 6_000)
    assert sweep(cron) == ("enqueued", run_id)


def test_without_the_queue_the_sweep_tells_its_caller(make_cron: MakeCron) -> None:
    """Who may then walk the run here."""
    cron = make_cron(use_redis_queue="false")
    run_id = cron.running(1)
    assert sweep(cron) == ("fine", run_id)
    cron.expire_leases(run_id, "walker")
    assert sweep(cron) == ("orphan", run_id)
    assert cron.jobs() == []


def test_the_sweep_forgets_an_active_run_whose_record_is_gone(cron: Cron) -> None:
    """Else nothing could ever be started again."""
    cron.redis.set(keys.ACTIVE, "gone", ex=60)
    assert sweep(cron) == ("none", "")
    assert not cron.redis.exists(keys.ACTIVE)


def test_a_worker_that_sweeps_is_heard_of(cron: Cron) -> None:
    """A web process that sweeps is not a worker."""
    sweep(cron)
    assert not cron.redis.exists(keys.WORKERS)
    sweep(cron, worker="one")
    assert [name for name, _ in cron.redis.zscan_iter(keys.WORKERS)] == [b"one"]


# What is written


def test_keys_and_their_table_are_the_same(cron: Cron) -> None:
    """Every key of the table is in the code, and the whole of a walk writes no other of ours."""
    table = set(re.findall(r"^\| `([^`]+)` \|", keys.__doc__ or "", re.MULTILINE))
    constants = {v.removeprefix(keys.ROOT) for n, v in vars(keys).items() if n.isupper() and isinstance(v, str)}
    assert constants - {"", "run:", "sites:", keys.LEGACY} <= table
    parts = {name.removeprefix("run:{id}:") for name in table if name.startswith("run:{id}:")}
    lua = "".join(path.read_text() for path in Path(keys.__file__).with_name("lua").glob("*.lua"))
    assert {part for part in parts if f"'{part}'" in lua} == parts
    assert set(re.findall(r"key\([a-z.]+, '([a-z]+)'\)", lua)) <= parts
    assert set(re.findall(r"'([a-z]+)'", re.findall(r"WORKING = {(.+)}", lua)[0])) == parts - {"failed", "unverified"}


def test_nothing_is_left_of_a_run_but_its_record(cron: Cron) -> None:
    """Working keys, spare job, lock and `active` go in the very script that ends it."""
    run_id = cron.running(2, walker="walker")
    claim = cron.step(run_id, "walker", want=1).claimed[0]
    assert len(cron.jobs()) == 1
    outcomes = changed(claim, "dn", _2=["http://a", "failed", "dns", ""])
    last = cron.step(run_id, "walker", changed=[outcomes], attempted=1)
    assert (last.finished, last.status) == (True, "partial")
    left = {key.decode() for key in cron.redis.scan_iter()}
    run, failed = keys.run(run_id), keys.failures(run_id)
    health = {keys.site("1"), keys.FAILING, keys.CENSUS}
    assert left == {run, failed, keys.RUNS, keys.COOLDOWN, keys.METRICS, "rq:queues"} | health


def test_what_the_dashboard_shows_of_a_job_came_from_no_site(cron: Cron) -> None:
    """Progress in description and meta, in figures."""
    run_id = cron.trigger().run_id
    (job,) = cron.jobs()
    cron.start(run_id, job)
    cron.list_pages(run_id, job, [[["1", "http://secret.example"]], [["2", "http://other.example"]]])
    claims = cron.step(run_id, job, want=2).claimed
    cron.step(run_id, job, changed=[changed(claims[0], "n", _1=["http://secret.example", "failed", "dns", "bad"])])
    stored = {k.decode(): v.decode() for k, v in cron.redis.hgetall(f"rq:job:{job}").items()}
    assert stored["description"] == f"Walk run {run_id}: 1 of 2 sites, running"
    assert json.loads(stored["meta"])["sites_done"] == 1
    assert "example" not in str(stored)
