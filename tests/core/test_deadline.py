"""Slow commands are waited for no longer than a deadline."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from opslib.core.deadline import NotEndedError, run_or_end
from tests.waiting import await_that


def test_a_command_that_may_not_be_ended_is_left_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one behind `sudo`, which the kernel lets no other account signal; root may signal all."""
    end, said = os.killpg, tmp_path / "pid"

    def refuse(_pid: int, _how: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "killpg", refuse)
    with pytest.raises(NotEndedError):
        run_or_end(["sh", "-c", f"echo $$ > '{said}'; exec sleep 60"], 0.5, 0.1)
    await_that(said.exists, "its number")
    end(int(said.read_text()), signal.SIGKILL)
