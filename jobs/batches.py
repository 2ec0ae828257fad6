"""Batches of sites as a walker holds them, and one site of a batch on its way to an outcome."""

import json
from dataclasses import dataclass, field

from jobs.origins import Origin
from jobs.outcomes import Outcome
from jobs.trigger import Verdict


@dataclass(slots=True)
class Batch:
    """A claimed batch. `out`: one byte a site. `failures`: site id → JSON, the fields of jobs.runs.Failure behind it.

    `changed`, `failures`: since the last checkpoint that Redis confirmed.
    """

    token: str
    sites: list[list[str]]
    out: bytearray
    failures: dict[str, str] = field(default_factory=dict)
    changed: bool = False
    lost: bool = False

    def settle(self, index: int, verdict: Verdict) -> None:
        """The site at `index` has its outcome."""
        outcome = verdict.outcome
        self.out[index] = ord(outcome)
        self.changed = True
        if outcome is not Outcome.DISPATCHED:
            site_id, url = self.sites[index]
            self.failures[site_id] = json.dumps([url, outcome.kind, outcome.reason, verdict.detail])


@dataclass(slots=True)
class Attempt:
    """One site on its way to an outcome. `url` changes when a redirect is followed. `tries`: triggers sent before."""

    batch: Batch
    index: int
    url: str
    tries: int = 0
    redirected: bool = False
    origin: Origin | None = None
