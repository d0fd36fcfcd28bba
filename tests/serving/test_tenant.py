"""A service's leases: written before it touches a model, renewed, true at any moment."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opslib.core.errors import StorageError
from opslib.core.files import link_atomic
from opslib.core.served import ServedModel, ServedState, served_state_path
from opslib.serving import reload, tenant
from opslib.serving.keys import make_key
from opslib.serving.leases import LEASE_FOLDER, Lease, find_leases
from opslib.serving.service import Service
from opslib.serving.settings import load_settings
from opslib.serving.start import load_first_model
from opslib.serving.tenant import Tenant
from tests.serving.conftest import Place
from tests.waiting import await_that


@pytest.fixture
def service(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("API_KEY", make_key())
    monkeypatch.setattr(reload.Reloader, "_try", lambda *_: None)  # a process for each model
    service = Service(load_settings(place.config))
    yield service
    service.close()


def open_tenant(service: Service, port: int = 8000) -> Tenant:
    """The tenant of a service that listens everywhere."""
    found = Tenant(service.settings, service.generations, "0.0.0.0", port)
    service.reloader.announce = found.announce
    return found


def lease_of(place: Place) -> Lease:
    """The one lease in the folder of exports."""
    (path,) = (place.export / LEASE_FOLDER).glob("*.json")
    return Lease.read(path)


def test_a_model_is_named_before_it_is_touched(
    place: Place, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, str]] = []
    read = reload.read_candidate

    def look(*arguments: object) -> object:
        seen.append(lease_of(place).models)
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(reload, "read_candidate", look)
    with open_tenant(service):
        service.reloader.start_with(place.first)
        service.reloader.reload_now(place.second.name)
        assert lease_of(place).models == {
            place.second.name: "served now",
            place.first.name: "served before",
        }
    assert seen == [
        {place.first.name: "about to be served"},
        {place.first.name: "served now", place.second.name: "about to be served"},
    ]


def test_a_model_that_was_refused_is_named_no_more(place: Place, service: Service) -> None:
    place.first.write_bytes(b"no model")
    with open_tenant(service):
        service.reloader.start_with(place.second)
        with pytest.raises(reload.StageError):
            service.reloader.reload_now(place.first.name)
        assert lease_of(place).models == {place.second.name: "served now"}


def test_a_model_elsewhere_has_its_lease_beside_it_for_as_long_as_it_is_used(
    place: Place, service: Service, tmp_path: Path
) -> None:
    there = tmp_path / "elsewhere" / place.first.name
    there.parent.mkdir()
    there.write_bytes(place.first.read_bytes())
    with open_tenant(service):
        service.reloader.start_with(there)
        assert list((there.parent / LEASE_FOLDER).iterdir())
        for model in (place.first, place.second):
            service.reloader.start_with(model)
        assert not list((there.parent / LEASE_FOLDER).iterdir())


def test_a_lease_is_renewed_without_being_written_anew(
    place: Place, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenant, "REFRESH_S", 0.02)
    with open_tenant(service):
        service.reloader.start_with(place.first)
        (found,) = find_leases(place.config)
        inode = found.path.stat().st_ino
        os.utime(found.path, (0, 0))
        assert found.may_be_outdated()
        await_that(lambda: not found.may_be_outdated(), "the renewal")
        assert found.path.stat().st_ino == inode
        found.path.unlink()
        await_that(
            lambda: len(find_leases(place.config)) == 1, "a new lease in place of a lost one"
        )


def test_a_lease_that_cannot_be_written_is_one_that_must_not_be_trusted(
    place: Place,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_arguments: object) -> None:
        raise StorageError("no space left on device")

    with open_tenant(service), caplog.at_level(logging.WARNING):
        service.reloader.start_with(place.first)
        (found,) = find_leases(place.config)
        monkeypatch.setattr(tenant, "write_text_atomic", full)
        for model in (place.second, place.first):
            service.reloader.reload_now(model.name)
        assert found.may_be_outdated()
    told = [one.getMessage() for one in caplog.records if "also_serving" in one.getMessage()]
    assert len(told) == 1


def test_what_a_start_would_look_for_is_named_from_the_beginning(
    place: Place, service: Service
) -> None:
    models = [
        ServedModel(path=path, sha256="0" * 64, version_tag="t", generation=1, switched_at_utc="")
        for path in (place.second, place.first)
    ]
    ServedState(current=models[0], previous=(models[1],)).write(served_state_path(place.config))
    with open_tenant(service):
        assert lease_of(place).models == {
            place.second.name: "the last one switched in",
            place.first.name: "served before",
        }
    assert lease_of(place).stopped


def test_a_start_takes_up_the_lease_of_the_run_before_it(place: Place, service: Service) -> None:
    with open_tenant(service):
        service.reloader.start_with(place.first)
    with open_tenant(service):
        assert not lease_of(place).stopped
    with open_tenant(service, port=8001):
        assert len(find_leases(place.config)) == 2


def test_the_lease_of_a_trial_goes_with_it(place: Place, service: Service) -> None:
    trial = Tenant(service.settings, service.generations, "::", 49152, lasting=False)
    service.reloader.announce = trial.announce
    with trial:
        service.reloader.start_with(place.first)
        assert find_leases(place.config)
    assert not find_leases(place.config)


def test_the_folder_of_leases_may_be_written_by_whoever_may_write_models(
    place: Place, service: Service
) -> None:
    place.export.chmod(0o2775)
    with open_tenant(service):
        service.reloader.start_with(place.first)
    assert (place.export / LEASE_FOLDER).stat().st_mode & 0o7777 == 0o2775


@pytest.mark.parametrize(
    ("host", "address", "url"),
    [
        ("here", "0.0.0.0", "http://127.0.0.1:8000"),
        ("here", "127.0.0.1", "http://127.0.0.1:8000"),
        ("here", "::1", "http://[::1]:8000"),
        ("gpu2", "0.0.0.0", "http://gpu2:8000"),
        ("gpu2", "::", "http://gpu2:8000"),
        ("gpu2", "10.0.0.2", "http://10.0.0.2:8000"),
        ("gpu2", "127.0.0.1", None),
    ],
)
def test_a_service_is_asked_where_it_is_reached_from_here(
    place: Place, monkeypatch: pytest.MonkeyPatch, host: str, address: str, url: str | None
) -> None:
    monkeypatch.setattr("platform.node", lambda: "here")
    lease = Lease(
        host=host,
        address=address,
        port=8000,
        pid=1,
        exp_dir=place.config.exp_dir,
        env_file=place.config_path,
        root=place.config_path.parent,
        models={},
    )
    assert lease.url() == url


def lose(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have every look at a folder fail as no test can make a file server do."""
    stat = os.stat

    def fail_there(path: Any, **given: Any) -> os.stat_result:
        if isinstance(path, str | Path) and Path(path) in (folder, folder / "m.onnx"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return stat(path, **given)

    monkeypatch.setattr(os, "stat", fail_there)


def test_a_folder_that_cannot_be_looked_at_for_a_while_keeps_its_lease(
    place: Place, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_tenant(service) as one:
        service.reloader.start_with(place.first)
        with monkeypatch.context() as patch:
            lose(patch, place.export)
            one.announce(None)
        assert lease_of(place).models == {place.first.name: "served now"}


def test_a_folder_that_the_file_server_lost_does_not_keep_a_service_from_starting(
    place: Place, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = tmp_path / "mount"
    link_atomic(place.export / "latest.onnx", str(lost / "m.onnx"))
    model = ServedModel(
        path=lost / "m.onnx", sha256="0" * 64, version_tag="m", generation=1, switched_at_utc=""
    )
    ServedState(current=model).write(served_state_path(place.config))
    lose(monkeypatch, lost)
    with open_tenant(service):
        load_first_model(service)
        assert lease_of(place).models == {place.second.name: "served now"}


def test_a_renewal_that_failed_is_followed_by_the_next(
    place: Place,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = iter([OSError(errno.EIO, os.strerror(errno.EIO))])
    renew = Tenant._renew

    def fail_once(self: Tenant) -> None:
        for error in failures:
            raise error
        renew(self)

    monkeypatch.setattr(tenant, "REFRESH_S", 0.02)
    with open_tenant(service):
        service.reloader.start_with(place.first)
        (found,) = find_leases(place.config)
        monkeypatch.setattr(Tenant, "_renew", fail_once)
        os.utime(found.path, (0, 0))
        await_that(lambda: "could not be renewed" in caplog.text, "a failure")
        await_that(lambda: not found.may_be_outdated(), "the renewal")
