"""A password in an address is shown nowhere: not in a refusal, not in a log, not in a record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from opslib.core.config import load_config
from opslib.core.config_edit import show_value
from opslib.core.errors import ConfigError, OpsError, ParameterError
from opslib.core.secrets import mask, show_address
from opslib.ops.checklist.doctor import examine
from opslib.ops.drill.request import DrillRequest
from opslib.runs.redaction import Redactor
from opslib.serving.client import ServiceClient
from opslib.serving.reachable import ask_services
from opslib.upkeep.health import check_health
from tests.models import write_config
from tests.upkeep.servers import open_world

PASSWORD = "Pa-s3cr3t-w0rd"
ADDRESSES = [
    f"http://user:{PASSWORD}@127.0.0.1:9",
    f"http://{PASSWORD}@127.0.0.1:9",
    f"user:{PASSWORD}@127.0.0.1:9",
    f"http://user:{PASSWORD}/x@127.0.0.1:9",
    f"http://user:x@{PASSWORD}@127.0.0.1:9",
    f"http://127.0.0.1:9/?token={PASSWORD}",
    f"ftp://user:{PASSWORD}@host",
    f"http:/user:{PASSWORD}@host",
    f"http://user:{PASSWORD} with a blank@host",
    f"http://user:{PASSWORD}@" + "h" * 400,
    f"http://user:{PASSWORD}" + "p" * 400 + "@host",
]


def run(folder: Path, *words: str, variables: dict[str, str] | None = None) -> str:
    """What the command line prints, on both streams."""
    command = [sys.executable, "-m", "opslib.cli", *words]
    environment = {**os.environ, "API_KEY": "k" * 40, **(variables or {})}
    answer = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode != 0
    assert "Traceback" not in answer.stderr
    return answer.stdout + answer.stderr


def configured(folder: Path, key: str, address: str) -> Path:
    """A configuration with the address under a key of a section."""
    section, _, name = key.partition(".")
    value = json.dumps(address)
    (folder / "exp").mkdir(exist_ok=True)
    return write_config(folder, f"{section}: {{{name}: {value}}}\n")


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("key", ["client.url", "health.internal_url", "health.external_url"])
def test_a_configuration_with_a_password_in_an_address_is_told_without_it(
    tmp_path: Path, key: str, address: str
) -> None:
    path = configured(tmp_path, key, address)
    try:
        config = load_config(path, {})
    except ConfigError as error:
        assert PASSWORD not in str(error)
        assert key in str(error)
        return
    if key == "client.url":
        try:
            told = " ".join(one.note for one in ask_services(config))
        except OpsError as error:
            told = str(error)
        assert PASSWORD not in told
        assert not any(PASSWORD in str(one) for one in examine(config))
    else:
        assert "token=" in address, "an address of the watch may hold no user"
        assert PASSWORD not in check_health(config).to_json()


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_client_and_a_drill_tell_where_they_ask_without_the_password(
    tmp_path: Path, address: str
) -> None:
    config = load_config(configured(tmp_path, "client.timeout_s", "1"), {})
    with pytest.raises(OpsError) as told, ServiceClient(address, "k", config.client) as client:
        client.version()
    assert PASSWORD not in str(told.value)
    with pytest.raises(ParameterError) as refused:
        DrillRequest(url=address)
    assert PASSWORD not in str(refused.value)


def test_no_command_repeats_it(tmp_path: Path) -> None:
    address = ADDRESSES[0]
    configured(tmp_path, "health.internal_url", address)
    assert PASSWORD not in run(tmp_path, "maintain")
    configured(tmp_path, "client.url", address)
    (tmp_path / "m.onnx").write_bytes(b"")
    for words in (("doctor",), ("reload", "--host", address, "--path", "m.onnx"), ("check",)):
        assert PASSWORD not in run(tmp_path, *words)
    variables = {"PILLSNAP_HEALTH__EXTERNAL_URL": address}
    said = run(tmp_path, "health", "watch", variables=variables)
    assert "PILLSNAP_HEALTH__EXTERNAL_URL" in said
    assert PASSWORD not in said


def test_a_maintenance_record_and_its_output_hold_no_password(tmp_path: Path) -> None:
    from opslib.upkeep.maintenance import run_maintenance

    config = load_config(configured(tmp_path, "client.url", ADDRESSES[0]), {})
    said: list[str] = []
    done = run_maintenance(config, show=said.append)
    assert "no service answers at http://********@127.0.0.1:9" in " ".join(said)
    assert PASSWORD not in " ".join(said) + done.path.read_text()


@pytest.mark.parametrize("address", ADDRESSES)
def test_another_service_that_is_asked_before_a_deletion_is_told_without_it(
    tmp_path: Path, address: str
) -> None:
    (tmp_path / "exp").mkdir()
    given = json.dumps([address])
    path = write_config(tmp_path, f"maintenance: {{also_serving: {given}}}\n")
    try:
        told = " ".join(one.note for one in ask_services(load_config(path, {})))
    except OpsError as error:
        told = str(error)
    assert PASSWORD not in told


def test_what_a_service_behind_a_password_answers_is_told_without_it(tmp_path: Path) -> None:
    with open_world(tmp_path) as world:
        world.set(version="500")
        address = world.url.replace("://", f"://user:{PASSWORD}@")
        config = load_config(configured(tmp_path, "client.url", address), {})
        with pytest.raises(OpsError) as told, ServiceClient(address, "k", config.client) as client:
            client.version()
        assert "http://********@127.0.0.1" in str(told.value)
        assert "500" in str(told.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see http://u:p@h/x and https://h2/y@z", "see http://********@h/x and https://h2/y@z"),
        ("http://h/p?a=1&token=abc&b=2", "http://h/p?a=1&token=********&b=2"),
        ("http://h/?X-Amz-Signature=ab", "http://h/?X-Amz-Signature=********"),
        ('{"url":"http://h","mail":"a@b"}', '{"url":"http://h","mail":"a@b"}'),
        ("https://cdn.example/npm/pkg@1.2", "https://cdn.example/npm/pkg@1.2"),
        ("key=5 monkey=6", "key=5 monkey=6"),
        ("sftp://ops@store/releases", "sftp://ops@store/releases"),
        ("a @ git+ssh://git@h/a.git", "a @ git+ssh://git@h/a.git"),
        ("sftp://ops:hunter2@store/releases", "sftp://********@store/releases"),
        ("sftp://a@b https://ghp_1@c", "sftp://a@b https://********@c"),
    ],
)
def test_addresses_in_a_text_lose_what_is_secret_and_nothing_else(text: str, shown: str) -> None:
    assert mask(text) == shown


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_value_is_shown_without_what_may_be_a_password(address: str) -> None:
    assert PASSWORD not in show_address(address)
    assert PASSWORD not in show_value({"a": [address, (address,)], address: 1})
    assert show_value("http://127.0.0.1:8000") == "'http://127.0.0.1:8000'"


def test_a_report_is_cleaned_of_it_and_says_so() -> None:
    redactor = Redactor(frozenset())
    assert PASSWORD not in redactor.clean_text(f"asked {ADDRESSES[0]}/health", "cell 1")
    assert redactor.found_in == ["cell 1"]
