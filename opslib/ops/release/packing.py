"""Packing a release: every file, what the models are, the bill, and the manifest at the end."""

from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from opslib.core.cards import FileEntry
from opslib.core.config import Config
from opslib.core.errors import ModelError
from opslib.core.formatting import format_bytes
from opslib.core.kinds import find_kind
from opslib.core.lineage import git_dirty
from opslib.inference.signature import read_signature
from opslib.ops.release.archive import ArchiveWriter
from opslib.ops.release.manifest import (
    BILL_NAME,
    MANIFEST_NAME,
    VERSION_NAME,
    BillSummary,
    Manifest,
    ModelSummary,
    compute_content_id,
    unit_digest,
    version_text,
)
from opslib.ops.release.opened import Collection, OpenedModel
from opslib.ops.release.store import next_in_line
from opslib.ops.release.verify import ArchiveFacts, Progress

_OF_CARD = ("providers", "backbone", "exported_at_utc", "git_sha")


def pack(
    config: Config,
    found: Collection,
    sink: BinaryIO,
    folder: Path,
    moment: datetime,
    sha: str,
    tell: Progress,
) -> tuple[ArchiveFacts, BillSummary]:
    """Write the archive of what was collected into `sink`, its bill and its manifest last, and
    return what it is. `folder`: the store, whose newest release is the one before; `moment`, `sha`:
    when it is made and the commit of the code. Raises ModelError: a model is not what its card
    says; InputError: a file changed meanwhile; StorageError: it cannot be written."""
    from opslib.ops.release.bill import make_bill  # what it takes to load is needed here alone

    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        share = done / max(1, found.size_bytes)
        tell(0.7 * share, f"packing: {format_bytes(done)} of {format_bytes(found.size_bytes)}")

    sequence, parent = next_in_line(config, folder)
    released_at = moment.isoformat(timespec="seconds")
    mtime_s, threads = int(moment.timestamp()), config.release.threads
    with ArchiveWriter(sink, mtime_s=mtime_s, threads=threads, on_bytes=count) as writer:
        for opened in found.files:
            writer.add(opened)
        digests = {entry.path: entry for entry in writer.entries()}
        models = tuple(_summarise(model, digests, config) for model in found.models)
        bill = make_bill(found, models, digests, moment, sha)
        writer.add_bytes(BILL_NAME, bill.data)
        writer.add_bytes(VERSION_NAME, version_text(released_at, sha).encode())
        entries = writer.entries()
        manifest = Manifest(
            content_id=compute_content_id(entries),
            released_at_utc=released_at,
            git_sha=sha,
            git_dirty=git_dirty(config.code_root or config.root),
            sequence=sequence,
            parent=parent,
            main=found.main,
            latest=found.latest,
            provider_settings=config.onnx.model_dump(mode="json"),
            files=entries,
            models=models,
            kinds=found.kinds,
            notes=found.notes,
        )
        data = manifest.to_json().encode()
        writer.add_bytes(MANIFEST_NAME, data)
        sha256 = writer.close()
        return ArchiveFacts(manifest, data, sha256, writer.size_bytes), bill.summary


def _summarise(model: OpenedModel, digests: dict[str, FileEntry], config: Config) -> ModelSummary:
    """What the manifest says of a model, from its bytes and its card. Raises ModelError: its bytes
    are not those of its card."""
    unit, card = [digests[one.member] for one in model.files], model.card
    signature = read_signature(model.model.file, str(model.model.source))
    was = [model.original or unit[0], *unit[1:]]
    expected = {Path(entry.path).name: entry.sha256 for entry in card.files} if card else {}
    for opened, entry in zip(model.files, was, strict=True):
        wanted = expected.get(opened.source.name)
        if expected and wanted != entry.sha256:
            differs = f"sha256 {entry.sha256[:12]}…, expected {(wanted or 'none')[:12]}…"
            raise ModelError(f"{opened.source}: differs from its card ({differs})")
    classes = card.num_classes if card else None
    kind = find_kind(config, model.model.source)
    if classes is None and kind is not None and kind.contract == "classifier":
        last = signature.outputs[0].shape[-1:] if signature.outputs else ()
        classes = next((n for n in last if isinstance(n, int)), None)
    return ModelSummary(
        path=model.model.member,
        sha256=unit_digest(unit),
        original_sha256=unit_digest(was) if model.original else None,
        size_bytes=sum(entry.size for entry in unit),
        sidecars=tuple(one.member for one in model.files[1:]),
        card=model.card_member,
        inputs=signature.inputs,
        outputs=signature.outputs,
        num_classes=classes,
        opset=signature.opset,
        checkpoint=card.ckpt_path if card else None,
        **({name: getattr(card, name) for name in _OF_CARD} if card else {}),
    )
