"""Real processes that delete, killed at random moments beside a real service on the same models."""

from __future__ import annotations

import gzip
import json
import os
import platform
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx

from opslib.serving.staging import RunningService, start_service
from opslib.upkeep.maintenance import plan_maintenance, run_maintenance
from tests.deletions.needs import find_leftovers, find_missing, find_needs
from tests.deletions.things import DAY_S, Aged, Clock, Instance, Model, Release
from tests.deletions.world import World
from tests.models import write_onnx
from tests.upkeep.places import NOBODY

ROOT = Path(__file__).resolve().parents[2]
LONGEST_S = {"maintain": 0.6, "release prune": 0.6, "release create": 2.5}
OPTIONS = {"release create": ("--allow-missing-metrics",), "maintain": ("--clock-is-right",)}


@dataclass
class Kills:
    """What killing came to: how often, how often it met unfinished work, and what is wrong."""

    kills: int = 0
    met: int = 0
    wrong: list[str] = field(default_factory=list)


def kill_beside_service(folder: Path, kills: int, seed: int) -> Kills:
    """Kill deleting jobs of one experiment while another's service runs on the same models; in the
    end let each finish and see that nothing is left to do."""
    rng = random.Random(seed)
    world = World(folder.resolve(), shared=True, clock=Clock(time.time()))
    first, second = world.instances[:2]
    text = first.config_path.read_text()
    first.config_path.write_text(re.sub(r"http://[^']+", NOBODY, text))
    for age in (9, 8, 7):
        _export(world, age)
    found = Kills()
    with start_service(second.config_path) as service:
        _serve(world, second, service)
        for number in range(kills):
            _make_work(world, number)
            words = rng.choice(list(LONGEST_S))
            needs = find_needs(world, first)
            _kill(first, words, rng)
            _learn_releases(world, first)
            found.kills += 1
            found.met += bool(plan_maintenance(first.config, clock_is_right=True).plan.actions)
            found.wrong += [f"killed {words}: {one}" for one in find_missing(world, needs)]
        needs = find_needs(world, first)
        for words in ("maintain", "release prune", "release create", "maintain"):
            code, said = _finish(first, words)
            found.wrong += [f"{words} afterwards: {code}: {said}"] if code else []
            found.wrong += [f"{words} afterwards: {one}" for one in find_missing(world, needs)]
            _learn_releases(world, first)
            needs = find_needs(world, first)
        world.clock.true_s = time.time() + 2 * DAY_S
        later = datetime.fromtimestamp(world.clock.true_s, UTC)
        run_maintenance(first.config, show=lambda line: None, now=later, clock_is_right=True)
        found.wrong += [f"left over: {one}" for one in find_leftovers(world)]
        left = plan_maintenance(first.config, now=later, clock_is_right=True).plan
        found.wrong += [f"left to do: {one.target}" for one in left.actions]
        with httpx.Client(base_url=service.url, headers=service.headers, trust_env=False) as client:
            for path in client.get("/version").json()["model_path"], str(_previous(second)):
                code = client.post("/reload", json={"model_path": path}, timeout=60).status_code
                found.wrong += [] if code == 200 else [f"the service can't go back: {code}"]
    return found


def _export(world: World, days: float) -> Model:
    """Write a real model with its weights beside it, the link on the newest."""
    number = world.next_number()
    moment = datetime.fromtimestamp(time.time() - days * DAY_S, UTC)
    path = world.export / f"model-{moment:%Y%m%d-%H%M%S}-{number:07x}.onnx"
    write_onnx(path, sidecar=True, seed=number)
    files = {one: one.read_bytes() for one in (path, path.with_name(f"{path.name}.data"))}
    for one, data in files.items():
        _write(one, data, days)
    link = world.export / "latest.onnx"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    world.models[path] = Model(path, files, None, number)
    return world.models[path]


def _serve(world: World, instance: Instance, service: RunningService) -> None:
    """Let the service go back to the oldest model, and remember where it listens."""
    oldest = next(iter(world.models))
    with httpx.Client(base_url=service.url, headers=service.headers, trust_env=False) as client:
        answer = client.post("/reload", json={"model_path": str(oldest)}, timeout=60)
        assert answer.status_code == 200, answer.text
    instance.host = "".join(sign if sign.isalnum() else "-" for sign in platform.node())
    instance.port = int(service.url.rpartition(":")[2])
    instance.answer, instance.serving = "up", world.models[oldest]
    assert instance.leases, "a service leaves a lease beside its models"


def _make_work(world: World, number: int) -> None:
    """Something for each duty, and something that a person wrote."""
    first = world.instances[0]
    _export(world, 5 - number / 1000)
    for name, days in (
        (f"logs/job{number}.out", 8.0),
        (f"logs/archive/old{number}.out.gz", 31.0),
        (f"checkpoints/last_{number}.pt", 20.0),
        (f"quantized/model-{number}/int8.onnx", 40.0),
        (f"releases/restored/release-20240101-{number:06d}-nogit/export/m.onnx", 40.0),
    ):
        data = b"data" * 1000
        _write(first.exp / name, gzip.compress(data) if name.endswith(".gz") else data, days)
    young = _write(first.exp / f"logs/api{number}.out", f"line {number}\n".encode(), 8.0)
    made_s = time.time() - 8 * DAY_S
    world.aged.append(Aged(young, f"line {number}\n".encode(), made_s, 30.0, is_log=True))
    mine = _write(first.exp / f"checkpoints/.best.pt.202609{number:02d}", b"mine", 300.0)
    world.person[mine] = b"mine"


def _write(path: Path, data: bytes, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    moment = time.time() - days * DAY_S
    os.utime(path, (moment, moment))
    os.utime(path.parent, (moment, moment))
    return path


def _kill(instance: Instance, words: str, rng: random.Random) -> None:
    command = [sys.executable, "-m", "tests.deletions.restless", str(instance.config_path)]
    process = subprocess.Popen(
        [*command, *words.split(), *OPTIONS.get(words, ())],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, LONGEST_S[words]))
    assert process.poll() is None, f"{words} ended by itself"
    process.kill()
    process.wait()


def _finish(instance: Instance, words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "opslib.cli", *words.split(), *OPTIONS.get(words, ())]
    answer = subprocess.run(
        [*command, "--config", str(instance.config_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.returncode, answer.stdout + answer.stderr


def _learn_releases(world: World, instance: Instance) -> None:
    """Take down what releases there are; one of this host and clock is newer the later its name."""
    for path in sorted((instance.exp / "releases").glob("release-*.tar.gz")):
        if path not in world.releases:
            name = path.name.removesuffix(".tar.gz")
            manifest = json.loads(path.with_name(f"{name}.manifest.json").read_bytes())
            names = {Path(one["path"]).name for one in manifest["models"]}
            models = tuple(one for one in world.models.values() if one.path.name in names)
            number = world.next_number()
            world.releases[path] = Release(path, number, world.clock.shown_s, models)


def _previous(instance: Instance) -> Path:
    state = json.loads((instance.exp / "served.json").read_bytes())
    return Path(state["previous"][0]["path"])
