"""H-1: whatever lies in an experiment, no root is ever deleted, a plan changes nothing, and a
second run has nothing to do."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opslib.core.cards import FileEntry
from opslib.core.served import ServedModel, ServedState, served_state_path
from opslib.ops.release.manifest import Manifest, ModelSummary, compute_content_id
from opslib.ops.release.store import Pins
from tests.turns import looped, turns
from tests.upkeep.places import Place, make_place, set_age, tiny_model

Ages = st.one_of(
    st.integers(-300, 8000).map(lambda hundredths: hundredths / 100),
    st.sampled_from([7.0, 14.0, 30.0, 0.0, 400.0]),
)
INDEX = st.integers(0, 8)


@dataclass(frozen=True)
class Model:
    """One model to be written: its age, weights shared by number, checkpoint, damage."""

    age: float
    weights: tuple[int, ...]
    checkpoint: int | None
    card: bool
    damaged: bool


@dataclass(frozen=True)
class Tree:
    """All of an experiment that matters to maintenance."""

    models: tuple[Model, ...]
    checkpoints: tuple[float, ...]
    logs: tuple[tuple[str, float, int], ...]
    archives: tuple[float, ...]
    linked: tuple[int, ...]
    served: tuple[int, ...]
    model_path: int | None
    pinned: tuple[int, ...]
    restored: tuple[tuple[float, bool], ...]
    keep: int


MODELS = st.builds(
    Model,
    age=Ages,
    weights=st.lists(st.integers(0, 4), max_size=2, unique=True).map(tuple),
    checkpoint=st.none() | INDEX,
    card=st.booleans(),
    damaged=st.sampled_from([False, False, False, True]),
)
TREES = st.builds(
    Tree,
    models=st.one_of(st.lists(MODELS, max_size=3), st.lists(MODELS, min_size=6, max_size=10)).map(
        tuple
    ),
    checkpoints=st.lists(Ages, max_size=6).map(tuple),
    logs=st.lists(
        st.tuples(st.sampled_from(["out", "err", "txt"]), Ages, st.integers(0, 5000)), max_size=6
    ).map(tuple),
    archives=st.lists(Ages, max_size=4).map(tuple),
    linked=st.lists(INDEX, max_size=2).map(tuple),
    served=st.lists(INDEX, max_size=3).map(tuple),
    model_path=st.none() | INDEX,
    pinned=st.lists(INDEX, max_size=2).map(tuple),
    restored=st.lists(st.tuples(Ages, st.booleans()), max_size=3).map(tuple),
    keep=st.integers(1, 6),
)


def model_name(index: int) -> str:
    return f"model-202601{index + 10:02d}-000000-abc1234.onnx"


def grow(folder: Path, tree: Tree) -> Place:
    """Write the tree."""
    place = make_place(folder, f"keep_onnx: {tree.keep}")
    export = place.exp / "export"
    for index, model in enumerate(tree.models):
        weights = [f"w{number}.data" for number in model.weights]
        card = {"ckpt_path": f"checkpoints/last_{model.checkpoint}.pt"}
        path = place.write_model(
            model_name(index), *weights, days=model.age, card=card if model.card else None
        )
        if model.damaged:
            path.write_bytes(b"torn")
            set_age(path, model.age)
    for index, age in enumerate(tree.checkpoints):
        place.write(f"checkpoints/last_{index}.pt", days=age)
    place.write("checkpoints/best.pt", days=500)
    for index, (ending, age, size) in enumerate(tree.logs):
        place.write(f"logs/job{index}.{ending}", b"x" * size, days=age)
    for index, age in enumerate(tree.archives):
        place.write(f"logs/archive/old{index}.out.gz", days=age)
    export.mkdir(exist_ok=True)
    for number, index in enumerate(tree.linked):
        (export / f"link{number}.onnx").symlink_to(model_name(index))
    outside = folder / "outside"
    outside.mkdir()
    set_age(outside, 0)
    (outside / "theirs.onnx").write_bytes(b"theirs")
    (outside / "theirs.out").write_bytes(b"theirs")
    set_age(outside / "theirs.onnx", 500)
    set_age(outside / "theirs.out", 20)
    (export / "elsewhere.onnx").symlink_to(outside / "theirs.onnx")
    (place.exp / "logs").mkdir(exist_ok=True)
    (place.exp / "logs" / "elsewhere.out").symlink_to(outside / "theirs.out")
    for number, (age, is_linked) in enumerate(tree.restored):
        model = place.write(restored_name(number), tiny_model(), days=age)
        set_age(model.parents[1], age)
        if is_linked:
            (place.exp / f"restored{number}.onnx").symlink_to(model)
    serve(place, tree)
    pin(place, tree)
    return place


def restored_name(number: int) -> str:
    return f"releases/restored/release-202602{number + 10}-000000-abc1234/export/model.onnx"


def serve(place: Place, tree: Tree) -> None:
    served = [
        ServedModel(
            path=place.exp / "export" / model_name(index),
            sha256=f"{number:064d}",
            version_tag="t",
            generation=number,
            switched_at_utc="",
        )
        for number, index in enumerate(tree.served)
    ]
    if served:
        state = ServedState(current=served[0], previous=tuple(served[1:]))
        state.write(served_state_path(place.config))
    if tree.model_path is not None:
        env = place.config_path.with_name(".env")
        env.write_text(f"MODEL_PATH=exp/export/{model_name(tree.model_path)}\n")


def pin(place: Place, tree: Tree) -> None:
    """A pinned release that holds these models; only the copy of its manifest is a real one."""
    if not tree.pinned:
        return
    name = "release-20260101-000000-abc1234"
    paths = [f"export/{model_name(index)}" for index in dict.fromkeys(tree.pinned)]
    files = tuple(FileEntry(path=path, size=1, sha256="0" * 64) for path in paths)
    manifest = Manifest(
        content_id=compute_content_id(files),
        released_at_utc="2026-01-01T00:00:00+00:00",
        git_sha="abc1234",
        main=paths[0],
        files=files,
        models=tuple(ModelSummary(path=path, sha256="0" * 64, size_bytes=1) for path in paths),
    )
    place.write(f"releases/{name}.tar.gz", b"archive")
    place.write(f"releases/{name}.tar.gz.sha256", b"digest")
    manifest.write(place.exp / "releases" / f"{name}.manifest.json")
    Pins(names=(name,)).write(place.exp / "releases" / "pins.json")


def roots_of(tree: Tree) -> set[str]:
    """Every file that must be there afterwards, worked out from the tree alone."""
    indices = {*tree.linked, *tree.served[:2], *tree.pinned}
    indices |= {tree.model_path} if tree.model_path is not None else set()
    if tree.models:
        newest = max(range(len(tree.models)), key=lambda i: (-tree.models[i].age, model_name(i)))
        indices.add(newest)
    kept = {"checkpoints/best.pt"}
    kept |= {restored_name(number) for number, (_, linked) in enumerate(tree.restored) if linked}
    for index in indices:
        if index >= len(tree.models):
            continue
        model = tree.models[index]
        kept.add(f"export/{model_name(index)}")
        if not model.damaged:
            kept |= {f"export/w{number}.data" for number in model.weights}
        if model.card:
            kept.add(f"export/{model_name(index).removesuffix('.onnx')}.json")
            if model.checkpoint is not None and model.checkpoint < len(tree.checkpoints):
                kept.add(f"checkpoints/last_{model.checkpoint}.pt")
    return kept


@looped
@settings(deadline=None, max_examples=turns(15, 100), suppress_health_check=list(HealthCheck))
@given(tree=TREES)
def test_no_root_is_deleted_and_a_second_run_has_nothing_to_do(tree: Tree) -> None:
    folder = Path(tempfile.mkdtemp(prefix="pillops-tree-"))
    try:
        place = grow(folder / "place", tree)
        before = place.files()
        there = {name for name in roots_of(tree) if name in before}
        planned = place.plan()
        assert place.files() == before, "a plan changes nothing"
        record = place.run().record
        assert not record.skipped
        assert len(record.done) == len(planned.plan.actions)
        after = place.files()
        assert there <= set(after), f"deleted roots: {there - set(after)}"
        assert all(after[name] == before[name] for name in there)
        outside = {
            path.name: path.read_bytes() for path in (folder / "place" / "outside").iterdir()
        }
        assert outside == {"theirs.onnx": b"theirs", "theirs.out": b"theirs"}
        models = [name for name in after if name.startswith("export/model-")]
        assert len([name for name in models if name.endswith(".onnx")]) >= min(
            tree.keep, len(tree.models)
        )
        assert place.targets() == [], "a second run has nothing to do"
    finally:
        shutil.rmtree(folder)
