"""The processes that `up` runs: each under a tether, with its own log file, stopped in order."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import STDOUT, Popen

from rich.console import Console
from rich.text import Text

from jobs.errors import AllSitesCronError
from jobs.plain_text import plain
from service import tether
from service.embedded import EmbeddedValkey

_COLOURS = ("cyan", "magenta", "yellow")
_LONGEST_LINE = 2000


class ProcessEnded(AllSitesCronError):
    """A process that should stay has ended, or does not get ready; the text has its last lines."""


@dataclass
class Process:
    """`grace`: seconds it has for ending. `shown`: how much of its log, in bytes, has been on the screen."""

    name: str
    log: Path
    grace: float
    popen: Popen[bytes]
    shown: int = 0

    def last_lines(self, count: int = 15) -> list[str]:
        return [
            plain(line, _LONGEST_LINE) for line in self.log.read_bytes().decode(errors="replace").splitlines()[-count:]
        ]

    def new_lines(self) -> list[str]:
        """Whole lines since the last call."""
        with self.log.open("rb") as log:
            log.seek(self.shown)
            whole = log.read().rpartition(b"\n")[0]
        self.shown += len(whole) + 1 if whole else 0
        return [plain(line, _LONGEST_LINE) for line in whole.decode(errors="replace").splitlines()]


@dataclass
class Processes:
    """The embedded server and the processes that need it.

    Their output goes to `{logs}/NAME.log`, and what of it matters, after `show_output()`, to the screen.
    """

    logs: Path
    console: Console
    valkey: EmbeddedValkey | None = None
    running: list[Process] = field(default_factory=list)
    _shows_output: bool = False

    def start(self, name: str, command: Sequence[str], environ: Mapping[str, str], grace: float) -> Process:
        self.logs.mkdir(parents=True, exist_ok=True)
        path = self.logs / f"{name}.log"
        with path.open("wb") as log:
            popen = tether.spawn(command, grace, stdout=log, stderr=STDOUT, env=environ)
        self.running.append(Process(name, path, grace, popen))
        return self.running[-1]

    def check(self) -> None:
        """Show new output if it is wanted; raises ProcessEnded when one has ended."""
        for number, process in enumerate(self.running):
            ended = process.popen.poll()
            for line in process.new_lines() if self._shows_output else ():
                if text := _worth_showing(line):
                    name = Text(f"{process.name:<6} │ ", style=_COLOURS[number % len(_COLOURS)])
                    self.console.print(name + text, soft_wrap=True)
            if ended is not None:
                raise ProcessEnded(_with_last_lines(f"{process.name} has ended with exit code {ended}.", process))
        if self.valkey is not None and (code := self.valkey.poll()) is not None:
            log = self.valkey.data_dir / "valkey.log"
            raise ProcessEnded(f"The Valkey server has ended with exit code {code}; see {log}")

    def wait(self, condition: Callable[[], bool], seconds: float, needed: Process) -> None:
        """Wait until the condition holds while all are running; raises ProcessEnded with the last lines of `needed`."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessEnded(_with_last_lines(f"{needed.name} is not ready after {seconds:.0f} s.", needed))
            time.sleep(0.05)

    def pause(self, seconds: float) -> None:
        """Sleep, while all are running."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(0.2, left))

    def show_output(self) -> None:
        """From now on print what they write and a person wants to see."""
        self._shows_output = True
        for process in self.running:
            process.shown = process.log.stat().st_size

    def stop(self) -> None:
        """End web and worker side by side, then what they call, then the server; as long as the graces at most."""
        for stage in (("web", "worker"), ("demo",)):
            members = [process for process in self.running if process.name in stage]
            for process in members:
                process.popen.terminate()
            for process in members:
                process.popen.wait(process.grace + 5)
                if process.popen.stdin is not None:
                    process.popen.stdin.close()
        if self.valkey is not None:
            self.valkey.stop()


def _worth_showing(line: str) -> Text | None:
    """A line for the screen: of a JSON log line the event and its facts; what libraries do as a rule is left out."""
    try:
        facts = json.loads(line)
    except ValueError:
        return Text(line)
    if not isinstance(facts, dict) or "event" not in facts:
        return Text(line)
    event, level, logger = facts.pop("event"), facts.pop("level", ""), facts.pop("logger", "")
    facts.pop("timestamp", None)
    if level in ("debug", "info") and not logger.startswith("all_sites_cron"):
        return None
    style = {"warning": "yellow", "error": "red", "critical": "red"}.get(level, "")
    return Text(" ".join([str(event), *(f"{name}={value}" for name, value in facts.items())]), style=style)


def _with_last_lines(text: str, process: Process) -> str:
    return "\n".join([text, f"The last lines of {process.log}:", *(f"  {line}" for line in process.last_lines())])
