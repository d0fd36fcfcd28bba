"""Which model and checkpoint an operation means when it is not told."""

import os
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from opslib.core.cards import ModelCard, read_card, read_export_report
from opslib.core.clock import parse_moment, part_ahead
from opslib.core.config import Config
from opslib.core.errors import ModelError
from opslib.core.globs import find_matches
from opslib.core.kinds import Kind, pick_classifier
from opslib.core.models import follow_model, resolve_model

BEST_CHECKPOINT = Path("checkpoints/best.pt")
_STAMP = re.compile(r"(?<!\d)\d{8}-\d{6}(?!\d)")


def find_onnx(config: Config, given: Path | None = None, kind: Kind | None = None) -> Path:
    """Return the ONNX file meant: `given`, else what the kind's link (`export/latest.onnx`) means,
    else the newest export of the kind; of the classifier by default.

    Raises:
        ModelError: there is none, and the message says how to make one; or the link is there and
            leads to no file: another model is not taken in its place.
        ParameterError: no kind is given and there are several classifiers.
    """
    if given is not None:
        return given.absolute() if os.path.lexists(given) else config.resolve(given)
    kind = kind or pick_classifier(config)
    latest = config.export_dir / kind.link
    if os.path.lexists(latest):
        try:
            check_link(latest, kind)
        except ModelError as error:
            raise ModelError(
                f"{error}; link the model that is meant (`ln -sfn MODEL.onnx {latest}`), "
                "or name one: no other is taken in its place"
            ) from error
        return latest
    exports = list_exports(config.export_dir, kind)
    if exports:
        return exports[0]
    what = "no ONNX model" if kind.sole else f"no {kind.name} model ({kind.pattern})"
    make = "make the demo with `make demo`" if config.can_be_demo else "export one"
    raise ModelError(
        f"{config.export_dir}: {what}; {make}, "
        "name one with --model, or set paths.exp_dir in the configuration"
    )


def check_link(link: Path, kind: Kind) -> Path:
    """Return the model that the link of a kind means; refuse one that leads to no file, or to a
    model of another kind."""
    real = resolve_model(link)
    if not kind.sole and not kind.has(real.name):
        raise ModelError(f"{link}: means {real.name}, which is no {kind.name} model")
    return real


def list_exports(folder: Path, kind: Kind) -> list[Path]:
    """Return the models of a kind in `folder` that are no links, as `newest_first`; none without
    it. A folder that may not be looked into is a `ModelError`."""
    try:
        paths = [path for path in folder.iterdir() if kind.has(path.name)]
        return newest_first(path for path in paths if path.is_file() and not path.is_symlink())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read: {error.strerror}") from error


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
    """Return what is known of `model`: its own card, else the export report that names it; None
    where neither was ever there. Evidence that cannot be read is an `InputError`."""
    card = read_card(model)
    if card is not None:
        return card
    report = read_export_report(config.export_dir)
    if report is not None and Path(report.onnx_path).name == follow_model(model).name:
        return report
    return None


def find_checkpoint(config: Config, given: Path | None, card: ModelCard | None) -> Path:
    """Return the Torch checkpoint: `given`, else the one the card names, else the newest that the
    first fitting glob of `torch.checkpoints` names, below `exp_dir` or else `code_root`. Where
    there is none, a `ModelError` says where was looked."""
    if given is not None:
        return given.absolute() if given.exists() else config.resolve(given)
    roots = (config.exp_dir, config.export_dir, config.code_root or config.root, config.root)
    named = card.ckpt_path if card is not None else None
    candidates = [root / named for root in roots] if named else []
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    folders = dict.fromkeys(filter(None, (config.exp_dir, config.code_root)))
    for root in folders:
        for pattern in config.torch.checkpoints:
            found = [path for path in find_matches(pattern, root).files if path.is_file()]
            if found:
                return newest_first(found)[0]
    looked = ", ".join([*map(str, dict.fromkeys(candidates)), *config.torch.checkpoints])
    raise ModelError(
        f"no Torch checkpoint (looked for {looked} below {' and '.join(map(str, folders))}); "
        "name one with --checkpoint, or its pattern in torch.checkpoints"
    )
