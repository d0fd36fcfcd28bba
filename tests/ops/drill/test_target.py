"""What is drilled: a copy of the experiment, or a running service that others are not using."""

from __future__ import annotations

from pathlib import Path

import pytest

from opslib.core.config import load_config
from opslib.core.errors import BusyError, InputError, ModelError, OpsError, ParameterError
from opslib.core.files import link_atomic
from opslib.core.kinds import pick_kind
from opslib.core.models import find_model_files
from opslib.core.served import ServedModel, ServedState, read_served_state
from opslib.inference.golden import load_golden
from opslib.inference.preprocess import preprocess
from opslib.ops.drill.copies import copy_experiment
from opslib.ops.drill.faults import NotPossibleError, list_faults, make_fault
from opslib.ops.drill.keeper import keep_home
from opslib.ops.drill.rehearsal import Deed, ask_at_once
from opslib.ops.drill.request import DrillRequest
from opslib.ops.drill.target import Target, choose_other, find_live, open_target
from opslib.ops.release.rollback import StableModel
from opslib.serving.keys import make_key
from opslib.serving.live import LiveVersion
from opslib.serving.staging import start_service
from tests.models import write_config, write_onnx
from tests.ops.drill.conftest import make_drill_place
from tests.serving.conftest import SIZE, Place


def test_the_copy_has_all_that_belongs_to_the_models_and_the_same_digests(
    drill_place: Place, tmp_path: Path
) -> None:
    copied = copy_experiment(
        drill_place.config, drill_place.second, drill_place.first, tmp_path / "copy"
    )
    config = load_config(copied.config_path, {})
    assert config.exp_dir == tmp_path / "copy" / "exp"
    assert config.drill == drill_place.config.drill
    assert config.data_root == drill_place.config.data_root
    for copies, original in (
        ((copied.stable, *copied.stable_copies), drill_place.second),
        (copied.other_copies, drill_place.first),
    ):
        digest = find_model_files(original).digest()
        assert {find_model_files(path).digest() for path in copies} == {digest}
    from opslib.core.cards import read_card

    card = read_card(copied.other_copies[0])
    assert card is not None
    golden = load_golden(card, copied.other_copies[0].parent, preprocess, SIZE)
    assert len(golden) == 8


