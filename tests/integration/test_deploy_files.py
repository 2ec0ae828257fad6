"""The files of deploy/ and the alert rules: what the tools they are for say of them, as far as those run here."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # schemathesis brings it

from tests.integration.stack import ROOT
from tests.unavailable import unavailable

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
MOST_EXPOSED = 15  # in tenths, as systemd-analyze counts: 1.5 of 10
QUEUE = "${ALL_SITES_CRON_REDIS_QUEUE_KEY:-${DSS_CRON_REDIS_QUEUE_KEY:-all-sites-cron}}"


def run(*command: str | Path) -> str:
    """What a tool prints; without it the test is left out, or fails in CI."""
    if not shutil.which(str(command[0])):
        unavailable(f"{command[0]} is not installed: run `make test-system`", os.environ.get("CI", ""))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def procfile(**variables: str) -> Mapping[str, str]:
    """The lines of the Procfile with the defaults of their variables, or other values."""
    lines = (ROOT / "Procfile").read_text().replace(QUEUE, "all-sites-cron").splitlines()

    def value(found: re.Match[str]) -> str:
        return variables.get(found[1], found[2])

    return {
        name: re.sub(r"\$\{(\w+):-([^}]*)\}", value, line) for name, line in (part.split(": ", 1) for part in lines)
    }


# systemd


def test_each_line_of_the_procfile_has_its_unit() -> None:
    """The same command; the web process listens for a proxy on the same host."""
    lines = procfile(HOST="127.0.0.1")
    assert {unit.stem.removeprefix("all-sites-cron-") for unit in UNITS} == set(lines) - {"release"}
    for unit in UNITS:
        command = re.findall(r"^ExecStart=/opt/all-sites-cron/.venv/bin/(.+)$", unit.read_text(), re.MULTILINE)
        assert command == [lines[unit.stem.removeprefix("all-sites-cron-")]]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_a_unit_and_finds_it_well_shut_in(unit: Path, tmp_path: Path) -> None:
    """`verify` has nothing to say, and the exposure that `security` finds is low."""
    here = tmp_path / unit.name
    text = unit.read_text().replace("/opt/all-sites-cron/.venv/bin", str(Path(sys.executable).parent))
    here.write_text(text.replace("/opt/all-sites-cron", str(ROOT)))
    assert run("systemd-analyze", "verify", here) == ""
    run("systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", here)


def test_a_worker_alone_is_told_to_stop() -> None:
    """It then drains its walk; a SIGTERM to the whole group would reach the walk twice."""
    text = (ROOT / "deploy" / "systemd" / "all-sites-cron-worker.service").read_text()
    assert "\nKillMode=mixed\n" in text


# The image


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, its arguments), comments left out and continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "deploy" / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word]


def let_in(name: str) -> bool:
    """Whether the .dockerignore has a file or folder of the top level in the build's context; the last rule wins."""
    rules = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    matching = [rule for rule in rules if rule[:1] != "#" and fnmatch(name, rule.removeprefix("!"))]
    return matching[-1].startswith("!") if matching else True


def test_the_image_has_what_runs_and_nothing_else() -> None:
    """Every source of a COPY is there; no secret, list or history gets in."""
    sources = [source for word, rest in dockerfile() if word == "COPY" for source in shlex.split(rest)[:-1]]
    assert sources == ["requirements.txt", "."]
    assert all((ROOT / source).exists() for source in sources)
    needed = {"requirements.txt", "Procfile", "service", "jobs", "wordpress"}
    assert needed <= {path.name for path in ROOT.iterdir() if let_in(path.name)} <= needed | {"console"}
    assert not [name for name in (".git", ".env", ".data", "sites.csv", "tests", "deploy") if let_in(name)]


def test_the_image_runs_the_web_process_as_nobody_special() -> None:
    """A user's number, as Kubernetes' runAsNonRoot wants it; the Procfile's command, reachable from outside."""
    last = dict(dockerfile())
    assert int(last["USER"]) > 0
    assert shlex.join(yaml.safe_load(last["CMD"])) == procfile()["web"]


@pytest.fixture(scope="module")
def services() -> Mapping[str, Any]:
    return dict(yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"])


def test_compose_runs_the_lines_of_the_procfile(services: Mapping[str, Any]) -> None:
    """From one image; files it names are there."""
    assert set(services) == {"web", "worker", "clock", "redis"}
    assert "command" not in services["web"], "the image's own"
    assert services["worker"]["command"][:2] == ["sh", "-c"]
    shell = str(services["worker"]["command"][2]).replace("$$", "$")
    assert shell.removeprefix("exec ").replace(QUEUE, "all-sites-cron") == procfile()["worker"]
    assert shlex.join(services["clock"]["command"]) == procfile()["clock"]
    for name in ("web", "worker", "clock"):
        build = services[name]["build"]
        assert (ROOT / "deploy" / build["context"] / build["dockerfile"]).is_file()


def test_compose_gives_the_processes_little_and_redis_a_disk(services: Mapping[str, Any]) -> None:
    """No privilege, a read-only file system, a port on loopback alone; an append-only file, and no key evicted."""
    for name in ("web", "worker", "clock"):
        service = services[name]
        assert (service["read_only"], service["cap_drop"], service["init"]) == (True, ["ALL"], True)
        assert service["depends_on"]["redis"]["condition"] == "service_healthy"
    assert services["web"]["ports"] == ["127.0.0.1:8000:8000"]
    assert "http://127.0.0.1:8000/readyz" in services["web"]["healthcheck"]["test"][-1]
    assert "noeviction" in services["redis"]["command"]
    assert services["redis"]["volumes"] == ["redis:/data"]


# Alerts


def test_promtool_takes_the_alert_rules() -> None:
    assert "4 rules found" in run("promtool", "check", "rules", "docs/alerts.yml")


def test_each_alert_fires_on_what_it_is_for_and_on_nothing_else() -> None:
    """With figures of several web processes; alerts_test.yml has the cases."""
    assert "SUCCESS" in run("promtool", "test", "rules", "tests/integration/alerts_test.yml")


def test_the_readme_has_the_alert_rules() -> None:
    """As they are in docs/alerts.yml."""
    rules = yaml.safe_load((ROOT / "docs" / "alerts.yml").read_text())["groups"][0]["rules"]
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert [rule["alert"] for rule in rules if f"`{rule['alert']}`" not in readme] == []
    assert [rule["expr"] for rule in rules if " ".join(rule["expr"].split()) not in readme] == []
