"""How far the verdicts on speed can be trusted on this host: run with `make perf`.

Compares a model with itself many times (every difference found is a false alarm), then with itself
slowed down by five percent (every difference missed is a failure to see). Exit code 0: all bounds
hold; 3: one is missed on a quiet host; 4: one is missed while other work disturbed the host.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from opslib.core.errors import ExitCode
from opslib.core.formatting import format_duration
from opslib.timing.disturbance import Disturbance, watch_disturbance
from opslib.timing.paired import Comparison, compare_arms
from opslib.timing.rounds import Arm

BATCH_SIZES = (1, 8)
SLOWDOWN = 0.05
MAX_FALSE_ALARMS_PCT = 3.0
MAX_INCONCLUSIVE_PCT = 20.0
MIN_FOUND_PCT = 95.0
QUIET_OTHER_CPU_PCT = 10.0
QUIET_RUN_DELAY_PCT = 5.0

console = Console()


@dataclass(frozen=True)
class Phase:
    """Comparisons of one kind and what went on around them."""

    comparisons: tuple[Comparison, ...]
    disturbance: Disturbance

    def share_pct(self, *verdicts: str) -> float:
        """Percent of the comparisons that ended with one of the verdicts."""
        hits = sum(one.verdict in verdicts for one in self.comparisons)
        return 100 * hits / len(self.comparisons)

    @property
    def median_run_delay_pct(self) -> float:
        """Median over the comparisons of the timed threads' run delay."""
        return float(np.median([one.run_delay_pct or 0.0 for one in self.comparisons]))

    @property
    def quiet(self) -> bool:
        """Whether the host had nothing else to do meanwhile."""
        other_cpu_pct = self.disturbance.other_cpu_pct or 0.0
        return (
            other_cpu_pct <= QUIET_OTHER_CPU_PCT
            and self.median_run_delay_pct <= QUIET_RUN_DELAY_PCT
        )


@dataclass(frozen=True)
class Bound:
    """One promise about the verdicts, its figure and whether it holds."""

    promise: str
    figure_pct: float
    holds: bool
    phase: Phase


