"""What a release holds: its files, its models, and the identity that its content gives it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from opslib.core.cards import FileEntry
from opslib.core.errors import GateFailedError
from opslib.core.files import sha256_bytes
from opslib.core.formatting import plural
from opslib.core.kinds import LATEST_NAME
from opslib.core.records import Part, Record
from opslib.inference.signature import TensorSummary

MANIFEST_NAME = "MANIFEST.json"
VERSION_NAME = "VERSION.txt"
BILL_NAME = "bom.cdx.json"
EXPORT_FOLDER = "export"
MAX_MANIFEST_BYTES = 32 << 20
MAX_NAME_BYTES = 1024
MAX_DEPTH = 16
# They say when the release was made, and what the host that made it knows of its content.
_NO_CONTENT = frozenset({MANIFEST_NAME, VERSION_NAME, BILL_NAME})
_ODD_SIGN = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")


class ReleaseError(GateFailedError):
    """A release is damaged, incomplete, or not what its manifest says; the message names the
    file where it can be known."""


class ModelSummary(Part):
    """One model of a release; `path`, `sidecars` and `card` are members of the archive. `sha256` is
    the digest of the model and its sidecars as one unit, as `/version` shows it; `original_sha256`
    that of the model in `export/` which it is a copy of without metadata, where it is one."""

    path: str
    sha256: str
    size_bytes: int
    sidecars: tuple[str, ...] = ()
    card: str | None = None
    inputs: tuple[TensorSummary, ...] = ()
    outputs: tuple[TensorSummary, ...] = ()
    num_classes: int | None = None
    opset: int | None = None
    providers: tuple[str, ...] = ()
    backbone: str | None = None
    checkpoint: str | None = None
    exported_at_utc: str | None = None
    git_sha: str | None = None
    original_sha256: str | None = Field(default=None, exclude_if=lambda found: found is None)

    @property
    def digests(self) -> frozenset[str]:
        """The digests that this network goes by: its own, and its original's."""
        return frozenset(filter(None, (self.sha256, self.original_sha256)))


class ReleasedKind(Part):
    """What a release holds of one kind of models, as the configuration had it. `main` is the model
    of this kind that the release is about; `link` a name in the export folder and `latest` the
    member that it meant, where that is part of the release."""

    name: str
    pattern: str
    link: Annotated[str, Field(pattern=r"^[^/]+\.onnx$")]
    contract: Literal["classifier", "any"]
    main: str
    latest: str | None = None

    def has(self, member: str) -> bool:
        """Return whether a member is a model of this kind, by its name."""
        return fnmatchcase(PurePosixPath(member).name, self.pattern)


class BillSummary(Part):
    """What the bill of materials of a release lists: packages and models, and how many packages
    have no version or no known licence. Not in it is what `requirements.txt` takes in from other
    files, `elsewhere`, and what its `unread_lines` ask for."""

    packages: int
    without_version: int = 0
    without_licence: int = 0
    models: int
    elsewhere: tuple[str, ...] = ()
    unread_lines: tuple[int, ...] = ()

    def describe(self) -> str:
        """Return one line for a person."""
        lacks = {"unknown licence": self.without_licence, "no version": self.without_version}
        odd = ", ".join(f"{count} of {what}" for what, count in lacks.items() if count)
        packages = plural(self.packages, "package") + (f" ({odd})" if odd else "")
        left_out = [f"what requirements.txt takes from {name}" for name in self.elsewhere]
        left_out += [f"its line {number}" for number in self.unread_lines]
        rest = f"; not listed: {', '.join(left_out)}" if left_out else ""
        return f"{BILL_NAME}: {packages}, {plural(self.models, 'model')}{rest}"


class Manifest(Record):
    """The list of a release's files with their digests, and what its models are.

    `main` is the model that the release is about: the one given, else what `latest.onnx` meant,
    else the newest. `latest` is the member that the link meant, where it is part of the release.

    `sequence` is one more than the highest in its store when it was made, and `parent` the
    `content_id` of the release before it there: an order that no clock decides. Releases of
    earlier builds have neither.
    """

    schema_name = "release-manifest"

    content_id: str
    released_at_utc: str
    git_sha: str
    git_dirty: bool | None = None
    sequence: Annotated[int, Field(ge=1)] | None = None
    parent: str | None = None
    main: str
    latest: str | None = None
    provider_settings: dict[str, Any] = {}
    files: tuple[FileEntry, ...]
    models: tuple[ModelSummary, ...]
    kinds: tuple[ReleasedKind, ...] = Field(default=(), exclude_if=lambda found: not found)
    notes: tuple[str, ...] = ()

    @property
    def main_model(self) -> ModelSummary:
        """The model that the release is about."""
        return next(model for model in self.models if model.path == self.main)

    @property
    def mains(self) -> dict[str, str]:
        """The models that the release is about, `main` first, and for each what of it: `model`, or
        its kind."""
        return {self.main: "model"} | {one.main: f"{one.name} model" for one in self.kinds}

    @property
    def links(self) -> dict[str, str]:
        """The links of the export folder by name, with the members that they mean."""
        found = {one.link: one.latest for one in self.kinds} or {LATEST_NAME: self.latest}
        return {link: member for link, member in found.items() if member is not None}

    def kind_of(self, member: str) -> ReleasedKind | None:
        """Return the kind of a model, or None where it is of none or of several, or there are no
        kinds."""
        found = [one for one in self.kinds if one.has(member)]
        return found[0] if len(found) == 1 else None

    def contract_of(self, member: str) -> Literal["classifier", "any"]:
        """Return what a model must be: what its kind asked for when it was released; of no kind:
        any; in a release without kinds, a classifier, as all were then."""
        kind = self.kind_of(member)
        return kind.contract if kind else "any" if self.kinds else "classifier"

    @property
    def size_bytes(self) -> int:
        """Bytes of all files but the manifest."""
        return sum(entry.size for entry in self.files)

    def digests(self) -> frozenset[str]:
        """Return the digests of all its models, as `/version` shows them, and of those that they
        are copies of."""
        return frozenset(digest for model in self.models for digest in model.digests)


