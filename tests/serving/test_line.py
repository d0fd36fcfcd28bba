"""The line of the service: who waits, and what a worker takes when it becomes free."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opslib.serving.failures import RefusalError
from opslib.serving.line import InferenceQueue


class Bench:
    """Work that notes what each worker took, and goes on with it once it is let go."""

    def __init__(self) -> None:
        self.taken: list[list[str]] = []
        self._begun = threading.Semaphore(0)
        self._go = threading.Semaphore(0)

    def __call__(self, requests: Iterator[str]) -> Iterator[list[str | BaseException]]:
        names = list(requests)
        self.taken.append(names)
        self._begun.release()
        self._go.acquire()
        yield [self._answer(name) for name in names]

    def let_go(self, workers: int = 1) -> None:
        """Let so many workers finish what they took."""
        self._go.release(workers)

    async def await_begun(self, workers: int = 1) -> None:
        """Wait until so many workers more have taken something."""
        for _ in range(workers):
            assert await asyncio.to_thread(self._begun.acquire, timeout=30)

    def _answer(self, name: str) -> str | BaseException:
        return ValueError(name) if name.startswith("bad") else name.upper()


@dataclass
class Line:
    """A queue whose workers are busy, and the requests that wait for them."""

    queue: InferenceQueue[str, str]
    bench: Bench
    asked: list[asyncio.Task[str]] = field(default_factory=list)

    async def ask(self, *names: str) -> None:
        """Put requests in line."""
        for name in names:
            self.asked.append(asyncio.create_task(self.queue.run(name)))
            await asyncio.sleep(0)

    async def answers(self) -> list[str | BaseException]:
        """Let everybody go on, and return what each request got."""
        self.bench.let_go(1000)
        return await asyncio.gather(*self.asked, return_exceptions=True)


async def open_line(workers: int = 1, waiting: int = 64) -> Line:
    """Return a line whose workers are all busy, each with one request."""
    bench = Bench()
    line = Line(InferenceQueue(bench, workers, waiting), bench)
    await line.ask(*(f"first-{index}" for index in range(workers)))
    await bench.await_begun(workers)
    return line


def test_a_full_line_says_when_to_come_back() -> None:
    async def overfill() -> RefusalError:
        line = await open_line(workers=1, waiting=1)
        await line.ask("waits")
        with pytest.raises(RefusalError) as caught:
            await line.queue.run("too many")
        assert await line.answers() == ["FIRST-0", "WAITS"]
        assert await line.queue.run("later") == "LATER"
        line.queue.close()
        return caught.value

    refusal = asyncio.run(overfill())
    assert (refusal.status_code, refusal.code) == (503, "queue_full")
    assert refusal.headers is not None
    assert int(refusal.headers["Retry-After"]) >= 1


def test_a_worker_that_finds_nobody_else_takes_one_request_and_does_not_wait_for_more() -> None:
    async def ask_one_after_the_other() -> list[list[str]]:
        line = await open_line(workers=2)
        line.bench.let_go(1000)
        await line.answers()
        for name in ("a", "b"):
            assert await line.queue.run(name) == name.upper()
        line.queue.close()
        return line.bench.taken[2:]

    assert asyncio.run(ask_one_after_the_other()) == [["a"], ["b"]]


@pytest.mark.parametrize(("workers", "share"), [(1, "abcdef"), (2, "abc"), (3, "ab"), (4, "ab")])
def test_a_worker_that_becomes_free_takes_its_share_of_those_that_wait(
    workers: int, share: str
) -> None:
    async def free_one() -> list[str]:
        line = await open_line(workers)
        await line.ask(*"abcdef")
        line.bench.let_go()
        await line.bench.await_begun()
        assert sorted(map(str, await line.answers())) == sorted(
            [*"ABCDEF", *(f"FIRST-{index}" for index in range(workers))]
        )
        line.queue.close()
        return line.bench.taken[workers]

    assert asyncio.run(free_one()) == list(share)


def test_each_request_gets_its_own_answer_or_error() -> None:
    async def ask() -> list[str | BaseException]:
        line = await open_line()
        await line.ask("a", "bad-b", "c")
        answers = await line.answers()
        line.queue.close()
        return answers

    first, a, b, c = asyncio.run(ask())
    assert (first, a, c) == ("FIRST-0", "A", "C")
    assert isinstance(b, ValueError)
    assert str(b) == "bad-b"


def test_who_does_not_wait_any_more_is_left_out_and_spoils_nothing() -> None:
    async def leave() -> tuple[list[str | BaseException], list[str]]:
        line = await open_line()
        await line.ask("a", "gone", "b")
        line.asked[2].cancel()
        line.asked[0].cancel()  # this one is under way
        answers = await line.answers()
        assert line.queue.pending == 0
        line.queue.close()
        return answers, line.bench.taken[1]

    answers, taken = asyncio.run(leave())
    assert [str(one) for one in answers] == ["", "A", "", "B"]
    assert taken == ["a", "b"]


def test_who_leaves_while_a_worker_has_it_in_hand_spoils_nothing_for_those_beside_it() -> None:
    async def leave() -> list[str | BaseException]:
        line = await open_line()
        await line.ask("gone", "a", "gone too", "b")
        line.bench.let_go()
        await line.bench.await_begun()
        for index in (1, 3):
            line.asked[index].cancel()
        answers = await asyncio.wait_for(line.answers(), 30)
        line.queue.close()
        return answers

    assert [str(one) for one in asyncio.run(leave())] == ["FIRST-0", "", "A", "", "B"]


def test_a_line_of_which_everybody_has_left_is_no_work() -> None:
    async def leave() -> None:
        line = await open_line()
        await line.ask("gone", "gone too")
        for one in line.asked[1:]:
            one.cancel()
        await line.answers()
        assert await line.queue.run("a") == "A"
        line.queue.close()

    asyncio.run(leave())


def test_work_that_raises_fails_what_it_took_and_the_worker_goes_on() -> None:
    def work(requests: Iterator[str]) -> Iterator[list[str | BaseException]]:
        yield [next(requests)]
        raise ZeroDivisionError(next(requests, "nothing"))

    async def ask() -> None:
        queue = InferenceQueue[str, str](work, workers=1, waiting=9)
        first, second, third = await asyncio.gather(
            *(queue.run(name) for name in ("a", "b", "c")), return_exceptions=True
        )
        assert first == "a"
        assert isinstance(second, ZeroDivisionError)
        assert third == "c"
        queue.close()

    asyncio.run(ask())


def test_what_work_leaves_without_an_answer_is_an_error_and_no_request_hangs() -> None:
    def work(requests: Iterator[str]) -> Iterator[list[str | BaseException]]:
        next(requests)
        yield []

    async def ask() -> None:
        queue = InferenceQueue[str, str](work, workers=1, waiting=0)
        with pytest.raises(RuntimeError, match="without an answer"):
            await queue.run("a")
        queue.close()

    asyncio.run(ask())


def test_answers_go_out_as_soon_as_there_are_any() -> None:
    go = threading.Event()

    def work(requests: Iterator[str]) -> Iterator[list[str | BaseException]]:
        for name in requests:
            yield [name]
            go.wait(30)

    async def ask() -> None:
        queue = InferenceQueue[str, str](work, workers=1, waiting=9)
        first, second = (asyncio.create_task(queue.run(name)) for name in "ab")
        assert await first == "a"
        assert not second.done()
        go.set()
        assert await second == "b"
        queue.close()

    asyncio.run(ask())


def test_a_request_is_let_go_of_once_it_has_its_error() -> None:
    def work(requests: Iterator[io.BytesIO]) -> Iterator[list[BaseException | None]]:
        next(requests)
        yield [ZeroDivisionError()]

    async def ask() -> weakref.ref[io.BytesIO]:
        queue = InferenceQueue[io.BytesIO, None](work, workers=1, waiting=0)
        body = io.BytesIO(bytes(1 << 20))
        left = weakref.ref(body)
        with suppress(ZeroDivisionError):
            await queue.run(body)
        queue.close()
        return left

    gc.disable()
    try:
        left = asyncio.run(ask())
        assert left() is None
    finally:
        gc.enable()


@given(
    workers=st.integers(1, 4),
    steps=st.lists(
        st.one_of(
            st.integers(0, 9).map(lambda index: f"good-{index}"),
            st.integers(0, 9).map(lambda index: f"bad-{index}"),
            st.just("gone"),
            st.just("pause"),
        ),
        max_size=30,
    ),
    most=st.integers(1, 5),
)
def test_in_whatever_order_they_come_and_go_each_gets_what_it_would_have_got_alone(
    workers: int, steps: list[str], most: int
) -> None:
    def work(requests: Iterator[str]) -> Iterator[list[str | BaseException]]:
        names = list(islice(requests, most))
        yield [ValueError(name) if name.startswith("bad") else name for name in names]

    async def ask() -> list[tuple[str, str | BaseException]]:
        queue = InferenceQueue[str, str](work, workers, waiting=64)
        tasks = []
        for step in steps:
            if step == "pause":
                await asyncio.sleep(0)
                continue
            tasks.append((step, asyncio.create_task(queue.run(step))))
            if step == "gone":
                await asyncio.sleep(0)
                tasks[-1][1].cancel()
        outcomes = await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
        assert queue.pending == 0
        queue.close()
        return list(zip((step for step, _ in tasks), outcomes, strict=True))

    for step, outcome in asyncio.run(ask()):
        if step == "gone":
            assert isinstance(outcome, asyncio.CancelledError)
        elif step.startswith("bad"):
            assert isinstance(outcome, ValueError)
            assert str(outcome) == step
        else:
            assert outcome == step