@contextmanager
def open_session(model: Path, batch_size: int, slowdown: float) -> Iterator[Callable[[], Any]]:
    """A run of the model on the CPU provider, followed by a busy wait of its share of the time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    shape = [batch_size, *entry.shape[1:]]
    feed = {entry.name: np.random.default_rng(0).random(shape, dtype=np.float32)}

    def run() -> None:
        session.run(None, feed)

    def run_slowed() -> None:
        started = time.perf_counter_ns()
        session.run(None, feed)
        ended = time.perf_counter_ns()
        until = ended + slowdown * (ended - started)
        while time.perf_counter_ns() < until:
            pass

    yield run_slowed if slowdown else run


def compare_repeatedly(model: Path, count: int, slowdown: float, title: str) -> Phase:
    """Comparisons of the model with itself, slowed down or not, at each batch size in turn."""
    comparisons = []
    with watch_disturbance() as watch:
        for index in track(range(count), title, console=console, transient=True):
            batch_size = BATCH_SIZES[index % len(BATCH_SIZES)]
            comparisons.append(
                compare_arms(
                    Arm("as it is", partial(open_session, model, batch_size, 0.0)),
                    Arm("again", partial(open_session, model, batch_size, slowdown)),
                    seed=index,
                )
            )
    if watch.disturbance is None:
        raise RuntimeError("the watch ended without a disturbance")
    return Phase(tuple(comparisons), watch.disturbance)


def check_bounds(same: Phase, slow: Phase) -> list[Bound]:
    """The figures that the verdicts stand or fall by."""
    false_alarms_pct = same.share_pct("faster", "slower")
    inconclusive_pct = same.share_pct("inconclusive")
    found_pct = slow.share_pct("slower")
    return [
        Bound(
            f"false alarms, at most {MAX_FALSE_ALARMS_PCT:g} %",
            false_alarms_pct,
            false_alarms_pct <= MAX_FALSE_ALARMS_PCT,
            same,
        ),
        Bound(
            f"inconclusive, at most {MAX_INCONCLUSIVE_PCT:g} %",
            inconclusive_pct,
            inconclusive_pct <= MAX_INCONCLUSIVE_PCT,
            same,
        ),
        Bound(
            f"{SLOWDOWN:.0%} slowdown found, at least {MIN_FOUND_PCT:g} %",
            found_pct,
            found_pct >= MIN_FOUND_PCT,
            slow,
        ),
    ]


def print_report(bounds: list[Bound], wall_s: float) -> None:
    """Show the bounds, what disturbed the host, and the total time."""
    table = Table(title="Verdicts on speed")
    for heading in ("promise", "measured", "holds", "comparisons", "host"):
        table.add_column(heading, justify="right" if heading == "measured" else "left")
    for bound in bounds:
        table.add_row(
            bound.promise,
            f"{bound.figure_pct:.1f} %",
            "yes" if bound.holds else "NO",
            str(len(bound.phase.comparisons)),
            "quiet" if bound.phase.quiet else "disturbed",
        )
    console.print(table)
    for name, phase in (("same", bounds[0].phase), ("slowed", bounds[-1].phase)):
        console.print(describe_phase(name, phase), soft_wrap=True)
    console.print(f"total time {format_duration(wall_s)}")


def describe_phase(name: str, phase: Phase) -> str:
    """One line on a phase: verdicts, precision, cost and disturbance."""
    comparisons = phase.comparisons
    widths_pct = np.quantile([one.half_width_pct for one in comparisons], [0.5, 0.9])
    walls_s = np.quantile([one.wall_s for one in comparisons], [0.5, 1.0])
    run_ms = {
        size: [one.baseline_p50_ms for one in comparisons[index :: len(BATCH_SIZES)]]
        for index, size in enumerate(BATCH_SIZES)
    }
    return (
        f"{name}: {dict(Counter(one.verdict for one in comparisons))}, "
        + ", ".join(f"batch {n} {np.median(times):.2f} ms" for n, times in run_ms.items() if times)
        + f", half-width median {widths_pct[0]:.2f} % (p90 {widths_pct[1]:.2f} %), "
        f"{walls_s[0]:.2f} s each (at most {walls_s[1]:.1f} s), "
        f"{sum(one.attempts > 1 for one in comparisons)} tried twice, "
        f"{sum(one.confirmed_in_fresh_processes is not None for one in comparisons)} taken to "
        f"fresh processes; run delay {phase.median_run_delay_pct:.1f} %, other processes "
        f"{phase.disturbance.other_cpu_pct or 0:.0f} % of a CPU, "
        f"load {phase.disturbance.load_average or 0:.1f}"
    )


def write_stand_in(folder: Path) -> Path:
    """A small convolutional network of random weights, for hosts without the demo model."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights, name, channels = [], [], "images", 3
    for index, width in enumerate((24, 32, 48, 64)):
        kernel = rng.normal(0, 0.1, (width, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"kernel{index}"))
        nodes.append(
            helper.make_node(
                "Conv",
                [name, f"kernel{index}"],
                [f"conv{index}"],
                strides=[2 - (index % 2)] * 2,
                pads=[1, 1, 1, 1],
            )
        )
        nodes.append(helper.make_node("Relu", [f"conv{index}"], [f"relu{index}"]))
        name, channels = f"relu{index}", width
    nodes.append(helper.make_node("GlobalAveragePool", [name], ["scores"]))
    graph = helper.make_graph(
        nodes,
        "stand_in",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 96, 96])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", channels, 1, 1])],
        weights,
    )
    path = folder / "stand_in.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
    return path


def main(
    aa: Annotated[int, typer.Option(help="comparisons of the model with itself")] = 200,
    slow: Annotated[int, typer.Option(help="comparisons with a slowed copy")] = 100,
    model: Annotated[Path | None, typer.Option(help="ONNX model; a stand-in if left out")] = None,
    records: Annotated[Path | None, typer.Option(help="keep all comparisons as JSON lines")] = None,
) -> None:
    """Measure false alarms, inconclusive verdicts and missed slowdowns on this host."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = model if model is not None else write_stand_in(Path(folder))
        same = compare_repeatedly(path, aa, 0.0, "same")
        slowed = compare_repeatedly(path, slow, SLOWDOWN, "slowed")
    if records is not None:
        records.write_text(
            "".join(c.model_dump_json() + "\n" for c in same.comparisons + slowed.comparisons)
        )
    bounds = check_bounds(same, slowed)
    print_report(bounds, time.perf_counter() - started)
    missed = [bound for bound in bounds if not bound.holds]
    if missed:
        quiet = all(bound.phase.quiet for bound in missed)
        raise typer.Exit(ExitCode.GATE_FAILED if quiet else ExitCode.INCONCLUSIVE)


if __name__ == "__main__":
    typer.run(main)