def compute_content_id(files: Iterable[FileEntry]) -> str:
    """Return the SHA-256 over the sorted `path size sha256` lines of all content. VERSION.txt and
    the manifest do not count: the same content released twice has one identity."""
    lines = (f"{e.path} {e.size} {e.sha256}\n" for e in files if e.path not in _NO_CONTENT)
    return sha256_bytes("".join(sorted(lines)).encode("utf-8", "surrogateescape"))


def unit_digest(entries: Iterable[FileEntry]) -> str:
    """Return the digest of a model and its sidecars as one unit; see `ModelFiles.digest`."""
    found = tuple(entries)
    if len(found) == 1:
        return found[0].sha256
    lines = (f"{PurePosixPath(e.path).name} {e.size} {e.sha256}\n" for e in found)
    return sha256_bytes("".join(sorted(lines)).encode())


def version_text(released_at_utc: str, git_sha: str) -> str:
    """Return VERSION.txt: when the release was made, and from which commit."""
    return f"released_at_utc {released_at_utc}\ngit_sha {git_sha}\n"


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Return the manifest in `data`. Raises ReleaseError: it is none; the message starts with
    `where`."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        said = f"{key + ': ' if key else ''}{first['msg']}"
        wrong = f"{MANIFEST_NAME} is no {Manifest.schema_id()} record"
        raise ReleaseError(f"{where}: {wrong}: {said}") from error


def find_name_problem(name: str) -> str | None:
    """Return why a member of an archive may not have this name, or None."""
    parts, size = name.split("/"), len(name.encode("utf-8", "replace"))
    problems = {
        "an absolute path": not name or name.startswith("/"),
        "it leads out of its folder": ".." in parts,
        "not a plain relative path": "" in parts or "." in parts,
        "a character that no release's file has": _ODD_SIGN.search(name) is not None,
        "a name that is too long": size > MAX_NAME_BYTES
        or any(len(part.encode("utf-8", "replace")) > 255 for part in parts),
        f"more than {MAX_DEPTH} folders deep": len(parts) > MAX_DEPTH,
        "a release never holds one": parts[-1] == ".env",
    }
    return next((problem for problem, found in problems.items() if found), None)


def show_name(name: str) -> str:
    """Return a member's name fit for one line, however it was meant."""
    shown = ascii(name)[1:-1] if not name.isprintable() else name
    return shown if len(shown) <= 120 else f"{shown[:117]}..."


def check_manifest(manifest: Manifest, found: Mapping[str, FileEntry], where: str) -> None:
    """Compare a manifest with the files that are really there (all but the manifest itself). Raises
    ReleaseError: they differ, or it contradicts itself; the message names the file."""
    for problem in _find_differences(manifest, found):
        raise ReleaseError(f"{where}: {problem}")
    for lie in _find_lies(manifest):
        raise ReleaseError(f"{where}: {MANIFEST_NAME} contradicts its own files: {lie}")


def _find_differences(manifest: Manifest, found: Mapping[str, FileEntry]) -> Iterator[str]:
    listed = {entry.path: entry for entry in manifest.files}
    if len(listed) != len(manifest.files):
        yield f"{MANIFEST_NAME} lists a file twice"
    for path, entry in listed.items():
        real = found.get(path)
        if real is None:
            yield f"{path} is listed in {MANIFEST_NAME} and missing"
        elif real.size != entry.size:
            yield f"{path} has {real.size:,} bytes, {MANIFEST_NAME} says {entry.size:,}"
        elif real.sha256 != entry.sha256:
            says = f"{MANIFEST_NAME} says {entry.sha256[:12]}…"
            yield f"{path} has sha256 {real.sha256[:12]}…, {says}"
    yield from (f"{path} is not listed in {MANIFEST_NAME}" for path in found if path not in listed)


def _find_lies(manifest: Manifest) -> Iterator[str]:
    listed = {entry.path: entry for entry in manifest.files}
    if manifest.content_id != compute_content_id(manifest.files):
        yield "content_id"
    models = {model.path: model for model in manifest.models}
    if len(models) != len(manifest.models) or manifest.main not in models:
        yield f"main: {manifest.main}"
    lost = [one for one in manifest.kinds if one.main not in models]
    yield from (f"main of {one.name}: {one.main}" for one in lost)
    for link, member in manifest.links.items():
        if member not in models or f"{EXPORT_FOLDER}/{link}" in listed:
            yield f"{PurePosixPath(link).stem}: {member}"
    for model in manifest.models:
        unit = (model.path, *model.sidecars)
        missing = [path for path in (*unit, *filter(None, [model.card])) if path not in listed]
        if missing:
            yield f"{model.path} needs {missing[0]}, which is not listed"
            continue
        if PurePosixPath(model.path).parent.as_posix() != EXPORT_FOLDER:
            yield f"{model.path} is no model directly in {EXPORT_FOLDER}/"
        entries = [listed[path] for path in unit]
        if model.sha256 != unit_digest(entries) or model.size_bytes != sum(e.size for e in entries):
            yield f"the digest or size of the model {model.path}"
