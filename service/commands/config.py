"""`config`: the settings as this process would use them."""

from jobs import filters
from jobs.settings import shown
from service.commands.environment import OK, say, world


def config() -> int:
    """Print every setting, its value and where that came from, and the filters that may change it."""
    for name, value, origin in shown(world().loaded):
        say(f"{name}={value}  ({origin})", "dim" if origin == "default" else None)
    for name, functions in filters.listed():
        say(f"filter {name}: {functions}")
    return OK
