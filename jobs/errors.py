"""The exceptions a caller can meet.

AllSitesCronError
 ├─ SettingsError            a setting is wrong: variable, value, what is allowed
 ├─ SourceError              the list of sites cannot be read
 ├─ OutboundError            an address that a setting names gives no usable answer
 ├─ FilterError              a filter raised or gave back a wrong type
 ├─ RunNotFound              no run of that id is known
 └─ Refused                  an admission that was refused, with its facts
     ├─ Deactivated
     ├─ AlreadyRunning
     ├─ CoolingDown
     └─ RedisUnavailable
"""


class AllSitesCronError(Exception):
    """Root of everything this project raises on purpose."""


class SettingsError(AllSitesCronError):
    """A setting is wrong; the text names the variable, its value (secrets masked) and what is allowed."""


class SourceError(AllSitesCronError):
    """The list of sites cannot be read; the text names the source and what was wrong with it."""


class OutboundError(AllSitesCronError):
    """An address that a setting names gives no complete or usable answer, or may not be asked; the text says why."""


class FilterError(AllSitesCronError):
    """A filter raised, or gave back a value of a wrong type; the text names the filter."""


class RunNotFound(AllSitesCronError):
    """No run of that id is known: it never was, or its record has expired."""


class Refused(AllSitesCronError):
    """Admission said no."""


class Deactivated(Refused):
    """New runs are refused until `activate`, or until a given time."""


class AlreadyRunning(Refused):
    """Run `run_id` is under way; asking again makes sense after `retry_after` seconds.

    `orphaned`: none of its walkers is alive; it has been queued again where there is a queue.
    """

    def __init__(self, run_id: str, retry_after: int, *, orphaned: bool = False) -> None:
        super().__init__("Another cron process is currently running. Please try again later.")
        self.run_id, self.retry_after, self.orphaned = run_id, retry_after, orphaned


class CoolingDown(Refused):
    """Run `run_id` started, at Unix time `last_run`, too short a time ago; `retry_after`, `cooldown`: whole seconds."""

    def __init__(self, retry_after: int, cooldown: int, last_run: int, run_id: str) -> None:
        super().__init__(f"Rate limited. Try again in {retry_after} seconds.")
        self.retry_after, self.cooldown, self.last_run, self.run_id = retry_after, cooldown, last_run, run_id


class RedisUnavailable(Refused):
    """Redis could not be asked, so that nothing was started: there is never an unlocked run."""

    retry_after = 5
