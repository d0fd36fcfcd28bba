"""H-2: a store that several hosts share is pruned as the local one is: planned, shown, asked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from opslib.core.config import load_config
from opslib.core.store import Store, open_store
from opslib.ops.release.build import build_release
from opslib.ops.release.push import push_release
from opslib.ops.release.remote import look_into
from opslib.ops.release.remote_prune import plan_remote_prune
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.store import pin_release
from opslib.serving.leases import LEASE_FOLDER
from tests.ops.release.test_command import call
from tests.ops.release.test_prune import release, serve
from tests.serving.conftest import Place
from tests.upkeep.places import NOBODY

Five = tuple[Store, list[str]]


@pytest.fixture(params=["file", "s3"])
def five(
    place: Place,
    make_store: Callable[[str], str],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Five:
    """Five releases in a store, oldest first; the first two hold the first model, the others the
    second."""
    store = open_store(make_store(request.param))
    models = [place.first, place.first, place.second, place.second, place.second]
    names = [release(place, monkeypatch, day, model) for day, model in enumerate(models)]
    for name in names:
        archive = place.config.releases_dir / f"{name}.tar.gz"
        push_release(archive, store, config=place.config)
    return store, names


def names_in(store: Store) -> list[str]:
    return sorted(one.name for one in look_into(store).releases)


def test_the_plan_is_shown_and_a_dry_run_ends_there(place: Place, five: Five) -> None:
    store, names = five
    planned = call(place, "prune", "--keep", "1", "--store", store.url, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "dry run: nothing was changed" in planned.stdout
    assert f"delete {store.url}/{names[0]}.tar.gz" in planned.stdout
    assert f"keep {names[3]}: the release before the newest" in planned.stdout
    assert names_in(store) == names
    done = call(place, "prune", "--keep", "1", "--store", store.url)
    assert done.returncode == 0, done.stderr
    assert "freed " in done.stdout
    assert names_in(store) == names[3:]
    assert len(store.list()) == 6
    assert len(list(place.config.releases_dir.glob("*.tar.gz"))) == 5


def test_what_is_served_or_pinned_anywhere_stays(place: Place, five: Five) -> None:
    store, names = five
    serve(place, place.first)
    pinned = call(place, "pin", f"{store.url}/{names[0]}")
    assert pinned.stdout == f"{names[0]}: pinned\n"
    pin_release(place.config, names[2])
    said = call(place, "prune", "--keep", "1", "--store", store.url).stdout
    assert f"keep {names[0]}: pinned" in said
    assert f"keep {names[2]}: pinned" in said
    assert f"keep {names[1]}: the newest that holds the model last switched in" in said
    assert names_in(store) == names
    assert "(pinned)" in call(place, "list", "--store", store.url).stdout
    assert call(place, "unpin", f"{store.url}/{names[0]}").returncode == 0
    assert call(place, "prune", "--keep", "1", "--store", store.url).returncode == 0
    assert names_in(store) == names[1:]


def test_nothing_goes_where_it_is_not_known_what_is_served(place: Place, five: Five) -> None:
    store, names = five
    config = load_config(place.config_path, {"PILLSNAP_CLIENT__URL": NOBODY})
    plan = plan_remote_prune(config, look_into(store), keep=1)
    assert len(plan.actions) == 3
    (place.export / LEASE_FOLDER).mkdir()
    (place.export / LEASE_FOLDER / "x.json").write_text("{")
    outcome = plan.execute()
    assert len(outcome.skipped) == 3
    assert all("not a lease/1 record" in one.reason for one in outcome.skipped)
    assert names_in(store) == names
    answer = call(place, "prune", "--keep", "1", "--store", store.url)
    assert answer.returncode == 2
    assert names_in(store) == names


def test_one_that_another_host_pins_meanwhile_stays(place: Place, five: Five) -> None:
    store, _ = five
    config = load_config(place.config_path, {"PILLSNAP_CLIENT__URL": NOBODY})
    plan = plan_remote_prune(config, look_into(store), keep=1)
    plan.actions[0].run()  # from here on what was found a moment ago may serve
    store.write(f"{plan.actions[1].target.rpartition('/')[2].removesuffix('.tar.gz')}.pin", b"")
    outcome = plan.execute()
    assert len(outcome.skipped) == 1
    assert "pinned" in outcome.skipped[0].reason
    assert len(names_in(store)) == 3


def test_what_a_push_left_goes_when_it_is_old(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"file://{tmp_path}/shared")
    record = build_release(place.config, ReleaseRequest(load_models=False))
    name = record.path.name.removesuffix(".tar.gz")
    store.upload(record.path, record.path.name)
    config = load_config(place.config_path, {"PILLSNAP_CLIENT__URL": NOBODY})
    assert plan_remote_prune(config, look_into(store)).actions == ()
    old = time.time() - 25 * 3600
    os.utime(tmp_path / "shared" / record.path.name, (old, old))
    plan = plan_remote_prune(config, look_into(store))
    assert [one.target for one in plan.actions] == [f"{store.url}/{name}"]
    push_release(record.path, store, config=place.config)
    (skipped,) = plan.execute().skipped
    assert skipped.reason == "it changed meanwhile: somebody pushes it"
    assert len(store.list()) == 3
    store.delete([f"{record.path.name}.sha256", f"{name}.manifest.json"])
    assert len(plan.execute().done) == 1
    assert store.list() == {}
