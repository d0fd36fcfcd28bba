"""Which files a release holds, opened before any is read."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from opslib.core.cards import (
    REPORT_NAME,
    card_path,
    explain_report,
    read_report_fields,
)
from opslib.core.config import Config
from opslib.core.errors import InputError, ModelError
from opslib.core.kinds import Kind, list_kinds
from opslib.core.lineage import CODE_FOLDER
from opslib.core.models import find_model_files, resolve_model
from opslib.core.records import read_json
from opslib.inference.find_model import check_link, find_card, find_onnx, list_exports, newest_first
from opslib.ops.release.manifest import EXPORT_FOLDER, ReleasedKind, find_name_problem, show_name
from opslib.ops.release.opened import Collection, OpenedFile, OpenedModel, read_errors
from opslib.ops.release.request import ReleaseRequest

EXAMPLE_NAME = ".env.example"
REQUIREMENTS_NAME = "requirements.txt"
METRICS_NAME = "metrics.json"
METRICS_PATTERN = "metrics*.json"
_ATTEMPTS = 3
_KIND_FIELDS = ("name", "pattern", "link", "contract")
_HINT = "; release one model alone with --onnx PATH --only"


@contextmanager
def collect(config: Config, request: ReleaseRequest) -> Iterator[Collection]:
    """Yield the files of a release, opened; they are closed when the block ends. Raises ModelError:
    there is no model, a link dangles, or a model is not whole; InputError: a file is missing,
    unreadable or has a name that an archive cannot keep."""
    with ExitStack() as stack:
        yield _Collector(config, request, stack).collect()


class _Collector:
    def __init__(self, config: Config, request: ReleaseRequest, stack: ExitStack) -> None:
        self._config, self._request, self._stack = config, request, stack
        self._files: dict[str, OpenedFile] = {}

    def collect(self) -> Collection:
        config, onnx, only = self._config, self._request.onnx, self._request.only
        meant = _find_meant(config, onnx, links=not (only and onnx is not None))
        main = _find_main(config, onnx, meant)
        paths = [main]
        if not only:  # the way out where the folder is in disorder
            linked = {one.latest for one in meant if one.latest is not None}
            exported = [path for path in config.export_dir.glob("*.onnx") if not path.is_symlink()]
            found = {path.resolve() for path in exported if path.is_file()}
            paths = sorted({main, *found, *linked})
        names = {one.kind.link for one in meant if one.latest is not None}
        for path in paths:
            if path.name in names:
                raise InputError(f"{path}: named as the link beside it in a release{_HINT}")
        models = tuple(self._add_model(path) for path in paths)
        members = {one.model.source: one.model.member for one in models}
        notes, kinds, latest = self._add_documents(), [], None
        for one in meant:
            kind, latest = one.kind, members.get(one.latest) if one.latest else None
            if one.latest is not None and latest is None:
                what = f"{kind.link} means {one.latest.name}"
                notes.append(f"{what}, which is not part of this release")
            if one.main is None and not only:
                notes.append(f"no {kind.name} model ({kind.pattern}) is in this release")
            if one.main is not None and one.main in members:
                said = {name: getattr(kind, name) for name in _KIND_FIELDS}
                kinds.append(ReleasedKind(**said, main=members[one.main], latest=latest))
        return Collection(
            files=tuple(self._files[member] for member in sorted(self._files)),
            models=models,
            main=members[main],
            latest=None if config.models else latest,
            kinds=tuple(kinds) if config.models else (),
            notes=tuple(notes),
        )

    def _add_documents(self) -> list[str]:
        config, notes = self._config, []
        self._add("config.yaml", config.source)
        roots = (*filter(None, [config.code_root]), config.root, CODE_FOLDER)
        examples = [root / EXAMPLE_NAME for root in roots]
        example = next((path for path in examples if path.is_file()), examples[0])
        self._add(EXAMPLE_NAME, example)
        self._add(REQUIREMENTS_NAME, (config.code_root or CODE_FOLDER) / REQUIREMENTS_NAME)
        report = config.export_dir / REPORT_NAME
        if read_report_fields(report):
            self._add(_member(REPORT_NAME), report)
            unused = explain_report(config.export_dir)
            notes += [_member(unused)] if unused else []
        else:
            notes.append(f"{_member(REPORT_NAME)} was not there")
        metrics = _find_metrics(config.records_dir)
        if metrics is not None:
            notes += _check_metrics(metrics)
            self._add(f"reports/{metrics.name}", metrics)
        elif self._request.allow_missing_metrics:
            notes.append(f"reports/{METRICS_NAME} was not there: no validation metrics")
        else:
            wanted = f"the latest validation metrics ({METRICS_PATTERN}) belong into a release"
            without = "(--allow-missing-metrics releases without)"
            path = config.records_dir / METRICS_NAME
            raise InputError(f"{path}: no such file; {wanted} {without}")
        return notes

    def _add_model(self, path: Path) -> OpenedModel:
        for _ in range(_ATTEMPTS):
            with _hinting(_HINT):
                files = find_model_files(path)
            folder = files.path.parent
            opened = [self._open(_member(one.relative_to(folder)), one) for one in files.all]
            # A model that was replaced between its files being opened is not one unit.
            with _hinting(_HINT):
                whole = files == find_model_files(path)
            if whole and all(_is_still(one) for one in opened):
                break
        else:
            raise InputError(f"{path}: is being written; release again when it is finished")
        for one in opened:
            self._keep(one)
        with _hinting("; restore it from a release, or move it away to release without it"):
            card, card_member = find_card(self._config, path), None
        own = card_path(path)
        if own.is_file():
            card_member = _member(own.name)
            self._add(card_member, own)
        for answer in card.golden_images if card else ():
            image = PurePosixPath(answer.image)
            if image.is_absolute() or ".." in image.parts:
                raise ModelError(f"{own}: the golden image {image} lies outside the model's folder")
            if not (path.parent / image).is_file():
                raise ModelError(f"{path}: its golden image {image} is missing{_HINT}")
            self._add(_member(image), path.parent / image)
        return OpenedModel(tuple(opened), card, card_member)

    def _add(self, member: str, source: Path) -> None:
        if not source.is_file():
            raise InputError(f"{source}: no such file; a release holds its {member}")
        self._keep(self._open(member, source.resolve()))

    def _open(self, member: str, source: Path) -> OpenedFile:
        problem = find_name_problem(member)
        if problem is not None:
            raise InputError(f"{source}: cannot be packed as {show_name(member)}: {problem}")
        with read_errors(source):
            file = self._stack.enter_context(source.open("rb", buffering=0))
        facts = os.fstat(file.fileno())
        return OpenedFile(member, source, file, facts.st_size, facts.st_mtime_ns)

    def _keep(self, opened: OpenedFile) -> None:
        there = self._files.setdefault(opened.member, opened)
        if there.source != opened.source:
            both = f"{there.source} and {opened.source}"
            raise InputError(f"{both} would both be {opened.member} in the release")


def _member(name: PurePath | str) -> str:
    return f"{EXPORT_FOLDER}/{name}"


@dataclass(frozen=True)
class _Meant:
    """Of one kind: the model that is meant, and what its link means; both with links resolved."""

    kind: Kind
    main: Path | None
    latest: Path | None


def _find_meant(config: Config, onnx: Path | None, *, links: bool = True) -> tuple[_Meant, ...]:
    """For each kind which model is meant: `onnx` where it is of the kind, else what the kind's link
    means, else the newest; none where the kind has no model, or without `links` to look for more
    than `onnx`."""
    given = resolve_model(find_onnx(config, onnx)) if onnx is not None else None
    found = []
    for kind in list_kinds(config):
        link = config.export_dir / kind.link
        latest = check_link(link, kind) if links and link.is_symlink() else None
        main = given if given is not None and kind.has(given.name) else latest
        if main is None and links:
            there = os.path.lexists(link) or list_exports(config.export_dir, kind)
            main = resolve_model(find_onnx(config, None, kind)) if there else None
        found.append(_Meant(kind, main, latest))
    return tuple(found)


def _find_main(config: Config, onnx: Path | None, meant: Sequence[_Meant]) -> Path:
    """The model that a release is about, links resolved: the classifier of several kinds."""
    if onnx is None:
        first = sorted(meant, key=lambda one: one.kind.contract != "classifier")
        chosen = next((one for one in first if one.main is not None), first[0])
        if len(meant) > 1 and chosen.main is not None:
            return chosen.main
        onnx = find_onnx(config, None, chosen.kind)
    return resolve_model(find_onnx(config, onnx), "an ONNX model (--onnx)")


def _find_metrics(folder: Path) -> Path | None:
    """The newest validation metrics in `folder`, or None; those dated after now come last,
    and a link that leads nowhere first: what it means may be the newest. A name with a word of its
    own after a dot, such as `metrics.old.json`, is a person's copy."""
    found = sorted(path for path in folder.glob(METRICS_PATTERN) if "." not in path.stem)
    lost = [path for path in found if not path.exists()]
    return next(iter(lost or newest_first(found)), None)


@contextmanager
def _hinting(hint: str) -> Iterator[None]:
    """Say what to do about a model that is not whole, or a card that cannot be read."""
    try:
        yield
    except (ModelError, InputError) as error:
        raise type(error)(f"{error}{hint}") from error


def _check_metrics(path: Path) -> list[str]:
    """What a reader must know of metrics that go into a release: which are no finite numbers."""
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: says nothing; expected a JSON object of validation metrics")
    odd = [f"{name} is {value}" for name, value in _list_numbers(content) if not isfinite(value)]
    return [f"reports/{path.name}: {', '.join(odd)}"] if odd else []


def _list_numbers(content: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a JSON value with its place, as `val.top1`."""
    if isinstance(content, dict | list):
        parts = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in parts:
            yield from _list_numbers(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, float):
        yield name, content


def _is_still(opened: OpenedFile) -> bool:
    try:
        return os.path.samestat(opened.source.stat(), os.fstat(opened.file.fileno()))
    except OSError:
        return False
