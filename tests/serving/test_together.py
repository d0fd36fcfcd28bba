"""Requests that wait are answered in one run, and each gets what it would have got alone."""

from __future__ import annotations

import asyncio
import gc
import io
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from opslib.core.config import Config, load_config
from opslib.inference.engine import Engine, EngineRequest
from opslib.inference.opening import open_engine
from opslib.inference.preprocess import DEFAULT_FUNCTION, Preprocessor, load_preprocessor
from opslib.serving import together
from opslib.serving.app import create_app
from opslib.serving.decoding import UploadDecoder
from opslib.serving.failures import RefusalError
from opslib.serving.generations import Generations
from opslib.serving.keys import HEADER, KEY_VARIABLE, make_key
from opslib.serving.line import InferenceQueue
from opslib.serving.loaded import LoadedModel, load_candidate, read_candidate
from opslib.serving.pace import KEPT, Pace
from opslib.serving.service import Service
from opslib.serving.settings import load_settings
from opslib.serving.staging import start_service
from opslib.serving.together import Classified, Uploads, classify
from opslib.serving.uploads import Upload
from tests.models import write_config, write_onnx
from tests.serving.conftest import SIZE, Place, make_place, open_live
from tests.serving.test_stages import write_picky
from tests.zoo.answers import quantized

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def upload(path: Path, kind: str = "image/jpeg") -> Upload:
    return Upload(path.name, kind, io.BytesIO(path.read_bytes()))


def grey(level: int, width: int = 20) -> Upload:
    """A PNG of one level of grey."""
    data = io.BytesIO()
    Image.new("RGB", (width, 20), (level, level, level)).save(data, "PNG")
    return Upload("a.png", "image/png", io.BytesIO(data.getvalue()))


def make_decoder(preprocessor: Preprocessor | None = None) -> UploadDecoder:
    return UploadDecoder(
        preprocessor or load_preprocessor(DEFAULT_FUNCTION, None),
        allowed_exts=[".jpg", ".png"],
        max_pixels=10**6,
        max_total_pixels=10**6,
    )


def load(config: Config, path: Path) -> LoadedModel:
    return load_candidate(config, read_candidate(config, path))


@dataclass
class Kit:
    """A model in service, and what each of its runs was given."""

    place: Place
    generations: Generations
    decoder: UploadDecoder
    runs: list[int]

    def switch(self, path: Path, config: Config | None = None) -> LoadedModel:
        """Bring a model into service, its runs counted."""
        model = load(config or self.place.config, path)
        self.wrap(model, lambda run: run)
        self.generations.switch(model)
        return model

    def wrap(self, model: LoadedModel, change: Callable[[Run], Run]) -> None:
        """Change what a model's engine answers; its runs are counted."""
        run = change(model.engine.run)

        def counted(batch: NDArray[np.float32]) -> NDArray[np.float32]:
            self.runs.append(len(batch))
            return run(batch)

        model.engine.run = counted  # type: ignore[method-assign]

    def answer(self, *requests: Uploads | Upload) -> list[list[Classified | BaseException]]:
        """Return the answers to requests that wait, run by run, and note what was run."""
        self.runs.clear()
        listed = [[one] if isinstance(one, Upload) else one for one in requests]
        return list(self.ask(iter(listed)))

    def ask(self, requests: Iterator[Uploads]) -> Iterator[list[Classified | BaseException]]:
        """Answer requests as a worker does."""
        return classify(requests, generations=self.generations, decoder=self.decoder)


@pytest.fixture
def kit(place: Place) -> Kit:
    """A model in service, of which nothing was run yet."""
    made = Kit(place, Generations(), make_decoder(), [])
    made.switch(place.first)
    return made


def describe(outcome: Classified | BaseException) -> object:
    """What a request got, without times: classes and confidences, or status and code."""
    if isinstance(outcome, RefusalError):
        return outcome.status_code, outcome.code, outcome.extra.get("stage")
    assert isinstance(outcome, Classified), outcome
    return [(one["class_id"], round(one["confidence"], 4)) for one in outcome.predictions]


def flat(answers: Iterable[list[Classified | BaseException]]) -> list[object]:
    return [describe(one) for run in answers for one in run]


def list_generations(run: Iterable[Classified | BaseException]) -> list[int]:
    return [one.generation.number for one in run if isinstance(one, Classified)]


