"""H-3: a drill of the team's own service, which serves two models and is not ours."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from opslib.core.errors import ExitCode, ModelError, OpsError, ParameterError
from opslib.core.kinds import pick_kind
from opslib.ops.drill.command import show_drill
from opslib.ops.drill.faults import list_faults
from opslib.ops.drill.keeper import bring_home, keep_home
from opslib.ops.drill.record import DrillRecord
from opslib.ops.drill.request import DrillRequest
from opslib.ops.drill.run import run_drill
from opslib.ops.drill.target import Target, open_target
from opslib.serving.client import ServiceClient, ServiceError
from opslib.timing.lock import LOCK_HELD_VARIABLE
from tests.ops.drill.conftest import SHORT
from tests.ops.drill.test_request import pillops
from tests.serving.conftest import Place, write_colours
from tests.two_stage import CLASSIFICATION, DETECTION, TwoStage, TwoStageService, make_two_stage
from tests.waiting import await_that

BAD = {fault.name for fault in list_faults()}


def make_drilled(folder: Path, **changes: object) -> TwoStage:
    """A two-stage experiment with a configuration of a short drill."""
    extra = (
        SHORT.replace("swaps: 2", "swaps: 1").replace("60}", "30}")
        + "onnx: {providers: [CPU]}\n"
        + str(changes.pop("extra", ""))
    )
    place = make_two_stage(folder, extra=extra)
    write_colours(folder / "images" / "val" / "round")
    return place


@dataclass(frozen=True)
class Drilled:
    """What a drill left: its record, what was asked of the service, what it serves."""

    record: DrillRecord
    asked: list[dict[str, str]]
    live: dict[str, Path | None]
    found: dict[str, Path | None]
    export: list[str]

    def seen(self, name: str) -> str:
        """What was seen of one injection."""
        return next(one.seen for one in self.record.injections if one.injected == name)


def drill(folder: Path, request: dict[str, object]) -> Drilled:
    """Drill a two-stage service whose reload handler blocks the event loop."""
    place = make_drilled(folder)
    with place.serve(configure=False, async_reload=True) as service:
        found = service.live
        record = run_drill(place.config, DrillRequest(url=service.url, **request))
        export = [path.name for path in place.export.iterdir()]
        return Drilled(record, service.asked, service.live, found, export)


REQUESTS: dict[str, dict[str, object]] = {
    "classifier": {"kind": CLASSIFICATION},
    "classifier, agreed": {"kind": CLASSIFICATION, "allow_bad_models": True},
    "detector, agreed": {"kind": DETECTION, "allow_bad_models": True},
}


@pytest.fixture(scope="module")
def drills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Drilled]]]:
    """A short drill of each kind, with consent to bad models or without, side by side."""
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(3) as pool:
        patch.setenv(LOCK_HELD_VARIABLE, "1")
        yield {
            name: pool.submit(drill, tmp_path_factory.mktemp("drilled"), request)
            for name, request in REQUESTS.items()
        }


@pytest.mark.parametrize("name", ["classifier", "detector, agreed"])
def test_a_kind_is_swapped_and_rolled_back_under_load_and_the_other_is_not_touched(
    drills: dict[str, Future[Drilled]], name: str
) -> None:
    done = drills[name].result()
    field = f"{REQUESTS[name]['kind']}_path"
    assert (done.record.failed, done.record.mixed) == (0, 0)
    assert {key for asked in done.asked for key in asked} == {field}
    assert done.live == done.found
    assert done.record.model.name == Path(done.asked[-1][field]).name


def test_without_consent_a_service_that_is_not_ours_is_offered_no_bad_model(
    drills: dict[str, Future[Drilled]],
) -> None:
    done = drills["classifier"].result()
    assert done.record.verdict != "fail", done.record.finding
    for fault in list_faults():
        assert "not tried: the service is not ours; say allow_bad_models" in done.seen(fault.name)
    names = {Path(path).name for asked in done.asked for path in asked.values()}
    assert names == {done.record.model.name, done.record.other_model.name}
    assert done.record.exit_code in (ExitCode.SKIPPED, ExitCode.INCONCLUSIVE)
    printed = StringIO()
    show_drill(Console(file=printed, width=200), done.record)
    told = [line for line in printed.getvalue().splitlines() if line.startswith("not tried: ")]
    assert sum("say allow_bad_models" in line for line in told) == 1
    assert f"{len(list_faults())} of {len(done.record.injections)} faults" in "".join(told)


def test_a_pipe_is_offered_to_no_running_service_even_with_consent(
    drills: dict[str, Future[Drilled]],
) -> None:
    for name in ("classifier, agreed", "detector, agreed"):
        done = drills[name].result()
        assert done.seen("a pipe") == "not tried: it may stop a service that others use for good"
        assert done.live == done.found
        assert not [one for one in done.export if one.startswith(".drill.")]


def test_with_consent_it_is_seen_what_a_service_lets_through(
    drills: dict[str, Future[Drilled]],
) -> None:
    done = drills["classifier, agreed"].result()
    assert done.record.verdict == "fail"
    assert done.seen("text").startswith("500")
    assert done.seen("NaN weights").startswith("200: accepted; now serves ")


def test_a_detector_is_not_blamed_for_what_is_bad_only_as_a_classifier(
    drills: dict[str, Future[Drilled]],
) -> None:
    done = drills["detector, agreed"].result()
    assert done.seen("another number of classes") == (
        "not tried: a detection model is no classifier"
    )
    assert done.seen("text").startswith("500")


def test_with_several_kinds_a_drill_says_which_there_are(tmp_path: Path) -> None:
    place = make_drilled(tmp_path)
    command = Place(place.config_path, place.classifiers[0], place.classifiers[1], place.images)
    answer = pillops(command, "--url", "http://127.0.0.1:9")
    assert answer.returncode == 2
    assert "several are served: detection, classification; name one (--kind)" in answer.stderr
    for named, told in (
        (None, "name one"),
        ("none", "got 'none'; expected one of detection, clas"),
    ):
        with pytest.raises(ParameterError, match=told):  # before there are any images
            run_drill(place.config, DrillRequest(kind=named, inputs="none/*.jpg"))


def test_a_staging_service_is_drilled_with_the_classifier_and_with_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_drilled(tmp_path, extra="client: {request_field: somewhere_path}\n")
    monkeypatch.setenv("CLASSIFICATION_MODEL_PATH", str(place.classifiers[0]))
    with (
        pytest.raises(ParameterError, match="which a detection model is not; drill the service"),
        open_target(place.config, DrillRequest(kind=DETECTION), print),
    ):
        pass
    with (
        open_target(place.config, DrillRequest(kind=CLASSIFICATION), print) as target,
        target.connect() as client,
    ):
        live = client.version()
        assert live.model_path == str(target.stable)
        assert target.stable.name == place.classifiers[0].name
        assert {path.name for path in target.others} == {place.classifiers[1].name}
        client.reload(str(target.others[0]))
        assert client.version().sha256 != live.sha256


def test_a_model_of_another_kind_is_never_swapped_to(tmp_path: Path) -> None:
    place = make_drilled(tmp_path)
    with place.serve() as service:
        for other in (place.detectors[0], disguise(place)):
            request = DrillRequest(url=service.url, kind=CLASSIFICATION, other=other)
            with (
                pytest.raises(ModelError, match=r"is no classification model|expected"),
                open_target(place.config, request, print),
            ):
                pass
        assert service.asked == []


def disguise(place: TwoStage) -> Path:
    """A detector under the name of a classifier."""
    path = place.export / "classification-20261102-000000-abc1234.onnx"
    path.write_bytes(place.detectors[0].read_bytes())
    return path


def make_target(place: TwoStage, service: TwoStageService) -> Target:
    """The service as a drill of its classifier knows it."""
    stable, other = place.classifiers
    return Target(
        service.url,
        place.key,
        place.config,
        stable,
        (other,),
        pick_kind(place.config, CLASSIFICATION),
    )


@contextmanager
def stopped_by_a_pipe(place: TwoStage, service: TwoStageService) -> Iterator[None]:
    """The service reads a pipe in its event loop until the block ends."""
    pipe = place.export / "pipe.onnx"
    os.mkfifo(pipe)

    def ask() -> None:
        kind = pick_kind(place.config, CLASSIFICATION)
        with (
            suppress(ServiceError),
            ServiceClient(service.url, place.key, kind.client, timeout_s=10) as client,
        ):
            client.reload(str(pipe))

    asking = threading.Thread(target=ask)
    asking.start()
    await_that(lambda: service.asked, "the request for the pipe")
    try:
        yield
    finally:
        service.free()
        asking.join()


def test_a_service_that_does_not_answer_ends_the_aftercare_with_one_line_and_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_drilled(tmp_path)
    kind = pick_kind(place.config, CLASSIFICATION)
    told = (
        r"may serve the wrong model; when it answers, bring it back with `pillops reload --kind "
        r"classification --host http://127.0.0.1:\d+ --path \S+`: .*no answer within 0.3 s$"
    )
    monkeypatch.setattr("opslib.ops.drill.keeper._VERSION_S", 0.2)
    with (
        place.serve(async_reload=True) as service,
        stopped_by_a_pipe(place, service),
        pytest.raises(OpsError, match=told),
    ):
        bring_home(kind, service.url, place.key, str(place.classifiers[0]), limit_s=0.3)


def test_an_aftercare_that_takes_too_long_is_one_line_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_drilled(tmp_path)
    monkeypatch.setattr("opslib.core.aftercare._LIMIT_S", 0.5)
    with place.serve(async_reload=True) as service:
        target = make_target(place, service)
        with (
            stopped_by_a_pipe(place, service),
            pytest.raises(OpsError, match=r"--kind classification.*goes on in process \d+") as told,
            keep_home(target),
        ):
            pass
        assert "\n" not in str(told.value)
        await_that(lambda: service.live[CLASSIFICATION] == target.stable, "the way home")


def test_home_is_where_the_service_says_it_is(tmp_path: Path) -> None:
    place = make_drilled(tmp_path)
    kind = pick_kind(place.config, CLASSIFICATION)
    home = place.classifiers[0]
    with place.serve(lies=True) as service:
        with pytest.raises(OpsError, match=r"bring it back with .*not confirmed: serves "):
            bring_home(kind, service.url, place.key, str(home))
        service.lies, service.late_s = False, 1.0
        bring_home(kind, service.url, place.key, str(home), limit_s=0.3)
        assert service.live[CLASSIFICATION] == home
