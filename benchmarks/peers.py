"""What the reference service costs beside what a team would write or take instead.

One JPEG in a multipart form, posted over eight connections by h2load to each of: ours as shipped
(key, rate limit, checks of the upload, access log), an application written by hand, the same with a
process a core, LitServe, BentoML. All run the same model with the same preprocessing, one intra-op
thread a request; what was chosen for each peer, the fastest of what was tried, says its file in
`peer_apps/`. The services are started once, stand idle between visits, and are visited in turn, in
another order each round; a ratio is of two visits of one round. CPU time is that of a service's
whole process tree, beside a bare loop of preprocessing and `session.run` on one thread.

The peers live in an environment of their own below the one that runs this, made from
`requirements-peers.txt` and kept until that file changes. Where it cannot be made, none is tried:
FastAPI reads forms by a package that ours does without.

    python benchmarks/peers.py [--budget-s 90] [--connections 8] [--only BentoML]

Exit code 3 when a bound is missed or could not be tried, 1 when a request fails. Needs Debian's
h2load: apt-get install nghttp2-client.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from figures import WIDTH
from peer_environment import find_python
from peer_services import Arm, Visit, await_answer, check_agreement, start_peer, watch_others
from rich.console import Console
from rich.table import Table
from serving import copy_experiment

from opslib.core.config import Config, load_config
from opslib.core.errors import ParameterError, UnavailableError
from opslib.core.host import usable_cpus
from opslib.inference.engine import Engine, EngineRequest, session_settings
from opslib.inference.find_model import find_card, find_onnx
from opslib.inference.images import pick_images
from opslib.inference.opening import open_engine
from opslib.inference.preprocess import preprocess
from opslib.serving.load import LoadPlan
from opslib.serving.load_sending import make_bodies
from opslib.serving.staging import start_service
from opslib.telling.doors import run_door
from opslib.timing.stats import Interval, trimmed_interval, trimmed_mean

HERE = Path(__file__).resolve().parent
LOCK, APPS = HERE / "requirements-peers.txt", HERE / "peer_apps"
OURS, BARE, BY_HAND = "ours", "bare", "hand-written"
UVICORN = "uvicorn hand_written:app --no-access-log --log-level warning --port {port}"
COMMANDS = {
    BY_HAND: UVICORN,
    "hand-written-workers": f"{UVICORN} --workers {usable_cpus()}",
    "LitServe": "with_litserve {port}",
    "BentoML": "bentoml serve with_bentoml:Classifier --host 127.0.0.1 --port {port}",
}
BOUNDS = {BY_HAND: 1.15, "LitServe": 1.85, "BentoML": 2.9}  # requests a second, ours / theirs
MIN_BARE = 0.70  # of the CPU time of our /predict
CHECKED = 16  # images of which all must say the same
VISIT_S, WARM_UP_S, BARE_RUNS = 0.8, 0.2, 200
MIN_ROUNDS = 5  # that an interval takes
CLOSE_ENOUGH = math.log(1.03)
MAX_OTHERS = 0.1  # cores that other processes kept busy meanwhile

Rounds = list[dict[str, Visit]]


def start_arms(
    stack: ExitStack, config: Config, size: int, wanted: Sequence[str], body: bytes
) -> dict[str, Arm]:
    """Start ours and the peers that can be; return them by name."""
    model = find_onnx(config).resolve()
    card = find_card(config, model)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pillops-peers-")))
    path, _ = stack.enter_context(copy_experiment(config))
    variables = {"RATE_LIMIT_PER_MIN": "100000000"}  # counted, never reached
    service = stack.enter_context(start_service(path, variables=variables))
    arms = {OURS: Arm(OURS, service.url, service.pid, service.key)}
    told = {
        "PYTHONPATH": f"{HERE.parent}:{APPS}",
        "PEER_MODEL": str(model),
        "PEER_IMG_SIZE": str(size),
        "PEER_CLASS_NAMES": json.dumps(card.class_names if card else ()),
        "PEER_WORKERS": str(usable_cpus()),
        "ORT_DISABLE_TELEMETRY": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(folder),
    }
    python = find_python(LOCK, "some 300 MB")
    if python is not None:
        for name in wanted:
            started = start_peer(name, python, COMMANDS[name], told, folder)
            arms[name] = stack.enter_context(started)
        for name in wanted:
            await_answer(arms[name], body, folder)
    return arms


def run_bare(engine: Engine, image: Path, size: int) -> Visit:
    """CPU time of preprocessing and running one image, nothing else."""
    started = time.thread_time()
    for _ in range(BARE_RUNS):
        engine.run(preprocess([str(image)], size))
    return Visit(1000 * (time.thread_time() - started) / BARE_RUNS)


def measure(
    visits: dict[str, Callable[[], Visit]], arms: Collection[Arm], budget_s: float
) -> Rounds:
    """Visit all in turn until every ratio is known closely enough or the time is over. A visit
    that was disturbed is made again, once."""
    give_up = time.monotonic() + budget_s
    rounds: Rounds = []

    def look(name: str) -> Visit:
        for _ in range(2):
            with watch_others(arms) as others:
                found = visits[name]()
            if others.cores <= MAX_OTHERS:
                break
        return replace(found, other_cores=others.cores)

    while len(rounds) < MIN_ROUNDS or (time.monotonic() < give_up and not is_settled(rounds)):
        rounds.append({name: look(name) for name in random.sample([*visits], len(visits))})
    return rounds


def is_settled(rounds: Rounds) -> bool:
    """Whether the ratio to each peer is known to within 3 %."""
    peers = rounds[0].keys() - {OURS, BARE}
    return all(compare_rates(rounds, name)[1].half_width <= CLOSE_ENOUGH for name in peers)


def compare_rates(rounds: Rounds, name: str) -> tuple[float, Interval]:
    """Ours over a peer's requests a second: logarithm and its 95 % interval."""
    return estimate([one[OURS].rate_per_s / one[name].rate_per_s for one in rounds])


