"""H-2: a release says what is inside, in a form that scanners of any make can read."""

from __future__ import annotations

import getpass
import json
import platform
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from opslib.core.errors import InputError
from opslib.core.files import sha256_bytes
from opslib.ops.release.build import ReleaseRecord, build_release
from opslib.ops.release.manifest import BillSummary, Manifest
from opslib.ops.release.opened import OpenedFile
from opslib.ops.release.packages import Package, Requirements, read_requirements
from opslib.ops.release.request import ReleaseRequest
from tests.ops.release.conftest import QUICK, members_of
from tests.serving.conftest import Place
from tests.test_structure import loaded_by

BILL = "bom.cdx.json"
EPOCH = "1700000000"
DATA = "ab" * 32
FOREIGN = """
-r base.txt
--extra-index-url https://example.invalid/simple
numpy  # whichever
fastapi==0.0.1
uvicorn[standard]==0.2 ; sys_platform == "linux" \\
    --hash=sha256:00
-e /srv/someone/private
this is no requirement
"""
Json = dict[str, Any]


def bill_of(record: ReleaseRecord) -> Json:
    """The bill in an archive, held against CycloneDX's own schema of 1.6."""
    text = members_of(record.path)[BILL].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found: Json = json.loads(text)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    return found


def of_type(bill: Json, kind: str) -> list[Json]:
    return [one for one in bill["components"] if one["type"] == kind]


def said(component: Json) -> dict[str, str]:
    """What stands under our own names, without what they all begin with."""
    found = {one["name"]: one["value"] for one in component.get("properties", ())}
    return {name.removeprefix("pillops:"): value for name, value in found.items()}


def licence_of(component: Json) -> str:
    (one,) = component["licenses"]
    return str(one.get("expression") or one["license"].get("id") or one["license"]["name"])


def figures_of(model: Json) -> dict[str, str]:
    found = model["modelCard"].get("quantitativeAnalysis", {}).get("performanceMetrics", ())
    return {one["type"]: one["value"] for one in found}


def release_with(place: Place, requirements: str) -> ReleaseRecord:
    """Release with the requirements.txt of serving code from elsewhere."""
    code = place.config_path.parent / "serving"
    code.mkdir()
    (code / "requirements.txt").write_text(requirements)
    (code / ".env.example").write_text("API_KEY=\n")
    paths = place.config.paths.model_copy(update={"code_root": code})
    return build_release(place.config.model_copy(update={"paths": paths}), QUICK)


def test_every_package_and_every_model_of_the_archive_is_in_it(
    shared: tuple[Place, ReleaseRecord],
) -> None:
    record = shared[1]
    members, bill = members_of(record.path), bill_of(record)
    pins = {line for line in members["requirements.txt"].decode().splitlines() if "==" in line}
    packages = of_type(bill, "library")
    assert {f"{one['name']}=={one['version']}" for one in packages} == pins
    by_name = {one["name"]: one for one in packages}
    assert by_name["onnx-ir"]["purl"] == f"pkg:pypi/onnx-ir@{metadata.version('onnx-ir')}"
    assert licence_of(by_name["onnx-ir"]) == "Apache-2.0"
    assert licence_of(by_name["mpmath"]) == "BSD"  # no licence that SPDX knows, as it calls itself
    manifest = Manifest.model_validate_json(members["MANIFEST.json"])
    models = {one["bom-ref"]: one for one in of_type(bill, "machine-learning-model")}
    assert set(models) == {one.path for one in manifest.models}
    for path, model in models.items():
        assert model["hashes"] == [{"alg": "SHA-256", "content": sha256_bytes(members[path])}]
    (weights,) = models["export/model-b.onnx"]["components"]
    assert weights["hashes"][0]["content"] == sha256_bytes(members["export/model-b.onnx.data"])
    everything = {one["bom-ref"] for one in bill["components"]}
    (root,) = [one for one in bill["dependencies"] if one["ref"] == "release"]
    assert set(root["dependsOn"]) == everything
    assert record.bill == BillSummary(packages=len(pins), models=2)
    assert record.bill.describe() == f"{BILL}: {len(pins)} packages, 2 models"


