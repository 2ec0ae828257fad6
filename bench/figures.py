"""Figures: ratios of programs that ran in turns, their medians, and whether they reach what is wanted."""

import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """`name`: P1 and so on. `wanted`: the bound, the most if `most`. `beside`: what else was measured."""

    name: str
    work: str
    ratios: list[float]
    wanted: float
    most: bool = False
    beside: str = ""

    @property
    def reached(self) -> bool:
        """By the median."""
        median = statistics.median(self.ratios)
        return median <= self.wanted if self.most else median >= self.wanted

    def row(self) -> str:
        """A row of the table in bench/README.md."""
        bound = f"{'≤' if self.most else '≥'} {self.wanted:g}"
        verdict = "reached" if self.reached else "**missed**"
        return f"| {self.name} | {self.work} | {bound} | {shown(self.ratios)} | {verdict} | {self.beside} |"


HEAD = "| # | Work | Wanted | Measured: median (least-most) | | Beside it |\n| --- | --- | --- | --- | --- | --- |"


@dataclass
class Turns:
    """What several contestants needed, round by round."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def ratios(self, over: str, under: str) -> list[float]:
        """Of each round one."""
        return [one / other for one, other in zip(self.seconds[over], self.seconds[under], strict=True)]


def in_turns(rounds: int, contestants: Mapping[str, Callable[[], float]]) -> Turns:
    """Each contestant once a round, a different one first each time; each gives what it needed, in seconds."""
    turns = Turns({name: [] for name in contestants})
    names = list(contestants)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            turns.seconds[name].append(contestants[name]())
    return turns


def shown(values: list[float], digits: int = 2) -> str:
    """Median with the spread of the rounds."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def machine() -> str:
    """Where, and with what, it was measured."""
    parts = [platform.platform(), f"{os.cpu_count()} cores", f"Python {platform.python_version()}"]
    for command in (["curl", "--version"], ["nginx", "-v"], ["wrk", "-v"]):
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            parts.append(f"no {command[0]}")
        else:
            parts.append(" ".join((said.stdout + said.stderr).split()[:3]))
    return ", ".join(parts)
