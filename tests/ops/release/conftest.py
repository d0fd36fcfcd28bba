"""An experiment that can be released, and archives that should not be trusted."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from opslib.core.files import sha256_bytes
from opslib.ops.release.build import ReleaseRecord, build_release
from opslib.ops.release.companions import checksum_path
from opslib.ops.release.request import ReleaseRequest
from tests.serving.conftest import Place, make_place

QUICK = ReleaseRequest(load_models=False)


def make_experiment(folder: Path, extra: str = "") -> Place:
    """Build an experiment with two models, cards, golden images, a report and metrics."""
    place = make_place(folder, extra)
    metrics = place.config.records_dir / "metrics.json"
    metrics.parent.mkdir(parents=True, exist_ok=True)
    metrics.write_text(json.dumps({"top1_pct": 97.5}))
    card = place.second.with_suffix(".json").read_bytes()
    (place.export / "export_report.json").write_bytes(card)
    return place


def grow_sidecar(place: Place, size: int) -> None:
    """Give the second model's weights file more bytes, which the model does not mind."""
    with place.second.with_name("model-b.onnx.data").open("ab") as file:
        file.write(os.urandom(size))
    for name in ("model-b.json", "export_report.json"):
        (place.export / name).unlink()


def answer_wrongly(place: Place) -> None:
    """Let the second model's card expect other golden answers than the model gives."""
    card = json.loads(place.second.with_suffix(".json").read_text())
    for one in card["golden"]:
        one["probabilities"] = one["probabilities"][::-1]
    place.second.with_suffix(".json").write_text(json.dumps(card))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An experiment of this test's own."""
    return make_experiment(tmp_path)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, ReleaseRecord]:
    """One experiment with one release, for tests that only read."""
    place = make_experiment(tmp_path_factory.mktemp("released"))
    return place, build_release(place.config, QUICK)


def visible(folder: Path) -> list[str]:
    """The names in a folder of releases that a person sees."""
    return sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))


def hidden_files(folder: Path) -> list[str]:
    """What a release may have left behind."""
    kept = (".release.lock", ".restore.lock")
    return sorted(
        one.name for one in folder.iterdir() if one.name.startswith(".") and one.name not in kept
    )


def members_of(archive: Path) -> dict[str, bytes]:
    """The files of an archive as Python's own tarfile reads them."""
    with tarfile.open(archive, "r:gz") as tar:
        found = {}
        for one in tar:
            file = tar.extractfile(one)
            assert file is not None
            found[one.name] = file.read()
        return found


def write_archive(path: Path, members: list[tarfile.TarInfo | tuple[str, bytes]]) -> Path:
    """Write a tar.gz of one's own making, with a checksum that fits, and return its path."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for one in members:
            if isinstance(one, tarfile.TarInfo):
                tar.addfile(one)
            else:
                info = tarfile.TarInfo(one[0])
                info.size = len(one[1])
                tar.addfile(info, io.BytesIO(one[1]))
    return seal(path, gzip.compress(buffer.getvalue(), 1, mtime=0))


def seal(path: Path, data: bytes) -> Path:
    """Write an archive's bytes with the checksum that fits them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    checksum_path(path).write_text(f"{sha256_bytes(data)}  {path.name}\n")
    return path
