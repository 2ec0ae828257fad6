"""No fault loses a site, calls many twice, leaves a lock or needs a human; `make faults` tries many more."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.faults.__main__ import AT_ONCE
from tests.faults.survival import Survival, survive

SEEDS = range(23, 35)  # all kinds, and a server away before a horse is there

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def survivals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Future[Survival]]]:
    """What comes of each seed's fault; a few are under way at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {seed: pool.submit(survive, seed, tmp_path_factory.mktemp("f"), brief=True) for seed in SEEDS}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fault_is_survived(survivals: dict[int, Future[Survival]], seed: int) -> None:
    """Every public site is triggered, no other; few twice; the run succeeds, and so does the next; nothing is left."""
    survival = survivals[seed].result()
    print(survival)
    assert not survival.broken
