"""H-7: a release rolled over hosts, or refused where it is not signed as it must be; maintenance
and the benchmark on every host."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from opslib.core.models import find_model_files
from opslib.ops.release.signature import UnsignedRecord
from tests.docs.commands import make_doors
from tests.fleet.playing import ANSIBLE, ROOT, Fleet, environment, open_fleet
from tests.models import write_config
from tests.ops.release.signing import Files, allow, make_key, release_signed, revoke
from tests.running import run_python
from tests.serving.conftest import Place, make_place

# In place of a benchmark of minutes: says when it began and ended, and ends as the host wants.
MEASURES = """#!/bin/sh
if [ "$4" = publish ]; then echo "publish $5" >> "$0.log"; exit; fi
for word; do case "$word" in *.yaml) place="${word%/*}";; esac; done
echo "begin $place" >> "$0.log"
mkdir -p "$place/reports/run"; echo "{}" > "$place/reports/run/run.json"
echo "end $place" >> "$0.log"
echo "report: $place/reports/run/run.html"
exit "$(cat "$place/code")"
"""


@dataclass(frozen=True)
class Playing:
    """Hosts with real services on one machine, a checkout that all have, and a release."""

    fleet: Fleet
    maker: Place
    release: Path

    @property
    def code_root(self) -> Path:
        return self.fleet.folder / "code"

    def play(self, playbook: str, *words: str) -> tuple[int, str]:
        """Run a playbook of the fleet; return the exit status and what was said, in one line."""
        answer = subprocess.run(
            [
                *(str(ANSIBLE), "-i", str(self.fleet.folder / "hosts.yml")),
                *(str(ROOT / "fleet" / f"{playbook}.yml"), *words),
            ],
            env=environment(self.fleet.folder) | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        return answer.returncode, " ".join((answer.stdout + answer.stderr).split())

    def write_inventory(self, *names: str, **changes: dict[str, object]) -> None:
        """Write the inventory, of `one` and `two` unless others are named."""
        hosts = {}
        for name in names or ("one", "two"):
            place = self.fleet.hosts[name].place
            hosts[name] = {
                "machine": "box",
                "code_root": str(self.code_root),
                "config_file": str(place.config_path),
                "exp_dir": str(place.config.exp_dir),
                **changes.get(name, {}),
            }
        self.fleet.write_inventory(*hosts, **hosts)

    def demand(self, name: str, signers: Path, revoked: Path | None = None) -> dict[str, object]:
        """Return what the inventory says of a host where releases must be signed."""
        config = self.fleet.hosts[name].place.config_path
        release = {"allowed_signers": signers, "revoked_keys": revoked}
        given = {key: str(path) for key, path in release.items() if path}
        content = yaml.safe_load(config.read_text()) | {"release": given}
        config = config.with_name("signed.yaml")
        config.write_text(f"{yaml.safe_dump(content)}# End of configuration\n")
        return {"config_file": str(config)}

    def beside(self, host: str, *names: str) -> Playing:
        """Return this with more hosts, which have an experiment of their own each and the service
        of one that is there."""
        live, hosts = self.fleet.hosts[host], dict(self.fleet.hosts)
        for name in names:
            folder = self.fleet.folder / name
            folder.mkdir()
            shutil.copy(live.place.config_path.with_name(".env"), folder)
            hosts[name] = replace(live, place=replace(live.place, config_path=write_config(folder)))
        return replace(self, fleet=replace(self.fleet, hosts=hosts))

    def store(self, name: str) -> Path:
        """Where a host has its releases."""
        return self.fleet.hosts[name].place.config.exp_dir / "releases"

    def stored(self, name: str) -> list[Path]:
        """The files of a host's releases, restored ones too."""
        return sorted(one for one in self.store(name).rglob("[!.]*") if one.is_file())


@pytest.fixture(scope="module")
def _playing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playing]:
    folder = tmp_path_factory.mktemp("fleet")
    with open_fleet(folder) as fleet:
        (folder / "code").mkdir()
        make_doors(folder / "code")
        (folder / "code" / "scripts").unlink()  # a link of it would be another checkout's
        shutil.copytree(ROOT / "scripts", folder / "code" / "scripts")
        maker = make_place(folder / "maker")
        words = ["-m", "opslib.cli", "release", "create", "--only", "--allow-missing-metrics"]
        given = ["--onnx", str(maker.second), "--config", str(maker.config_path)]
        made = run_python([sys.executable, *words, *given], cwd=ROOT, check=True)
        yield Playing(fleet, maker, Path(made.stdout.strip()))


