"""H-6, H-9: the monthly look at the API key."""

from __future__ import annotations

from datetime import timedelta

import pytest

from opslib.core.formatting import utc_now
from opslib.ops.checklist.policy import check_key_age
from opslib.serving.keys import make_key
from tests.ops.checklist.conftest import Plant


def write(plant: Plant, text: str) -> None:
    (plant.folder / ".env").write_text(text)
    (plant.folder / ".env").chmod(0o600)


def test_a_strong_young_private_key_is_ok(resting: Plant) -> None:
    answer = check_key_age(resting.visit())
    assert answer.state == "ok"
    assert answer.evidence[0] == "at least 32 random bytes"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "not set"),
        ("API_KEY=hunter2hunter2", "too weak"),
        (f"API_KEY={'ab' * 32}", "repeats itself"),
        ("API_KEY=0123456789abcdef", "too weak"),
    ],
)
def test_a_weak_key_has_failed_and_is_not_repeated(resting: Plant, line: str, said: str) -> None:
    write(resting, f"{line}\n")
    answer = check_key_age(resting.visit())
    assert answer.state == "failed"
    assert said in answer.evidence[0]
    assert "pillops key rotate" in (answer.next_step or "")
    assert not line or line.removeprefix("API_KEY=") not in answer.model_dump_json()


def test_an_old_key_wants_attention(resting: Plant) -> None:
    made = utc_now() - timedelta(days=40)
    write(resting, f"# API_KEY since {made.isoformat()}\nAPI_KEY={make_key()}\n")
    answer = check_key_age(resting.visit())
    assert answer.state == "attention"
    assert "40 days old, to be rotated after 31 days" in answer.evidence
    assert check_key_age(resting.visit(checklist__key_age_days="60")).state == "ok"


def test_a_key_that_others_may_read_wants_attention(resting: Plant) -> None:
    (resting.folder / ".env").chmod(0o640)
    answer = check_key_age(resting.visit())
    assert answer.state == "attention"
    assert "open to others (mode 640)" in answer.evidence[0]
    assert "chmod 600" in (answer.next_step or "")


def test_a_key_from_elsewhere_has_no_known_age(
    resting: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", make_key())
    write(resting, "LOG_LEVEL=INFO\n")
    answer = check_key_age(resting.visit())
    assert answer.state == "attention"
    assert "its age is not known" in answer.evidence[0]
