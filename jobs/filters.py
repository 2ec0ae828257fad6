"""Filters and actions as WordPress has them, for what a setting cannot say (CONTRACT section 6).

    from jobs.filters import add_action, add_filter

    add_filter("all_sites_cron_request_args", lambda args, site: {**args, "auth": ("user", "secret")})

Modules that call these are named in ALL_SITES_CRON_FILTERS or in the entry-point group `all_sites_cron.filters`.
"""

import difflib
import importlib
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from jobs.errors import FilterError, SettingsError
from jobs.settings import Settings
from jobs.sites import Site

_SAME = "rate_limit_seconds number_of_sites batch_size request_timeout use_redis_queue require_auth redis_queue_key"
SETTINGS = {f"all_sites_cron_{name}": name for name in _SAME.split()}  # filter → the setting it changes
SETTINGS |= {"all_sites_cron_redis_max_retries": "max_retries", "https_local_ssl_verify": "ssl_verify"}
LEGACY = {f"dss_cron_{name}" for name in ("rate_limit_seconds", "number_of_sites", "request_timeout")}
SITES, REQUEST_ARGS, SITE_PROCESSED = (f"all_sites_cron_{name}" for name in ("sites", "request_args", "site_processed"))
AT_START = ("all_sites_cron_use_redis_queue", "all_sites_cron_redis_queue_key")  # read once a process
_PER_CALL = ("all_sites_cron_rate_limit_seconds", "all_sites_cron_require_auth")
PER_WALK = [name for name in SETTINGS if name not in AT_START + _PER_CALL]
_KNOWN = {*SETTINGS, *LEGACY, SITES, REQUEST_ARGS, SITE_PROCESSED}
_GONE = {f"all_sites_cron_redis_{name}" for name in ("host", "port", "db")}

Function = Callable[..., Any]
_added: dict[str, list[tuple[int, int, Function]]] = {}  # name → (priority, order of registration, function)


def add_filter(name: str, function: Function, priority: int = 10) -> None:
    """Have `function` change a value: it gets the current one first and returns the new one.

    By priority, then order of registration. Raises SettingsError for a name that is no filter.
    """
    if name in _GONE:
        raise SettingsError(f"The filter {name} is not carried over from the plugin: set REDIS_URL instead.")
    if name not in _KNOWN:
        near = difflib.get_close_matches(name, _KNOWN, n=1)
        raise SettingsError(f"There is no filter {name!r}{f'; did you mean {near[0]}?' if near else ''}")
    functions = _added.setdefault(name, [])
    functions.append((priority, len(functions), function))
    functions.sort(key=lambda entry: entry[:2])


add_action = add_filter  # as in WordPress: an action is a filter whose result nobody reads


def load(modules: Sequence[str]) -> None:
    """Import the modules and entry points that register filters; raises SettingsError naming the one that fails."""
    loaders: dict[str, Callable[[], object]] = {
        f"the entry point {entry.name} = {entry.value}": entry.load
        for entry in entry_points(group="all_sites_cron.filters")
    }
    loaders |= {f"ALL_SITES_CRON_FILTERS={name}": partial(importlib.import_module, name) for name in modules}
    for name, load_one in loaders.items():
        try:
            load_one()
        except Exception as error:
            raise SettingsError(f"{name} cannot be loaded: {error!r}") from error


def legacy() -> list[str]:
    """The legacy names that were used."""
    return sorted(LEGACY & _added.keys())


def warnings() -> list[str]:
    """What an operator should read once: the legacy names that were used."""
    return [
        f"{old} is the legacy name of a filter; use {old.replace('dss_cron_', 'all_sites_cron_')}." for old in legacy()
    ]


def listed() -> list[tuple[str, str]]:
    """(filter, its functions in the order they are called, each with its priority) of every filter that has some."""
    shown = ((name, (f"{_named(f)} ({priority})" for priority, _, f in fs)) for name, fs in sorted(_added.items()))
    return [(name, ", ".join(functions)) for name, functions in shown]


