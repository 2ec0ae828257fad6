"""`uninstall`: nothing of this project is left in Redis."""

from jobs import lifecycle
from service.commands.environment import OK, say, world


def uninstall() -> int:
    """Wait for the run, telling how far it is, and delete."""
    lifecycle.uninstall(world(), say)
    say("Uninstalled. A process of this service that still runs would write keys again: end them all.")
    return OK
