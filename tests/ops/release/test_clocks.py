"""H-2: an order of releases that no clock decides; what is dated after now is left alone."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opslib.core.errors import InputError
from opslib.core.kinds import pick_kind
from opslib.core.plans import carry_out
from opslib.inference.find_model import find_onnx, newest_first
from opslib.ops.checklist.items import Visit
from opslib.ops.checklist.releases import check_release
from opslib.ops.release.build import build_release
from opslib.ops.release.companions import checksum_path, manifest_path
from opslib.ops.release.manifest import MANIFEST_NAME
from opslib.ops.release.prune import find_kept, plan_prune
from opslib.ops.release.record import proofs_path, read_proofs
from opslib.ops.release.rollback import find_stable
from opslib.ops.release.rota import choose_release
from opslib.ops.release.store import PINS_NAME, find_release, list_releases, read_pins
from opslib.ops.release.verify import verify_release
from opslib.serving.start import start_order
from tests.ops.release.conftest import QUICK, members_of, write_archive
from tests.serving.conftest import Place

NOW = datetime.now(UTC).replace(microsecond=0)


def make(place: Place, monkeypatch: pytest.MonkeyPatch, days: float) -> str:
    """Make a release by a clock that stands so many days after the real one; return its name."""
    moment = NOW + timedelta(days=days)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(moment.timestamp())))
    return build_release(place.config, QUICK).path.name.removesuffix(".tar.gz")


def as_before(place: Place, name: str) -> None:
    """Let a release be as the build before made it, which knew of no sequence."""
    archive = place.config.releases_dir / f"{name}.tar.gz"
    members = members_of(archive)
    manifest = json.loads(members[MANIFEST_NAME])
    del manifest["sequence"], manifest["parent"]
    data = (json.dumps(manifest, indent=2) + "\n").encode()
    members.pop(MANIFEST_NAME)
    write_archive(archive, [*members.items(), (MANIFEST_NAME, data)])
    manifest_path(archive).write_bytes(data)


def left(place: Place, keep: int) -> set[str]:
    """What pruning leaves."""
    carry_out(plan_prune(place.config, keep=keep), dry_run=False, show=lambda line: None)
    return {one.name for one in list_releases(place.config)}


@pytest.mark.parametrize("before", [True, False], ids=["of the build before", "of this build"])
def test_releases_from_the_future_cost_no_real_one_its_place(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, before: bool
) -> None:
    real = [make(place, monkeypatch, days) for days in (-30, -20, -10)]
    future = [make(place, monkeypatch, days) for days in (1500, 1501)]
    for name in [*real, *future] if before else ():
        as_before(place, name)
    new = make(place, monkeypatch, -1)
    assert left(place, 2) == {new, real[2], *future}
    assert find_release(place.config).name == new
    assert "dated after now: is the clock right?" in find_kept(place.config)[future[0]]
    answer = check_release(Visit(place.config, "weekly", 24.0))
    assert answer.state == "attention"
    assert f"passed over, dated after now: 2 releases, {future[1]}" in "\n".join(answer.evidence)
    assert any(line.startswith(new) for line in answer.evidence)


def test_a_release_made_while_the_clock_was_behind_is_still_the_newest(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = [make(place, monkeypatch, days) for days in (-30, -20, -10)]
    behind = make(place, monkeypatch, -20_000)
    assert [one.name for one in list_releases(place.config)] == [behind, *real[::-1]]
    assert find_release(place.config, "latest").name == behind
    assert left(place, 2) == {behind, real[2], real[1]}  # the newest by either order


def test_while_the_clock_is_behind_nothing_goes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for days in (-30, -20, -10):
        make(place, monkeypatch, days)
    for now in (datetime(1970, 1, 1, tzinfo=UTC), NOW - timedelta(days=365)):
        assert plan_prune(place.config, keep=1, now=now).actions == ()


def test_a_release_names_its_number_and_the_content_before_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = make(place, monkeypatch, -3)
    as_before(place, first)
    second = make(place, monkeypatch, 100)
    (place.config.records_dir / "metrics.json").write_text('{"top1_pct": 98}')
    third = make(place, monkeypatch, -2)
    manifests = [find_release(place.config, name).manifest() for name in (first, second, third)]
    assert [one.sequence for one in manifests] == [None, 1, 2]
    assert manifests[1].parent == manifests[0].content_id
    assert manifests[2].parent == manifests[1].content_id
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    elsewhere = QUICK.__class__(load_models=False, out=tmp_path / "out")
    made = build_release(place.config, elsewhere).path
    assert find_release(place.config, made).sequence == 3


def test_what_the_build_before_made_is_listed_verified_and_pruned_by_its_date(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [make(place, monkeypatch, days) for days in (-30, -20, -10)]
    for name in names:
        as_before(place, name)
    there = list_releases(place.config)
    assert [(one.name, one.problem) for one in there] == [(name, None) for name in names[::-1]]
    verify_release(there[0].path, config=place.config, load_models=False)
    assert choose_release(place.config).name == names[2]
    by_this = make(place, monkeypatch, -5)
    by_that = make(place, monkeypatch, -4)
    as_before(place, by_that)  # both builds are at work on one store
    assert [one.name for one in list_releases(place.config)][:2] == [by_that, by_this]
    assert left(place, 2) == {by_this, by_that}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "empty"),
        ("\n", "not the one line"),
        ("garbage", "not the one line"),
        (f"{'a' * 63}  NAME\n", "not the one line"),
        (f"{'A' * 64}  NAME\n", "not the one line"),
        (f"{'a' * 64}  other.tar.gz\n", "is about 'other.tar.gz'"),
        (f"{'a' * 64}  NAME\n{'a' * 64}  NAME\n", "not the one line"),
    ],
    ids=["empty", "a line end", "garbage", "short", "uppercase", "of another", "two lines"],
)
def test_a_checksum_that_can_be_none_is_a_problem_and_does_not_count(
    place: Place, monkeypatch: pytest.MonkeyPatch, content: str, problem: str
) -> None:
    names = [make(place, monkeypatch, days) for days in (-30, -20, -10, -5)]
    path = place.config.releases_dir / f"{names[3]}.tar.gz"
    checksum_path(path).write_text(content.replace("NAME", path.name))
    newest = list_releases(place.config)[0]
    assert problem in (newest.problem or "")
    assert f"{path.name}.sha256" in (newest.problem or "")
    assert left(place, 2) == set(names[1:])


def test_a_companion_of_another_kind_is_a_problem(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [make(place, monkeypatch, days) for days in (-30, -20, -10)]
    archives = [place.config.releases_dir / f"{name}.tar.gz" for name in names]
    checksum_path(archives[0]).unlink()
    checksum_path(archives[0]).mkdir()
    checksum_path(archives[1]).unlink()
    os.mkfifo(checksum_path(archives[1]))
    manifest_path(archives[2]).write_bytes(b"")
    problems = [one.problem or "" for one in list_releases(place.config)]
    assert "manifest.json is no copy of its manifest" in problems[0]
    assert all("sha256: cannot be read: no regular file" in one for one in problems[1:])
    assert plan_prune(place.config, keep=1).actions == ()


@pytest.mark.parametrize("make_unreadable", [Path.touch, lambda path: path.symlink_to("gone")])
def test_lists_that_are_empty_or_lead_nowhere_are_not_taken_for_none(
    place: Place, make_unreadable: object
) -> None:
    place.config.releases_dir.mkdir(parents=True, exist_ok=True)
    assert callable(make_unreadable)
    for path, read in (
        (place.config.releases_dir / PINS_NAME, read_pins),
        (proofs_path(place.config), read_proofs),
    ):
        make_unreadable(path)
        with pytest.raises(InputError, match=path.name):
            read(place.config)


def test_a_model_from_the_future_is_nowhere_the_newest(place: Place) -> None:
    ahead = place.export / "model-20900101-000000-abc1234.onnx"
    ahead.write_bytes(place.first.read_bytes())  # by its name alone: a copy has today's date
    written = place.export / "copy.onnx"
    written.write_bytes(place.first.read_bytes())
    os.utime(written, (2**32, 2**32))
    (place.export / "latest.onnx").unlink(missing_ok=True)
    order = newest_first(place.export.glob("*.onnx"))
    assert set(order[-2:]) == {ahead, written}
    assert find_onnx(place.config) == order[0]
    assert [one.path for one in start_order(place.config, None, pick_kind(place.config))][
        : len(order)
    ] == order
    assert find_stable(place.config, None).path == order[0].resolve()
