"""H-7: the first host alone, then a batch at a time, within a budget; one roll at a time."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.fleet.light import KEY, LightFleet, open_light, roll_command
from tests.fleet.playing import environment
from tests.waiting import await_that

BATCH = ("-e", "batch=25%", "--forks", "12")  # of twelve hosts: 1, 3, 3, 3, 2


@pytest.fixture(scope="module")
def _light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LightFleet]:
    with open_light(tmp_path_factory.mktemp("light"), 12) as fleet:
        yield fleet


@pytest.fixture
def light(_light: LightFleet) -> LightFleet:
    _light.put_back({})
    return _light


def start(light: LightFleet, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        roll_command(light, *words),
        env=environment(light.folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def roll(light: LightFleet, *words: str) -> tuple[int, str]:
    """Roll; return the exit status and what was said, in one line."""
    process = start(light, *words)
    said = " ".join(process.communicate(timeout=240)[0].split())
    assert KEY not in said
    return process.returncode, said


def notes(light: LightFleet) -> list[str]:
    return sorted(path.name for path in light.folder.glob(".roll-*"))


def test_a_bad_model_reaches_the_first_host_alone(light: LightFleet) -> None:
    light.put_back(dict.fromkeys(light.names, "wrong"))
    code, said = roll(light, *BATCH)
    assert code == 2
    assert "gpu000 was not switched: /reload answered 200 ; /version says" in said
    assert light.first_switched == ["gpu000"]
    assert light.served_new == set()
    assert notes(light) == []


def test_a_host_that_fails_in_a_batch_exposes_no_later_one(light: LightFleet) -> None:
    light.put_back({"gpu002": "refuses"})
    code, said = roll(light, *BATCH)
    assert code == 2
    assert "gpu002 was not switched: /reload answered 422 not this one" in said
    assert set(light.first_switched) == {"gpu000", "gpu001", "gpu003"}
    assert light.first_switched[0] == "gpu000"
    assert light.served_new == set()
    assert "Every host serves what it served before: gpu000, gpu001, gpu002, gpu003" in said
    assert notes(light) == []


def test_as_many_as_may_fail_keep_what_they_serve_and_the_others_go_on(light: LightFleet) -> None:
    light.put_back({"gpu000": "wrong", "gpu004": "silent", "gpu005": "refuses", "gpu011": "lies"})
    code, said = roll(light, *BATCH, "-e", "max_failed=4")
    assert code == 2
    assert light.served_new == set(light.names) - set(light.faults)
    for name in light.faults:
        assert f"{name} was not switched: " in said
    assert notes(light) == []
    order = [(int(name[3:]) + 2) // 3 for name in light.first_switched]
    assert order == sorted(order), "a batch begins when the one before it has ended"


def test_a_second_roll_is_refused_until_the_first_has_ended_however_it_ends(
    light: LightFleet,
) -> None:
    light.held = "gpu005"
    first = start(light, *BATCH)
    await_that(lambda: "gpu004" in light.served_new, "the second batch but one", 120)
    code, said = roll(light, *BATCH)
    assert code == 2
    assert "hosts.yml: another roll over this inventory is under way; no host was changed" in said
    os.kill(first.pid, signal.SIGKILL)
    light.go.set()
    first.communicate()  # what it had started on the hosts ends by itself
    assert light.served_new < set(light.names)
    before = notes(light)
    assert ".roll-gpu000.json" in before
    code, said = roll(light, *BATCH)
    assert code == 0, said
    assert said.count("serves it already: skipped") == len(before)
    assert light.served_new == set(light.names)
    assert sorted(light.first_switched) == sorted(light.names), "each was switched once"
    assert notes(light) == []