def test_a_model_says_where_it_comes_from_and_what_it_is_worth(place: Place) -> None:
    checkpoint = {"ckpt_path": "checkpoints/best.pt", "train_data_sha256": DATA, "val_f1": 0.5}
    for name in ("model-b", "export_report"):
        path = place.export / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | checkpoint))
    metrics = {
        "model": "export/model-b.onnx",
        "val": {"top1": 0.975, "note": "final", "finished": True, "count": 10**400},
        "per_class": {f"class {number}": 0.9 for number in range(100)},
        "loss": float("inf"),
    }
    (place.config.records_dir / "metrics.json").write_text(json.dumps(metrics))
    bill = bill_of(build_release(place.config, QUICK))
    older, newer = of_type(bill, "machine-learning-model")
    facts = said(newer)
    assert (facts["checkpoint"], facts["git_sha"]) == ("checkpoints/best.pt", "abc1234")
    assert (facts["train_data_sha256"], facts["released_for"]) == (DATA, "yes")
    assert facts["sha256_with_weights"] != newer["hashes"][0]["content"]
    figures = figures_of(newer)
    assert figures.pop("val.count") == f"1{400 * '0'}"
    assert figures == {"val.top1": "0.975", "val_f1": "0.5"}
    (data,) = of_type(bill, "data")
    assert data["hashes"] == [{"alg": "SHA-256", "content": DATA}]
    about = newer["modelCard"]["modelParameters"]
    assert about["datasets"] == [{"ref": data["bom-ref"]}]
    assert (about["task"], about["modelArchitecture"]) == ("classification", "linear")
    assert about["inputs"] == [{"format": "input: float32 [N, 3, 16, 16]"}]
    assert said(older)["train_data_sha256"] == "unknown"
    assert figures_of(older) == {}
    assert "datasets" not in older["modelCard"]["modelParameters"]


def test_figures_that_name_no_model_are_those_of_the_one_released_for(
    shared: tuple[Place, ReleaseRecord],
) -> None:
    older, newer = of_type(bill_of(shared[1]), "machine-learning-model")
    assert figures_of(newer) == {"top1_pct": "97.5"}
    assert figures_of(older) == {}


def test_of_foreign_requirements_it_says_what_is_open_and_what_is_unknown(place: Place) -> None:
    record = release_with(place, FOREIGN)
    bill = bill_of(record)
    packages = {one["name"]: one for one in of_type(bill, "library")}
    assert set(packages) == {"numpy", "fastapi", "uvicorn", "private"}
    assert "version" not in packages["numpy"]
    assert packages["numpy"]["purl"] == "pkg:pypi/numpy"
    assert licence_of(packages["numpy"]).startswith("BSD")
    # Installed here in another version, of which alone something is known.
    assert (packages["fastapi"]["version"], licence_of(packages["fastapi"])) == ("0.0.1", "unknown")
    conditions = {"extras": "standard", "marker": 'sys_platform == "linux"'}
    assert said(packages["uvicorn"]) == conditions
    assert "purl" not in packages["private"]
    assert said(packages["private"]) == {"source": "folder"}
    assert record.bill is not None
    odd = "3 of unknown licence, 2 of no version"
    rest = "not listed: what requirements.txt takes from base.txt, its line 9"
    assert record.bill.describe() == f"{BILL}: 4 packages ({odd}), 2 models; {rest}"
    release = said(bill["metadata"]["component"])
    assert release == {"requirements_elsewhere": "base.txt", "requirements_unread_lines": "9"}


@pytest.mark.parametrize(
    ("line", "package"),
    [
        ("a==1.0", Package("a", "1.0")),
        ("a == 1.0  # why", Package("a", "1.0")),
        ("a===1.0", Package("a", "1.0")),
        ("a==1.*", Package("a")),
        ("a>=1,<2", Package("a")),
        ("a[y,x]", Package("a", extras=("x", "y"))),
        ("a==1;python_version<'3'", Package("a", "1", marker='python_version < "3"')),
        ("a==1 --hash=sha256:00", Package("a", "1")),
        ("a==1 \\\n --hash=sha256:00 \\\n --hash=sha256:01", Package("a", "1")),
        ("a @ https://u:p@x.invalid/a-1.2-py3-none-any.whl", Package("a", "1.2", source="address")),
        ("https://x.invalid/a-1.2.tar.gz", Package("a", "1.2", source="address")),
        ("a @ https://x.invalid/main.zip", Package("a", source="address")),
        (
            "https://x.invalid/a-1.2-py3-none-any.whl; python_version>'3'",
            Package("a", "1.2", marker="python_version>'3'", source="address"),
        ),
        ("git+https://x.invalid/b/a.git@main", Package("a", source="repository")),
        (
            "-e git+ssh://git@x.invalid/b/c#egg=a[x]&subdirectory=d",
            Package("a", extras=("x",), source="repository"),
        ),
        ("--editable=./a[x]", Package("a", extras=("x",), source="folder")),
        ("-e .", Package(".", source="folder")),
        ("./wheels/a-1.2-py3-none-any.whl", Package("a", "1.2", source="folder")),
        ("C:\\wheels\\a", Package("a", source="folder")),
    ],
)
def test_a_line_of_any_kind_that_pip_takes_is_one_package(line: str, package: Package) -> None:
    assert read_requirements(f"# first\n\n{line}\n".encode()) == Requirements((package,))


