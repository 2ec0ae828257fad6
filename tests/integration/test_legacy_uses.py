"""What the processes of a deployment use of the plugin's old names, as `check` tells it."""

import asyncio

from jobs import keys
from jobs.world import build
from service.web import Web
from tests.integration.filter_rig import use_filters
from tests.integration.processes import until
from tests.integration.stack import Stack
from wordpress.demo_network import DemoNetwork


def test_check_tells_which_legacy_variables_and_filters_are_used(stack: Stack, network: DemoNetwork) -> None:
    """Each start of a web process or worker is one use, however long it lives; `check` itself is none."""
    use_filters(stack, "add_filter('dss_cron_number_of_sites', lambda now: now)")
    stack.environ |= {"DSS_CRON_BATCH_SIZE": "20"}
    stack.web()
    stack.worker()
    names = ["variable DSS_CRON_BATCH_SIZE", "filter dss_cron_number_of_sites"]
    lines = [f"warning the legacy {name} was used by 2 starts of a web process or worker" for name in names]
    until(lambda: all(line in stack.command("check").stdout for line in lines), 20)
    since = _heard(stack)
    until(lambda: _heard(stack) > since, 20)
    done = stack.command("check")
    assert done.returncode == 0
    assert all(line in done.stdout for line in lines), "a later sweep of the same processes counted nothing"
    assert "→ Use ALL_SITES_CRON_BATCH_SIZE." in done.stdout
    assert "→ Use all_sites_cron_number_of_sites." in done.stdout


def test_a_web_process_counts_its_own_at_its_first_sweep_only(stack: Stack) -> None:
    web = Web(build({**stack.environ, "DSS_CRON_BATCH_SIZE": "20"}))

    async def sweep_twice() -> None:
        await web.sweep()
        await web.sweep()
        await web.close()

    asyncio.run(sweep_twice())
    assert [value.split()[0] for value in stack.redis.hvals(keys.LEGACY_USES)] == [b"1"]


def _heard(stack: Stack) -> float:
    """When the last worker was heard of, ms."""
    return max(float(score) for _, score in stack.redis.zscan_iter(keys.WORKERS))
