"""How often the report over all hosts is wrong: run with `make perf`.

Made-up desks, of hosts whose runs differ by 2 %, or by more and less from host to host: on those
without a difference whoever is called different is a false alarm; on those with one host 10 %
slower whoever does not see it has missed it. Exit code 0: the bound on false alarms holds; 3: not.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from opslib.core.errors import ExitCode
from opslib.ops.bench.compare import MIN_EFFECT_PCT
from opslib.ops.bench.history import FAMILY_ALPHA
from opslib.timing.like import Figures, adjust, find_unlike, moderate

HOSTS = (2, 3, 6, 20)
RUNS = (3, 5, 10)
NOISE = 0.02
DIFFER = {"alike": 0.0, "by half": 0.5, "by e": 1.0}
SLOWER = math.log(1.1)
MOST_FALSE_PCT = 1.0

console = Console()


def find_different(
    chance: np.random.Generator, hosts: int, runs: int, differ: float, slower: float
) -> set[int]:
    """Return which hosts of a made-up desk are called different; the first is `slower`."""
    noises = NOISE * np.exp(differ * chance.standard_normal(hosts))
    levels = [slower, *[0.0] * (hosts - 1)]
    figures = [
        Figures(tuple(level + chance.normal(0, noise, runs)))
        for level, noise in zip(levels, noises, strict=True)
    ]
    spreads = moderate(figures)
    found = [find_unlike(spreads, at, FAMILY_ALPHA / hosts) for at in range(hosts)]
    least = math.log1p(MIN_EFFECT_PCT / 100)
    return {
        at
        for at, (unlike, p_value) in enumerate(zip(found, adjust(found), strict=True))
        if p_value <= FAMILY_ALPHA and abs(unlike.difference) >= least
    }


def main(
    desks: Annotated[
        int, typer.Option(help="made-up desks of each size without a difference")
    ] = 300,
    slow: Annotated[int, typer.Option(help="and with one slower host")] = 100,
) -> None:
    """Count false alarms and missed hosts over desks of several sizes."""
    chance = np.random.default_rng(0)
    table = Table("noises differ", "hosts", "runs", "false alarms", "10 % slower found", box=None)
    cases = [(name, hosts, runs) for name in DIFFER for hosts in HOSTS for runs in RUNS]
    raised = 0
    for name, hosts, runs in track(cases, console=console, transient=True):
        given = (chance, hosts, runs, DIFFER[name])
        false = sum(bool(find_different(*given, 0.0)) for _ in range(desks))
        seen = sum(0 in find_different(*given, SLOWER) for _ in range(slow))
        raised += false
        table.add_row(
            name, str(hosts), str(runs), f"{false} of {desks}", f"{100 * seen / slow:.0f} %"
        )
    console.print(table)
    share_pct = 100 * raised / (desks * len(cases))
    console.print(f"false alarms: {raised} of {desks * len(cases):,} desks, {share_pct:.2f} %")
    raise typer.Exit(ExitCode.PASS if share_pct <= MOST_FALSE_PCT else ExitCode.GATE_FAILED)


if __name__ == "__main__":
    typer.run(main)
