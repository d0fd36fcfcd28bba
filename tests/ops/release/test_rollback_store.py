"""H-3: the way back leads into the release store where nothing nearer is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from opslib.core.cards import card_path
from opslib.core.errors import ModelError, StorageError
from opslib.core.models import find_model_files
from opslib.core.plans import carry_out
from opslib.ops.release import model_command
from opslib.ops.release.rollback import find_stable, plan_rollback
from opslib.serving.keys import make_key
from opslib.serving.live import LiveVersion
from opslib.serving.staging import start_service
from tests.ops.release.restoring import flip_byte, make_releasable, release
from tests.running import run_python
from tests.serving.conftest import Place, open_live, write_carded


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Three models: `a` and `c` lie in releases of their own alone, `b` is live."""
    return make_releasable(tmp_path)


def version_of(path: Path) -> LiveVersion:
    return LiveVersion(str(path), find_model_files(path).digest(), path.stem, 1)


def remove(path: Path) -> str:
    """Delete a model and its card; return its digest."""
    digest = find_model_files(path).digest()
    path.unlink()
    card_path(path).unlink()
    return digest


def test_a_model_that_lies_in_a_release_alone_is_found_and_the_plan_says_both_steps(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = release(place.config, monkeypatch, onnx=place.first, only=True)
    digest = remove(place.first)
    stable = find_stable(place.config, version_of(place.second))
    assert (stable.sha256, stable.release) == (digest, stored.name)
    assert stable.path == place.config.restore_dir / stored.name / "export/model-a.onnx"
    lines = plan_rollback(stable, lambda: None).lines()
    assert f"restore {stored.name}" in lines[1]
    assert f"switch to {stable.path}" in lines[2]
    assert not stable.path.exists()


def test_executing_the_plan_restores_before_it_switches(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(place.config, monkeypatch, onnx=place.first, only=True)
    digest = remove(place.first)
    stable = find_stable(place.config, version_of(place.second))
    seen = []
    plan = plan_rollback(stable, lambda: seen.append(find_model_files(stable.path).digest()))
    carry_out(plan, dry_run=True, show=lambda _line: None)
    assert seen == []
    assert not stable.path.exists()
    carry_out(plan, dry_run=False, show=lambda _line: None)
    assert seen == [digest]


def test_a_model_that_was_restored_before_is_not_restored_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = release(place.config, monkeypatch, onnx=place.first, only=True)
    remove(place.first)
    first = find_stable(place.config, version_of(place.second))
    plan_rollback(first, lambda: None).execute()
    flip_byte(stored.path)  # the archive is of no use any more, the restored model is
    again = find_stable(place.config, version_of(place.second))
    assert (again.path, again.release) == (first.path, None)
    assert len(plan_rollback(again, lambda: None).actions) == 1


def test_a_restored_model_that_was_changed_is_passed_over_and_said_so(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(place.config, monkeypatch, onnx=place.first, only=True)
    remove(place.first)
    stable = find_stable(place.config, version_of(place.second))
    plan_rollback(stable, lambda: None).execute()
    flip_byte(stable.path, 0.9)
    with pytest.raises(ModelError, match="not the released model"):
        find_stable(place.config, version_of(place.second))


def test_exports_come_before_releases(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    release(place.config, monkeypatch, onnx=place.first, only=True)
    assert find_stable(place.config, version_of(place.second)).path == place.first


def test_the_live_model_is_no_way_back_though_a_release_holds_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(place.config, monkeypatch, onnx=place.second, only=True)
    remove(place.first)
    with pytest.raises(ModelError, match="no other usable model"):
        find_stable(place.config, version_of(place.second))


def test_a_broken_release_is_passed_over_with_its_reason_and_the_next_is_taken(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = release(place.config, monkeypatch, 0, onnx=place.first, only=True)
    broken = release(place.config, monkeypatch, 1, onnx=place.first, only=True)
    digest = remove(place.first)
    flip_byte(broken.path)
    (place.config.releases_dir / "release-20261125-000000-abc1234.tar.gz").write_bytes(b"x")
    stable = find_stable(place.config, version_of(place.second))
    assert (stable.release, stable.sha256) == (sound.name, digest)
    assert any(line.startswith(f"{broken.name}: ") for line in stable.skipped)
    assert any("release-20261125-000000-abc1234" in line for line in stable.skipped)


def test_where_all_releases_are_broken_the_reasons_are_given(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = release(place.config, monkeypatch, onnx=place.first, only=True)
    remove(place.first)
    flip_byte(broken.path)
    with pytest.raises(ModelError, match=f"passed over: {broken.name}"):
        find_stable(place.config, version_of(place.second))


def test_of_several_releases_the_one_before_the_live_model_comes_first(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = write_carded(place.export / "model-c.onnx", place.images, seed=3)
    for week, path in enumerate((place.first, place.second, newest)):
        release(place.config, monkeypatch, week, onnx=path, only=True)
    before = remove(place.first)
    after = remove(newest)
    live = version_of(place.second)
    assert find_stable(place.config, live).sha256 == before
    oldest = sorted(place.config.releases_dir.glob("*.tar.gz"))[0]
    oldest.unlink()
    stable = find_stable(place.config, live)
    assert stable.sha256 == after
    assert "newer" in stable.why


def test_a_model_packed_beside_the_one_released_for_is_the_last_resort(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(place.config, monkeypatch)
    digest = remove(place.first)
    stable = find_stable(place.config, version_of(place.second))
    assert stable.sha256 == digest
    assert "packed with" in stable.why


def test_a_service_that_tells_no_digest_is_known_by_its_files_name(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(place.config, monkeypatch)
    digest = remove(place.first)
    live = LiveVersion(str(place.second), None, "model-b", None)
    assert find_stable(place.config, live).sha256 == digest


def test_a_full_disk_while_restoring_switches_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(place.config, monkeypatch, onnx=place.first, only=True)
    remove(place.first)
    stable = find_stable(place.config, version_of(place.second))
    place.config.restore_dir.parent.mkdir(parents=True, exist_ok=True)
    place.config.restore_dir.write_text("a file where the folder should be")
    seen: list[str] = []
    with pytest.raises(ModelError, match="nothing was switched"):
        plan_rollback(stable, lambda: seen.append("switched")).execute()
    assert seen == []


def test_the_command_restores_switches_and_is_confirmed_by_the_service(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = release(place.config, monkeypatch, onnx=place.first, only=True)
    remove(place.first)
    key = make_key()
    place.config_path.with_name(".env").write_text(f"API_KEY={key}\n")
    with start_service(place.config_path, variables={"API_KEY": key}) as service:
        running = open_live(service, place)
        planned = call(place, "--dry-run", "--host", service.url)
        assert planned.returncode == 0, planned.stderr
        assert f"restore {stored.name}" in planned.stdout
        assert running.version["version_tag"] == "model-b"
        assert not place.config.restore_dir.exists()
        done = call(place, "--host", service.url)
        assert done.returncode == 0, done.stderr
        assert running.version["version_tag"] == "model-a"
        running.client.close()


def test_a_switch_that_the_disk_refuses_is_no_success_and_pins_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(place.config, monkeypatch, onnx=place.first, only=True)
    remove(place.first)
    key, pinned = make_key(), list[object]()
    place.config_path.with_name(".env").write_text(f"API_KEY={key}\n")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_command, "switch", refuse)
    monkeypatch.setattr(model_command, "settle_pin", lambda *a, **_: pinned.append(a))
    monkeypatch.delenv("API_KEY", raising=False)
    refused = pytest.raises(StorageError, match=r"switch to .*model-a\.onnx: No space left")
    with start_service(place.config_path, variables={"API_KEY": key}) as service, refused:
        model_command.rollback(host=[service.url], persist=True, config=place.config_path)
    assert pinned == []


def call(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `pillops rollback`."""
    door = [sys.executable, "-m", "opslib.cli", "rollback"]
    return run_python(
        [*door, *arguments, "--config", str(place.config_path)],
        env={k: v for k, v in os.environ.items() if k != "API_KEY"},
        timeout=60,
    )
