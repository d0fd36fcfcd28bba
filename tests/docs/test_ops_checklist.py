"""Every command of the checklist is executed on a healthy operation, and finds it so."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from opslib.core.errors import ExitCode
from opslib.core.upkeep_sections import ChecklistSection
from opslib.ops.checklist.run import CHECKS
from opslib.serving.staging import start_service
from tests.docs.commands import clean_environment, make_doors, read_without, run_script
from tests.ops.checklist.conftest import ORIGIN, Plant, care_for, write_env
from tests.ops.release.restoring import make_releasable

ROOT = Path(__file__).resolve().parents[2]
TEXT = read_without("OPS_CHECKLIST.md", "Upkeep", "Schedules", "Health")
STARTERS = ("curl", "sha256sum", "grep", "df", "ls", "head", "set", ".venv/bin/pillops")
ELSEWHERE = {
    ".venv/bin/pillops run 01_bench": "a benchmark needs a minute and images: tests/notebooks",
    ".venv/bin/pillops report check": "needs two benchmark reports: tests/runs",
    ".venv/bin/pillops report trends --days 31": "needs six reports: tests/ops/trends",
    ".venv/bin/pillops run 06_checklist -p period weekly": "tests/ops/checklist/test_notebook.py",
}


def find_commands() -> list[str]:
    """The commands: lines of `sh` blocks and code in the text and its tables."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    inline = [code for code in re.findall(r"`([^`\n]+)`", TEXT) if code.startswith(STARTERS)]
    return list(dict.fromkeys(one.replace(r"\|", "|") for one in [*lines, *inline]))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A healthy operation laid out like a checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    place = make_releasable(folder, "maintenance: {disks: [/]}\n")
    key = write_env(folder)
    told = {"API_KEY": key, "CORS_ALLOW_ORIGINS": ORIGIN, "RATE_LIMIT_PER_MIN": "100000"}
    with start_service(place.config_path, variables=told) as service:
        found = Plant(place, service)
        care_for(found.config())
        addresses = f"internal_url: '{service.url}/health', external_url: '{service.url}/health'"
        place.config_path.write_text(
            place.config_path.read_text()
            + f"client: {{url: '{service.url}'}}\nhealth: {{{addresses}}}\n"
        )
        make_doors(folder)
        yield found


def execute(checkout: Plant, command: str) -> subprocess.CompletedProcess[str]:
    exp_dir = checkout.config().exp_dir
    environment = clean_environment(
        URL=checkout.service.url,
        EXTERNAL_URL=checkout.service.url,
        EXP_DIR=str(exp_dir),
        TUNNEL_LOG=str(exp_dir / "logs" / "cloudflared.log"),
    )
    return run_script(command, checkout.folder, environment)


@pytest.mark.parametrize("command", find_commands())
def test_a_command_of_the_document_works(checkout: Plant, command: str) -> None:
    if command in ELSEWHERE:
        pytest.skip(f"executed elsewhere: {ELSEWHERE[command]}")
    env_file = checkout.folder / ".env"
    kept = env_file.read_text()
    answer = execute(checkout, command)
    env_file.write_text(kept)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert checkout.service.key not in answer.stdout + answer.stderr
    if command.startswith("grep -c"):
        assert answer.stdout == "0\n"
    if "Origin: https://checklist.invalid" in command:
        assert "access-control-allow-origin" not in answer.stdout.lower()
    if "http_code" in command:
        assert answer.stdout == ("413\n" if "/predict" in command else "401\n")
    if "since" in command:
        assert answer.stdout.startswith("# API_KEY since 20")


def test_the_commands_are_all_found() -> None:
    found = "\n".join(find_commands())
    for word in ("check daily", "maintain --dry-run", "release prove", "OPTIONS", "head -c", "df"):
        assert word in found
    assert set(ELSEWHERE) <= set(find_commands())


def test_every_item_has_a_line_in_the_table_of_its_period() -> None:
    for check in CHECKS:
        section = TEXT.split(f"### {check.period.capitalize()}")[1].split("\n#")[0]
        assert f"| {check.title} |" in section, check.title


def describe_default(default: object) -> str:
    if default is None:
        return "null"
    return f"[{', '.join(default)}]" if isinstance(default, tuple) else f"{default:g}"


def test_every_threshold_is_documented_with_its_default() -> None:
    assert "(CONFIGURATION.md#checklist)" in TEXT
    whole = (ROOT / "docs" / "CONFIGURATION.md").read_text()
    section = whole.partition("### `checklist`\n")[2].partition("\n### ")[0]
    for name, field in ChecklistSection.model_fields.items():
        found = re.search(rf"^\| `{name}` \| [^|]+ \| `([^|]+)` \| \S", section, re.MULTILINE)
        assert found, name
        assert found[1] == describe_default(field.default)


def test_the_exit_codes_are_those_that_it_ends_with() -> None:
    table = TEXT[TEXT.index("| exit code |") :].split("\n\n")[0]
    codes = {int(code) for code in re.findall(r"^\| (\d) \|", table, re.MULTILINE)}
    assert codes == {
        ExitCode.PASS,
        ExitCode.USAGE,
        ExitCode.GATE_FAILED,
        ExitCode.INCONCLUSIVE,
    }
