"""Variants of the zoo's models, as other exporters, tools and hands leave them: each passes or is
refused in one line that names the cause and the next step."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.turns import looped, turns
from tests.zoo.mutations import MUTATIONS, SIDECARS
from tests.zoo.variants import BASES, try_variant

EXAMPLES = turns(5, 40)


@looped
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    base=st.sampled_from(sorted(BASES)),
    mutations=st.lists(st.sampled_from(sorted(MUTATIONS)), min_size=1, max_size=5),
    sidecar=st.sampled_from((None, *SIDECARS)),
    seed=st.integers(0, 9999),
)
def test_a_variant_passes_or_is_refused_in_one_line(
    base: str, mutations: list[str], sidecar: str | None, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fault = try_variant(Path(folder), base, mutations, sidecar, random.Random(seed))
    assert fault is None, fault
