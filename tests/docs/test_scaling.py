"""H-7: every command in docs/SCALING.md is executed, and its worked example is worked again."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from benchmarks.capacity import instances_needed
from opslib.core.cards import card_path, read_card
from opslib.serving.keys import make_key
from opslib.serving.staging import start_service
from tests.docs.commands import clean_environment, make_doors, run_script, serve_until_ready
from tests.serving.conftest import Live, make_place, open_live, write_colours

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "SCALING.md").read_text()


def find_commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


@dataclass(frozen=True)
class Pair:
    """Two services that have the models in common, in a folder laid out like a checkout."""

    folder: Path
    hosts: tuple[Live, Live]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the document's commands take."""
        place = self.hosts[0].place
        return clean_environment(
            EXP_DIR=str(place.config.exp_dir),
            MODEL=str(place.second),
            HOST_A=self.hosts[0].service.url,
            HOST_B=self.hosts[1].service.url,
            ANSIBLE_HOME=str(self.folder / "ansible"),
            ANSIBLE_REMOTE_TEMP=str(self.folder / "ansible" / "tmp"),
            ANSIBLE_PIPELINING="1",
            PILLSNAP_DESK__URL=f"file://{self.folder}/desk",
        )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("checkout")
    place = make_place(folder)
    write_colours(folder / "images" / "val" / "round")
    card = read_card(place.second)
    assert card is not None
    card.model_copy(update={"golden": card.golden[:1]}).write(card_path(place.second))
    key = make_key()
    (folder / ".env").write_text(f"API_KEY={key}\n")
    make_doors(folder)
    (folder / ".venv" / "bin" / "ansible-playbook").symlink_to(
        Path(sys.executable).with_name("ansible-playbook")
    )
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    shutil.copytree(ROOT / "fleet", folder / "fleet")
    variables = {"API_KEY": key, "RATE_LIMIT_PER_MIN": "1000000"}
    apart = {"PILLSNAP_EXP_DIR": f"{folder}/exp-b", "PILLSNAP_EXPORT__OUT_DIR": str(place.export)}
    with (
        start_service(place.config_path, variables=variables) as first,
        start_service(place.config_path, variables=variables | apart) as second,
    ):
        hosts = (open_live(first, place), open_live(second, place))
        write_inventory(folder, hosts[0])
        yield Pair(folder, hosts)
        for live in hosts:
            live.client.close()


def write_inventory(folder: Path, live: Live) -> None:
    inventory = yaml.safe_load((folder / "fleet" / "hosts.example.yml").read_text())
    services = inventory["services"]
    services["hosts"] = {"here": {"ansible_connection": "local"}}
    services["vars"] |= {
        "ansible_python_interpreter": sys.executable,
        "service_url": live.service.url,
        "env_file": str(folder / ".env"),
        "model_dir": str(live.place.export),
    }
    (folder / "fleet" / "hosts.yml").write_text(yaml.safe_dump(inventory))


@pytest.mark.parametrize("command", find_commands())
def test_a_command_of_the_document_works(pair: Pair, command: str) -> None:
    for live in pair.hosts:
        live.reload(live.place.first)
    if "serve" in command:
        served = serve_until_ready(command.replace("8001", "0"), pair.folder, pair.environment)
        assert "exp-gpu1: serving model-" in served.stderr
        return
    script = command.replace("--peak", "--requests 20 --peak")
    answer = run_script(script, pair.folder, pair.environment)
    said = answer.stdout + answer.stderr
    assert answer.returncode == 0, said
    assert pair.hosts[0].service.key not in said
    tags = [live.version["version_tag"] for live in pair.hosts]
    if "pillops report" in command:
        assert "nothing to do" in said
    elif command.startswith("ls "):
        assert len(answer.stdout.split()) == len(pair.hosts), "a lease of each service"
    elif "reload_model" in command:
        assert tags == ["model-b", "model-b"]
    elif "ansible-playbook" in command:
        assert tags[0] == ("model-a" if "--check" in command else "model-b")
    else:
        assert "500 requests a second: " in said


def test_the_commands_are_all_found() -> None:
    found = "\n".join(find_commands())
    for word in (
        "capacity.py",
        "pillops serve",
        "reload_model.sh",
        "--check",
        "fleet/roll.yml",
        ".in-use/",
        "report publish",
    ):
        assert word in found


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_units_are_sound(tmp_path: Path) -> None:
    (block,) = re.findall(r"```ini\n(.*?)```", TEXT, flags=re.DOTALL)
    names = re.findall(r"^# /etc/systemd/system/(\S+)$", block, flags=re.MULTILINE)
    texts = re.split(r"^# /etc/.*\n", block, flags=re.MULTILINE)[1:]
    assert [Path(name).suffix for name in names] == [".service", ".timer"]
    program = "/home/ops/pillops/.venv/bin/pillops"
    for name, text in zip(names, texts, strict=True):
        (tmp_path / name).write_text(text.replace(program, "/bin/true"))
    units = [str(tmp_path / name) for name in names]
    words = ["systemd-analyze", "verify", "--man=no", *units]
    verified = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_worked_example_is_right() -> None:
    text = re.sub(r"(?<=\d),(?=\d{3})", "", TEXT)
    worked = re.search(
        r"⌈(\d+) / \(([\d.]+) · (\d+)\)⌉ \+ (\d) = \d \+ \d = \*\*(\d+) instances", text
    )
    assert worked is not None
    peak, share, capacity, spare, count = (float(one) for one in worked.groups())
    assert instances_needed(peak, capacity, share=share, spare=int(spare)) == count
    best = max(int(one) for one in re.findall(r"kept busy by \d+ connections? \| (\d+)", text))
    assert best == capacity
