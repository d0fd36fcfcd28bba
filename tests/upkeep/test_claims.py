"""What is claimed for deletion is hidden and asked for once more, a lot at a time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from opslib.core.errors import StorageError
from opslib.upkeep.claims import LOTS, Claim, Claims


def test_one_that_cannot_be_looked_at_costs_no_other_of_its_lot_the_second_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = SimpleNamespace(live=())
    monkeypatch.setattr("opslib.upkeep.claims.find_in_use", lambda *_: answer)
    this: Any = SimpleNamespace(find_folder=lambda path: path, name_of=lambda path: path.name)
    claims, asked, gone = Claims(this), list[str](), "1.onnx"

    def find_use(_in_use: object, lies_at: Path) -> str | None:
        if lies_at.name == gone:
            raise FileNotFoundError(2, "No such file or directory", str(lies_at))
        asked.append(lies_at.name)
        return None

    planned = []
    for number in range(2 * LOTS + 1):  # three to a lot
        path = tmp_path / f"{number}.onnx"
        path.touch()
        planned.append(Claim(path, cast(Any, find_use)))
        claims.plan(planned[-1], lambda *_: None, "old", 0)
    first = claims.take(planned[0])
    with pytest.raises(StorageError, match="No such file"):
        claims.take(planned[1])
    third = claims.take(planned[2])
    assert asked == ["0.onnx", "2.onnx", first.name, third.name]
    assert planned[1].path.exists()
