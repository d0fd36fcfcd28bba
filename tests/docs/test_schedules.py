"""Every command on schedules is executed; those that need another host are named here."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from opslib.core.config import load_config
from opslib.core.upkeep_sections import ScheduleSection
from opslib.upkeep.jobs import JOBS
from opslib.upkeep.schedule import find_place, in_words, make_entries
from tests.docs.commands import make_doors, read_parts, run_script
from tests.models import write_config
from tests.upkeep.crontabs import Host, make_host

ROOT = Path(__file__).resolve().parents[2]
TEXT = read_parts("OPS_CHECKLIST.md", "Schedules")
NOT_HERE = ("sudo apt-get install cron", "systemctl is-active cron")  # change or ask the host


def find_commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = [line.partition("  # ")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and line not in NOT_HERE]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A folder laid out like a checkout, and a crontab of its own."""
    host = make_host(tmp_path_factory.mktemp("checkout"))
    make_doors(host.folder)
    return host


@pytest.mark.parametrize("command", find_commands())
def test_a_command_of_the_document_works(checkout: Host, command: str) -> None:
    answer = run_script(command, checkout.folder, checkout.environment)
    assert answer.returncode == 0, answer.stderr


def test_the_commands_are_all_found() -> None:
    found = "\n".join(find_commands())
    for word in ("install --dry-run", "schedule show", "schedule remove", "--as-cron", "PING_"):
        assert word in found


def test_every_yaml_block_is_a_configuration(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        load_config(write_config(tmp_path, block), {})


def test_the_table_names_every_job_its_time_and_its_log() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", TEXT, flags=re.MULTILINE))
    assert list(rows) == [job.name for job in JOBS]
    for job in JOBS:
        expression = getattr(ScheduleSection(), job.name)
        clock = in_words(expression).split()[1] if expression else "off"
        assert clock in rows[job.name]
        assert f"`{job.log}`" in rows[job.name]


def test_the_maintenance_line_is_the_one_that_is_installed() -> None:
    line = make_entries(load_config(ROOT / "config.yaml", {}), find_place(sys.executable))[0].line
    line = line.replace(str(ROOT / "demo/exp01"), "{exp_dir}").replace(str(ROOT), "<root>")
    assert re.sub(r"env \S+ | --config \S+", "", line) in TEXT


def test_wsl_is_told_to_start_systemd() -> None:
    (block,) = re.findall(r"```ini\n(.*?)```", TEXT, flags=re.DOTALL)
    assert "/etc/wsl.conf" in block
    assert "[boot]\nsystemd=true" in block


def test_every_key_of_the_section_is_mentioned() -> None:
    for key in yaml.safe_load((ROOT / "config.yaml").read_text())["schedule"]:
        assert key in TEXT, f"schedule.{key}"
