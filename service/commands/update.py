"""`update`: is there a newer release; with --apply installs its wheel (CONTRACT section 7)."""

import hashlib
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import jobs
from jobs.errors import OutboundError, SettingsError
from jobs.updates import Release, ask, fetch, told
from jobs.world import World
from service.commands.environment import OK, say, world

# No index: dependencies are taken as they are installed. Where they do not suffice, pip says so and changes nothing.
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--no-index")


def update(*, apply: bool) -> int:
    """Ask the feed now and print what is new."""
    here = world(redis=False)
    if not here.settings.update_feed:
        raise SettingsError("ALL_SITES_CRON_UPDATE_FEED is not set: https://api.github.com/repos/OWNER/NAME/releases")
    release = ask(here)
    say(told(release))
    if apply and release.newer:
        _install(here, release)
        say(f"{release.version} is installed; restart the web and worker processes.")
    return OK


def _install(here: World, release: Release) -> None:
    """Raises SettingsError or OutboundError; nothing was changed then."""
    root = Path(jobs.__file__).parents[1]
    if not root.is_relative_to(sysconfig.get_path("purelib")):
        raise SettingsError(f"This runs from {root}, where no wheel is installed: update that.")
    if not find_spec("pip"):
        what = release.wheel or release.url
        raise SettingsError(f"{sys.executable} has no pip: install {what} as this was installed.")
    wheel = fetch(here, release.wheel) if release.wheel else b""
    if f"sha256:{hashlib.sha256(wheel).hexdigest()}" != release.digest:
        raise OutboundError(f"update feed: gives no {release.wheel_name} with its right digest; nothing was installed")
    with TemporaryDirectory() as folder:
        path = Path(folder, release.wheel_name)
        path.write_bytes(wheel)
        if code := subprocess.run([sys.executable, *PIP, str(path)], check=False).returncode:  # noqa: S603 - checked
            raise OutboundError(f"pip could not install {release.wheel_name} (exit code {code})")