def apply(name: str, value: Any, *context: Any, check: Callable[[Any], object]) -> Any:
    """The value after every function of a filter. `check` raises ValueError for a wrong one, saying what is allowed.

    Raises FilterError naming filter and function, when one raises or gives back such a value.
    """
    for _, _, function in _added.get(name, ()):
        value = _call(name, function, value, *context)
        try:
            check(value)
        except ValueError as error:
            shown = type(value).__name__ if name == REQUEST_ARGS else f"{value!r:.80}"  # it may hold a password
            raise FilterError(f"the filter {name} ({_named(function)}) gave back {shown}: {error}") from None
    return value


def act(name: str, *arguments: Any) -> None:
    """Call every function of an action; raises FilterError as `apply` does."""
    for _, _, function in _added.get(name, ()):
        _call(name, function, *arguments)


def sites_after(sites: Sequence[Site]) -> Sequence[Site]:
    """A page of sites as the filter all_sites_cron_sites leaves it: some dropped, or in another order."""
    known = set(sites)

    def check(value: Any) -> None:
        good = isinstance(value, list | tuple) and all(isinstance(site, Site) and site in known for site in value)
        if not good or len(set(value)) < len(value):
            raise ValueError("must be a list of sites of this page, each once")

    return sites if SITES not in _added else list(apply(SITES, list(sites), check=check))


def request_after(site: Site, url: str) -> tuple[str, list[str]]:
    """(address to call, header lines) of a trigger, after the filter all_sites_cron_request_args.

    Its value is a dict: `headers` (a dict, User-Agent among them), `auth` (None or (user, password)), `host` (None or
    what the Host header says), `path` (of the address, with its leading slash).
    """
    if REQUEST_ARGS not in _added:
        return url, []
    parts = urlsplit(url)
    plain: dict[str, Any] = {"headers": {}, "auth": None, "host": None, "path": parts.path}
    args = apply(REQUEST_ARGS, plain, site, check=_check_request)
    headers = dict(args["headers"])
    if args["auth"]:
        headers["Authorization"] = "Basic " + b64encode(":".join(args["auth"]).encode()).decode()
    if args["host"]:
        headers["Host"] = args["host"]
    return urlunsplit(parts._replace(path=args["path"])), [f"{name}: {value}" for name, value in headers.items()]


def _check_request(value: Any) -> None:
    if not isinstance(value, dict) or set(value) != {"headers", "auth", "host", "path"}:
        raise ValueError("must be a dict of headers, auth, host and path")
    if not isinstance(value["headers"], dict) or not re.fullmatch(r"/[^\s?#\\]*", str(value["path"])):
        raise ValueError("headers must be a dict, path must start with / and be a path alone")
    auth = value["auth"]
    if auth is not None and not (isinstance(auth, tuple | list) and [type(part) for part in auth] == [str, str]):
        raise ValueError("auth must be None or (user, password)")
    texts = [*value["headers"], *value["headers"].values(), value["host"] or "", value["path"]]
    if not all(isinstance(text, str) and text.isascii() and text.isprintable() for text in texts):
        raise ValueError("headers, host and path must be printable ASCII text")


def _call(name: str, function: Function, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        raise FilterError(f"the filter {name} ({_named(function)}) raised {error!r}") from error


def _named(function: Function) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"


def cooldown(settings: Settings) -> int:
    """RATE_LIMIT_SECONDS after its filters; raises FilterError."""
    return settings_after(settings, ["all_sites_cron_rate_limit_seconds"]).rate_limit_seconds


def auth_required(settings: Settings) -> bool:
    """Whether a caller must show a token, after the filter; raises FilterError."""
    return settings_after(settings, ["all_sites_cron_require_auth"]).auth_required


def settings_after(settings: Settings, names: Sequence[str]) -> Settings:
    """The settings as these filters change them, each legacy name first; raises FilterError."""
    for name in names:
        field = SETTINGS[name]
        for called in (f"dss_cron_{field}", name):
            if called in _added:
                now = settings.auth_required if field == "require_auth" else getattr(settings, field)
                value = apply(called, now, check=partial(settings.with_value, field))
                settings = settings.with_value(field, value)
    return settings
