"""So many seeded faults, one line each, and a table; exit code 1 and the seeds, should an invariant have been broken.

python -m tests.faults [N] [SEED]
"""

import shutil
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from tests.faults.survival import Survival, survive

AT_ONCE = 3  # most of the time is waiting


def attempt(seed: int) -> Survival | str:
    """The survival, or why there is none; the logs are kept unless all is well."""
    folder = Path(tempfile.mkdtemp(prefix=f"fault-{seed}-"))
    try:
        result: Survival | str = survive(seed, folder)
    except Exception as error:  # noqa: BLE001 - whatever this seed has broken, the others go on
        result = f"seed {seed}: {error!r}"
    if isinstance(result, Survival) and not result.broken:
        shutil.rmtree(folder)
        print(result, flush=True)
    else:
        print(f"BROKEN {result}; logs: {folder}", flush=True)
    return result


def table(survivals: list[Survival]) -> str:
    """A line for each kind."""
    kinds = defaultdict[str, list[Survival]](list)
    for survival in survivals:
        kinds[survival.kind].append(survival)
    lines = [
        "| Fault | n | missed | repeated, at most, of its bound | recovery, s: least / median / most |",
        "|" + " --- |" * 5,
    ]
    for kind, found in sorted(kinds.items()):
        seconds = [one.recovery for one in found if one.recovery is not None] or [0.0]
        figures = f"{min(seconds):.2f} / {median(seconds):.2f} / {max(seconds):.2f}"
        worst = max(found, key=lambda one: one.repeated)
        repeated = f"{worst.repeated} of {worst.fault.most_repeats}"
        name = kind.replace("_", " ")
        lines.append(f"| {name} | {len(found)} | {sum(one.missed for one in found)} | {repeated} | {figures} |")
    return "\n".join(lines)


def main(count: int = 200, seed: int = 0) -> int:
    """Run them and print; the exit code."""
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(attempt, range(seed, seed + count)))
    survivals = [result for result in results if isinstance(result, Survival)]
    print(table(survivals))
    broken = [str(result) for result in results if isinstance(result, str) or result.broken]
    minutes = (time.monotonic() - began) / 60
    print(f"{count} faults, seeds {seed} to {seed + count - 1}, {minutes:.0f} min, {len(broken)} broken an invariant")
    print(*broken, sep="\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
