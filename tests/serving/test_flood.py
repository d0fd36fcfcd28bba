"""Floods without a key, in short: answered all along, no memory, no log, nothing left behind.

`benchmarks/soak_flood.py` is the long form, with a thousand connections.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.conftest import make_place
from tests.serving.flood import KINDS
from tests.serving.flooding import Target, start_target

pytestmark = pytest.mark.alone

PLACES = 64
FLOOD = {"tries": 4, "held": 2 * PLACES, "per_s": 100, "pause_s": 0.05}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A service with few places, and hardly more descriptors than it keeps for files."""
    folder = tmp_path_factory.mktemp("flooded")
    place = make_place(folder, f"service: {{max_connections: {PLACES}}}\n")
    with start_target(place, descriptors=PLACES + 256) as running:
        yield running


@pytest.mark.parametrize("kind", KINDS)
def test_a_flood_takes_nothing_from_anybody_else(target: Target, kind: str) -> None:
    outcome = target.flood(kind, **FLOOD)
    assert outcome.slowest_s < float("inf"), "a request was not answered"
    assert outcome.growth <= 1.5
    assert outcome.log_bytes <= 100_000
    assert outcome.after.tasks <= outcome.before.tasks
    assert outcome.after.memory_bytes <= 1.2 * outcome.before.memory_bytes
