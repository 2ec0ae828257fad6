"""What the commands share: their start, their end, and how they print a line."""

import os
from collections.abc import Callable

from redis.exceptions import RedisError
from rich.console import Console

from jobs.errors import AllSitesCronError, FilterError, SettingsError
from jobs.log import configure
from jobs.redis_connection import unavailable
from jobs.world import World, build

OK, SOME_FAILED, USAGE, UNREACHABLE, BUSY, AUTH = 0, 1, 2, 69, 75, 77


def exit_code(command: Callable[..., int], **options: object) -> int:
    """The command's own exit code, or that of the error which ended it, its text on stderr."""
    try:
        return command(**options)
    except AllSitesCronError as error:
        complain(str(error))
        return USAGE if isinstance(error, FilterError | SettingsError) else UNREACHABLE
    except RedisError as error:
        if not unavailable(error):
            raise
        complain(f"Redis cannot be asked: {error}")
        return UNREACHABLE


def world(*, redis: bool = True) -> World:
    """The world of this process, with logging set up; raises SettingsError. `redis`: whether the command asks it."""
    made = build(os.environ if redis else {"REDIS_URL": "redis://", **os.environ})
    configure(made.settings.log_level)
    for warning in made.loaded.warnings:
        complain(warning, style="yellow")
    return made


def say(text: str, style: str | None = None, *, end: str = "\n", stderr: bool = False) -> None:
    """Print text as it stands: no markup, no emoji names, no wrapping."""
    out = Console(stderr=stderr, emoji=False, highlight=False, markup=False, soft_wrap=True)
    out.print(text, style=style, end=end)


def complain(text: str, *, style: str = "red") -> None:
    """Say it on stderr."""
    say(text, style, stderr=True)
