"""The demo's image set: `train/<class>/*.jpg` and `val/<class>/*.jpg`."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from opslib.core.errors import storage_errors
from opslib.core.host import usable_cpus
from opslib.demo.pills import KINDS, PillKind

_ALONE_BELOW = 300


@dataclass(frozen=True)
class DemoSize:
    """How large a demo is; the defaults are the embedded experiment.

    `previous_gap_pp` is how far below the newest model's top-1 the previous generation shall
    lie, in percentage points: the epoch that comes nearest is taken.
    """

    kinds: tuple[PillKind, ...] = KINDS
    train_per_class: int = 130
    val_per_class: int = 100
    img_size: int = 80
    epochs: int = 10
    previous_gap_pp: float = 2.0
    compare_images: int = 256
    golden: int = 8
    seed: int = 20240


def render_dataset(
    data_root: Path, size: DemoSize, on_image: Callable[[int, int], None] | None = None
) -> int:
    """Write all images of the demo under `data_root` and return how many there are.

    Each image depends on the seed, its class, split and number alone, not on the order or the
    number of processes. `on_image` is called with (images done, images in all). Raises
    StorageError: the folder cannot be written or the disk is full.
    """
    counts = {"train": size.train_per_class, "val": size.val_per_class}
    jobs = [
        (data_root / split / kind.name, kind, size.seed, split, count)
        for kind in size.kinds
        for split, count in counts.items()
    ]
    total, done = sum(counts.values()) * len(size.kinds), 0
    # A fresh interpreter per process: this one may hold threads, which a fork would break.
    context = multiprocessing.get_context("spawn")
    with storage_errors(f"write images under {data_root}"), ExitStack() as stack:
        finished: Iterator[int] = map(_render_folder, *zip(*jobs, strict=True))
        if total >= _ALONE_BELOW:
            pool = stack.enter_context(ProcessPoolExecutor(usable_cpus(), mp_context=context))
            finished = pool.map(_render_folder, *zip(*jobs, strict=True))
        for count in finished:
            done += count
            if on_image is not None:
                on_image(done, total)
    return done


def _render_folder(folder: Path, kind: PillKind, seed: int, split: str, count: int) -> int:
    """Write one class of one split and return how many images that is."""
    from opslib.demo.photo import photograph

    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        data = photograph(kind, seed=seed, split=split, index=index)
        (folder / f"{split}-{index:04d}.jpg").write_bytes(data)
    return count