def test_what_an_address_holds_beside_a_package_is_in_no_bill() -> None:
    lines = (
        "-r https://u:p@x.invalid/b.txt?token=SECRET",
        "https://x.invalid/SECRET",
        "-r http://[x",
        "a===SECRET",
        "-e ~SECRET/",
        "a ; " + "(" * 5000,
    )
    found = read_requirements("\n".join(lines).encode())
    named = (Package(".", source="folder"), Package("a"))
    assert found == Requirements(named, ("b.txt",), (2, 3, 6))


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_that_a_windows_shell_wrote_is_read(coding: str) -> None:
    text = "a==1\r\n-r b.txt\r\n-c c.txt\r\nné\r\nhttps://[x\r\n"
    found = read_requirements(text.encode(coding))
    assert found == Requirements((Package("a", "1"),), ("b.txt",), (4, 5))


def test_at_the_same_time_the_same_content_has_the_same_bill_and_another_has_another(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    bills = []
    for name in ("one", "two", "three"):
        if name == "three":
            (place.config.records_dir / "metrics.json").write_text('{"top1_pct": 98}')
        request = ReleaseRequest(out=Path(name), load_models=False)
        record = build_release(place.config, request)
        bills.append(members_of(record.path)[BILL])
    first, _, other = (json.loads(one) for one in bills)
    assert bills[0] == bills[1]
    assert first["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    assert first["serialNumber"] != other["serialNumber"]


def test_two_lines_for_one_package_are_two_entries_that_can_be_told_apart(place: Place) -> None:
    lines = "".join(f"a==1; sys_platform == '{name}'\n" for name in ("linux", "win32"))
    bill = bill_of(release_with(place, lines))
    found = of_type(bill, "library")
    assert len({one["bom-ref"] for one in found}) == len(found) == 2


def test_it_names_no_host_no_person_and_no_folder_of_this_machine(place: Place) -> None:
    for name in ("model-b", "export_report"):
        path = place.export / f"{name}.json"
        away = {"ckpt_path": f"{place.config_path.parent}/checkpoints/best.pt"}
        path.write_text(json.dumps(json.loads(path.read_text()) | away))
    record = release_with(
        place,
        f"-e {place.config_path.parent}/serving\n-r {place.config_path.parent}/base.txt\nnumpy\n",
    )
    text = members_of(record.path)[BILL].decode()
    (_, newer) = of_type(json.loads(text), "machine-learning-model")
    assert said(newer)["checkpoint"] == "best.pt"
    assert record.bill is not None
    assert record.bill.elsewhere == ("base.txt",)
    for name in (
        str(place.config_path.parent),
        str(Path.home()),
        platform.node(),
        getpass.getuser(),
    ):
        assert f"{name}/" not in text
    assert platform.node() not in text


def test_a_model_without_a_card_is_in_it_as_far_as_it_is_known(place: Place) -> None:
    for path in place.export.glob("*.json"):
        path.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bill = bill_of(build_release(place.config, QUICK))
    _, newer = of_type(bill, "machine-learning-model")
    assert said(newer)["train_data_sha256"] == "unknown"
    assert figures_of(newer) == {"top1_pct": "97.5"}


def test_what_writes_it_is_loaded_when_a_release_is_made_and_not_before() -> None:
    modules = ("build", "command", "restore")
    loaded = loaded_by(f"import {', '.join(f'opslib.ops.release.{one}' for one in modules)}")
    assert not loaded & {"cyclonedx", "packageurl", "license_expression"}


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000])
def test_metrics_that_are_no_json_object_any_more_are_refused_by_name(
    tmp_path: Path, text: str
) -> None:
    source = tmp_path / "metrics.json"
    source.write_text(text)
    with source.open("rb") as file:
        size = len(text.encode())
        opened = OpenedFile("reports/metrics.json", source, file, size, 0)
        with pytest.raises(InputError, match=r"metrics\.json: no JSON object any more"):
            opened.read_object()
