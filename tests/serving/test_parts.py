"""The small parts: keys, rate, paths, logs, `.env`, generations."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opslib.core.config import load_config
from opslib.core.errors import ConfigError, ModelError, StorageError
from opslib.core.served import ServedModel, ServedState
from opslib.inference.causes import find_hint
from opslib.serving.command import settle_pin
from opslib.serving.dotenv import set_variable
from opslib.serving.gate import RateLimit
from opslib.serving.generations import Generations
from opslib.serving.keys import (
    KEY_VARIABLE,
    check_key,
    key_age_days,
    key_since,
    keys_match,
    make_key,
    rotate_key,
)
from opslib.serving.loaded import load_candidate, read_candidate
from opslib.serving.logs import AccessLog
from opslib.serving.own_copy import confine_path
from opslib.serving.server import bind
from opslib.serving.settings import load_settings
from tests.models import write_config
from tests.running import run_python
from tests.serving.conftest import Place, make_cached


def test_a_new_key_is_64_hex_digits_and_strong_enough() -> None:
    key = make_key()
    assert len(key) == 64
    assert check_key(key) == key.encode()


@pytest.mark.parametrize(
    "key",
    [None, "", "secret", "a" * 64, "0123456789abcdef" * 4, "f" * 63, "k" * 40, "schlüssel" * 9],
)
def test_a_weak_key_is_refused_with_the_command_that_makes_one(key: str | None) -> None:
    with pytest.raises(ConfigError, match="openssl rand -hex 32") as caught:
        check_key(key)
    assert not key or len(key) < 3 or key not in str(caught.value)


def test_keys_are_compared_as_bytes_of_any_kind() -> None:
    key = make_key().encode()
    assert keys_match(key, bytes(key))
    assert not keys_match(key, "schlüssel".encode("latin-1"))
    assert not keys_match(key, b"")


def test_the_sixty_first_request_of_a_minute_has_to_wait() -> None:
    now = [0.0]
    limit = RateLimit(60, clock=lambda: now[0])
    assert [limit.take("a") for _ in range(60)] == [0] * 60
    assert limit.take("a") == 1
    assert limit.take("operations") == 0
    now[0] = 1.0
    assert limit.take("a") == 0
    assert limit.take("a") == 1


def test_a_path_is_followed_to_its_end_before_it_is_allowed(tmp_path: Path) -> None:
    export = tmp_path / "export"
    export.mkdir()
    (export / "m.onnx").write_bytes(b"x")
    (export / "latest.onnx").symlink_to("m.onnx")
    folders = [export.resolve()]
    assert confine_path("latest.onnx", folders, export) == export / "m.onnx"
    assert confine_path(str(export / "m.onnx"), folders, tmp_path) == export / "m.onnx"
    for text in ("none.onnx", "m.txt", "../export/m.onnx", ""):
        with pytest.raises(ModelError):
            confine_path(text, folders, export)


def test_links_that_lead_in_a_circle_are_refused_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_path = write_config(tmp_path, "reload: {model_dirs: [loop]}\n")
    for name in ("loop", "loop.onnx"):
        (tmp_path / name).symlink_to(name)
    for text in ("loop.onnx", "loop/m.onnx"):
        with pytest.raises(ModelError, match=f"{text}: its links lead in a circle"):
            confine_path(text, [tmp_path], tmp_path)
    monkeypatch.setenv(KEY_VARIABLE, make_key())
    settings = load_settings(load_config(config_path, {}))
    assert tmp_path / "loop" in settings.model_dirs
    config_path.with_name(".env").write_text("MODEL_PATH=loop/m.onnx\n")
    settle_pin(settings.kind, tmp_path / "m.onnx", None, persist=False)
    with pytest.raises(ModelError, match=r"circle|no such"):
        read_candidate(settings.config, tmp_path / "loop/m.onnx")


@pytest.mark.parametrize(
    ("host", "port", "where"),
    [
        ("127.0.0.1", 70_000, r"127\.0\.0\.1:70000"),
        ("127.0.0.1", -1, r"127\.0\.0\.1:-1"),
        ("a..ä", 8000, r"a\.\.ä:8000"),
        ("::1%nowhere", 8000, r"\[::1%nowhere\]:8000"),
    ],
)
def test_an_address_that_is_none_is_refused_in_one_line(host: str, port: int, where: str) -> None:
    with pytest.raises(StorageError, match=rf"cannot listen on {where}: .+") as caught:
        bind(host, port)
    assert "\n" not in str(caught.value)


def test_a_number_that_no_address_and_no_clock_has_is_refused_by_its_option() -> None:
    for words in (["serve", "--port", "70000"], ["reload", "--path", "m.onnx", "--timeout", "-1"]):
        done = run_python([sys.executable, "-m", "opslib.cli", *words])
        assert (done.returncode, done.stderr.count(words[-2])) == (2, 1), done.stderr


def test_a_model_of_a_hugging_face_cache_keeps_its_place_beside_weights_and_card(
    tmp_path: Path,
) -> None:
    net = make_cached(tmp_path / "hub")
    assert confine_path(str(net), [tmp_path / "hub"], tmp_path) == net
    with pytest.raises(ModelError, match="outside"):
        confine_path(str(net), [net.parent], tmp_path)


def test_a_renamed_log_is_opened_anew_and_secrets_are_masked(tmp_path: Path) -> None:
    key = make_key()
    log = AccessLog(tmp_path / "logs" / "api.out", [key])
    log.write({"path": "/one"})
    (tmp_path / "logs" / "api.out").rename(tmp_path / "logs" / "api.out.1")
    log.write({"path": f"/{key}"})
    log.close()
    second = (tmp_path / "logs" / "api.out").read_text()
    assert json.loads((tmp_path / "logs" / "api.out.1").read_text())["path"] == "/one"
    assert json.loads(second)["path"] == "/********"


def test_a_variable_is_changed_in_place(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("# mine\nAPI_KEY=old\nMODEL_PATH=\n")
    env.chmod(0o640)
    set_variable(env, "MODEL_PATH", "/m.onnx")
    assert env.read_text() == "# mine\nAPI_KEY=old\nMODEL_PATH=/m.onnx\n"
    assert env.stat().st_mode & 0o777 == 0o640
    set_variable(env, "LOG_LEVEL", "INFO")
    assert env.read_text().endswith("LOG_LEVEL=INFO\n")


def test_a_rotation_writes_a_strong_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text(
        "# API_KEY since 2026-01-01T00:00:00+00:00\nAPI_KEY=old-old-old\nLOG_LEVEL=INFO\n"
    )
    env.chmod(0o644)
    done = rotate_key(env)
    text = env.read_text()
    key = next(line for line in text.splitlines() if line.startswith("API_KEY=")).split("=")[1]
    assert check_key(key)
    assert "old-old-old" not in text
    assert text.count("API_KEY since") == 1
    assert env.stat().st_mode & 0o777 == 0o600
    assert done.old_age_days is not None
    assert done.old_age_days > 300
    assert key not in repr(done)
    since = key_since(env)
    assert since is not None
    assert datetime.now(UTC) - since < timedelta(minutes=1)


def test_a_key_without_a_note_is_as_old_as_its_file(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    assert key_age_days(env) is None
    env.write_text("API_KEY=x\n")
    age = key_age_days(env)
    assert age is not None
    assert age < 1


def test_a_leased_model_is_freed_only_after_its_last_request(place: Place) -> None:
    generations = Generations(capacity=1)
    first, second = (
        load_candidate(place.config, read_candidate(place.config, path))
        for path in (place.first, place.second)
    )
    closed: list[str] = []
    for model in (first, second):
        model.engine.close = lambda name=model.path.name: closed.append(name)  # type: ignore[method-assign]
    generations.switch(first)
    with generations.lease() as held:
        generations.switch(second)
        assert held.model is first
        assert closed == []
    assert closed == ["model-a.onnx"]
    current = generations.current
    assert current is not None
    assert (current.number, current.model) == (2, second)


def test_a_resident_model_comes_back_as_a_new_generation(place: Place) -> None:
    generations = Generations(capacity=2)
    first, second = (
        load_candidate(place.config, read_candidate(place.config, path))
        for path in (place.first, place.second)
    )
    generations.switch(first)
    generations.switch(second)
    assert generations.find_resident(place.first) is first
    assert generations.switch(first).number == 3
    place.second.touch()
    assert generations.find_resident(place.second) is None


def test_with_little_memory_the_old_model_is_not_kept(place: Place) -> None:
    generations = Generations(capacity=2, min_free_bytes=1 << 60)
    for path in (place.first, place.second):
        generations.switch(load_candidate(place.config, read_candidate(place.config, path)))
    assert generations.find_resident(place.first) is None
    assert generations.find_resident(place.second) is not None


def test_the_history_holds_a_model_once() -> None:
    def served(name: str, number: int) -> ServedModel:
        return ServedModel(
            path=Path(name), sha256=name, version_tag=name, generation=number, switched_at_utc="x"
        )

    state = ServedState(current=served("a", 1)).followed_by(served("b", 2))
    state = state.followed_by(served("a", 3))
    assert state.current.generation == 3
    assert [one.sha256 for one in state.previous] == ["b"]


@pytest.mark.parametrize(
    ("stage", "message", "word"),
    [
        ("path", "x.onnx: No such file or directory", "typo"),
        ("read", "x.onnx: cannot be read: Permission denied", "ls -l"),
        ("contract", "it has 4 classes, expected 3", "classes"),
        ("files", "differs from its card", "restore"),
    ],
)
def test_the_hint_fits_the_failure(stage: str, message: str, word: str) -> None:
    assert word in find_hint(stage, message)
