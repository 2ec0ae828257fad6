"""`update --apply` in an environment of its own, where this version is installed as a wheel (CONTRACT section 7)."""

import base64
import hashlib
import io
import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

from jobs import __version__
from tests.integration.stack import ROOT
from tests.unit.web_server import Handler, Serve, Server, serve

__all__ = ["serve"]

NAME = "all_sites_cron-99.0.0-py3-none-any.whl"
Done = subprocess.CompletedProcess[str]


def wheel(needs: str = "rq") -> bytes:
    """A release that can only say its version."""
    info = "all_sites_cron-99.0.0.dist-info"
    files = {
        "jobs/__init__.py": '__version__ = "99.0.0"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: all-sites-cron\nVersion: 99.0.0\nRequires-Dist: {needs}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{info}/RECORD,,"]
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(text)}")
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": "\n".join(lines) + "\n"}.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # always the same bytes
    return made.getvalue()


class Deployment:
    """A virtual environment with this version's wheel; what that needs comes from the tests' own environment."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.python = folder, folder / "venv" / "bin" / "python"
        self._run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
        (site_packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
        (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self._run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
        (self.wheel,) = folder.glob("*.whl")

    def install(self) -> None:
        pip = (self.python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--force-reinstall")
        self._run(*pip, self.wheel)

    def version(self) -> str:
        """What is installed; empty before anything is."""
        return self._run(self.python, "-c", "import jobs; print(jobs.__version__)", check=False).stdout.strip()

    def apply(self, feed: str, **environ: str) -> Done:
        settings = {"ALL_SITES_CRON_UPDATE_FEED": feed, "ALL_SITES_CRON_ALLOWED_NETWORKS": "127.0.0.0/8", **environ}
        return self._run(self.python, "-m", "service", "update", "--apply", check=False, env=settings)

    def _run(self, *command: str | Path, check: bool = True, **more: Any) -> Done:
        options: dict[str, Any] = {"cwd": self.folder, "env": {}, "capture_output": True, "text": True, **more}
        return subprocess.run(command, check=check, **options)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return Deployment(tmp_path_factory.mktemp("deployed"))


@pytest.fixture
def deployed(environment: Deployment) -> Deployment:
    if environment.version() != __version__:
        environment.install()
    return environment


def feed(serve: Serve, body: bytes, digest: str | None, asset: str = NAME) -> Server:
    """The feed of a release 99.0.0 whose wheel is `body`."""

    def answer(handler: Handler) -> None:
        if handler.path.endswith(".whl"):
            handler.reply(body, "application/octet-stream")
            return
        url = f"http://{handler.headers['Host']}/download/{asset}"
        assets = [{"name": asset, "browser_download_url": url, "digest": digest, "size": len(body)}]
        found = {"tag_name": "v99.0.0", "html_url": "https://github.example/r", "draft": False, "prerelease": False}
        handler.reply(json.dumps([{**found, "assets": assets}]))

    server: Server = serve(answer)
    return server


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def test_apply_installs_the_wheel(serve: Serve, deployed: Deployment) -> None:
    """And says what to restart."""
    done = deployed.apply(feed(serve, wheel(), digest_of(wheel())).url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Update: 99.0.0, https://github.example/r",
        "99.0.0 is installed; restart the web and worker processes.",
    ]
    assert deployed.version() == "99.0.0"


@pytest.mark.parametrize(
    ("digest", "asset"),
    [
        (digest_of(wheel() + b"x"), NAME),
        (None, NAME),
        ("sha256:", NAME),
        (f"sha512:{hashlib.sha512(wheel()).hexdigest()}", NAME),
        (digest_of(wheel()), "all_sites_cron-99.0.0.tar.gz"),
    ],
    ids=["tampered", "no digest", "empty digest", "another digest", "no wheel"],
)
def test_a_wheel_that_cannot_be_trusted_is_refused(
    serve: Serve, deployed: Deployment, digest: str | None, asset: str
) -> None:
    done = deployed.apply(feed(serve, wheel(), digest, asset).url)
    assert done.returncode == 69
    assert done.stderr == f"update feed: gives no {NAME} with its right digest; nothing was installed\n"
    assert deployed.version() == __version__


def test_a_release_that_needs_what_is_not_installed_is_refused(serve: Serve, deployed: Deployment) -> None:
    """By pip, which has no index to get it from; this version stays."""
    body = wheel(needs="a-package-that-is-not-installed")
    done = deployed.apply(feed(serve, body, digest_of(body)).url)
    assert done.returncode == 69
    assert "a-package-that-is-not-installed" in done.stderr
    assert done.stderr.endswith(f"pip could not install {NAME} (exit code 1)\n")
    assert deployed.version() == __version__


def test_what_runs_from_a_checkout_is_not_updated(serve: Serve, deployed: Deployment) -> None:
    """The wheel would lie beside it, unused."""
    done = deployed.apply(feed(serve, wheel(), digest_of(wheel())).url, PYTHONPATH=str(ROOT))
    assert done.returncode == 2
    assert done.stderr == f"This runs from {ROOT}, where no wheel is installed: update that.\n"


def test_an_environment_without_pip_is_told_so(serve: Serve, deployed: Deployment, tmp_path: Path) -> None:
    """With the address of the wheel."""
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if package.stem != "pip" and not package.name.startswith(("pip-", "__editable__")):
            (tmp_path / package.name).symlink_to(package)
    (site_packages,) = (deployed.folder / "venv" / "lib").glob("python*/site-packages")
    path = site_packages / "dependencies.pth"
    before = path.read_text()
    path.write_text(f"{tmp_path}\n")
    server = feed(serve, wheel(), digest_of(wheel()))
    try:
        done = deployed.apply(server.url)
    finally:
        path.write_text(before)
    assert done.returncode == 2
    assert done.stderr.endswith(f"has no pip: install {server.url}/download/{NAME} as this was installed.\n")
    assert deployed.version() == __version__
