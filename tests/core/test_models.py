import hashlib
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opslib.core.cards import ModelCard, card_path, check_files, list_files, read_card
from opslib.core.errors import ModelError
from opslib.core.models import find_model_files, follow_model, is_onnx
from opslib.core.wire import FileBytes
from tests.models import move_into_cache, write_onnx


def test_a_model_alone_has_the_digest_that_sha256sum_prints(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    files = find_model_files(path)
    assert files.all == (path,)
    assert files.digest() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_sidecar_belongs_to_its_model(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", sidecar=True)
    files = find_model_files(path)
    assert files.sidecars == (tmp_path / "m.onnx.data",)
    before = files.digest()
    data = bytearray((tmp_path / "m.onnx.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "m.onnx.data").write_bytes(data)
    assert files.digest() != before


def test_sidecars_agree_with_what_the_onnx_library_finds(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", sidecar=True)
    model = onnx.load(path, load_external_data=False)
    expected = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert {sidecar.name for sidecar in find_model_files(path).sidecars} == expected


def test_a_link_leads_to_the_real_model_and_its_sidecar(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "export/m.onnx", sidecar=True)
    (tmp_path / "latest.onnx").symlink_to("export/m.onnx")
    assert find_model_files(tmp_path / "latest.onnx").path == path


@pytest.mark.parametrize("folder", ["", "onnx"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_model_in_a_hugging_face_cache_keeps_its_name_its_weights_and_its_card(
    tmp_path: Path, folder: str, linked: bool
) -> None:
    made = write_onnx(tmp_path / "made" / folder / "m.onnx", sidecar=True)
    digest = find_model_files(made).digest()
    made.with_name("m.json").write_text("{}")
    place = move_into_cache(tmp_path / "made", tmp_path / "hub") / folder / "m.onnx"
    given = place
    if linked:
        given = tmp_path / "export/latest.onnx"
        given.parent.mkdir()
        given.symlink_to(place)
    files = find_model_files(given)
    assert files.all == (place, place.with_name("m.onnx.data"))
    assert files.digest() == digest
    assert card_path(given) == place.with_name("m.json")


def test_a_missing_sidecar_is_named(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", sidecar=True)
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(ModelError, match=r"m\.onnx: its weights file m\.onnx\.data is missing"):
        find_model_files(path)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd"])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    path = write_onnx(tmp_path / "m.onnx", sidecar=True)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside its folder"):
        find_model_files(path)


@pytest.mark.parametrize(
    "content", [b"", b"hello, I am text\n", b"\x00" * 4096, b"PK\x03\x04" + b"\x99" * 50]
)
def test_what_is_no_model_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx: (empty file|not an ONNX model)"):
        find_model_files(path)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        find_model_files(tmp_path)
    with pytest.raises(ModelError, match="no such file"):
        find_model_files(tmp_path / "none.onnx")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(min_value=0, max_value=250))
def test_a_truncated_model_is_refused_or_read_but_never_crashes(tmp_path: Path, cut: int) -> None:
    whole = write_onnx(tmp_path / "whole.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[: min(cut, len(whole) - 1)])
    try:
        find_model_files(path)
    except ModelError as error:
        assert "cut.onnx" in str(error)


def test_a_card_notices_a_changed_byte(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", sidecar=True)
    files = find_model_files(path)
    card = ModelCard(
        backbone="test",
        num_classes=3,
        onnx_path="m.onnx",
        exported_at_utc="2026-01-01T00:00:00+00:00",
        input_shape=("N", 3, 16, 16),
        files=list_files(files),
    )
    card.write(card_path(path))
    read = read_card(path)
    assert read == card
    check_files(files, card)
    data = bytearray((tmp_path / "m.onnx.data").read_bytes())
    data[-1] ^= 1
    (tmp_path / "m.onnx.data").write_bytes(data)
    with pytest.raises(ModelError, match=r"m\.onnx\.data differs from its card"):
        check_files(files, card)


def test_a_foreign_export_report_keeps_its_unknown_fields() -> None:
    foreign = {
        "backbone": "efficientnetv2_s",
        "num_classes": 4523,
        "onnx_path": "x.onnx",
        "exported_at_utc": "2026-01-01T00:00:00Z",
        "input_shape": [1, 3, 384, 384],
        "compare": {
            "mode": "softmax",
            "sample_count": 8,
            "mse_mean": 0.0,
            "mse_p99": 0.0,
            "top1_match_rate": 1.0,
            "top1_mismatch_count": 0,
            "theirs": True,
        },
        "their_field": {"a": 1},
    }
    kept = ModelCard.model_validate(foreign).model_dump()
    assert kept["their_field"] == {"a": 1}
    assert kept["compare"]["theirs"] is True


def test_a_file_that_is_cut_short_while_it_is_read_is_an_error_and_not_the_end(
    tmp_path: Path,
) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"\x0a\x05hello" + bytes(200_000))
    with path.open("rb") as file:
        data = FileBytes(file)
        assert (len(data), data[0], data[2:7]) == (200_007, 10, b"hello")
        path.write_bytes(b"")
        with pytest.raises(IndexError):
            data[150_000]
        with pytest.raises(IndexError):
            data[150_000:150_010]


@pytest.mark.parametrize(
    ("name", "begins", "expected"),
    [
        ("m.onnx", b"P", True),
        ("m.pt", b"\x08", False),
        ("0a1b2c", b"\x08\x0a", True),
        ("0a1b2c", b"PK\x03\x04", False),
        ("0a1b2c", b"\x80\x02", False),
        ("model.v2", b"\x08\x0a", True),
    ],
)
def test_a_name_without_a_known_suffix_is_told_by_its_first_bytes(
    tmp_path: Path, name: str, begins: bytes, expected: bool
) -> None:
    (tmp_path / name).write_bytes(begins)
    assert is_onnx(tmp_path / name) is expected


def test_a_place_of_weights_that_says_none_is_damage(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", sidecar=True)
    data = path.read_bytes()
    place = data.index(b"location") + len(b"location")
    assert data[place] == 0x12  # the value's tag: its second field
    path.write_bytes(data[:place] + b"\x1a" + data[place + 1 :])
    with pytest.raises(ModelError, match=r"m\.onnx: not an ONNX model, or damaged"):
        find_model_files(path)


def test_a_model_may_lie_in_the_root_of_all_folders() -> None:
    assert follow_model(Path("/x.onnx")) == Path("/x.onnx")
