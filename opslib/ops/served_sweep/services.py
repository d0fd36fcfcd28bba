"""Services on the track: one real service for each combination, started when it is needed.

An idle one costs nothing but memory, so those of a heat wait beside each other; who drops out ends.
"""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from opslib.core.config import Config
from opslib.core.errors import OpsError
from opslib.core.host import usable_cpus
from opslib.core.kinds import Kind
from opslib.core.overrides import name_variable
from opslib.inference.engine import EngineRequest
from opslib.ops.served_sweep.answers import AnswerError, Reference
from opslib.ops.served_sweep.grid import ServedArm, effective_options
from opslib.ops.served_sweep.record import KEYS, Goal, ServedOptions
from opslib.ops.served_sweep.visits import Loader, Visits, send_burst
from opslib.ops.sweep.finals import Finals, run_finals
from opslib.ops.sweep.heats import Track
from opslib.ops.sweep.race import answer_as_written
from opslib.ops.sweep.trials import Trial
from opslib.serving.staging import RunningService, StagedService
from opslib.timing.rounds import Deadline, Visit
from opslib.timing.station import RacerError, Station, Workload

HEAT_ON_CPU, HEAT_ON_CARD = 12, 6
P99_MARGIN_PCT = 10.0
# A sweep sends more than a client may.
RATE_LIMIT_PER_MIN = "1000000000"
VERSION_S = 10.0


@dataclass(frozen=True)
class Subject:
    """What is served: the model as an engine request, its digest and kind, the provider in force
    and its arithmetic, and the images with their preprocessing."""

    request: EngineRequest
    sha256: str
    kind: Kind
    provider: str
    arithmetic: str
    work: Workload


@dataclass(frozen=True)
class Checked:
    """A running service that answers as it must: its visits, the largest difference, and why it
    runs each request by itself, if so."""

    visits: Visits
    max_abs_diff: float
    note: str | None