def estimate(values: Sequence[float]) -> tuple[float, Interval]:
    """The middle of positive values and its 95 % interval, both as logarithms."""
    logs = [math.log(value) for value in values]
    return trimmed_mean(logs), trimmed_interval(logs)


def show(found: tuple[float, Interval], form: str) -> str:
    """Write an estimate with its interval."""
    middle, around = found
    return (
        f"{math.exp(middle):{form}} ({math.exp(around.low):{form}}–{math.exp(around.high):{form}})"
    )


def show_arms(rounds: Rounds, wanted: Sequence[str], connections: int) -> int:
    """Print a row an arm; return the exit code: 0, or 3 where a bound is not held."""
    disturbed = sum(one.other_cores > MAX_OTHERS for each in rounds for one in each.values())
    title = f"one image a request, {connections} connections, {len(rounds)} rounds"
    title += f", {disturbed} visits disturbed" if disturbed else ""
    table = Table(title=f"{title} (in brackets: 95 %)")
    table.add_column("service", no_wrap=True)
    for heading in ("requests/s", "CPU ms a request", "bare / served", "ours / it"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bound")
    table.add_column("held")
    held = []
    for name in (BARE, OURS, *wanted):
        limit = MIN_BARE if name == OURS else BOUNDS.get(name)
        kind = "bare / served" if name == OURS else "ours / it"
        bound = f"{kind} ≥ {limit:.2f}" if limit else "reported"
        if name not in rounds[0]:
            held.append(limit is None)
            table.add_row(name, "", "", "", "", bound, "not tried")
            continue
        cpu = f"{math.exp(estimate([one[name].cpu_ms for one in rounds])[0]):.2f}"
        if name == BARE:
            table.add_row("bare loop, one thread", "", cpu)
            continue
        rate = show(estimate([one[name].rate_per_s for one in rounds]), ",.0f")
        bare = estimate([one[BARE].cpu_ms / one[name].cpu_ms for one in rounds])
        ratio = compare_rates(rounds, name)
        reached = math.exp(bare[0] if name == OURS else ratio[0])
        held.append(limit is None or reached >= limit)
        shown = "" if name == OURS else show(ratio, ".2f")
        word = "yes" if held[-1] else "no"
        table.add_row(name, rate, cpu, show(bare, ".2f"), shown, bound, word if limit else "")
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)
    return 0 if all(held) else 3


def main() -> int:
    """Start all, see that they agree, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget-s", type=float, default=90, help="seconds of measuring")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--only", action="append", choices=COMMANDS, help="compare with this peer")
    arguments = parser.parse_args()
    if shutil.which("h2load") is None:
        raise UnavailableError("h2load is not installed; apt-get install nghttp2-client")
    if arguments.connections < 1:
        raise ParameterError(f"--connections: got {arguments.connections}; expected 1 or more")
    config, wanted = load_config(), [*dict.fromkeys(arguments.only or COMMANDS)]
    images = pick_images(config, "val", None, limit=CHECKED).paths
    bodies = make_bodies(LoadPlan(url="", images=images, requests=1, rate_per_s=None))
    settings = replace(session_settings(config), intra_op_num_threads=1)
    with ExitStack() as stack:
        request = EngineRequest("onnx", find_onnx(config), settings=settings)
        engine = stack.enter_context(open_engine(request))
        size = engine.facts.input_shape[-1] or 224
        arms = start_arms(stack, config, size, wanted, bodies[0])
        check_agreement(arms[OURS], arms.values(), bodies)
        body = Path(stack.enter_context(tempfile.NamedTemporaryFile(prefix="pillops-body-")).name)
        body.write_bytes(bodies[0])

        def visit(arm: Arm) -> Visit:
            arm.load(body, arguments.connections, WARM_UP_S)
            return arm.load(body, arguments.connections, VISIT_S)

        visits = {name: partial(visit, arm) for name, arm in arms.items()}
        visits[BARE] = lambda: run_bare(engine, images[0], size)
        for look in visits.values():  # what each can answer decides how much it is sent
            look()
        rounds = measure(visits, arms.values(), arguments.budget_s)
    return show_arms(rounds, wanted, arguments.connections)


if __name__ == "__main__":
    run_door(main)
