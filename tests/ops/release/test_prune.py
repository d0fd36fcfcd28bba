"""H-2: pruning plans first and never deletes what is needed to go back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from opslib.core.errors import InputError
from opslib.core.models import find_model_files
from opslib.core.plans import carry_out
from opslib.core.served import ServedModel, ServedState, WantedModel, served_state_path
from opslib.ops.release.build import build_release
from opslib.ops.release.companions import checksum_path
from opslib.ops.release.prune import find_kept, plan_prune
from opslib.ops.release.record import Proof, add_proof, proofs_path
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.restore import restore_release
from opslib.ops.release.store import PINS_NAME, list_releases, pin_release
from opslib.serving.reachable import LiveModel
from tests.ops.release.conftest import visible
from tests.serving.conftest import Place


def release(
    place: Place, monkeypatch: pytest.MonkeyPatch, day: int, onnx: Path | None = None
) -> str:
    """Make a release of a given day and return its name."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(1_700_000_000 + 86_400 * day))
    request = ReleaseRequest(onnx=onnx, only=onnx is not None, load_models=False)
    return build_release(place.config, request).path.name.removesuffix(".tar.gz")


@pytest.fixture
def five(place: Place, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Five releases, oldest first; the first two hold the first model, the others the second."""
    models = [place.first, place.first, place.second, place.second, place.second]
    return [release(place, monkeypatch, day, model) for day, model in enumerate(models)]


def doomed(place: Place, keep: int = 1, live: tuple[LiveModel, ...] = ()) -> list[str]:
    plan = plan_prune(place.config, keep=keep, live=live)
    return sorted(Path(one.target).name.removesuffix(".tar.gz") for one in plan.actions)


def keep_test(place: Place, name: str, *, ok: bool) -> None:
    """Let the history have a restore test of a release."""
    moment = "2026-11-02T00:00:00+00:00"
    add_proof(
        place.config,
        Proof(release=name, content_id=None, proved_at_utc=moment, ok=ok, took_s=1.0),
    )


def serve(place: Place, *paths: Path) -> None:
    """Let the service's state say which models it served, the current one first."""
    models = tuple(
        ServedModel(
            path=path,
            sha256=find_model_files(path).digest(),
            version_tag=path.stem,
            generation=9 - number,
            switched_at_utc="2026-11-01T00:00:00+00:00",
        )
        for number, path in enumerate(paths)
    )
    ServedState(current=models[0], previous=models[1:]).write(served_state_path(place.config))


def test_the_newest_and_the_one_before_always_stay(place: Place, five: list[str]) -> None:
    assert doomed(place) == five[:3]
    assert doomed(place, keep=4) == five[:1]
    assert doomed(place, keep=50) == []
    assert list(find_kept(place.config, keep=1).values()) == [
        "the newest release",
        "the release before the newest",
    ]


def test_the_only_release_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    release(place, monkeypatch, 0)
    assert doomed(place) == []


def test_a_pinned_one_stays(place: Place, five: list[str]) -> None:
    pin_release(place.config, five[0])
    assert doomed(place) == five[1:3]


def test_the_newest_that_holds_the_served_model_stays(place: Place, five: list[str]) -> None:
    serve(place, place.first)
    assert doomed(place) == [five[0], five[2]]
    serve(place, place.second, place.first)
    assert doomed(place) == [five[0], five[2]]
    assert "served before" in find_kept(place.config, keep=1)[five[1]]


def test_the_newest_that_holds_the_model_that_should_be_served_stays(
    place: Place, five: list[str]
) -> None:
    """The file of the model is gone and another stands in for it: a release alone holds it."""
    serve(place, place.second)
    path = served_state_path(place.config)
    digest = find_model_files(place.first).digest()
    wanted = WantedModel(path=place.first, version_tag=None, sha256=digest, why="served last")
    ServedState.read(path).model_copy(update={"wanted": wanted}).write(path)
    place.first.unlink()
    assert "should be served" in find_kept(place.config, keep=1)[five[1]]
    assert five[1] not in doomed(place)


def test_one_that_the_service_serves_from_stays(place: Place, five: list[str]) -> None:
    oldest = list_releases(place.config)[-1]
    model = restore_release(oldest.path, config=place.config, load_models=False).model
    serve(place, model)
    assert doomed(place) == [five[2]]
    served_state_path(place.config).unlink()
    assert doomed(place, live=(LiveModel("asked", model),)) == [five[2]]
    place.config_path.with_name(".env").write_text(f"MODEL_PATH={model}\n")
    assert doomed(place) == [five[2]]


def test_what_is_broken_stays_and_does_not_count(place: Place, five: list[str]) -> None:
    newest = list_releases(place.config)[0]
    checksum_path(newest.path).unlink()
    assert doomed(place) == five[:2]
    assert "sha256 is missing" in find_kept(place.config)[newest.name]


def test_what_failed_its_restore_test_stays_and_does_not_count_until_it_passes(
    place: Place, five: list[str]
) -> None:
    for ok in (True, False):
        keep_test(place, five[4], ok=ok)
    assert doomed(place, keep=3) == five[:1]
    assert find_kept(place.config)[five[4]] == (
        "left alone: it failed its restore test of 2026-11-02"
    )
    keep_test(place, five[4], ok=True)
    assert doomed(place, keep=3) == five[:2]


def test_the_newest_that_holds_the_served_model_is_one_that_did_not_fail(
    place: Place, five: list[str]
) -> None:
    serve(place, place.first)
    keep_test(place, five[1], ok=False)
    assert doomed(place) == [five[2]]
    assert "the newest that holds the model" in find_kept(place.config, keep=1)[five[0]]


FULL = """
import resource, sys
from opslib.core.config import load_config
from opslib.ops.release.prune import plan_prune
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
outcome = plan_prune(load_config(sys.argv[1], {}), keep=4).execute()
print(*(one.reason for one in outcome.skipped))
"""


def test_a_full_disk_can_be_pruned(place: Place, five: list[str]) -> None:
    pin_release(place.config, five[1])
    command = [sys.executable, "-c", FULL, place.config_path]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == ""
    assert len(list_releases(place.config)) == 4
    assert find_kept(place.config, keep=1)[five[1]] == "pinned"


def test_without_knowing_what_is_pinned_proved_or_served_nothing_is_planned(
    place: Place, five: list[str]
) -> None:
    (place.config.releases_dir / PINS_NAME).write_text("{")
    with pytest.raises(InputError, match=r"pins\.json"):
        plan_prune(place.config)
    (place.config.releases_dir / PINS_NAME).unlink()
    proofs_path(place.config).write_text("{")
    with pytest.raises(InputError, match=r"proofs\.json"):
        plan_prune(place.config)
    proofs_path(place.config).unlink()
    served_state_path(place.config).write_text("{")
    with pytest.raises(InputError, match=r"served\.json"):
        plan_prune(place.config)


def test_the_plan_is_shown_and_a_whole_release_goes(place: Place, five: list[str]) -> None:
    shown: list[str] = []
    plan = plan_prune(place.config, keep=4)
    before = visible(place.config.releases_dir)
    carry_out(plan, dry_run=True, show=shown.append)
    assert visible(place.config.releases_dir) == before
    assert five[0] in shown[1]
    assert shown[-1] == "dry run: nothing was changed"
    outcome = carry_out(plan, dry_run=False, show=shown.append)
    gone = set(before) - set(visible(place.config.releases_dir))
    assert gone == {f"{five[0]}{end}" for end in (".tar.gz", ".tar.gz.sha256", ".manifest.json")}
    assert outcome.freed_bytes > 0


def test_one_that_was_pinned_after_the_plan_is_skipped(
    place: Place, five: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_prune(place.config, keep=4)
    pin_release(place.config, five[0])
    assert plan.execute().skipped[0].reason == "it is kept by now: pinned"
    monkeypatch.setattr("opslib.ops.release.prune.find_kept", lambda *_, **__: {})
    outcome = plan_prune(place.config, keep=4).execute()
    reasons = {Path(one.action.target).name: one.reason for one in outcome.skipped}
    assert reasons == {f"{five[0]}.tar.gz": "was pinned meanwhile"}
    assert list_releases(place.config)[-1].pinned
