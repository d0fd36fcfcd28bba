"""Records are written whatever the names of the files that they speak of."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from opslib.core.errors import InputError
from opslib.core.records import Part, Record, read_json


class Seen(Part):
    """A piece with a text."""

    said: str


class Names(Record):
    """A record of names."""

    schema_name = "names"

    names: tuple[str, ...]
    where: Path
    counts: dict[str, int]
    seen: tuple[Seen, ...] = ()


def test_a_name_that_is_no_utf_8_is_spelt_out(tmp_path: Path) -> None:
    name = os.fsdecode(b"bad\xff.png")
    made = Names(
        names=(name, "good.png"), where=Path(name), counts={name: 1}, seen=(Seen(said=name),)
    )
    kept = Names.read(made.write(tmp_path / "names.json"))
    spelt = "bad\\udcff.png"
    assert kept.names == (spelt, "good.png")
    assert (kept.where, kept.counts, kept.seen) == (Path(spelt), {spelt: 1}, (Seen(said=spelt),))
    assert json.loads(made.to_json())["schema"] == "names/1"


def test_a_pipe_is_named_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "metrics.json"
    os.mkfifo(pipe)
    for read in (read_json, Names.read):
        with pytest.raises(InputError, match="it is a pipe"):
            read(pipe)
