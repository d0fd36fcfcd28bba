from pathlib import Path

import pytest

from opslib.core.config import load_config
from opslib.core.environment import ServiceEnvironment, load_service_environment
from opslib.core.errors import ConfigError
from tests.models import write_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ServiceEnvironment.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def load(folder: Path, text: str) -> ServiceEnvironment:
    (folder / ".env").write_text(text)
    return load_service_environment(load_config(write_config(folder), {}))


def test_the_example_lists_every_variable_and_its_default(tmp_path: Path) -> None:
    text = (ROOT / ".env.example").read_text()
    for name in ServiceEnvironment.model_fields:
        assert f"\n{name.upper()}=" in text
    assert load(tmp_path, text) == load(tmp_path, "")


def test_lists_are_separated_by_commas(tmp_path: Path) -> None:
    found = load(tmp_path, "CORS_ALLOW_ORIGINS=https://a.example, https://b.example\n")
    assert found.cors_allow_origins == ("https://a.example", "https://b.example")


def test_the_environment_wins_over_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_UPLOAD_MB", "7")
    assert load(tmp_path, "MAX_UPLOAD_MB=5\n").max_upload_mb == 7


def test_the_key_is_masked_when_shown(tmp_path: Path) -> None:
    found = load(tmp_path, "API_KEY=" + "ab" * 32)
    assert found.api_key is not None
    assert "abab" not in repr(found)


def test_an_impossible_value_names_its_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MAX_UPLOAD_MB: got '0'.*greater than 0"):
        load(tmp_path, "MAX_UPLOAD_MB=0\n")
