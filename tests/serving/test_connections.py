"""Who makes room where all places are taken, and how many places there are."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import pytest

from opslib.core.errors import ConfigError
from opslib.serving import connections
from opslib.serving.connections import (
    MIN_CONNECTIONS,
    RESERVED_DESCRIPTORS,
    Connections,
    find_room,
)


class Line:
    """A transport that only remembers whether it was cut."""

    def __init__(self) -> None:
        self.cut = False

    def abort(self) -> None:
        self.cut = True


def enter(places: Connections, count: int) -> tuple[list[Any], list[Any]]:
    lines: list[Any] = [Line() for _ in range(count)]
    return lines, [places.enter(line) for line in lines]


def test_the_stranger_waited_for_longest_makes_room() -> None:
    places = Connections(4)
    lines, slots = enter(places, 4)
    slots[0].doubt()  # begins a request, so it is waited for from now on
    enter(places, 1)
    assert [line.cut for line in lines] == [False, True, False, False]
    assert len(places) == 4


def test_who_showed_the_key_is_never_closed_for_others() -> None:
    places = Connections(8)
    lines, slots = enter(places, 7)
    assert all(slot.vouch() for slot in slots)
    strangers, _ = enter(places, 100)
    assert not any(line.cut for line in lines)
    assert sum(not line.cut for line in strangers) == 1


def test_a_share_of_the_places_is_kept_from_those_with_the_key() -> None:
    places = Connections(16)
    _, slots = enter(places, 16)
    assert [slot.vouch() for slot in slots].count(True) == 14
    slots[0].leave()
    assert slots[15].vouch()


def test_the_key_counts_for_one_request_only() -> None:
    places = Connections(2)
    lines, slots = enter(places, 1)
    assert slots[0].vouch()
    slots[0].doubt()
    enter(places, 2)
    assert lines[0].cut


def test_who_left_or_was_closed_holds_no_place_and_gets_none_again() -> None:
    places = Connections(2)
    _, slots = enter(places, 3)
    slots[0].doubt()
    slots[0].leave()
    slots[1].leave()
    assert len(places) == 1


def test_memory_is_given_back_once_a_rush_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(connections, "give_back_memory", lambda: given.append(True))

    async def rush(count: int) -> int:
        places = Connections(512)
        for slot in enter(places, count)[1]:
            slot.leave()
        await asyncio.get_running_loop().shutdown_default_executor()
        return len(given)

    assert asyncio.run(rush(connections._RUSH - 1)) == 0
    assert asyncio.run(rush(400)) == 1 + 1  # after three quarters of it, and of what was left


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The limits of open files, the last one in force; only pretended."""
    told = [(1024, 1024)]
    monkeypatch.setattr(resource, "getrlimit", lambda _which: told[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, given: told.append(given))
    return told


def test_the_places_lie_below_the_descriptors(limits: list[tuple[int, int]]) -> None:
    assert find_room(512) == 512
    assert find_room(4000) == 1024 - RESERVED_DESCRIPTORS
    assert set(limits) == {(1024, 1024)}


def test_the_limit_of_open_files_is_raised_as_far_as_it_is_needed(
    limits: list[tuple[int, int]],
) -> None:
    limits[:] = [(256, 4096)]
    assert find_room(512) == 512
    assert limits[-1] == (512 + RESERVED_DESCRIPTORS, 4096)


def test_next_to_no_descriptors_are_refused(limits: list[tuple[int, int]]) -> None:
    limits[:] = [(256, 256)]
    with pytest.raises(ConfigError, match=f"ulimit -n: 256 .* {256 + MIN_CONNECTIONS} are needed"):
        find_room(512)
