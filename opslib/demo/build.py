"""Building the embedded demo experiment: images, training, two exported generations."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from opslib.core.config import Config
from opslib.core.files import sha256_bytes
from opslib.core.formatting import format_duration, now_text
from opslib.core.locks import hold_lock, host_lock_path
from opslib.core.records import Part, Record
from opslib.demo import place
from opslib.demo.pills import DemoSize, kind_names
from opslib.demo.place import DemoMarker

if TYPE_CHECKING:
    from opslib.demo.training import Step

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


class DemoSummary(Part):
    """What a demo holds; `duration_s` is what building took, `built` whether it was built now."""

    exp_dir: Path
    data_root: Path
    built: bool
    seed: int = 0
    classes: int
    images: int
    val_top1: float
    previous_val_top1: float
    model: str
    previous_model: str
    duration_s: float

    def lines(self) -> list[str]:
        """The summary as lines to read."""
        head = "built in " + format_duration(self.duration_s) if self.built else "already there"
        return [
            f"demo experiment {head}: {self.exp_dir}",
            f"  {self.images:,} images of {self.classes} pills in {self.data_root}",
            f"  newest model    {self.model}  top-1 {100 * self.val_top1:.1f} %",
            f"  previous model  {self.previous_model}  top-1 {100 * self.previous_val_top1:.1f} %",
        ]


class BuildProgress(Progress):
    """The build's stages on a console: bars on a terminal, finished lines alone elsewhere."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=32),
            TextColumn("{task.completed:>5}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._stages: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        """Show one finished line."""
        self.console.print(text, soft_wrap=True, markup=False)

    def move(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Move the bar of a stage."""
        if stage not in self._stages:
            self._stages[stage] = self.add_task(stage, total=total, note=note)
        self.update(self._stages[stage], completed=done, note=note)

    def show_step(self, step: Step) -> None:
        """Move the bar of the training, and say how each epoch ended."""
        note = f"epoch {step.epoch}/{step.epochs}  loss {step.loss:.3f}"
        if step.top1 is not None:
            note = f"{note}  top-1 {100 * step.top1:.1f} %"
            self.say(f"training  {note}")
        done = (step.epoch - 1) * step.steps + step.step
        self.move("training", done, step.epochs * step.steps, note)


def build_demo(
    config: Config,
    *,
    force: bool = False,
    size: DemoSize | None = None,
    console: Console | None = None,
) -> DemoSummary:
    """Build the demo experiment where `config` says, and return what it holds.

    Where it is there already nothing is done, unless `force`: then it is built anew, and files that
    others put into its folders (reports, releases, logs) are kept. It appears whole or not at all.
    Progress and the summary go to `console`, if one is given. Raises ConfigError: a configured
    folder holds something the demo did not make; StorageError: a folder cannot be written or the
    disk is full; BusyError: it is being built by another process, or a service uses its models.
    """
    folders = place.demo_folders(config)
    lock = host_lock_path(f"demo-{sha256_bytes(str(folders[-1]).encode())[:12]}")
    with (
        hold_lock(lock, "building the demo", wait_s=_LOCK_WAIT_S),
        BuildProgress(console or Console(quiet=True)) as progress,
    ):
        place.refuse_foreign(folders)
        markers = [place.read_marker(folder) for folder in folders]
        marker, whole = markers[-1], all(markers)
        built = marker is None or not whole or force
        if built:
            if whole:
                place.refuse_served(config)
            with place.build_aside(folders) as asides:
                marker = _build(config, size or DemoSize(), asides, progress)
                for folder, new in asides.items():
                    place.move_in(new, folder, marker)
        facts = {} if marker is None else marker.facts
        where = {"exp_dir": config.exp_dir, "data_root": config.data_root, "built": built}
        summary = DemoSummary.model_validate(where | facts)
        for line in summary.lines():
            progress.say(line)
    return summary


def _build(
    config: Config, size: DemoSize, asides: dict[Path, Path], progress: BuildProgress
) -> DemoMarker:
    from opslib.demo.export import export_generations
    from opslib.demo.photo import render_dataset
    from opslib.demo.training import train

    started = time.perf_counter()
    exp_dir, data_root = config.exp_dir.resolve(), asides[config.data_root.resolve()]
    export_dir = config.export_dir.resolve()
    if export_dir in asides:
        export_dir = asides[export_dir]
    else:
        export_dir = asides[exp_dir] / export_dir.relative_to(exp_dir)
    exp_dir = asides[exp_dir]
    for name in FOLDERS:
        (exp_dir / name).mkdir(parents=True, exist_ok=True)
    images = render_dataset(data_root, size, partial(progress.move, "images"))
    progress.say(f"images    {images:,} photos of {len(size.kinds)} pills")
    names = kind_names(size.kinds)
    latest, previous = train(data_root, names, size, progress.show_step)
    both = (latest, previous)
    newer, older = export_generations(both, config, data_root, names, size, exp_dir, export_dir)
    progress.say(f"export    {Path(older.onnx_path).name}, {Path(newer.onnx_path).name}")
    scored = zip(names, latest.per_class, strict=True)
    metrics = ValidationMetrics(
        evaluated_at_utc=now_text(),
        checkpoint="checkpoints/best.pt",
        model=newer.onnx_path,
        epoch=latest.epoch,
        val_top1=latest.top1,
        val_loss=latest.loss,
        val_count=len(names) * size.val_per_class,
        train_count=len(names) * size.train_per_class,
        per_class={name: ClassScore(top1=x, count=size.val_per_class) for name, x in scored},
        previous_model=older.onnx_path,
        previous_epoch=previous.epoch,
        previous_val_top1=previous.top1,
    )
    metrics.write(exp_dir / "reports" / "metrics.json")
    return DemoMarker(
        built_at_utc=now_text(),
        facts={
            "seed": size.seed,
            "classes": len(names),
            "images": images,
            "val_top1": metrics.val_top1,
            "previous_val_top1": metrics.previous_val_top1,
            "model": Path(newer.onnx_path).name,
            "previous_model": Path(older.onnx_path).name,
            "duration_s": round(time.perf_counter() - started, 1),
        },
    )
