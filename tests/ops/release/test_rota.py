"""H-2: a restore test really restores, serves both ways, asks, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from opslib.core.cards import GoldenAnswer, ModelCard, card_path
from opslib.core.config import Config
from opslib.core.errors import BusyError, InputError, StorageError
from opslib.core.files import hide_name
from opslib.core.locks import hold_lock
from opslib.core.models import find_model_files
from opslib.ops.release.manifest import ReleaseError
from opslib.ops.release.proving import WORK_NAME, compare_files
from opslib.ops.release.record import ProofRecord, read_proofs
from opslib.ops.release.restore import restore_release
from opslib.ops.release.rota import LOCK_NAME, choose_release, prove_by_rota, prove_release
from opslib.ops.release.scratch import scratch_folder
from opslib.ops.release.staged import (
    RestoreTestError,
    check_answers,
    check_version,
    compare_answer,
    start_staged,
)
from opslib.ops.release.store import StoredRelease
from tests.ops.release.restoring import flip_byte, make_releasable, release
from tests.serving.conftest import Place
from tests.waiting import await_end, await_that, is_alive

STEPS = (
    "verify",
    "restore",
    "compare",
    "start with MODEL_PATH",
    "answers",
    "switch by /reload",
    "answers again",
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_releasable(tmp_path)


@pytest.fixture
def config(place: Place) -> Config:
    return place.config


@pytest.fixture
def stored(config: Config, monkeypatch: pytest.MonkeyPatch) -> StoredRelease:
    return release(config, monkeypatch)


def left_behind(config: Config) -> list[Path]:
    """What lies below the folder of restored releases, locks apart."""
    there = config.restore_dir.rglob("*") if config.restore_dir.exists() else []
    return [path for path in there if path.suffix != ".lock"]


def found(record: ProofRecord, step: str) -> str:
    return next(one.found for one in record.steps if one.name == step)


def test_a_sound_release_is_restored_served_both_ways_and_asked(
    config: Config, stored: StoredRelease
) -> None:
    record = prove_release(config, stored)
    assert record.verdict == "pass", record.finding
    assert tuple(step.name for step in record.steps) == STEPS == record.proof.stages
    assert "8 golden images over /predict" in found(record, "answers")
    assert "from model-a.onnx back to" in found(record, "switch by /reload")
    assert (record.model_sha256 or "?")[:12] in found(record, "switch by /reload")
    assert read_proofs(config) == (record.proof,)
    assert left_behind(config) == []


def test_the_experiment_is_not_touched_whatever_the_environment_says(
    config: Config, stored: StoredRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PILLSNAP_EXP_DIR", str(config.exp_dir))
    monkeypatch.setenv("PILLSNAP_EXPORT__OUT_DIR", str(config.export_dir))
    monkeypatch.setenv("MODEL_PATH", "/no/such/model.onnx")
    assert prove_release(config, stored).verdict == "pass"
    assert not (config.exp_dir / "served.json").exists()
    assert not config.logs_dir.exists()


def test_a_lone_model_is_switched_to_from_a_stand_in(
    place: Place, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = release(config, monkeypatch, onnx=place.second, only=True)
    record = prove_release(config, alone)
    assert record.verdict == "pass", record.finding
    assert "from a stand-in" in found(record, "switch by /reload")


def test_a_damaged_release_fails_its_test_and_the_file_is_named(
    config: Config, stored: StoredRelease
) -> None:
    flip_byte(stored.path)
    record = prove_release(config, stored)
    assert record.verdict == "fail"
    assert record.exit_code == 3
    assert record.finding.startswith(f"{stored.name} does not restore: verify: ")
    assert record.proof.stages == ()
    assert [one.ok for one in read_proofs(config)] == [False]
    assert choose_release(config).name == stored.name
    assert left_behind(config) == []


def test_a_model_that_does_not_answer_as_its_card_says_fails(
    place: Place, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = card_path(place.second)
    card = ModelCard.read(path)
    wrong = card.golden[0].model_copy(update={"class_id": 2, "probabilities": (0.0, 0.0, 1.0)})
    card.model_copy(update={"golden": (wrong, *card.golden[1:])}).write(path)
    record = prove_release(config, release(config, monkeypatch))
    assert record.verdict == "fail"
    assert record.proof.stages == ("verify", "restore", "compare")
    assert "stage golden" in record.finding
    assert str(config.restore_dir) not in record.finding
    assert left_behind(config) == []


def test_a_disk_that_holds_the_release_but_not_the_services_copies_is_no_fault_of_the_release(
    config: Config, stored: StoredRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = stored.manifest().main_model.size_bytes
    usage = shutil.disk_usage(config.exp_dir)

    def almost_full(_folder: object) -> object:
        restored = any(config.restore_dir.glob("*/*/MANIFEST.json"))
        return usage._replace(free=3 * size) if restored else usage

    monkeypatch.setattr(shutil, "disk_usage", almost_full)
    with pytest.raises(StorageError, match=r"serving model-b\.onnx for a test needs"):
        prove_release(config, stored)
    assert read_proofs(config) == ()
    assert left_behind(config) == []


def test_without_golden_images_it_restores_but_the_answer_is_open(
    place: Place, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = card_path(place.second)
    ModelCard.read(path).model_copy(update={"golden": ()}).write(path)
    (place.export / "export_report.json").unlink()
    record = prove_release(config, release(config, monkeypatch))
    assert record.verdict == "inconclusive"
    assert record.exit_code == 4
    assert "no golden images" in record.finding
    assert record.proof.ok


def test_three_runs_prove_three_releases_once_each_and_a_new_one_comes_first(
    place: Place, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [release(config, monkeypatch, week, onnx=place.first, only=True) for week in range(3)]
    tested = [prove_by_rota(config).tests[0].release for _ in made]
    assert tested == [one.name for one in reversed(made)]
    new = release(config, monkeypatch, 3, onnx=place.first, only=True)
    record = prove_by_rota(config, turns=2)
    assert [one.release for one in record.tests] == [new.name, tested[0]]
    assert record.unproved_before == (new.name,)
    assert record.unproved_after == ()


def test_a_run_tests_no_release_twice(config: Config, stored: StoredRelease) -> None:
    record = prove_by_rota(config, first=stored, turns=5)
    assert [one.release for one in record.tests] == [stored.name]


def test_a_dry_run_says_whose_turn_it_is_and_tests_nothing(
    config: Config, stored: StoredRelease
) -> None:
    record = prove_by_rota(config, dry_run=True)
    assert record.verdict == "inconclusive"
    assert stored.name in record.finding
    assert read_proofs(config) == ()


def test_an_archive_that_is_no_release_by_its_name_has_no_turn(
    config: Config, stored: StoredRelease
) -> None:
    (config.releases_dir / "holiday-photos.tar.gz").write_bytes(b"x")
    assert prove_by_rota(config, turns=9, dry_run=True).planned == (stored.name,)


def test_without_a_release_it_says_how_to_make_one(config: Config) -> None:
    with pytest.raises(InputError, match="pillops release create"):
        prove_by_rota(config)


def test_the_test_of_a_copy_elsewhere_says_nothing_of_the_stores_own(
    config: Config, stored: StoredRelease, tmp_path: Path
) -> None:
    flip_byte(stored.path)
    elsewhere = StoredRelease(
        path=tmp_path / stored.path.name,
        name=stored.name,
        size_bytes=stored.size_bytes,
        released_at_utc=stored.released_at_utc,
        git_sha=stored.git_sha,
    )
    stored.path.rename(elsewhere.path)
    assert prove_release(config, elsewhere).verdict == "fail"
    assert read_proofs(config) == ()


def test_two_tests_at_a_time_are_refused(config: Config, stored: StoredRelease) -> None:
    with (
        hold_lock(config.releases_dir / LOCK_NAME, "restore test of another"),
        pytest.raises(BusyError, match="restore test of another"),
    ):
        prove_release(config, stored)


@pytest.mark.parametrize("change", ["missing", "too many", "differs", "linked"])
def test_what_was_restored_is_compared_byte_for_byte(
    config: Config, stored: StoredRelease, tmp_path: Path, change: str
) -> None:
    restored = restore_release(stored.path, tmp_path / "out", config=config, load_models=False)
    assert compare_files(restored.folder, restored.manifest) > 0
    victim = restored.folder / "export/golden/0.jpg"
    if change == "missing":
        victim.unlink()
    elif change == "too many":
        (restored.folder / "export/golden/99.jpg").write_bytes(b"x")
    elif change == "differs":
        flip_byte(victim)
    else:
        (restored.folder / "export/golden/99.jpg").symlink_to("0.jpg")
    with pytest.raises(ReleaseError, match=r"export/golden/(0|99)\.jpg"):
        compare_files(restored.folder, restored.manifest)


def test_an_answer_may_differ_only_where_the_card_itself_is_torn() -> None:
    torn = GoldenAnswer(image="a.jpg", sha256="", class_id=0, probabilities=(0.5, 0.495, 0.005))
    assert compare_answer(torn, 0, 0.51) == pytest.approx(0.01)
    assert compare_answer(torn, 1, 0.5) == pytest.approx(0.005)
    for class_id, confidence in ((2, 0.005), (0, 0.53), (0, float("nan")), (3, 0.5)):
        with pytest.raises(RestoreTestError, match=r"a\.jpg"):
            compare_answer(torn, class_id, confidence)


def test_another_model_in_service_or_another_answer_is_noticed(
    place: Place, config: Config, tmp_path: Path
) -> None:
    work = tmp_path / "staging"
    work.mkdir()
    with start_staged(config, place.export, work, place.second) as service:
        digest = find_model_files(place.second).digest()
        assert check_version(service, digest)["version_tag"] == "model-b"
        assert len(check_answers(service, place.second)) == len(place.images)
        with pytest.raises(RestoreTestError, match="/version says"):
            check_version(service, find_model_files(place.first).digest())
        with pytest.raises(RestoreTestError, match=r"golden/\d\.jpg"):
            check_answers(service, place.first)
        with pytest.raises(RestoreTestError, match="/reload answers 400"):
            service.reload(tmp_path / "outside.onnx")
        service.check_health()
        place.second.with_name("model-b.onnx.data").unlink()

        def is_noticed() -> bool:
            try:
                service.check_health()
            except RestoreTestError as error:
                return "/health says degraded: wanted model-b" in str(error)
            return False

        await_that(is_noticed, "the missing weights' being noticed")


def start_command(config: Config, *, limit_bytes: int | None = None) -> subprocess.Popen[str]:
    """Start `pillops release prove`, with a limit on the size of what it writes if given."""
    code = "from opslib.cli import main; main()"
    if limit_bytes is not None:
        limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))"
        code = f"import resource; {limit}; {code}"
    return subprocess.Popen(
        [sys.executable, "-c", code, "release", "prove", "--config", str(config.source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def find_service(config: Config) -> int | None:
    """Return the process id of the staging service once it has a model in service."""
    if not list(config.restore_dir.glob(f".{WORK_NAME}.*/staging/exp/served.json")):
        return None
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_text()
        except OSError:
            continue
        if "serve" in command and f"{config.restore_dir}/.{WORK_NAME}." in command:
            return int(entry.name)
    return None


def await_service(config: Config) -> int:
    await_that(lambda: find_service(config), "a staging service")
    return find_service(config) or 0


def test_what_a_killed_test_left_is_cleared_by_the_next(
    config: Config, stored: StoredRelease
) -> None:
    process = start_command(config)
    service = await_service(config)
    process.kill()
    process.communicate()
    assert left_behind(config) != []
    with scratch_folder(config.restore_dir, WORK_NAME, young_s=0.0):
        pass
    assert left_behind(config) == []
    await_end(service)
    assert prove_release(config, stored).verdict == "pass"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root works in other accounts' folders")
def test_root_clears_what_a_killed_test_of_another_account_or_a_wrong_clock_left(
    tmp_path: Path,
) -> None:
    stale = hide_name(tmp_path / WORK_NAME)
    stale.mkdir()
    os.chown(stale, 65534, 65534)
    os.utime(stale, (time.time() + 3600,) * 2)
    with scratch_folder(tmp_path, WORK_NAME, young_s=0.0):
        assert not stale.exists()


def test_a_service_that_is_still_ending_holds_nothing_there(tmp_path: Path) -> None:
    stale = hide_name(tmp_path / WORK_NAME) / "export" / ".in-use" / "lease.json"
    started = threading.Event()
    stale.parent.mkdir(parents=True)

    def write_on() -> None:
        while stale.parents[1].is_dir():
            with suppress(OSError):
                stale.parent.mkdir(exist_ok=True)
                stale.write_text("{}")
            started.set()

    service = threading.Thread(target=write_on)
    service.start()
    started.wait()
    with scratch_folder(tmp_path, WORK_NAME, young_s=0.0):
        pass
    service.join(10)
    assert list(tmp_path.iterdir()) == []


def test_a_terminated_test_cleans_up_and_counts_for_nothing(
    config: Config, stored: StoredRelease
) -> None:
    process = start_command(config)
    service = await_service(config)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert left_behind(config) == []
    assert not is_alive(service)
    assert read_proofs(config) == ()


def test_a_full_disk_is_no_fault_of_the_release(config: Config, stored: StoredRelease) -> None:
    process = start_command(config, limit_bytes=2048)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 2, said
    assert len([line for line in said.splitlines() if line.startswith("error:")]) == 1
    assert read_proofs(config) == ()
    assert left_behind(config) == []


def test_an_archive_that_cannot_be_read_fails_its_test(
    config: Config, stored: StoredRelease
) -> None:
    stored.path.unlink()
    stored.path.mkdir()
    record = prove_release(config, stored)
    assert record.verdict == "fail"
    assert record.finding.startswith(f"{stored.name} does not restore: verify: ")


def test_a_history_that_cannot_be_read_is_refused_before_anything_is_restored(
    config: Config, stored: StoredRelease
) -> None:
    (config.releases_dir / "proofs.json").write_text("[]")
    with pytest.raises(InputError, match=r"proofs\.json"):
        prove_release(config, stored)
    assert not config.restore_dir.exists()


def test_a_folder_that_cannot_be_written_is_a_matter_of_storage(
    config: Config, stored: StoredRelease
) -> None:
    config.restore_dir.parent.mkdir(parents=True, exist_ok=True)
    config.restore_dir.write_text("a file where the folder should be")
    with pytest.raises(StorageError):
        prove_release(config, stored)
    assert read_proofs(config) == ()
    assert os.path.isfile(config.restore_dir)  # noqa: PTH113
