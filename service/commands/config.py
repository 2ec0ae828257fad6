"""`config`: the settings as this process would use them."""

from rich.console import Console

from jobs.settings import shown
from service.commands.environment import OK, world


def config() -> int:
    """Print every setting, its value and where that came from; the exit code."""
    out = Console(soft_wrap=True, highlight=False, emoji=False)
    for name, value, origin in shown(world().loaded):
        out.print(f"{name}={value}  ({origin})", markup=False, style="dim" if origin == "default" else None)
    return OK