@pytest.fixture
def playing(_playing: Playing) -> Playing:
    _playing.fleet.put_back()
    _playing.write_inventory()
    return _playing


def test_a_release_that_is_only_shown_or_arrives_damaged_changes_no_host(playing: Playing) -> None:
    fleet = playing.fleet
    before = fleet.served
    code, said = playing.play("release", "-e", f"release={playing.release}", "--check")
    assert code == 0, said
    assert said.count("would switch from") == 2
    assert fleet.served == before
    stores = [fleet.hosts[name].place.config.exp_dir / "releases" for name in ("one", "two")]
    assert not any(store.exists() for store in stores)

    damaged = fleet.folder / "damaged" / playing.release.name
    damaged.parent.mkdir()
    damaged.write_bytes(playing.release.read_bytes() + b"\0")
    checksum = playing.release.with_name(f"{playing.release.name}.sha256").read_text()
    damaged.with_name(f"{damaged.name}.sha256").write_text(checksum)
    code, said = playing.play("release", "-e", f"release={damaged}")
    assert code == 2
    assert f"one: {fleet.hosts['one'].place.config.exp_dir}/releases/{damaged.name} is not" in said
    assert fleet.served == before


def test_each_host_judges_a_release_by_its_own_lists_and_keeps_nothing_of_what_it_refuses(
    playing: Playing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`one` knows who signed it; at `changed` the signature of another lies under its name."""
    ours, theirs = make_key(tmp_path / "ours"), make_key(tmp_path / "theirs")
    maker = playing.maker
    release = Files(release_signed(maker, monkeypatch, ours, onnx=maker.second).path)
    other = Files(release_signed(maker, monkeypatch, ours, 1, onnx=maker.first).path)
    signers = allow(tmp_path / "allowed", ours)
    ended = allow(tmp_path / "ended", ours, 'valid-before="20100101"')
    playing = playing.beside("three", "changed", "ended")
    fleet, before = playing.fleet, playing.fleet.served
    playing.store("changed").mkdir(parents=True)
    signature = release.part("signature").name
    shutil.copy(other.part("signature"), playing.store("changed") / signature)
    demands = {
        "one": playing.demand("one", signers),
        "two": playing.demand("two", allow(tmp_path / "theirs.allowed", theirs)),
        "three": playing.demand("three", signers, revoke(tmp_path / "revoked", ours)),
        "changed": playing.demand("changed", signers),
        "ended": playing.demand("ended", ended),
    }
    playing.write_inventory(*demands, **demands)
    stored = {name: playing.stored(name) for name in demands}
    code, said = playing.play("release", "-e", f"release={release.archive}", "-e", "max_failed=4")
    assert code == 2
    name = release.archive.name
    signed = f"was not switched: {name}: signed by ED25519 key SHA256:"
    for host, whose in (
        ("two", "which release.allowed_signers does not name"),
        ("three", "which is revoked (release.revoked_keys)"),
        ("ended", "outside its validity: "),
    ):
        assert whose in said.partition(f"{host} {signed}")[2][:200]
    assert (
        f"changed was not switched: {signature}: does not fit the MANIFEST.json of {name}" in said
    )
    restored = playing.store("one") / "restored" / name.removesuffix(".tar.gz")
    model = restored / "export" / "model-b.onnx"
    assert fleet.hosts["one"].version["model_path"] == str(model)
    assert fleet.served == before | {"one": find_model_files(model).digest()}
    assert {host: playing.stored(host) for host in demands if host != "one"} == {
        host: files for host, files in stored.items() if host != "one"
    }


def test_an_unsigned_release_is_taken_where_that_is_said_which_is_recorded(
    playing: Playing, tmp_path: Path
) -> None:
    """`two` refuses it, though it has it restored from a time when it did not ask."""
    fleet, before, release = playing.fleet, playing.fleet.served, playing.release
    title = release.name.removesuffix(".tar.gz")
    (playing.store("two") / "restored" / title).mkdir(parents=True, exist_ok=True)
    signers = allow(tmp_path / "allowed", make_key(tmp_path / "key"))
    two = playing.demand("two", signers)
    three = playing.demand("three", signers) | {"release_unsigned": True}
    playing.write_inventory("two", "three", two=two, three=three)
    stored = playing.stored("two")
    code, said = playing.play("release", "-e", f"release={release}", "-e", "max_failed=1")
    assert code == 2
    assert f"two was not switched: {release.name}: unsigned: no " in said
    assert playing.stored("two") == stored
    assert fleet.served == before | {"three": find_model_files(playing.maker.second).digest()}
    reports = fleet.hosts["three"].place.config.records_dir
    record = UnsignedRecord.read(next(reports.glob("unsigned_*.json")))
    assert record.release == title


@pytest.mark.parametrize(
    ("playbook", "word", "expected"),
    [
        ("release", "release_unsigned=maybe", "true or false"),
        ("roll", "shared=2", "true or false"),
        ("bench", "publish=si", "true or false"),
        ("host", "schedule=never", "true or false"),
        ("roll", "max_failed=few", "a whole number of hosts"),
        ("release", "max_failed=-1", "a whole number of hosts"),
    ],
)
def test_a_word_that_is_no_switch_and_a_count_that_is_no_number_are_refused_before_anything_is_done(
    playing: Playing, playbook: str, word: str, expected: str
) -> None:
    before = playing.fleet.served
    code, said = playing.play(playbook, "-e", word, "-e", f"release={playing.release}")
    assert code == 2
    assert f"{word.replace('=', ': got ')}; expected {expected}" in said
    assert playing.fleet.served == before
    assert "changed=0" in said


def test_the_maintenance_cleans_each_host_and_shows_it_first(playing: Playing) -> None:
    logs = [playing.fleet.hosts[name].place.config.exp_dir / "logs" for name in ("one", "two")]
    old = []
    for folder in logs:
        (folder / "archive").mkdir(exist_ok=True)
        old.append(folder / "archive" / "train.out.gz")
        old[-1].write_bytes(b"")
        subprocess.run(["touch", "-d", "40 days ago", str(old[-1])], check=True)
    code, said = playing.play("maintain", "--check")
    assert code == 0, said
    assert said.count("dry run: nothing was changed") == 2
    assert "changed=0" in said
    assert all(path.exists() for path in old)

    playing.write_inventory(two={"config_file": "/nowhere/config.yaml"})
    code, said = playing.play("maintain")
    assert code == 2
    assert "two: the maintenance ended with 2: error: /nowhere/config.yaml" in said
    assert [path.exists() for path in old] == [False, True]


def test_services_of_one_machine_take_turns_and_a_verdict_that_is_open_is_no_failure(
    playing: Playing,
) -> None:
    door = playing.fleet.folder / "stub" / ".venv" / "bin" / "python"
    door.parent.mkdir(parents=True)
    door.write_text(MEASURES)
    door.chmod(0o755)
    for name, verdict in (("one", 4), ("two", 3)):
        place = playing.fleet.hosts[name].place.config_path.parent
        (place / "code").write_text(str(verdict))
    stub: dict[str, object] = {"code_root": str(playing.fleet.folder / "stub")}
    playing.write_inventory(one=stub, two={**stub, "publish": True})
    records = playing.fleet.folder / "records"
    code, said = playing.play("bench", "-e", f"records_dir={records}")
    assert code == 2
    assert "two: ended with 3" in said
    assert "one: ended with" not in said
    places = [playing.fleet.hosts[name].place.config_path.parent for name in ("one", "two")]
    wanted = [f"{word} {place}" for place in places for word in ("begin", "end")]
    assert door.with_name("python.log").read_text().splitlines() == [*wanted, "publish run"]
    assert sorted(records.glob("*/run/*")) == [records / "one" / "run" / "run.json"]


def test_every_variable_of_a_playbook_is_in_the_example() -> None:
    example = (ROOT / "fleet" / "hosts.example.yml").read_text()
    for name in ("api_key", "batch", "max_failed", "machine", "service_port", "base_config"):
        assert f"{name}:" in example
    assert yaml.safe_load(example)["services"]["vars"]["max_failed"] == 0
