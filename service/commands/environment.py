"""What every command starts from: the settings of the environment, or an exit that says what is wrong with them."""

import os

import typer
from rich.console import Console

from jobs.errors import SettingsError
from jobs.log import configure
from jobs.world import World, build

OK, SOME_FAILED, USAGE, UNREACHABLE, BUSY, AUTH = 0, 1, 2, 69, 75, 77


def world() -> World:
    """The world of this process, with logging set up; exits with 2 when a setting is wrong."""
    try:
        made = build(os.environ)
    except SettingsError as error:
        complain(str(error))
        raise typer.Exit(USAGE) from None
    configure(made.settings.log_level)
    for warning in made.loaded.warnings:
        complain(warning, style="yellow")
    return made


def complain(text: str, *, style: str = "red") -> None:
    """A line on stderr, as it stands: no markup, no wrapping."""
    Console(stderr=True, emoji=False).print(text, style=style, markup=False, highlight=False, soft_wrap=True)
