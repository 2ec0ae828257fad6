"""The house rules that a machine can check: who may import whom, who owns what, and the budgets."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import keys

ROOT = Path(__file__).parents[2]
PRODUCT = sorted(path for folder in ("jobs", "service") for path in (ROOT / folder).rglob("*.py"))
FILES = PRODUCT + sorted((ROOT / "console").rglob("*.py"))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    """The modules a file imports, by their full names, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def at_import_time(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: all but the bodies of functions, and the block under `__main__`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "__main__" in ast.unparse(child.test):
            continue
        yield child
        yield from at_import_time(child)


def importers(name: str) -> set[str]:
    """The files that import a module or a part of it."""
    return {
        named(path)
        for path in FILES
        if any(module == name or module.startswith(f"{name}.") for module in imports(path))
    }


def test_jobs_knows_nothing_of_service() -> None:
    """Data flows one way: service asks jobs, never back."""
    assert not [name for name in importers("service") if name.startswith("jobs/")]
    assert not [name for name in importers("starlette") | importers("uvicorn") if name.startswith("jobs/")]


def test_nothing_needs_the_console() -> None:
    """It is an extra, which the web process looks for in one place."""
    assert {name for name in importers("console") if not name.startswith("console/")} == {"service/app.py"}
    assert importers("jinja2") == {"console/page.py"}


def test_one_module_owns_each_outside_thing() -> None:
    """RQ, libcurl, the database, pydantic, guarded requests, versions, Prometheus\' text."""
    assert importers("rq") == {"jobs/rq_jobs.py", "jobs/rq_names.py", "jobs/schedule.py", "console/rq_dashboard.py"}
    assert importers("flask") == importers("rq_dashboard") == {"console/rq_dashboard.py"}
    assert importers("pycurl") == {"jobs/engine.py"}
    assert importers("prometheus_client") == {"service/metrics.py"}
    assert importers("sse_starlette") == {"service/events.py"}
    assert importers("pymysql") == {"jobs/mysql.py"}
    assert importers("pydantic") == {"jobs/settings.py"}
    assert importers("packaging") == {"jobs/updates.py"}
    users = {named(path) for path in FILES if "HTTPTransport" in path.read_text()}
    assert users == {"jobs/outbound.py"}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_nothing_happens_at_import(path: Path) -> None:
    """The environment is not read, no thread started, no connection made; a module only defines."""
    forbidden = re.compile(r"\b(environ|getenv|Thread|Popen|connect|from_url|Redis|Client|socket)\(|\benviron\b")
    for node in at_import_time(ast.parse(path.read_text())):
        if isinstance(node, ast.Call | ast.Attribute | ast.Subscript):
            assert not forbidden.search(ast.unparse(node)), f"line {node.lineno}: {ast.unparse(node)}"


def test_the_environment_is_read_where_the_world_is_built() -> None:
    """Parts get settings; only the entry points hand os.environ over."""
    readers = {named(path) for path in FILES if re.search(r"\bos\.(environ|getenv)\b", path.read_text())}
    assert {name for name in readers if name.startswith("jobs/")} <= {"jobs/rq_jobs.py"}
    assert not {name for name in readers if name.startswith("service/")} & {
        f"service/{part}.py" for part in ("answers", "auth", "ga", "parameters", "paths", "rest", "routes", "web")
    }


def test_key_names_are_written_in_one_module() -> None:
    """Elsewhere they come from jobs.keys, in Lua from the table written before each script."""
    lua = list((ROOT / "jobs" / "lua").glob("*.lua"))
    assert lua
    assert {named(path) for path in [*FILES, *lua] if keys.ROOT in path.read_text()} == {"jobs/keys.py"}


def test_no_house_has_a_junk_room() -> None:
    """A function without a home lives beside its only caller."""
    assert not [named(path) for path in FILES if path.stem in ("utils", "helpers", "common", "base", "manager")]


def lines_of_code(path: Path) -> int:
    """Lines that are neither blank nor a comment nor part of a docstring."""
    text = path.read_text()
    documented = set[int]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    lines = (line.strip() for n, line in enumerate(text.splitlines(), 1) if n not in documented)
    return sum(bool(line) and not line.startswith("#") for line in lines)


def test_the_service_stays_light() -> None:
    """Under 5,000 lines of code; docs/decisions.md says how they are counted."""
    assert sum(map(lines_of_code, PRODUCT)) < 5000


def test_there_are_at_most_fifteen_direct_dependencies() -> None:
    """Each has to earn its place."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(project["dependencies"]) <= 15


@pytest.mark.parametrize("path", sorted(ROOT.glob("requirements*.txt")), ids=named)
def test_requirements_are_pinned_with_hashes_and_name_no_index(path: Path) -> None:
    """Whoever installs decides from where; what is installed is decided here."""
    lines = [line.partition(" #")[0].strip(" \\") for line in path.read_text().splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    assert lines
    assert not [line for line in lines if re.search(r"://|index|find-links|trusted-host|^git\+| @ ", line)]
    pinned = [line for line in lines if not line.startswith("--hash=sha256:")]
    assert all(re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+", line) for line in pinned)
    assert len(lines) - len(pinned) >= len(pinned)
