"""The settings: read once from the environment, checked, then frozen (CONTRACT section 6).

`ALL_SITES_CRON_<NAME>` wins over the plugin's `DSS_CRON_<NAME>`; a secret may also come from the
file that `<NAME>_FILE` names. An empty variable counts as unset.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from redis import BlockingConnectionPool, RedisError

from jobs.addresses import parse_networks
from jobs.errors import SettingsError
from jobs.schedule import as_schedule, as_timezone

PREFIX = "ALL_SITES_CRON_"
LEGACY_PREFIX = "DSS_CRON_"
_LEGACY_NAMES = {"max_retries": "REDIS_MAX_RETRIES"}
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_SECRET_PARTS = re.compile(r"(?<=://).*(?=@)|(?<=\?).+", re.DOTALL)  # of a URL
_MOST = 10**9  # seconds are 31 years; Redis takes them as milliseconds, too
BOOLEAN_WORDS = "1, true, yes, on or 0, false, no, off"


def boolean(text: str) -> bool:
    """One of BOOLEAN_WORDS in any case; raises ValueError for anything else."""
    if (value := _WORDS.get(text.lower())) is None:
        raise ValueError(f"must be {BOOLEAN_WORDS}")
    return value


class Token(NamedTuple):
    """One credential: `scope` is `run` (which includes reading) or `read`."""

    name: str
    scope: Literal["run", "read"]
    secret: SecretStr


def _tokens(text: str) -> list[list[str]]:
    tokens = [entry.split(":", 2) for entry in _names(text)]
    if any(len(token) < 3 or not all(token) or token[1] not in ("run", "read") for token in tokens):
        raise ValueError("must be name:scope:token,… with scope run or read")
    return tokens


def _boolean_or_path(text: str) -> bool | str:
    if text.lower() in _WORDS:
        return boolean(text)
    with suppress(OSError):  # the certificates themselves are too long for a name
        if Path(text).exists():
            return text
    raise ValueError(f"must be {BOOLEAN_WORDS}, or the path of a CA bundle that exists")


def _redis_url(text: str) -> str:
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must start with redis://, rediss:// or unix://")
    try:
        BlockingConnectionPool.from_url(text).make_connection()  # type: ignore[no-untyped-call]  # it connects when it is used
    except (RedisError, TypeError, ValueError):  # its text may quote the password
        wrong = "must be a URL with no parameters but redis-py's; in a password / is written %2F, # %23 and % %25"
        raise ValueError(wrong) from None
    return text


def _release_feed(text: str) -> str:
    if not re.match(r"https://[^/@]+(/|$)|http://(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?(/|$)", text):
        raise ValueError("must be https://…, without user name or password; on this machine also http://")
    return text


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


Boolean = Annotated[bool, BeforeValidator(boolean)]
BooleanOrPath = Annotated[bool | str, BeforeValidator(_boolean_or_path)]
BooleanOrAuto = Annotated[bool | None, BeforeValidator(lambda text: None if text.lower() == "auto" else boolean(text))]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(parse_networks)]


class Settings(BaseModel):
    """Every setting that works, with its default. Durations are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    redis_url: Annotated[SecretStr, BeforeValidator(_redis_url)]
    sites: str | None = None
    feed_token: SecretStr | None = None
    rate_limit_seconds: int = Field(60, ge=-_MOST, le=604800)
    number_of_sites: int = Field(0, ge=0, le=_MOST)
    batch_size: int = Field(50, ge=1, le=1000)
    # Under a second (the plugin's 0.01) no answer would be waited for.
    request_timeout: Annotated[float, AfterValidator(partial(max, 1.0))] = Field(10.0, le=300, allow_inf_nan=False)
    concurrency: int = Field(50, ge=1, le=1000)
    origin_concurrency: int = Field(8, ge=1, le=1000)
    max_retries: int = Field(3, ge=0, le=10)
    use_redis_queue: Boolean = True
    redis_queue_key: str = Field("all-sites-cron", pattern=r"^[A-Za-z0-9_.:-]{1,100}$")
    redis_tls_verify: BooleanOrPath = True
    redis_max_connections: int = Field(10, ge=2, le=1000)
    lock_timeout: float = Field(15.0, ge=2, le=300)
    sync_deadline: float | None = Field(None, gt=0, le=_MOST)
    auth_token: SecretStr | None = None
    auth_tokens: Annotated[tuple[Token, ...], BeforeValidator(_tokens)] = ()
    require_auth: BooleanOrAuto = None
    trusted_proxies: Networks = ()
    ssl_verify: BooleanOrPath = True
    allowed_networks: Networks = ()
    due_only: BooleanOrAuto = None
    verify: BooleanOrAuto = None
    verify_grace: int = Field(65, ge=1, le=3600)
    schedule: Annotated[str | None, AfterValidator(as_schedule)] = None
    timezone: Annotated[str, AfterValidator(as_timezone)] = "UTC"
    overdue_after: int = Field(21600, ge=60, le=_MOST)
    update_feed: Annotated[str | None, BeforeValidator(_release_feed)] = None
    run_retention: int = Field(604800, ge=3600, le=_MOST)
    dashboard_write: Boolean = False
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    filters: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()

    def with_value(self, name: str, value: object) -> "Settings":
        """A copy with another value for one setting; raises ValueError saying what is allowed."""
        if not isinstance(value, str | int | float):
            raise ValueError(f"must be one value, not {type(value).__name__}")  # noqa: TRY004 - as for a setting
        try:
            checked = Settings.model_validate({"redis_url": "redis://", name: str(value)})
        except ValidationError as error:
            raise ValueError(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from None
        return self.model_copy(update={name: getattr(checked, name)})

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Every token, AUTH_TOKEN first under the name `default`."""
        return (*([Token("default", "run", self.auth_token)] if self.auth_token else []), *self.auth_tokens)

    @property
    def auth_required(self) -> bool:
        """Whether a caller must show a token (REQUIRE_AUTH `auto` means yes)."""
        return self.require_auth is not False


SECRETS = frozenset({"redis_url", "feed_token", "auth_token", "auth_tokens"})
_FROM_FILE = SECRETS | {"sites"}  # which may hold a password


@dataclass(frozen=True)
class Loaded:
    """Settings with how they came about.

    `origins`: setting → the variable it came from; one that is missing has its default.
    `warnings`: what an operator should read once: unknown and legacy names, raised values.
    `legacy`: the legacy names that a value came from.
    """

    settings: Settings
    origins: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    legacy: tuple[str, ...] = ()


def load(environ: Mapping[str, str]) -> Loaded:
    """Read and check the settings; raises SettingsError naming variable, value and what is allowed."""
    warnings: list[str] = []
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name in Settings.model_fields:
        if found := _find(name, environ, warnings):
            origins[name], values[name] = found
    if "redis_url" not in values:
        choices = "give redis://, rediss:// or unix://, or use `all-sites-cron up`, which brings its own server"
        raise SettingsError(f"REDIS_URL is not set. Redis keeps lock and queue: {choices}.")
    warnings += _unknown(environ)
    if values.get("sync_deadline", "auto").lower() == "auto":
        values["sync_deadline"] = 25 if "DYNO" in environ else None
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(problem, values, origins) for problem in error.errors())) from None
    if settings.request_timeout > float(values.get("request_timeout", settings.request_timeout)):
        warnings.append(f"REQUEST_TIMEOUT={values['request_timeout']} is raised to 1 second.")
    legacy = (origin for name, origin in origins.items() if origin.removesuffix("_FILE") != _variable(name))
    return Loaded(settings, origins, tuple(warnings), tuple(legacy))


def _variable(name: str) -> str:
    return "REDIS_URL" if name == "redis_url" else PREFIX + name.upper()


def _find(name: str, environ: Mapping[str, str], warnings: list[str]) -> tuple[str, str] | None:
    """Where a setting comes from and its text; the first of new name, its file, legacy name, its file."""
    new = _variable(name)
    legacy = LEGACY_PREFIX + _LEGACY_NAMES.get(name, name.upper())
    for variable in (new, PREFIX + _LEGACY_NAMES[name] if name in _LEGACY_NAMES else new, legacy):
        if text := environ.get(variable):
            origin = variable
        elif name in _FROM_FILE and (path := environ.get(f"{variable}_FILE")):
            origin, text = f"{variable}_FILE", _read_secret(f"{variable}_FILE", path)
        else:
            continue
        if variable != new:
            warnings.append(f"{origin} is the legacy name; use {new}.")
        elif environ.get(legacy):
            warnings.append(f"{legacy} is the legacy name and is ignored, because {new} is set.")
        return origin, text
    return None


def text_of(name: str, environ: Mapping[str, str]) -> str | None:
    """The text of one setting, where no other is needed; raises SettingsError."""
    return (_find(name, environ, []) or (name, None))[1]


def _read_secret(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{variable}={path}: the file cannot be read ({error}).") from None


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    right = {name: _variable(name) for name in Settings.model_fields}
    right |= {f"{name}_file": f"{right[name]}_FILE" for name in _FROM_FILE}
    known = {*right.values(), *(PREFIX + legacy for legacy in _LEGACY_NAMES.values())}
    for variable in sorted(name for name in environ if name.startswith(PREFIX) and name not in known):
        near = difflib.get_close_matches(variable.removeprefix(PREFIX).lower(), right, n=1, cutoff=0.6)
        hint = f"; did you mean {right[near[0]]}?" if near else " and is ignored."
        yield f"{variable} is not a setting{hint}"


def _explain(problem: Any, values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    name = str(problem["loc"][0])
    shown = "…" if name in SECRETS else repr(values.get(name))
    allowed = str(problem["msg"]).removeprefix("Value error, ")
    return f"{origins.get(name, _variable(name))}={shown}: {allowed}"


def shown(loaded: Loaded) -> Iterator[tuple[str, str, str]]:
    """(variable, value with secrets masked, origin) of every setting, for `config`."""
    for name in Settings.model_fields:
        value = getattr(loaded.settings, name)
        text = "****" if name in SECRETS and value else _as_text(value)
        yield _variable(name), text, loaded.origins.get(name, "default")


def _as_text(value: object) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else _SECRET_PARTS.sub("****", str(value))
