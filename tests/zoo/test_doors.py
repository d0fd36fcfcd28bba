"""Six models of the zoo go through all seven doors, each opened for real; `make soak` takes all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from opslib.serving.staging import RunningService
from tests.zoo.doors import find_fault, knock, make_place, open_live
from tests.zoo.table import CHOSEN, DOORS, MODELS, TITLES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="module")
def live(folder: Path) -> Iterator[RunningService]:
    with open_live(folder) as service:
        yield service


@pytest.mark.parametrize("name", CHOSEN)
def test_every_door_takes_or_refuses_it_as_the_table_says(
    folder: Path, live: RunningService, name: str
) -> None:
    one = next(one for one in MODELS if one.name == name)
    place = make_place(folder / name, one)
    faults = [find_fault(one, door, knock(door, place, live)) for door in DOORS]
    assert not any(faults), "\n".join(filter(None, faults))


def test_every_model_has_a_name_of_its_own_and_a_title() -> None:
    assert sorted(TITLES) == sorted(one.name for one in MODELS)