@dataclass(frozen=True)
class Services(Track[ServedArm]):
    """The track of a sweep of the service; a context manager that ends what it started. `folder`
    takes the services' logs and states."""

    subject: Subject
    goal: Goal
    station: Station
    loader: Loader
    folder: Path
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False)
    _running: dict[int, tuple[StagedService, Visits]] = field(default_factory=dict, repr=False)
    _references: list[Reference] = field(default_factory=list, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def most_loaded(self) -> int:
        """Each holds the model in memory, or on the card."""
        return HEAT_ON_CPU if self.subject.provider == "CPU" else HEAT_ON_CARD

    @property
    def margin_pct(self) -> float:
        """As configured; a p99 is never known that closely."""
        configured = self.config.sweep.margin_pct
        return configured if self.goal.rate_per_s is None else max(configured, P99_MARGIN_PCT)

    @property
    def race_share(self) -> float:
        """The finals start services anew, which takes a part of their time."""
        return 0.5

    def where(self, _arm: ServedArm) -> str:
        """There is one race."""
        return ""

    def prepare(self, _default: ServedArm) -> None:
        """Answer as the model as written does."""
        self._find_reference()

    def load(self, arm: ServedArm) -> Trial:
        """Start one service and hold its answers against those of the model as written."""
        return self.load_all([arm])[0]

    def load_all(self, arms: Sequence[ServedArm]) -> list[Trial]:
        """Start services side by side, then hold the answers of each against those of the model as
        written."""
        return [
            self._settle(arm, service, problem)
            for arm, (service, problem) in zip(arms, self._start(arms), strict=True)
        ]

    def racer(self, arm: ServedArm) -> Visit:
        """Return the visits of a running service."""
        return self._running[arm.row][1]

    def unload(self, arm: ServedArm) -> None:
        """End the service."""
        self.unload_all([arm])

    def unload_all(self, arms: Sequence[ServedArm]) -> None:
        """End services side by side."""
        rows = [arm.row for arm in arms if arm.row in self._running]
        _end([self._running.pop(row)[0] for row in rows])

    def measure_finalists(self, arms: Sequence[ServedArm], deadline: Deadline) -> Finals:
        """Measure each in a service started anew."""
        started = self._start(arms)
        try:
            visits: list[Visit] = []
            for number, (arm, one) in enumerate(zip(arms, started, strict=True)):
                try:
                    visits.append(self._check(number, arm, *one).visits)
                except OpsError as error:
                    raise RacerError(number, error) from error
            return run_finals(visits, deadline=deadline, rng=self.rng, margin_pct=self.margin_pct)
        finally:
            _end([service for service, _ in started])

    def _settle(self, arm: ServedArm, service: StagedService, problem: OpsError | None) -> Trial:
        trial = Trial(key=arm.key, kind="refused", provider=self.subject.provider)
        try:
            checked = self._check(arm.row, arm, service, problem)
        except OpsError as error:
            service.__exit__()
            return trial.ended("refused", reason=str(error))
        self._running[arm.row] = service, checked.visits
        return trial.ended("survived", max_abs_diff=checked.max_abs_diff, note=checked.note)

    def _check(
        self, number: int, arm: ServedArm, service: StagedService, problem: OpsError | None
    ) -> Checked:
        """Ask a service what is in force, and images at once, so that several are in one run."""
        if problem is not None:
            raise problem
        reference, running = self._find_reference(), service.running
        said = read_version(running)
        check_in_force(said, arm.options, self.subject.sha256)
        images = self.loader.images[: len(reference.probabilities)]
        burst = send_burst(running, self.loader, images)
        moved = reference.check(burst.samples)
        expected, places = burst.rate_per_s, said["workers"] + self.config.service.queue
        known = (running, self.loader, self.goal, reference, expected, places)
        visits = Visits(number, *known)
        return Checked(visits, moved, said.get("unbatched") if arm.options.max_batch > 1 else None)

    def _find_reference(self) -> Reference:
        if not self._references:
            subject, limits = self.subject, self.config.parity
            count = min(self.config.sweep.parity_images, len(self.loader.images))
            written = answer_as_written(self.station, subject.request, subject.work, count)
            half = subject.arithmetic == "float16"
            most = limits.fp16_top1_mismatch_max_pct if half else limits.top1_mismatch_max_pct
            self._references.append(Reference(written, subject.arithmetic, most))
        return self._references[0]

    def _start(self, arms: Sequence[ServedArm]) -> list[tuple[StagedService, OpsError | None]]:
        """Start a service for each, as many at a time as there are processors."""
        services = [self._make(arm.options) for arm in arms]
        with ThreadPoolExecutor(usable_cpus()) as pool:
            problems = list(pool.map(_try_start, services))
        return list(zip(services, problems, strict=True))

    def _make(self, options: ServedOptions) -> StagedService:
        home = self.folder / str(next(self._numbers))
        home.mkdir()
        variables = make_variables(self.config, self.subject, options, home)
        service = StagedService(self.config.source, variables=variables)
        self._stack.callback(service.__exit__)
        return service


def make_variables(
    config: Config, subject: Subject, options: ServedOptions, home: Path
) -> dict[str, str]:
    """Return the environment of a service on `config` with these options, whose logs and state lie
    in `home`; the model is pinned."""
    settings = {key: str(value).lower() for key, value in options.settings().items()}
    settings |= {"paths.exp_dir": str(home), "export.out_dir": str(config.export_dir)}
    if config.code_root is not None:
        settings["paths.code_root"] = str(config.code_root)
    named = {name_variable(key): one for key, one in settings.items()}
    pin = {subject.kind.pin: str(subject.request.path.absolute())}
    return {**named, **pin, "RATE_LIMIT_PER_MIN": RATE_LIMIT_PER_MIN}


def read_version(service: RunningService) -> dict[str, Any]:
    """Return what `/version` of a service of ours says. Raises OpsError: it does not answer."""
    try:
        answer = httpx.get(
            f"{service.url}/version", headers=service.headers, timeout=VERSION_S, trust_env=False
        )
        said: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise AnswerError(f"/version does not answer: {error}") from error
    if answer.status_code != 200:
        raise AnswerError(f"/version answers {answer.status_code}: {answer.text[:200]}")
    return said


def check_in_force(said: dict[str, Any], options: ServedOptions, sha256: str) -> None:
    """Hold what a service says of itself against what it was told. Raises AnswerError: it differs
    in something."""
    workers, threads, _, max_batch = effective_options(options, usable_cpus())
    wanted: dict[str, object] = {
        "model_sha256": sha256,
        "workers": workers,
        "intra_op_num_threads": threads,
        "allow_spinning": options.allow_spinning,
        "max_batch": 1 if said.get("unbatched") else max_batch,
    }
    for name, value in wanted.items():
        if said.get(name) != value:
            key = KEYS.get(name, name)
            raise AnswerError(f"{key}: the service has {said.get(name)}, was told {value}")


def _try_start(service: StagedService) -> OpsError | None:
    try:
        service.start()
    except OpsError as error:
        return error
    return None


def _end(services: Sequence[StagedService]) -> None:
    with ThreadPoolExecutor(max(1, len(services))) as pool:
        list(pool.map(StagedService.__exit__, services))
