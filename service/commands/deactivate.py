"""`deactivate`: no new runs."""

from jobs import lifecycle
from service.commands.environment import OK, say, world


def deactivate(*, until: str | None) -> int:
    """Refuse new runs, and say until when."""
    moment = lifecycle.deactivate(world().redis, until)
    when = f"until {moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "until `all-sites-cron activate`"
    say(f"Deactivated {when}: new runs are refused; one in progress goes on.")
    return OK
