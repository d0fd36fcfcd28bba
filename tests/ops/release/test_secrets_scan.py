"""H-2, H-6: no secret leaves with a release; file and line are named, the secret never is."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from opslib.core.errors import SecretLeakError
from opslib.ops.release.build import build_release
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.secrets_scan import find_secret
from tests.ops.release.conftest import QUICK, hidden_files, members_of, visible
from tests.serving.conftest import Place

ROOT = Path(__file__).resolve().parents[3]
VALUE = secrets.token_hex(32)


def test_dotenv_is_never_packed(place: Place) -> None:
    place.config_path.with_name(".env").write_text(f"API_KEY={VALUE}\n")
    members = members_of(build_release(place.config, QUICK).path)
    assert ".env" not in members
    assert not [name for name, data in members.items() if VALUE.encode() in data]


def test_the_value_of_a_live_secret_is_found_wherever_it_stands(place: Place) -> None:
    place.config_path.with_name(".env").write_text(f"API_KEY={VALUE}\n")
    card = place.second.with_suffix(".json")
    text = card.read_text().replace('"backbone": "linear"', f'"backbone": "linear {VALUE}"')
    card.write_text(text)
    number = next(n for n, line in enumerate(text.splitlines(), 1) if VALUE in line)
    with pytest.raises(SecretLeakError) as caught:
        build_release(place.config, QUICK)
    said = str(caught.value)
    assert f"model-b.json:{number}: holds the value of a secret that is in use" in said
    assert VALUE not in said
    assert caught.value.exit_code == 7
    assert visible(place.config.releases_dir) == []
    assert hidden_files(place.config.releases_dir) == []


def test_a_secret_of_the_environment_counts_too(place: Place) -> None:
    (place.config.records_dir / "metrics.json").write_text(f'{{"note": "{VALUE}"}}')
    request = ReleaseRequest(load_models=False, environment={"HF_TOKEN": VALUE})
    with pytest.raises(SecretLeakError, match=r"metrics.json:1: holds the value"):
        build_release(place.config, request)


def test_a_secret_deep_in_one_long_line_is_found(place: Place) -> None:
    text = '{"raw": [' + "1.25, " * 400_000 + f'"{VALUE}"' + ", 1.25" * 400_000 + "]}"
    (place.config.records_dir / "metrics.json").write_text(f"\n{text}\n")
    request = ReleaseRequest(load_models=False, environment={"HF_TOKEN": VALUE})
    with pytest.raises(SecretLeakError, match=r"metrics.json:2: holds the value"):
        build_release(place.config, request)


def test_a_key_like_assignment_is_found(place: Place, tmp_path: Path) -> None:
    example = place.config_path.with_name(".env.example")
    example.write_text(f"# an example\nLOG_LEVEL=INFO\nAPI_KEY={VALUE}\n")
    with pytest.raises(SecretLeakError, match=r"\.env\.example:3: looks like a secret"):
        build_release(place.config, QUICK)


@pytest.mark.parametrize(
    "line",
    [
        f"API_KEY={VALUE}",
        f'  "api_key": "{VALUE}",',
        "db_password: correct horse battery",
        "--index-url https://user:s3cretpass@host/simple",
        "-----BEGIN RSA PRIVATE KEY-----",
        "aws_key: AKIAIOSFODNN7REALKEY",
        "client_secret = 'mySecret123'",
        f"API_KEY=CHANGE_ME_{VALUE}",
        f"API_KEY=your-{VALUE}",
        "API_KEY=CHANGE_ME_9fK2xQ8vLmT4",
        "API_KEY=your-secret-kJhGfDsAqWeRtYu",
        "API_KEY=qpwoeirutyalskdjfhgzmx-here",
        "API_KEY=xxxx8f3a9c2b7d1e",
        f"API_KEY={VALUE}_REPLACE_ME",
        "API_KEY=correct_horse_battery",
    ],
    ids=lambda line: line.replace(VALUE, "VALUE"),
)
def test_what_looks_like_a_secret_is_flagged(line: str) -> None:
    assert find_secret(line) is not None


@pytest.mark.parametrize(
    "line",
    [
        "API_KEY=",
        "api_key: env:API_KEY",
        "api_key: ${API_KEY}",
        "api_key: <your key>",
        "API_KEY=your-key-here",
        "API_KEY=CHANGE_ME_STRONG_RANDOM_KEY_HERE",
        'API_KEY="CHANGE_ME_STRONG_RANDOM_KEY_HERE"',
        "API_KEY=your-secret-key-here",
        "API_KEY=REPLACE_ME_WITH_64_HEX_DIGITS",
        "API_KEY=<32 random characters>",
        "API_KEY=xxxx-xxxx-xxxx",
        "API_KEY=XXXXXXXXXXXXXXXXXXXXXXXX",
        "password: changeme",
        "secret_key: insert-yours-here",
        "password: null",
        "detect-secrets==1.5.0",
        f'"sha256": "{VALUE}"',
        f"content_id: {VALUE}",
        '"secret_version": 3',
        "--extra-index-url https://host/simple",
        "request_field: model_path",
    ],
    ids=lambda line: line.replace(VALUE, "VALUE"),
)
def test_digests_references_and_placeholders_are_not(line: str) -> None:
    assert find_secret(line) is None


def test_an_example_with_a_placeholder_is_released(place: Place) -> None:
    example = place.config_path.with_name(".env.example")
    example.write_text("API_KEY=CHANGE_ME_STRONG_RANDOM_KEY_HERE\n")
    assert ".env.example" in members_of(build_release(place.config, QUICK).path)


def test_the_projects_own_files_pass() -> None:
    for name in ("config.yaml", "config.production.yaml", ".env.example", "requirements.txt"):
        for line in (ROOT / name).read_text().splitlines():
            assert find_secret(line) is None, f"{name}: {line}"
