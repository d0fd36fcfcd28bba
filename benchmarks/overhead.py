"""Does our harness report what a bare `session.run` loop takes? Side by side, in one run.

Three arms in interleaved rounds: a bare loop around ONNX Runtime's own session, the same once
more (the A/A noise floor), and our engine timed by our harness. Each repeat has fresh sessions.

    python benchmarks/overhead.py [--model PATH] [--repeats 9]

Exit code 3 when our median lies further from the bare loop than max(2 %, the A/A half-width).
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from opslib.core.config import load_config
from opslib.inference.engine import EngineRequest
from opslib.inference.find_model import find_onnx
from opslib.inference.onnx_engine import OnnxEngine, make_session_options
from opslib.inference.providers import SessionSettings, select_onnx_providers
from opslib.timing.paired import Limits, judge
from opslib.timing.rounds import Deadline, RoundPlan, Visit, VisitTimes, run_rounds, visit_arm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.inference.fake_session import FakeSession

SETTINGS = SessionSettings(force_spinning_stop=True)
PLAN = RoundPlan(rounds=40, runs_per_round=10)
BOUND_PCT = 2.0


def bare_visit(session: object, feed: dict[str, np.ndarray], runs: int) -> VisitTimes:
    """Time a plain loop, written as a person would."""
    times_ms = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        session.run(None, feed)  # type: ignore[attr-defined]
        times_ms.append((time.perf_counter() - started) * 1000)
    return VisitTimes(tuple(times_ms[1:]), sum(times_ms) / 1000, None)


def measure(model: Path, batch_size: int, seed: int) -> tuple[float, float]:
    """Return how much longer our median is (percent) and the A/A half-width (percent)."""
    import onnxruntime

    choice = select_onnx_providers(("CPU",))
    options = make_session_options(SETTINGS, choice)
    bare = [
        onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"]) for _ in "AA"
    ]
    with OnnxEngine(EngineRequest("onnx", model, batch_size=batch_size, settings=SETTINGS)) as ours:
        shape = [batch_size, *(axis or 96 for axis in ours.facts.input_shape[1:])]
        batch = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        feed = {bare[0].get_inputs()[0].name: batch}
        visits: list[Visit] = [partial(bare_visit, session, feed) for session in bare]
        visits.append(partial(visit_arm, partial(ours.run, batch)))
        for visit in visits:
            visit(5)
        rounds = run_rounds(visits, PLAN, np.random.default_rng(seed), Deadline(None))
    floor = judge(rounds.log_ratios(0, 1), None, Limits())
    effect = judge(rounds.log_ratios(2, 0), None, Limits()).effect
    return 100 * math.expm1(effect), 100 * math.expm1(floor.interval.half_width)


def overhead_us(repeats: int = 20_000) -> tuple[float, float]:
    """Return what our clock and our engine's `run` add to a call, in microseconds."""
    engine = OnnxEngine(EngineRequest("onnx", Path("none")), FakeSession(["CPUExecutionProvider"]))
    batch = np.zeros((1, 3, 8, 8), dtype=np.float32)
    session = FakeSession(["CPUExecutionProvider"])
    feed = {"input": batch}
    clock = visit_arm(lambda: None, repeats).times_ms
    through = visit_arm(lambda: engine.run(batch), repeats).times_ms
    direct = visit_arm(lambda: session.run(["logits"], feed), repeats).times_ms
    added = statistics.median(through) - statistics.median(direct)
    return 1000 * statistics.median(clock), 1000 * added


def main() -> int:
    """Measure both batch sizes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    model = find_onnx(load_config(), arguments.model).resolve()
    table = Table(title=f"our p50 against a bare session.run loop, {model.name}")
    for name in ("batch", "ours longer by, median", "A/A half-width", "bound", "within"):
        table.add_column(name, justify="right")
    held = True
    for batch_size in (1, 8):
        runs = [measure(model, batch_size, seed) for seed in range(arguments.repeats)]
        longer = statistics.median(run[0] for run in runs)
        floor = statistics.median(run[1] for run in runs)
        bound = max(BOUND_PCT, floor)
        held &= abs(longer) <= bound
        cells = (f"{longer:+.2f} %", f"±{floor:.2f} %", f"{bound:.2f} %")
        table.add_row(str(batch_size), *cells, "yes" if abs(longer) <= bound else "no")
    console = Console()
    console.print(table)
    clock_us, added_us = overhead_us()
    console.print(f"harness per call: clock {clock_us:.2f} µs, engine seam {added_us:.2f} µs")
    return 0 if held else 3


if __name__ == "__main__":
    sys.exit(main())