def alone(kit: Kit, *makes: Callable[[], Upload]) -> list[object]:
    """What each upload gets when it is asked by itself."""
    return [one for make in makes for one in flat(kit.answer(make()))]


def test_requests_that_wait_are_answered_in_one_run_as_each_alone(kit: Kit) -> None:
    makes = [partial(upload, path) for path in kit.place.images[:5]]
    wanted = alone(kit, *makes)
    assert kit.runs == [1]
    [answers] = kit.answer(*(make() for make in makes))
    assert kit.runs == [5]
    assert flat([answers]) == wanted
    assert len({str(one) for one in wanted}) > 1
    [took_ms] = {one.inference_ms for one in answers if isinstance(one, Classified)}
    assert took_ms > 0  # of the run, and of each in it


def test_where_together_is_slower_each_that_waits_is_run_by_itself(kit: Kit) -> None:
    pace = kit.generations.require().model.pace
    for _ in range(KEPT):
        pace.note(9.0, together=True)
    answers = kit.answer(*(upload(path) for path in kit.place.images[:5]))
    assert kit.runs == [1] * 5
    assert [len(run) for run in answers] == [1] * 5


def test_only_what_was_run_while_others_waited_says_what_is_faster(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace, noted = kit.generations.require().model.pace, list[bool]()
    note = Pace.note

    def watch(self: Pace, ms: float, *, together: bool) -> None:
        assert ms > 0
        noted.append(together)
        note(self, ms, together=together)

    monkeypatch.setattr(Pace, "note", watch)
    images = kit.place.images
    kit.answer(upload(images[0]))
    assert noted == []
    kit.answer(*map(upload, images[:3]))
    assert noted == [True]
    for _ in range(KEPT):
        pace.note(9.0, together=True)
    noted.clear()
    kit.answer(*map(upload, images[:3]))
    assert noted == [False, False]  # behind the third nobody waits


def test_a_run_holds_at_most_max_batch_images_and_leaves_the_rest_in_line(kit: Kit) -> None:
    line = iter([[upload(kit.place.images[0])] for _ in range(11)])
    assert [len(run) for run in kit.ask(line)] == [8]
    assert [len(run) for run in kit.ask(line)] == [3]
    assert kit.runs == [8, 3]


def test_images_of_one_request_stay_together_and_more_than_max_batch_are_one_run(kit: Kit) -> None:
    image = kit.place.images[0]
    many = [upload(image) for _ in range(12)]
    few = [upload(image) for _ in range(6)]
    assert [len(run) for run in kit.answer(many, upload(image))] == [1]
    assert kit.runs == [12]
    assert [len(run) for run in kit.answer(upload(image), few, few)] == [2, 1]
    assert kit.runs == [7, 6]
    [[one], _] = kit.answer(few, few)
    assert isinstance(one, Classified)
    assert len(one.predictions) == 6


def test_a_bad_image_fails_its_own_request_alone(kit: Kit) -> None:
    good, noise = kit.place.images[0], np.random.default_rng(0).integers(0, 255, (99, 99, 3))
    data = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(data, "JPEG")
    makes = [
        partial(upload, good),
        lambda: Upload("a.jpg", "image/jpeg", io.BytesIO(b"no image")),
        lambda: Upload("a.jpg", "image/jpeg", io.BytesIO(data.getvalue()[:3000])),
        partial(upload, kit.place.images[1]),
        lambda: Upload("a.png", "image/png", io.BytesIO(good.read_bytes())),
        lambda: grey(0, width=60_000),
        partial(upload, kit.place.images[2]),
    ]
    wanted = alone(kit, *makes)
    codes = [one[1] for one in wanted if isinstance(one, tuple)]
    mismatch = "content_mismatch"
    assert codes == [mismatch, "damaged_image", mismatch, "too_many_pixels"]
    assert flat(kit.answer(*(make() for make in makes))) == wanted
    assert kit.runs == [3]


def test_own_preprocessing_that_raises_fails_its_own_request_alone(kit: Kit) -> None:
    function = load_preprocessor(DEFAULT_FUNCTION, None).run

    def prepare(paths: Any, size: int) -> NDArray[np.float32]:
        if Image.open(paths[0]).width == 66:
            raise SystemExit("own code that gives up")
        return function(paths, size)

    kit.decoder = make_decoder(Preprocessor("own:prepare", prepare, None))
    [[first, second, third]] = kit.answer(grey(10), grey(20, width=66), grey(30))
    assert isinstance(second, SystemExit)
    assert isinstance(first, Classified)
    assert isinstance(third, Classified)
    assert kit.runs == [2]


def test_an_image_over_which_the_model_raises_fails_its_own_request_alone(kit: Kit) -> None:
    kit.switch(write_picky(kit.place.export / "picky.onnx"))
    makes = [partial(grey, 0), partial(grey, 255), partial(grey, 90)]
    wanted = alone(kit, *makes)
    assert wanted[1] == (500, "stage_failed", "inference")
    assert flat(kit.answer(*(make() for make in makes))) == wanted
    assert kit.runs == [3, 1, 1, 1]


def test_a_run_that_only_fails_together_fails_nobody_and_is_logged(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    def single(run: Run) -> Run:
        def one_only(batch: NDArray[np.float32]) -> NDArray[np.float32]:
            if len(batch) > 1:
                raise MemoryError("too much for the card")
            return run(batch)

        return one_only

    wanted = alone(kit, partial(grey, 0), partial(grey, 90))
    kit.wrap(kit.generations.require().model, single)
    assert flat(kit.answer(grey(0), grey(90))) == wanted
    assert "a run of 2 requests failed, each is run by itself: too much" in caplog.text


@pytest.mark.parametrize("spoilt", ["one image", "all beside it", "rows"])
def test_an_image_that_makes_others_no_number_is_answered_apart(kit: Kit, spoilt: str) -> None:
    def spoil(run: Run) -> Run:
        def answer(batch: NDArray[np.float32]) -> NDArray[np.float32]:
            answers, bright = run(batch).copy(), batch.mean(axis=(1, 2, 3)) > 1.5
            if spoilt == "rows" and len(batch) > 1:
                return answers[:1]
            answers[bright if spoilt == "one image" else bright.any() | bright] = np.nan
            return answers

        return answer

    kit.wrap(kit.generations.require().model, spoil)
    makes = [partial(grey, 0), partial(grey, 255), partial(grey, 90)]
    wanted = alone(kit, *makes)
    assert wanted[1] == (500, "not_a_number", None)
    assert flat(kit.answer(*(make() for make in makes))) == wanted


def test_without_a_model_each_request_is_refused() -> None:
    asked: Iterator[Uploads] = iter([[grey(0)], [grey(0)]])
    for _ in range(2):
        found = classify(asked, generations=Generations(), decoder=make_decoder())
        assert flat(found) == [(503, "no_model", None)]


def test_what_is_asked_after_a_switch_is_never_answered_by_the_model_before_it(kit: Kit) -> None:
    def line() -> Iterator[Uploads]:
        yield [grey(0)]
        yield [grey(40)]
        kit.switch(kit.place.second)
        yield [grey(80)]
        yield [grey(120)]

    runs = list(kit.ask(line()))
    numbers = [
        [one.generation.number for one in run if isinstance(one, Classified)] for run in runs
    ]
    assert numbers == [[1, 1], [2, 2]]


def test_a_model_that_is_replaced_while_it_answers_is_freed_only_after_its_run(kit: Kit) -> None:
    closed: list[str] = []
    model = kit.generations.require().model
    model.engine.close = lambda: closed.append("first")  # type: ignore[method-assign]
    kit.generations.capacity = 1

    def switch(run: Run) -> Run:
        def answer(batch: NDArray[np.float32]) -> NDArray[np.float32]:
            kit.switch(kit.place.second)
            assert not closed
            return run(batch)

        return answer

    kit.wrap(model, switch)
    [run] = kit.answer(grey(0), grey(40))
    assert list_generations(run) == [1, 1]
    assert closed == ["first"]


def test_a_huge_image_goes_by_itself_and_who_came_before_it_has_its_answer_first(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "TOGETHER_PIXELS", 1000)  # two small ones are 800
    read: list[int] = []
    decode = kit.decoder.decode

    def noted(opened: Any, size: int) -> NDArray[np.float32]:
        read.append(opened.pixels)
        return decode(opened, size)

    monkeypatch.setattr(kit.decoder, "decode", noted)
    line = iter([[grey(0)], [grey(40)], [grey(80, width=500)], [grey(120)]])
    answers = kit.ask(line)
    assert len(next(answers)) == 2
    assert read == [400, 400]
    assert [len(run) for run in answers] == [1]
    assert read == [400, 400, 10_000]
    assert [len(run) for run in kit.ask(line)] == [1]  # left to whoever is free


def test_an_error_keeps_nothing_of_what_was_uploaded_in_memory(kit: Kit) -> None:
    gc.disable()
    try:
        bad = Upload("a.jpg", "image/jpeg", io.BytesIO(b"no image"))
        left = weakref.ref(bad.data)
        outcomes = kit.answer(bad, grey(0))
        del bad
        assert left() is None
        assert flat(outcomes)[0] == (415, "content_mismatch", None)
    finally:
        gc.enable()


def test_the_pixels_of_an_image_are_let_go_of_before_the_next_is_decoded() -> None:
    decoder = make_decoder()
    opened = decoder.open([grey(0), grey(40)])
    decoder.decode(opened, SIZE)
    for image in opened.images:
        with pytest.raises(ValueError, match="closed image"):
            image.getpixel((0, 0))


def write_config_of(place: Place, extra: str) -> Config:
    return load_config(write_config(place.config_path.parent, extra), {})


def test_a_model_of_fixed_batch_answers_each_request_by_itself(kit: Kit) -> None:
    fixed = write_onnx(kit.place.export / "fixed.onnx", batch=4, size=SIZE)
    assert kit.switch(fixed).unbatched == "the model's batch is fixed"
    assert [len(run) for run in kit.answer(grey(0), grey(40))] == [1]


def test_with_max_batch_1_each_request_is_answered_by_itself(kit: Kit) -> None:
    config = write_config_of(kit.place, "service: {max_batch: 1}\n")
    assert kit.switch(kit.place.first, config).unbatched == "service.max_batch is 1"
    assert [len(run) for run in kit.answer(grey(0), grey(40))] == [1]


def test_a_model_of_dynamic_int8_answers_each_request_by_itself(kit: Kit) -> None:
    path = kit.place.export / "dynamic.onnx"
    onnx.save_model(quantized(dynamic=True), path)
    assert "dynamic INT8" in str(kit.switch(path).unbatched)
    assert [len(run) for run in kit.answer(grey(0), grey(255))] == [1]
    static = kit.place.export / "static.onnx"
    onnx.save_model(quantized(dynamic=False), static)
    assert kit.switch(static).unbatched is None


def test_a_model_that_answers_otherwise_among_others_answers_each_request_by_itself(
    service: Service, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opslib.inference.onnx_engine import OnnxEngine

    run = OnnxEngine.run

    def mixed(engine: OnnxEngine, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        answers = run(engine, batch)
        return answers - 0.3 * answers.mean(axis=0)

    path = write_onnx(place.export / "model-c.onnx", size=SIZE)
    service.reloader.start_with(path)
    assert service.generations.require().model.unbatched is None
    monkeypatch.setattr(OnnxEngine, "run", mixed)
    service.reloader.start_with(path)
    model = service.generations.require().model
    assert model.together == 1
    assert "among others otherwise than alone" in str(model.unbatched)


def test_on_a_card_every_size_of_batch_is_run_before_it_serves(
    service: Service, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def open_on_card(request: EngineRequest) -> Engine:
        engine = open_engine(request)
        engine.facts = replace(engine.facts, provider="CUDA")
        run = engine.run

        def noted(batch: NDArray[np.float32]) -> NDArray[np.float32]:
            sizes.append(len(batch))
            return run(batch)

        engine.run = noted  # type: ignore[method-assign]
        return engine

    monkeypatch.setattr("opslib.serving.loaded.open_engine", open_on_card)
    service.reloader.start_with(write_onnx(place.export / "model-c.onnx", size=SIZE))
    assert sizes[-9:] == [16, 8, 7, 6, 5, 4, 3, 2, 1]


@dataclass(frozen=True)
class World:
    """Two models, and what each answers to each of a few uploads alone."""

    models: tuple[LoadedModel, LoadedModel]
    makes: tuple[Callable[[], Upload], ...]
    wanted: dict[tuple[str, int], object]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Four images, one that is damaged and one over which the second model raises."""
    place = make_place(tmp_path_factory.mktemp("world"))
    images = [partial(upload, path) for path in place.images[:4]]
    bad = partial(Upload, "a.jpg", "image/jpeg")
    makes = (*images, lambda: bad(io.BytesIO(b"no image")), partial(grey, 255))
    picky = write_picky(place.export / "picky.onnx")
    models = (load(place.config, place.first), load(place.config, picky))
    wanted = {}
    for model in models:
        generations = Generations()
        generations.switch(model)
        for index, make in enumerate(makes):
            asked: Iterator[Uploads] = iter([[make()]])
            found = classify(asked, generations=generations, decoder=make_decoder())
            [wanted[model.path.name, index]] = flat(found)
    return World(models, makes, wanted)


@given(
    workers=st.integers(1, 3),
    steps=st.lists(
        st.one_of(
            st.integers(0, 5),
            st.lists(st.integers(0, 5), min_size=1, max_size=9),
            st.sampled_from(["switch", "pause", "leave"]),
        ),
        min_size=1,
        max_size=24,
    ),
)
def test_however_requests_and_switches_interleave_each_gets_the_answer_of_one_model_alone(
    world: World, workers: int, steps: list[int | list[int] | str]
) -> None:
    generations = Generations()
    runs: list[set[int]] = []

    def work(requests: Iterator[Uploads]) -> Iterator[list[Classified | BaseException]]:
        for run in classify(requests, generations=generations, decoder=make_decoder()):
            runs.append(set(list_generations(run)))
            yield run

    async def ask() -> list[tuple[list[int], int, Classified | BaseException]]:
        number = generations.switch(world.models[0]).number
        queue = InferenceQueue[Uploads, Classified](work, workers, waiting=64)
        asked: list[tuple[list[int], int, asyncio.Task[Classified]]] = []
        for step in steps:
            if step == "switch":
                number = generations.switch(world.models[number % 2]).number
            elif step == "pause":
                await asyncio.sleep(0)
            elif step == "leave" and asked:
                asked.pop()[2].cancel()
            elif not isinstance(step, str):
                wanted = [step] if isinstance(step, int) else step
                uploads = [world.makes[index]() for index in wanted]
                asked.append((wanted, number, asyncio.create_task(queue.run(uploads))))
        tasks = [task for _, _, task in asked]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        queue.close()
        return [(*one[:2], outcome) for one, outcome in zip(asked, outcomes, strict=True)]

    for wanted, number, outcome in asyncio.run(ask()):
        if isinstance(outcome, Classified):
            name = outcome.generation.model.path.name
            assert outcome.generation.number >= number
            single = [world.wanted[name, index] for index in wanted]
            assert [one for part in single if isinstance(part, list) for one in part] == describe(
                outcome
            )
        else:
            every = [world.wanted[model.path.name, one] for model in world.models for one in wanted]
            assert describe(outcome) in every
    assert all(len(numbers) <= 1 for numbers in runs)


class Stage:
    """A service of one worker in this process, whose model's runs wait to be let go."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.runs: list[int] = []
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Semaphore(0)
        self._go = asyncio.Semaphore(0)
        key = service.settings.api_key.decode()
        transport = httpx.ASGITransport(create_app(service))
        self.client = httpx.AsyncClient(
            transport=transport, base_url="http://service", headers={HEADER: key}
        )
        engine = service.generations.require().model.engine
        run = engine.run

        def held(batch: NDArray[np.float32]) -> NDArray[np.float32]:
            self.runs.append(len(batch))
            self._loop.call_soon_threadsafe(self._begun.release)
            asyncio.run_coroutine_threadsafe(self._go.acquire(), self._loop).result(30)
            return run(batch)

        engine.run = held  # type: ignore[method-assign]

    def let_go(self, runs: int = 100) -> None:
        """Let so many runs go on."""
        for _ in range(runs):
            self._go.release()

    async def ask(self, path: Path) -> httpx.Response:
        """Send one image."""
        data = path.read_bytes()
        return await self.client.post("/predict", files={"image": ("a.jpg", data, "image/jpeg")})

    async def queue_up(self, *paths: Path) -> list[asyncio.Task[httpx.Response]]:
        """Send images: the first is under way, and then all others are in line."""
        asked = []
        for path in paths:
            asked.append(asyncio.create_task(self.ask(path)))
            while self.service.queue.pending < len(asked) and not asked[-1].done():
                await asyncio.sleep(0)
            if len(asked) == 1:
                await asyncio.wait_for(self._begun.acquire(), 30)
        return asked


@pytest.fixture
def staged(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service of one worker and two places in line, with a model."""
    config = write_config_of(place, "service: {workers: 1, queue: 4}\n")
    monkeypatch.setenv(KEY_VARIABLE, make_key())
    monkeypatch.setenv("RATE_LIMIT_PER_MIN", "100000")
    (config.exp_dir / "logs").mkdir(exist_ok=True)
    one = Service(load_settings(config))
    one.reloader.start_with(place.first)
    yield one
    one.close()


def test_what_waits_while_the_worker_is_busy_is_answered_in_one_run(
    staged: Service, place: Place
) -> None:
    async def ask() -> tuple[list[int], list[httpx.Response], list[httpx.Response]]:
        stage = Stage(staged)
        waiting = await stage.queue_up(*place.images[:4])
        stage.let_go()
        answers = [await one for one in waiting]
        runs = list(stage.runs)
        singles = [await stage.ask(path) for path in place.images[:4]]
        return runs, answers, singles

    runs, answers, singles = asyncio.run(ask())
    assert runs == [1, 3]
    for answer, single in zip(answers, singles, strict=True):
        said, wanted = answer.json(), single.json()
        assert (said["class_id"], said["generation"]) == (wanted["class_id"], wanted["generation"])
        assert said["confidence"] == pytest.approx(wanted["confidence"], abs=1e-5)
    assert len({one.json()["time_ms"]["inference"] for one in answers[1:]}) == 1
    assert len({one.headers["X-Request-ID"] for one in answers}) == 4


def test_the_line_is_full_by_requests_not_by_runs_and_who_left_spoils_nothing(
    staged: Service, place: Place
) -> None:
    async def ask() -> tuple[httpx.Response, list[int], list[int]]:
        stage = Stage(staged)
        waiting = await stage.queue_up(*[place.images[0]] * 5)
        refused = await stage.ask(place.images[0])
        waiting.pop(2).cancel()
        await asyncio.sleep(0)
        stage.let_go()
        return refused, [(await one).status_code for one in waiting], stage.runs

    refused, statuses, runs = asyncio.run(ask())
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
    assert int(refused.headers["Retry-After"]) >= 1
    assert statuses == [200] * 4
    assert runs == [1, 3]


@pytest.mark.parametrize(
    ("extra", "together", "why"),
    [
        ("", 8, None),
        ("service: {max_batch: 3}\n", 3, None),
        ("service: {max_batch: 1}\n", 1, "service.max_batch is 1"),
    ],
)
def test_version_says_how_many_are_answered_together_and_why_none(
    place: Place, monkeypatch: pytest.MonkeyPatch, extra: str, together: int, why: str | None
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, make_key())
    config = write_config_of(place, extra)
    (config.exp_dir / "logs").mkdir(exist_ok=True)
    service = Service(load_settings(config))
    service.reloader.start_with(place.first)

    async def ask() -> dict[str, Any]:
        said: dict[str, Any] = (await Stage(service).client.get("/version")).json()
        return said

    said = asyncio.run(ask())
    service.close()
    assert (said["max_batch"], said.get("unbatched")) == (together, why)
    assert ("unbatched" in said) is (why is not None)


def test_a_service_says_at_its_start_and_at_a_switch_why_each_request_is_by_itself(
    place: Place,
) -> None:
    fixed = write_onnx(place.export / "model-c.onnx", batch=1, size=SIZE)
    write_config_of(place, "service: {max_batch: 1}\n")
    with start_service(place.config_path) as running:
        said = running.output.read_text()
    assert "model-b (each request by itself: service.max_batch is 1) at http://" in said
    write_config_of(place, "")
    with start_service(place.config_path) as running:
        assert "serving model-b at http://" in running.output.read_text()
        live = open_live(running, place)
        assert live.reload(fixed).status_code == 200
        assert live.version["unbatched"] == "the model's batch is fixed"
        live.client.close()
    assert '"unbatched": "the model\'s batch is fixed"' in place.read_log("api.err")
