"""Which model and checkpoint an operation means when it is not told."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from opslib.core.cards import ModelCard, read_card, read_export_report
from opslib.core.clock import parse_moment, part_ahead
from opslib.core.config import Config
from opslib.core.errors import InputError, ModelError

LATEST_NAME = "latest.onnx"
BEST_CHECKPOINT = Path("checkpoints/best.pt")
_STAMP = re.compile(r"(?<!\d)\d{8}-\d{6}(?!\d)")


def find_onnx(config: Config, given: Path | None = None) -> Path:
    """Return the ONNX file meant: `given`, else `export/latest.onnx`, else the newest export.

    Raises:
        ModelError: there is none; the message says how to make one.
    """
    if given is not None:
        return config.resolve(given) if not given.exists() else given.absolute()
    latest = config.export_dir / LATEST_NAME
    if latest.exists():
        return latest
    exported = newest_first(path for path in config.export_dir.glob("*.onnx") if path.is_file())
    if exported:
        return exported[0]
    raise ModelError(
        f"{config.export_dir}: no ONNX model; make the demo with `make demo`, "
        "name one with --model, or set paths.exp_dir in the configuration"
    )


def newest_first(models: Iterable[Path], now: datetime | None = None) -> list[Path]:
    """Return exported models, the newest first; those dated after now come last."""
    dated = sorted(models, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
    past, ahead = part_ahead(dated, model_moment, now)
    return past + ahead


def model_moment(path: Path) -> float:
    """Return when a model was exported, in Unix seconds: the later of its file's date and of the
    stamp in its name, which a copy of the file does not change."""
    written = path.stat().st_mtime
    named = _STAMP.search(path.name)
    moment = parse_moment(named[0]) if named else None
    return max(written, moment.timestamp()) if moment else written


def find_card(config: Config, model: Path) -> ModelCard | None:
    """Return what is known of `model`: its own card, else the export report that names it."""
    try:
        card = read_card(model)
    except InputError:
        card = None
    if card is not None:
        return card
    report = read_export_report(config.export_dir)
    if report is not None and Path(report.onnx_path).name == model.resolve().name:
        return report
    return None


def find_checkpoint(config: Config, given: Path | None, card: ModelCard | None) -> Path:
    """Return the Torch checkpoint: `given`, else the one the card names, else `best.pt`.

    Raises:
        ModelError: there is none; the message says where was looked.
    """
    if given is not None:
        return given.absolute() if given.exists() else config.resolve(given)
    candidates = [config.exp_dir / BEST_CHECKPOINT]
    if card is not None and card.ckpt_path:
        named = Path(card.ckpt_path)
        roots = (config.exp_dir, config.export_dir, config.code_root or config.root, config.root)
        candidates = [root / named for root in roots] + candidates
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = ", ".join(str(path) for path in dict.fromkeys(candidates))
    raise ModelError(f"no Torch checkpoint (looked for {looked}); name one with --checkpoint")
