"""How often a loop of the tests goes round: a few times in `make test`, all of them in `make soak`.

A test that counts its rounds by `turns` is marked `looped`, which is what `make soak` runs.
"""

from __future__ import annotations

import os

import pytest

LONG = os.environ.get("PILLOPS_TEST_LOOPS") == "long"
looped = pytest.mark.looped


def turns(short: int, long: int) -> int:
    """Return how often: `short` in `make test`, `long` in `make soak`."""
    return long if LONG else short
