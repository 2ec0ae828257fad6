"""`activate`: new runs are admitted again."""

from jobs import lifecycle
from service.commands.environment import OK, say, world


def activate() -> int:
    """Lift a `deactivate` and clear the cooldown."""
    lifecycle.activate(world().redis)
    say("Active: the next trigger is admitted.")
    return OK
