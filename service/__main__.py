"""The command line: `all-sites-cron`, or `python -m service` (CONTRACT section 8)."""

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from jobs import __version__

main = typer.Typer(
    help="Keeps WordPress cron running on every public site of a multisite network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # half of the time that --help would take
)


@main.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print it.")] = False) -> None:
    if version:
        typer.echo(f"all-sites-cron {__version__}")


def _command(declared: Callable[..., None]) -> Callable[..., None]:
    """The command done by `service/commands/NAME.py`, imported when it is called, so that `--help` is quick."""
    name = declared.__name__

    @main.command()
    @wraps(declared)
    def call(**options: object) -> None:
        from service.commands.environment import exit_code

        raise typer.Exit(exit_code(getattr(import_module(f"service.commands.{name}"), name), **options))

    return call


@main.command()
def up(
    sites: Annotated[str | None, typer.Option(help="File or URL of your own sites; without it a demo network.")] = None,
    data_dir: Annotated[Path, typer.Option(help="Where the embedded server keeps its data.")] = Path(".data/up"),
    port: Annotated[int | None, typer.Option(help="Port of the web process; default 8080 or the next free.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Stop everything after the first run.")] = False,
) -> None:
    """Start everything on this machine: Redis-compatible server, web, worker; and trigger a first run."""
    from service.up import up as start

    raise typer.Exit(start(sites=sites, data_dir=data_dir, port=port, once=once))


@_command
def run(
    defer: Annotated[bool, typer.Option("--defer", help="Leave the walk to the workers.")] = False,
    ga: Annotated[bool, typer.Option("--ga", help="One GitHub Actions line instead of JSON.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="With --defer or --service: until the run has ended.")] = False,
    quiet_if_busy: Annotated[bool, typer.Option("--quiet-if-busy", help="Busy or cooling down: exit 0.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say who would be called, and who not.")] = False,
    service: Annotated[str | None, typer.Option(help="URL of a running service to ask instead.")] = None,
) -> None:
    """Trigger wp-cron on every public site; without --defer and --service this process walks.

    Exit codes: 0 all well, 1 some sites failed, 2 usage or settings, 69 unreachable, 75 cooldown or running, 77 auth.
    """


@_command
def trigger(site: Annotated[str, typer.Argument(help="A site id, its URL, or any address of it.")]) -> None:
    """Trigger one site and explain what was seen, what it means and what to do."""


@_command
def status() -> None:
    """What is happening now: the active run, the last ones, cooldown, workers, queue."""


@_command
def clock() -> None:
    """Trigger a run whenever SCHEDULE says so; without one only look, now and then, after the runs under way."""


@_command
def sites(
    check: Annotated[bool, typer.Option("--check", help="Also look every name up; no site is called.")] = False,
    overdue: Annotated[bool, typer.Option("--overdue", help="Instead, those whose events have long been due.")] = False,
) -> None:
    """The public sites a run would trigger, and what is wrong with the list."""


@_command
def config() -> None:
    """Every setting with its value and where that came from; secrets are masked."""


@_command
def check() -> None:
    """The doctor: what was seen, what it means, what to do; takes over, once, what the plugin left in Redis."""


@_command
def activate() -> None:
    """Admit runs again, at once: lifts `deactivate`, clears the cooldown."""


@_command
def deactivate(
    until: Annotated[str | None, typer.Option(help="2030-01-31T08:00:00Z, or 30m, 2h, 7d; else for good.")] = None,
) -> None:
    """Refuse new runs (503); one in progress goes on."""


@_command
def uninstall() -> None:
    """Deactivate, wait for the run, stop the workers, delete every key of this service in Redis and nothing else."""


@_command
def update(
    apply: Annotated[bool, typer.Option("--apply", help="Install it, once its digest is checked.")] = False,
) -> None:
    """Ask the feed of releases (UPDATE_FEED) what is new. Nothing is ever installed without --apply."""


@_command
def import_plugin(
    mysql: Annotated[str, typer.Option(help="mysql://user:password@host/database?prefix=wp_&network=1")],
    clean: Annotated[bool, typer.Option("--clean", help="Also delete the plugin's transients.")] = False,
) -> None:
    """What the PHP plugin left in the network's tables: its token, as a setting, and its transients."""


@main.command("demo-network")
def demo_network(
    sites: Annotated[int, typer.Option(min=1, help="How many public sites.")] = 60,
    addresses: Annotated[int, typer.Option(min=1, max=200, help="On how many loopback addresses.")] = 5,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 0,
) -> None:
    """A bundled network of pretended WordPress sites on loopback, which counts what really ran."""
    from wordpress import demo_network as demo

    demo.run(demo.DemoNetwork.standard(sites, addresses, port=port))


if __name__ == "__main__":
    main()
