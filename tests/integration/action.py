"""action.yml as a runner has it: its inputs, and its step run by bash with the files a runner gives."""

import os
import re
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tests.integration.stack import ROOT

TEXT = (ROOT / "action.yml").read_text()


def default_inputs() -> dict[str, str]:
    """Input → its default; "" for one without."""
    block = TEXT.partition("\ninputs:\n")[2].partition("\noutputs:\n")[0]
    parts = re.split(r"^  ([a-z-]+):\n", block, flags=re.MULTILINE)[1:]
    found = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        default = re.search(r'^    default: "(.*)"$', body, re.MULTILINE)
        found[name] = default[1] if default else ""
    return found


def variables() -> dict[str, str]:
    """Variable of the step's environment → the input it is given."""
    return dict(re.findall(r"^        (INPUT_[A-Z_]+): \$\{\{ inputs\.([a-z-]+) \}\}$", TEXT, re.MULTILINE))


def script() -> str:
    """The step's `run: |`."""
    return textwrap.dedent(TEXT.partition("      run: |\n")[2])


@dataclass(frozen=True)
class Step:
    """`code`: exit code. `lines`: what it printed, masks left out. `outputs`: by name. `summary`: its Markdown."""

    code: int
    lines: list[str]
    masks: list[str]
    outputs: dict[str, str]
    summary: str
    stderr: str

    @property
    def annotation(self) -> str:
        """The one line it printed."""
        (line,) = self.lines
        return line


def act(folder: Path, **inputs: str) -> Step:
    """Run the step with these inputs (`fail_on_partial` is `fail-on-partial`) in a workspace that is hostile, too."""
    given = default_inputs() | {name.replace("_", "-"): value for name, value in inputs.items()}
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    (workspace / "json.py").write_text("raise SystemExit('the workspace was imported')")
    files = {name: folder / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for file in files.values():
        file.write_text("")
    shell = folder / "step.sh"
    shell.write_text(script())
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(shell)],
        cwd=workspace,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(workspace),
            **{variable: given[name] for variable, name in variables().items()},
            **{name: str(file) for name, file in files.items()},
        },
        capture_output=True,
        timeout=60,
        check=False,
    )
    lines = done.stdout.decode().splitlines()
    mask = "::add-mask::"
    return Step(
        done.returncode,
        [line for line in lines if not line.startswith(mask)],
        [line.removeprefix(mask) for line in lines if line.startswith(mask)],
        dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines()),
        files["GITHUB_STEP_SUMMARY"].read_text(),
        done.stderr.decode(),
    )