def test_the_model_to_begin_with_is_the_one_that_a_service_would_start_with(
    drill_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = drill_place.config
    assert find_live(config) == drill_place.second
    served = ServedModel(
        path=drill_place.first,
        sha256="0" * 64,
        version_tag="model-a",
        generation=3,
        switched_at_utc="2026-11-01T00:00:00+00:00",
    )
    ServedState(current=served).write(config.exp_dir / "served.json")
    assert find_live(config) == drill_place.first
    monkeypatch.setenv("MODEL_PATH", str(drill_place.second))
    assert find_live(config) == drill_place.second
    monkeypatch.setenv("MODEL_PATH", "exp/checkpoints/best.pt")
    with pytest.raises(InputError, match="no ONNX model"):
        find_live(config)
    monkeypatch.delenv("MODEL_PATH")
    drill_place.first.unlink()
    with pytest.raises(ModelError, match=r"model-a.onnx: no such file.*--model"):
        find_live(config)
    (drill_place.export / "latest.onnx").unlink()
    (drill_place.export / "latest.onnx").symlink_to("latest.onnx")
    (config.exp_dir / "served.json").unlink()
    with pytest.raises(ModelError, match="its links lead in a circle"):
        find_live(config)


def fake_card(folder: Path, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an nvidia-smi that prints `output` first in the search path."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{output}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


@pytest.fixture
def card_place(tmp_path: Path) -> Place:
    """An experiment that would run on a card."""
    place = make_drill_place(tmp_path)
    text = place.config_path.read_text().replace("[CPU]", "[CUDA, CPU]")
    place.config_path.write_text(text)
    return place


def test_a_card_that_is_serving_is_busy_unless_sharing_was_agreed(
    card_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_card(tmp_path, "4711, python", monkeypatch)
    request = DrillRequest()
    with (
        pytest.raises(BusyError, match="4711 python") as caught,
        open_target(card_place.config, request, print),
    ):
        pass
    assert caught.value.exit_code == 6
    assert "share_gpu: true" in str(caught.value)
    with open_target(card_place.config, DrillRequest(share_gpu=True), print) as target:
        assert target.pid


def test_an_idle_card_is_not_busy(
    card_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_card(tmp_path, "", monkeypatch)
    with open_target(card_place.config, DrillRequest(), print) as target:
        assert target.pid


def test_a_drill_on_the_cpu_does_not_care_about_the_card(
    drill_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_card(tmp_path, "4711, python", monkeypatch)
    with open_target(drill_place.config, DrillRequest(), print) as target:
        assert target.pid


def test_the_callers_overrides_do_not_reach_into_the_copy(
    drill_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PILLSNAP_EXP_DIR", str(drill_place.config.exp_dir))
    monkeypatch.setenv("MODEL_PATH", str(drill_place.first))
    config = load_config(drill_place.config_path)
    with (
        open_target(config, DrillRequest(), print) as target,
        target.connect() as client,
    ):
        live = client.version()
    assert live.model_path == str(target.stable)
    assert not live.model_path.startswith(str(drill_place.export))
    assert not (drill_place.config.exp_dir / "served.json").exists()


@pytest.mark.parametrize("fault", list_faults(), ids=lambda fault: fault.name)
def test_bad_models_can_be_made_of_a_foreign_one_and_leave_nothing(
    tmp_path: Path, fault: object
) -> None:
    stable = write_onnx(tmp_path / "export" / "foreign.onnx", size="W", sidecar=True)
    write_config(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    places = (tmp_path / "export" / ".bad", tmp_path / "outside")
    impossible = {
        "one flipped bit": "no card",
        "classes in another order": "no card",
        "wrong golden answers": "no card",
        "another input size": "any size",
    }
    from opslib.ops.drill.faults import Fault

    assert isinstance(fault, Fault)
    try:
        with make_fault(fault, stable, places) as path:
            assert isinstance(path, str) or path.is_absolute()
            assert fault.name not in impossible
    except NotPossibleError as error:
        assert impossible[fault.name] in str(error)
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_place_for_files_only_paths_can_be_bad(tmp_path: Path) -> None:
    made = []
    for fault in list_faults():
        try:
            with make_fault(fault, Path("/srv/export/model.onnx"), None) as path:
                assert not Path(str(path)).exists()
                made.append(fault.name)
        except NotPossibleError:
            continue
    assert made == ["a path with a typo", "a path that climbs out", "a web address"]


def test_a_service_that_cannot_be_brought_back_is_named_with_the_command_that_does_it(
    drill_place: Place,
) -> None:
    gone = Target(
        "http://127.0.0.1:9",
        "key",
        drill_place.config,
        Path("/models/a.onnx"),
        (),
        pick_kind(drill_place.config),
    )
    told = r"may serve the wrong model.*reload --host http://127.0.0.1:9 --path /models/a.onnx"
    with (
        pytest.raises(OpsError, match=told),
        keep_home(gone),
    ):
        pass
    with keep_home(gone) as say_home:
        say_home()


def test_two_reloads_at_once_of_a_service_that_is_gone_end(drill_place: Place) -> None:
    gone = Target(
        "http://127.0.0.1:9",
        "key",
        drill_place.config,
        drill_place.second,
        (),
        pick_kind(drill_place.config),
    )
    deeds = [Deed("two at once", name, 0.0) for name in ("a", "b")]
    ask_at_once(gone, deeds, ["/a.onnx", "/b.onnx"])
    assert not any(deed.accepted for deed in deeds)
    assert all(deed.said for deed in deeds)


def test_a_degraded_service_is_not_drilled(
    drill_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", key := make_key())
    link_atomic(drill_place.export / "latest.onnx", "gone.onnx")
    with start_service(drill_place.config_path, variables={"API_KEY": key}) as service:
        request = DrillRequest(url=service.url)
        with (
            pytest.raises(InputError, match="degraded: wanted gone, serves model-b"),
            open_target(drill_place.config, request, print),
        ):
            pass
        state = read_served_state(drill_place.config)
    assert state is not None
    assert state.wanted is not None
    assert state.wanted.version_tag == "gone"


def test_a_running_service_is_drilled_on_the_model_that_it_serves(
    drill_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", key := make_key())
    with start_service(drill_place.config_path, variables={"API_KEY": key}) as service:
        request = DrillRequest(url=service.url, model=drill_place.first)
        with (
            pytest.raises(ParameterError, match=r"serves model-b.onnx.*pillops reload"),
            open_target(drill_place.config, request, print),
        ):
            pass
        named = DrillRequest(url=service.url, model=drill_place.second)
        with open_target(drill_place.config, named, print) as target:
            assert target.stable == drill_place.second
            assert target.others == (drill_place.first,)


def test_a_second_model_that_lies_in_a_release_alone_is_to_be_restored_first(
    drill_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = StableModel(Path("/restored/m.onnx"), "0" * 64, "", release="release-1")
    monkeypatch.setattr("opslib.ops.drill.target.find_stable", lambda *_: stored)
    with pytest.raises(ModelError, match="`pillops release restore release-1`"):
        choose_other(drill_place.config, DrillRequest(), LiveVersion(None, None, None, None))


def test_a_model_with_a_damaged_card_is_not_drilled_as_if_it_had_none(
    drill_place: Place, tmp_path: Path
) -> None:
    drill_place.second.with_suffix(".json").write_bytes(b"")
    with pytest.raises(InputError, match=r"model-b.json: evidence that is there"):
        copy_experiment(
            drill_place.config, drill_place.second, drill_place.first, tmp_path / "copy"
        )
