"""One tiny demo for all tests that only read it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from opslib.core.config import Config, load_config
from opslib.demo.build import DemoSummary, build_demo
from opslib.demo.pills import KINDS, DemoSize

TINY = DemoSize(
    kinds=tuple(kind for kind in KINDS if kind.name in ("round-pink-rx", "capsule-red-ivory")),
    train_per_class=16,
    val_per_class=6,
    img_size=48,
    epochs=2,
    compare_images=8,
    golden=3,
)


def make_config(folder: Path) -> Config:
    """A configuration whose experiment and images lie in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    nobody = "client: {url: 'http://127.0.0.1:9'}\n"
    (folder / "config.yaml").write_text(
        "paths:\n  exp_dir: demo/exp01\n  data_root: demo/images\n" + nobody
    )
    return load_config(folder / "config.yaml", environment={})


class Tiny(NamedTuple):
    """A finished tiny demo, and what was said while it was built."""

    config: Config
    summary: DemoSummary
    said: str


@pytest.fixture(scope="session", autouse=True)
def locks_aside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the locks of test builds out of the host's own folder."""
    folder = tmp_path_factory.mktemp("locks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opslib.demo.build.host_lock_path", lambda name: folder / f"{name}.lock")
        yield


@pytest.fixture(scope="session")
def tiny_build(tmp_path_factory: pytest.TempPathFactory, locks_aside: None) -> Tiny:
    """A finished tiny demo: treat it as read-only."""
    config = make_config(tmp_path_factory.mktemp("tiny"))
    console = Console(file=io.StringIO(), width=200)
    summary = build_demo(config, size=TINY, console=console)
    return Tiny(config, summary, console.file.getvalue())


@pytest.fixture
def tiny(tiny_build: Tiny) -> tuple[Config, DemoSummary]:
    """The configuration and the summary of the finished tiny demo."""
    return tiny_build.config, tiny_build.summary
