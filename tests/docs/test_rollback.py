"""H-9: every command on rolling back is executed; those for Windows are compared by text."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from opslib.ops.drill.record import Memory
from opslib.ops.drill.verdict import list_checks
from opslib.serving.keys import make_key
from opslib.serving.staging import start_service
from tests.docs.commands import clean_environment, make_doors, read_without, run_script
from tests.ops.drill.conftest import make_drill_place
from tests.ops.drill.test_verdict import GOOD, KEPT, LIMITS
from tests.serving.conftest import CLASSES, Live, open_live, write_colours

ROOT = Path(__file__).resolve().parents[2]
TEXT = read_without("ROLLBACK.md", "Releases")
ELSEWHERE = {".venv/bin/pillops run 05_rollback_drill": "tests/notebooks/test_rollback_drill.py"}
STARTERS = ("curl", "grep", ".venv/bin/pillops", "scripts/", "ls", "tail", "df")
PROGRAM = r'"C:\ProgramData\chocolatey\lib\cloudflared\tools\cloudflared.exe"'
REFERENCE = {
    "powershell": (
        "sc.exe stop Cloudflared",
        "sc.exe query Cloudflared",
        'New-NetFirewallRule -DisplayName "PillSnap stop" -Direction Outbound -Action Block '
        f"-Program {PROGRAM}",
        'Remove-NetFirewallRule -DisplayName "PillSnap stop"',
        "sc.exe start Cloudflared",
        "sc.exe query Cloudflared",
    ),
    "bat": (
        'netsh advfirewall firewall add rule name="PillSnap stop" dir=out action=block '
        f"program={PROGRAM}",
        'netsh advfirewall firewall delete rule name="PillSnap stop"',
    ),
}


def find_scripts() -> list[str]:
    """The `sh` blocks of the document, and inline code that begins like a command."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    inline = [
        code
        for code in re.findall(r"`([^`\n]+)`", TEXT)
        if code.startswith(STARTERS) and " " in code
    ]
    return list(dict.fromkeys(one.strip() for one in [*blocks, *inline]))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A folder laid out like a checkout, with a running service and its `.env`."""
    folder = tmp_path_factory.mktemp("checkout")
    key = make_key()
    place = make_drill_place(folder)
    for name in CLASSES:
        write_colours(folder / "images" / "val" / name, 1)
    records = place.config.records_dir
    records.mkdir()
    (records / "metrics.json").write_text('{\n  "val_top1": 0.98\n}\n')
    (place.config.exp_dir / "releases").mkdir()
    make_doors(folder)
    variables = {"RATE_LIMIT_PER_MIN": "100000", "API_KEY": key}
    with start_service(place.config_path, variables=variables) as service:
        place.config_path.write_text(
            place.config_path.read_text() + f"client: {{url: '{service.url}'}}\n"
        )
        (folder / ".env").write_text(f"API_KEY={key}\n")
        running = open_live(service, place)
        running.reload(place.first)
        running.reload(place.second)
        yield running
        running.client.close()


def execute(checkout: Live, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in the checkout as the document's reader does."""
    place = checkout.place
    environment = clean_environment(
        URL=checkout.service.url,
        EXP_DIR=str(place.config.exp_dir),
        DATA_ROOT=str(place.config.data_root),
        STABLE=str(place.first),
    )
    return run_script(script, place.config_path.parent, environment)


def name(script: str) -> str:
    return script.splitlines()[0][:50]


@pytest.mark.parametrize("script", find_scripts(), ids=name)
def test_a_command_of_the_document_works(checkout: Live, script: str) -> None:
    if script in ELSEWHERE:
        pytest.skip(f"executed elsewhere: {ELSEWHERE[script]}")
    env = checkout.place.config_path.with_name(".env")
    kept = env.read_text()
    checkout.reload(checkout.place.second)
    answer = execute(checkout, script)
    env.write_text(kept)
    assert answer.returncode == 0, answer.stderr
    assert checkout.service.key not in answer.stdout + answer.stderr
    if "reload_model.sh" in script or script.endswith("pillops rollback"):
        assert checkout.version["model_path"] == str(checkout.place.first)


def test_the_commands_are_all_found() -> None:
    found = "\n".join(find_scripts())
    for word in (
        "rollback --dry-run",
        "05_rollback_drill",
        "reload_model.sh --path",
        "--persist",
        "/version",
        "/predict",
        "/health",
        "metrics*.json",
    ):
        assert word in found
    assert set(ELSEWHERE) <= set(find_scripts())


def test_the_count_of_right_answers_counts(checkout: Live) -> None:
    script = next(one for one in find_scripts() if "right of" in one)
    said = execute(checkout, script).stdout.strip()
    right, total = re.findall(r"\d+", said)
    expected = 0
    for label in CLASSES:
        image = sorted((checkout.place.config.data_root / "val" / label).glob("*.jpg"))[0]
        expected += checkout.predict(image).json()["class_name"] == label
    assert (int(right), int(total)) == (expected, 3)


def test_it_counts_images_of_any_suffix_and_depth_and_no_answer_without_a_name(
    checkout: Live, tmp_path: Path
) -> None:
    script = next(one for one in find_scripts() if "right of" in one)
    source = checkout.place.config.data_root / "val"
    deep = tmp_path / "val" / "images" / "single" / "VS 1"
    for label in CLASSES:
        image = sorted((source / label).glob("*.jpg"))[0]
        (deep / label).mkdir(parents=True)
        with Image.open(image) as opened:
            opened.save(deep / label / "a.PNG")
    expected = sum(
        checkout.predict(deep / label / "a.PNG", "a.png", "image/png").json()["class_name"] == label
        for label in CLASSES
    )
    script = f"DATA_ROOT={tmp_path}\n{script}"
    assert execute(checkout, script).stdout.splitlines() == [f"{expected} of 3 right"]
    nameless = script.replace(
        "| tr -d ' ')\n  label", "| sed s/class_name/x/ | tr -d ' ')\n  label"
    )
    assert nameless != script
    said = execute(checkout, nameless).stdout.splitlines()
    assert said == ["0 of 0 right", "not counted, since the answer has no class name: 3"]


@pytest.mark.parametrize("shell", REFERENCE)
def test_the_windows_commands_are_the_reference_quoted_for_each_shell(shell: str) -> None:
    blocks = re.findall(rf"```{shell}\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = tuple(line for block in blocks for line in block.splitlines())
    assert lines == REFERENCE[shell]


@pytest.mark.parametrize(
    "topic",
    [
        "stable model at hand",
        "Find the stable model",
        "Switch to it",
        "Confirm",
        "If trouble persists",
        "`/predict` is fine",
        "not the wrong way round",
        "when it fails",
    ],
)
def test_the_document_covers_what_an_operator_looks_for(topic: str) -> None:
    assert topic in TEXT


def test_every_line_of_the_verdict_has_its_advice() -> None:
    memory = tuple(Memory(during="leak", swap=one, rss_bytes=1) for one in range(1, 21))
    checks = list_checks(GOOD, (KEPT,), memory, LIMITS)
    assert len(checks) == 9
    for line in [*(check.name for check in checks), "*Not decided*", "exit 6", "exit 9"]:
        assert f"| {line}" in TEXT, line
