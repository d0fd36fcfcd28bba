"""The bill of materials of a release: CycloneDX 1.6, its packages and its models, in one file.

It says of the content what the content says of itself: a model's origin and figures are those of
its card and of the metrics in the same archive. Nothing of the host or of who is at work goes in.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseAcknowledgement
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from opslib import __version__
from opslib.core.cards import FileEntry
from opslib.core.formatting import stamp
from opslib.ops.release.bill_cards import make_card, name_models, show_path
from opslib.ops.release.collect import REQUIREMENTS_NAME
from opslib.ops.release.manifest import BillSummary, ModelSummary
from opslib.ops.release.opened import Collection, OpenedFile
from opslib.ops.release.packages import Package, Requirements, read_requirements

UNKNOWN = "unknown"
_METRICS = "reports/metrics"


@dataclass(frozen=True)
class Bill:
    """A bill of materials as the bytes of its file, and what they say in short."""

    data: bytes
    summary: BillSummary


def make_bill(
    found: Collection,
    models: Sequence[ModelSummary],
    entries: Mapping[str, FileEntry],
    moment: datetime,
    git_sha: str,
) -> Bill:
    """Return the bill of a release: `models` are what the manifest says of those of `found`,
    `entries` its files by member, `moment` when it is made. Equal arguments give equal bytes, as
    long as the same packages are installed here."""
    lists = [one.read_at(0, one.size) for one in _files_named(found, REQUIREMENTS_NAME)]
    wanted = read_requirements(*lists)
    metrics = [one.read_object() for one in _files_named(found, _METRICS)]
    components = _describe_packages(wanted.packages)
    cards: dict[str, dict[str, Any]] = {}
    data: dict[str, Component] = {}
    for model, opened in zip(models, found.models, strict=True):
        card = opened.card
        learned = card.train_data_sha256 if card else None
        components.append(_describe_model(model, learned, entries, main=model.path == found.main))
        if learned:
            data.setdefault(learned, _describe_data(learned))
        meant = [
            one for one in metrics if PurePosixPath(model.path).name in name_models(one, found.main)
        ]
        cards[model.path] = make_card(model, card, meant, data.get(learned or ""))
    components += data.values()
    release = _describe_release(f"{stamp(moment)}-{git_sha}", wanted)
    tool = Component(name="pillops", version=__version__, type=ComponentType.APPLICATION)
    bom = Bom(
        serial_number=UUID(int=0),
        metadata=BomMetaData(
            timestamp=moment, component=release, tools=ToolRepository(components=[tool])
        ),
        components=components,
        dependencies=[Dependency(release.bom_ref, [Dependency(one.bom_ref) for one in components])],
    )
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    for one in document["components"]:  # the library knows no model cards yet
        if one["bom-ref"] in cards:
            one["modelCard"] = cards[one["bom-ref"]]
    document["serialNumber"] = uuid5(NAMESPACE_OID, json.dumps(document, sort_keys=True)).urn
    summary = BillSummary(
        packages=len(wanted.packages),
        without_version=sum(not one.version for one in wanted.packages),
        without_licence=sum(not one.licence for one in wanted.packages),
        models=len(models),
        elsewhere=wanted.elsewhere,
        unread_lines=wanted.unread,
    )
    return Bill(json.dumps(document, indent=2).encode() + b"\n", summary)


def _files_named(found: Collection, member: str) -> list[OpenedFile]:
    return [one for one in found.files if one.member.startswith(member)]


def _properties(**facts: object) -> list[Property]:
    """What the format has no place for, under names of our own; what is not known is left out."""
    return [
        Property(name=f"pillops:{name}", value=str(value))
        for name, value in facts.items()
        if value not in (None, "", ())
    ]


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _describe_release(version: str, wanted: Requirements) -> Component:
    return Component(
        name="release",
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref="release",
        properties=_properties(
            requirements_elsewhere=", ".join(wanted.elsewhere),
            requirements_unread_lines=", ".join(map(str, wanted.unread)),
        ),
    )


def _describe_packages(packages: Sequence[Package]) -> list[Component]:
    licences, found = LicenseFactory(), dict[str, Component]()
    declared = LicenseAcknowledgement.DECLARED
    for package in packages:
        purl = None
        if package.version or package.source != "folder":  # a folder's name is anybody's
            purl = PackageURL("pypi", name=package.name, version=package.version or None)
        ref = str(purl or f"folder:{package.name}")
        if ref in found:  # asked for twice, under other conditions
            ref = f"{ref}#{len(found)}"
        licence: License = DisjunctiveLicense(name=UNKNOWN)
        if package.licence:
            licence = licences.make_from_string(package.licence, license_acknowledgement=declared)
        found[ref] = Component(
            name=package.name,
            version=package.version or None,
            type=ComponentType.LIBRARY,
            bom_ref=ref,
            purl=purl,
            licenses=[licence],
            properties=_properties(
                extras=", ".join(package.extras),
                marker=package.marker,
                source=None if package.source == "index" else package.source,
            ),
        )
    return list(found.values())


def _describe_model(
    model: ModelSummary, learned: str | None, entries: Mapping[str, FileEntry], *, main: bool
) -> Component:
    return Component(
        name=PurePosixPath(model.path).name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=model.path,
        hashes=[_sha256(entries[model.path].sha256)],
        components=[
            Component(
                name=PurePosixPath(one).name,
                type=ComponentType.FILE,
                bom_ref=one,
                hashes=[_sha256(entries[one].sha256)],
            )
            for one in model.sidecars
        ],
        properties=_properties(
            sha256_with_weights=model.sha256 if model.sidecars else None,
            original_sha256=model.original_sha256,
            released_for="yes" if main else None,
            card=model.card,
            checkpoint=show_path(model.checkpoint),
            git_sha=model.git_sha,
            exported_at_utc=model.exported_at_utc,
            opset=model.opset,
            train_data_sha256=learned or UNKNOWN,
        ),
    )


def _describe_data(digest: str) -> Component:
    plain = len(digest) == 64 and not set(digest.lower()) - set("0123456789abcdef")
    return Component(
        name="training data",
        type=ComponentType.DATA,
        bom_ref=f"training-data:{digest}",
        hashes=[_sha256(digest)] if plain else (),
    )
