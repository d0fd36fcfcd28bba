"""The schedule section refuses by name what cron could not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from opslib.core.config import Config, load_config
from opslib.core.errors import ConfigError
from tests.models import write_config


def load(folder: Path, key: str, value: str) -> Config:
    return load_config(write_config(folder, f"schedule:\n  {key}: {value}\n"), {})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ('"0 2 * * *"', "0 2 * * *"),
        ('"  */5   8-17 * * mon-fri "', "*/5 8-17 * * MON-FRI"),
        ('"0 0 29 feb *"', "0 0 29 FEB *"),
        ("null", None),
    ],
)
def test_an_expression_that_every_cron_knows_is_taken(
    tmp_path: Path, given: str, kept: str | None
) -> None:
    assert load(tmp_path, "release", given).schedule.release == kept


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('"60 2 * * *"', "bad minute"),
        ('"0 2 * *"', "five fields"),
        ('"0 0 2 * * *"', "five fields"),
        ('"@daily"', "five fields"),
        ('"0 3 L * *"', "five fields"),
        ('"0 3 * * 5#2"', "five fields"),
        ('"0 3 * * 5L"', "five fields"),
        ('"0 3 30 2 *"', "bad day-of-month"),
        ('"0 2 * * *; rm -rf /"', "five fields"),
        ('"0 2 * * *\\n* * * * *"', "five fields"),
        ("7", "five fields"),
    ],
)
def test_any_other_is_refused_by_its_key(tmp_path: Path, given: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"schedule\.drill: got .*{said}"):
        load(tmp_path, "drill", given)


@pytest.mark.parametrize("given", ["https://ping.example/s3cr3t", "env:", "env:A B", "7"])
def test_a_dead_man_is_given_by_reference_and_never_repeated(tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigError, match=r"schedule\.dead_man\.bench: .*env:NAME") as refusal:
        load(tmp_path, "dead_man", f"{{bench: '{given}'}}")
    assert "s3cr3t" not in str(refusal.value)


def test_a_reference_is_kept(tmp_path: Path) -> None:
    kept = load(tmp_path, "dead_man", "{bench: env:PING_BENCH}").schedule.dead_man
    assert kept.bench == "env:PING_BENCH"
    assert kept.release is None
