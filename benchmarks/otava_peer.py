"""The series of `benchmarks/steps.py`, and what Apache Otava finds in them.

Run inside the environment of `requirements-otava.txt`; writes JSON to the standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

LENGTHS = (50, 500)
SIZES = (3, 4, 6)  # of a step, in standard deviations of the noise
LEVEL, NOISE = 100, 5
NEAR = 3  # points between a step and where it is found
BEFORE, LONGEST = 130, 20  # points before a step whose delay is asked, and after it at most


def points_until_found(
    find: Callable[[Sequence[float]], Sequence[int]], values: Sequence[float]
) -> int:
    """How many points after the step it is first found; one more than there are if never."""
    for points in range(1, LONGEST + 1):
        if any(abs(at - BEFORE) <= NEAR for at in find(values[: BEFORE + points])):
            return points
    return LONGEST + 1


def make_series(seeds: int) -> Iterator[dict[str, Any]]:
    """The kinds of series of the generators, each with the steps of level that are in it."""
    from otava_test_data.generators import advanced, basic

    for seed in range(seeds):
        for count in LENGTHS:
            to = {"length": count, "seed": seed}
            noisy = {**to, "sigma": NOISE}
            made = [
                ("normal noise", basic.noise_normal(**to)),
                ("uniform noise", basic.noise_uniform(**to)),
                ("outlier", basic.outlier(outlier_value=150, **noisy)),
                ("variance change", advanced.variance_change(**to)),
                ("banding", advanced.banding(**to)),
                ("three steps, no noise", advanced.multiple_changes(**to)),
            ]
            for size in SIZES:
                up, down = LEVEL + size * NOISE, LEVEL - size * NOISE
                step = basic.step_function
                made += [
                    ("step up", step(value_before=LEVEL, value_after=up, **noisy)),
                    ("step down", step(value_before=LEVEL, value_after=down, **noisy)),
                    (
                        "step 8 points before the end",
                        step(value_before=LEVEL, value_after=up, change_index=count - 8, **noisy),
                    ),
                    (
                        "regression of 10 points",
                        basic.regression_fix(value_normal=LEVEL, value_regression=up, **noisy),
                    ),
                ]
            for kind, series in made:
                steps = [
                    int(one.index)
                    for one in series.change_points
                    if one.change_type not in ("outlier", "variance")
                ]
                yield {"kind": kind, "values": list(map(float, series.data)), "steps": steps}


def make_waits(seeds: int) -> Iterator[dict[str, Any]]:
    """Series whose step is looked for again with each point after it."""
    from otava_test_data.generators import basic

    for size in SIZES:
        for seed in range(seeds):
            series = basic.step_function(
                length=BEFORE + LONGEST,
                value_before=LEVEL,
                value_after=LEVEL + size * NOISE,
                change_index=BEFORE,
                sigma=NOISE,
                seed=seed,
            )
            yield {"size": size, "values": list(map(float, series.data))}


def main() -> int:
    """Make the series, search them by Otava's defaults, write both."""
    from otava.analysis import compute_change_points

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, required=True)
    seeds = parser.parse_args().seeds

    def find(values: Sequence[float]) -> list[int]:
        return [int(point.index) for point in compute_change_points(list(values))[0]]

    series, waits = list(make_series(seeds)), list(make_waits(seeds))
    started = time.perf_counter()
    for one in series:
        one["found"] = find(one["values"])
    took_s = time.perf_counter() - started
    for one in waits:
        one["points"] = points_until_found(find, one["values"])
    name = f"Apache Otava {version('apache-otava')}"
    json.dump({"name": name, "series": series, "took_s": took_s, "waits": waits}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
