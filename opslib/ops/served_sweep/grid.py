"""Which combinations a sweep of the service asks for, and which of them run alike."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from opslib.core.files import sha256_bytes
from opslib.core.sections import SweepSection
from opslib.ops.served_sweep.record import ServedOptions


@dataclass(frozen=True)
class ServedArm:
    """One service that differs from all others; `options` are the simplest that give it. `row` is
    the number of the row it is reported in; `key` says whether a kept trial is its own."""

    row: int
    options: ServedOptions
    key: str

    @property
    def label(self) -> str:
        """Its differences from the default."""
        return self.options.label


@dataclass(frozen=True)
class Combination:
    """One requested combination and its arm's row; `note` says what it comes to."""

    number: int
    options: ServedOptions
    arm_row: int | None = None
    reason: str | None = None
    note: str | None = None


def list_served_options(section: SweepSection, cpus: int) -> tuple[ServedOptions, ...]:
    """Return every requested set of options once, the default first: workers x threads x batching x
    spinning."""
    counts = (0, *sorted({1, max(1, cpus // 2)} - {cpus}))
    grid = itertools.product(
        counts if section.workers is None else section.workers,
        dict.fromkeys((1, *counts)) if section.threads is None else section.threads,
        section.max_batch,
        section.spinning,
    )
    asked = (
        ServedOptions(
            workers=workers,
            intra_op_num_threads=threads,
            max_batch=max_batch,
            allow_spinning=spinning,
        )
        for workers, threads, max_batch, spinning in grid
    )
    return tuple(dict.fromkeys((ServedOptions(), *asked)))


def make_served_arms(
    options: Iterable[ServedOptions],
    cpus: int,
    *,
    identity: Sequence[str],
    unbatched: str | None = None,
) -> tuple[tuple[Combination, ...], tuple[ServedArm, ...]]:
    """Return a line for every combination, and one arm for each service that differs.

    Args:
        cpus: how many processors a service may use, which 0 means.
        identity: what else decides a figure: model, host, versions, images, the goal.
        unbatched: why the service runs each request of this model by itself, if so.
    """
    lines = [Combination(number, one) for number, one in enumerate(options, start=1)]
    groups: dict[tuple[object, ...], list[Combination]] = {}
    for line in lines:
        groups.setdefault(effective_options(line.options, cpus, unbatched), []).append(line)
    arms: list[ServedArm] = []
    row_of: dict[int, int] = {}
    for effective, group in groups.items():
        simplest = min(group, key=lambda line: (len(line.options.changes()), line.number))
        row_of |= {line.number: simplest.number for line in group}
        key = sha256_bytes(repr((tuple(identity), effective)).encode())[:32]
        arms.append(ServedArm(simplest.number, simplest.options, key))
    arms.sort(key=lambda arm: arm.row)
    return tuple(replace(line, arm_row=row_of[line.number]) for line in lines), tuple(arms)


def effective_options(
    options: ServedOptions, cpus: int, unbatched: str | None = None
) -> tuple[int, int, bool, int]:
    """Return workers, threads, spinning and batching as they come into effect: a single thread has
    nobody to spin beside it."""
    threads = options.intra_op_num_threads or cpus
    return (
        options.workers or cpus,
        threads,
        options.allow_spinning and threads > 1,
        1 if unbatched else options.max_batch,
    )
