"""Building the embedded demo experiment: images, training, two exported generations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from opslib.core.config import Config
from opslib.core.files import link_atomic, sha256_bytes
from opslib.core.formatting import format_duration, utc_now
from opslib.core.lineage import git_sha
from opslib.core.locks import hold_lock, host_lock_path
from opslib.core.records import Part, Record
from opslib.demo.dataset import DemoSize, render_dataset
from opslib.demo.pills import kind_names
from opslib.demo.place import (
    DemoMarker,
    build_aside,
    demo_folders,
    move_in,
    read_marker,
    refuse_foreign,
    refuse_served,
)
from opslib.demo.progress import BuildProgress

if TYPE_CHECKING:
    from opslib.core.cards import REPORT_NAME, ModelCard
    from opslib.demo.training import Generation, Training

FOLDERS = ("logs", "logs/archive", "checkpoints", "export", "reports", "releases")
_LOCK_WAIT_S = 1.0


class ClassScore(Part):
    """Top-1 (0..1) on the validation images of one class, and how many there are."""

    top1: float
    count: int


class ValidationMetrics(Record):
    """The latest validation metrics of the experiment; ratios are 0..1."""

    schema_name = "validation-metrics"

    evaluated_at_utc: str
    checkpoint: str
    model: str
    epoch: int
    val_top1: float
    val_loss: float
    val_count: int
    train_count: int
    per_class: dict[str, ClassScore]
    previous_model: str
    previous_epoch: int
    previous_val_top1: float


@dataclass(frozen=True)
class DemoSummary:
    """What a demo holds; `duration_s` is what building took, `built` whether it was built now."""

    exp_dir: Path
    data_root: Path
    classes: int
    images: int
    val_top1: float
    previous_val_top1: float
    model: str
    previous_model: str
    duration_s: float
    built: bool

    def lines(self) -> list[str]:
        """The summary as lines to read."""
        head = "built in " + format_duration(self.duration_s) if self.built else "already there"
        return [
            f"demo experiment {head}: {self.exp_dir}",
            f"  {self.images:,} images of {self.classes} pills in {self.data_root}",
            f"  newest model    {self.model}  top-1 {100 * self.val_top1:.1f} %",
            f"  previous model  {self.previous_model}  top-1 {100 * self.previous_val_top1:.1f} %",
        ]


def build_demo(
    config: Config,
    *,
    force: bool = False,
    size: DemoSize | None = None,
    console: Console | None = None,
) -> DemoSummary:
    """Build the demo experiment where `config` says, and return what it holds.

    Where it is there already nothing is done, unless `force`: then it is built anew, and files
    that others put into its folders (reports, releases, logs) are kept. It appears whole or not
    at all. Progress and the summary go to `console`, if one is given.

    Raises:
        ConfigError: a configured folder holds something the demo did not make.
        StorageError: a folder cannot be written or the disk is full.
        BusyError: it is being built by another process, or a service uses its models.
    """
    folders = demo_folders(config)
    lock = host_lock_path(f"demo-{sha256_bytes(str(folders[-1]).encode())[:12]}")
    with (
        hold_lock(lock, "building the demo", wait_s=_LOCK_WAIT_S),
        BuildProgress(console) as progress,
    ):
        refuse_foreign(folders)
        markers = [read_marker(folder) for folder in folders]
        if all(markers) and not force and markers[-1] is not None:
            summary = _summarize(config, markers[-1], built=False)
        else:
            if all(markers):
                refuse_served(config)
            with build_aside(folders) as asides:
                marker = _build(config, size or DemoSize(), asides, progress)
                for folder, new in asides.items():
                    move_in(new, folder, marker)
            summary = _summarize(config, marker, built=True)
        for line in summary.lines():
            progress.say(line)
    return summary


def _summarize(config: Config, marker: DemoMarker, *, built: bool) -> DemoSummary:
    facts = marker.facts
    return DemoSummary(
        exp_dir=config.exp_dir,
        data_root=config.data_root,
        classes=int(facts["classes"]),
        images=int(facts["images"]),
        val_top1=float(facts["val_top1"]),
        previous_val_top1=float(facts["previous_val_top1"]),
        model=str(facts["model"]),
        previous_model=str(facts["previous_model"]),
        duration_s=float(facts["duration_s"]),
        built=built,
    )


def _build(
    config: Config, size: DemoSize, asides: dict[Path, Path], progress: BuildProgress
) -> DemoMarker:
    """Fill the folders aside and return the marker that they shall carry."""
    started = time.perf_counter()
    exp_dir = asides[config.exp_dir.resolve()]
    data_root = asides[config.data_root.resolve()]
    for name in FOLDERS:
        (exp_dir / name).mkdir(parents=True, exist_ok=True)
    images = render_dataset(
        data_root, size, lambda done, total: progress.move("images", done, total)
    )
    progress.say(f"images    {images:,} photos of {len(size.kinds)} pills")
    names = kind_names(size.kinds)
    training = _train(data_root, names, size, progress)
    export_dir = _export_dir(config, asides)
    newest, previous = _export(config, training, data_root, names, size, exp_dir, export_dir)
    metrics = _write_metrics(exp_dir, training, newest, previous, names, size)
    progress.say(f"export    {Path(previous.onnx_path).name}, {Path(newest.onnx_path).name}")
    return DemoMarker(
        built_at_utc=utc_now().isoformat(timespec="seconds"),
        facts={
            "seed": size.seed,
            "classes": len(names),
            "images": images,
            "val_top1": metrics.val_top1,
            "previous_val_top1": metrics.previous_val_top1,
            "model": Path(newest.onnx_path).name,
            "previous_model": Path(previous.onnx_path).name,
            "duration_s": round(time.perf_counter() - started, 1),
        },
    )


def _export_dir(config: Config, asides: dict[Path, Path]) -> Path:
    """Where the exports are put aside, inside the experiment or apart as configured."""
    wanted = config.export_dir.resolve()
    if wanted in asides:
        return asides[wanted]
    exp_dir = config.exp_dir.resolve()
    return asides[exp_dir] / wanted.relative_to(exp_dir)


def _train(
    data_root: Path, names: Sequence[str], size: DemoSize, progress: BuildProgress
) -> Training:
    from opslib.demo.training import Step, train

    def show(step: Step) -> None:
        done, total = (step.epoch - 1) * step.steps + step.step, step.epochs * step.steps
        note = f"epoch {step.epoch}/{step.epochs}  loss {step.loss:.3f}"
        if step.evaluation is not None:
            note = f"{note}  top-1 {100 * step.evaluation.top1:.1f} %"
            progress.say(f"training  {note}")
        progress.move("training", done, total, note)

    return train(data_root, names, size, show)


def _export(
    config: Config,
    training: Training,
    data_root: Path,
    names: Sequence[str],
    size: DemoSize,
    exp_dir: Path,
    export_dir: Path,
) -> tuple[ModelCard, ModelCard]:
    """Write checkpoints, both models and their cards; return the newer and the older card."""
    from opslib.demo import export
    from opslib.demo.network import build_network
    from opslib.demo.training import list_images

    sha = git_sha(config.root)
    held = [path for path, _ in list_images(data_root, "val", names)]
    count = min(size.compare_images, len(held))
    compared = [held[i * len(held) // count] for i in range(count)]
    golden = export.copy_golden(held, export_dir, size.golden)
    moment = utc_now()
    made: list[ModelCard] = []
    plan = (("previous", training.previous, True), ("best", training.latest, False))
    for place, (label, generation, sidecar) in enumerate(plan):
        checkpoint = exp_dir / "checkpoints" / f"{label}.pt"
        export.save_checkpoint(checkpoint, generation, names, size.img_size, sha)
        net = build_network(len(names))
        net.load_state_dict(generation.weights)
        card = export.export_generation(
            net.eval(),
            export_dir,
            # One stamp a second: the two must not share a name.
            moment=max(utc_now(), moment + timedelta(seconds=place)),
            git_sha=sha,
            checkpoint=f"checkpoints/{label}.pt",
            images=compared,
            golden=golden,
            names=names,
            img_size=size.img_size,
            sidecar=sidecar,
            config=config,
        )
        made.append(card)
    previous, newest = made
    newest.write(export_dir / REPORT_NAME)
    link_atomic(export_dir / "latest.onnx", Path(newest.onnx_path).name)
    return newest, previous


def _write_metrics(
    exp_dir: Path,
    training: Training,
    newest: ModelCard,
    previous: ModelCard,
    names: Sequence[str],
    size: DemoSize,
) -> ValidationMetrics:
    latest: Generation = training.latest
    scores = {
        name: ClassScore(top1=top1, count=size.val_per_class)
        for name, top1 in zip(names, latest.evaluation.per_class, strict=True)
    }
    metrics = ValidationMetrics(
        evaluated_at_utc=utc_now().isoformat(timespec="seconds"),
        checkpoint="checkpoints/best.pt",
        model=newest.onnx_path,
        epoch=latest.epoch,
        val_top1=latest.evaluation.top1,
        val_loss=latest.evaluation.loss,
        val_count=latest.evaluation.count,
        train_count=len(names) * size.train_per_class,
        per_class=scores,
        previous_model=previous.onnx_path,
        previous_epoch=training.previous.epoch,
        previous_val_top1=training.previous.evaluation.top1,
    )
    metrics.write(exp_dir / "reports" / "metrics.json")
    return metrics
