"""`config`: the settings as this process would use them."""

from rich.console import Console
from rich.table import Table

from jobs.settings import shown
from service.commands.environment import OK, world


def config() -> int:
    """Print every setting, its value and where that came from; the exit code."""
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for name, value, origin in shown(world().loaded):
        table.add_row(name, value, origin, style=None if origin != "default" else "dim")
    Console(soft_wrap=True).print(table, markup=False)
    return OK
