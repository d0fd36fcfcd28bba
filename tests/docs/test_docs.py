"""What the documents say is so: links lead somewhere, commands and exit codes are complete."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from opslib.core.errors import ExitCode
from tests.docs.pairs import find_anchors
from tests.running import run_python

ROOT = Path(__file__).resolve().parents[2]
ENGLISH = sorted((ROOT / "docs").glob("*.md"))
KOREAN = sorted((ROOT / "docs" / "ko").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *ENGLISH, *KOREAN]
DESIGN = ROOT / "docs" / "DESIGN.md"
README = (ROOT / "README.md").read_text()


def title(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCUMENTS, ids=title)
def test_every_link_leads_to_a_file(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=title)
def test_every_anchor_of_a_link_is_a_heading(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*\.md)?#([^)\s]+)\)", path.read_text()):
        place = path.parent / target if target else path
        assert anchor in find_anchors(place.read_text()), f"{path.name} links to {target}#{anchor}"


def test_every_document_that_the_code_names_exists() -> None:
    tracked = subprocess.run(
        [
            *("git", "grep", "-hoE", r"docs/(ko/)?[A-Za-z_]+\.md(#[a-z0-9-]+)?", "--"),
            *("opslib", "scripts", "notebooks", "fleet", "tools", "benchmarks", ".github"),
            *("config.yaml", "config.production.yaml", "Makefile"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for place in set(tracked):
        name, _, anchor = place.partition("#")
        assert (ROOT / name).exists(), place
        assert not anchor or anchor in find_anchors((ROOT / name).read_text()), place


@pytest.mark.parametrize("path", ENGLISH, ids=title)
def test_a_document_says_first_for_whom_it_is(path: Path) -> None:
    assert path.read_text().split("\n\n")[1].startswith("For whoever ")


def test_the_readme_has_a_row_for_every_document_and_every_notebook() -> None:
    for path in [*ENGLISH, *KOREAN]:
        assert f"]({path.relative_to(ROOT)})" in README, path
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"| `{path.stem}` |" in README, path.stem


def test_every_place_named_in_the_design_exists() -> None:
    for name in re.findall(r"`([\w.*/-]+\.(?:py|json|yml))`", DESIGN.read_text()):
        places = (ROOT, ROOT / "opslib", ROOT / "tests", ROOT / "opslib" / "ops")
        assert any(any(one.glob(name)) for one in places) or name.startswith("*"), name


def test_the_design_has_a_row_for_every_folder_and_every_room() -> None:
    text = DESIGN.read_text()
    tracked = subprocess.run(
        ["git", "ls-files", "*/*"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    folders = {name.partition("/")[0] for name in tracked} - {".ci"}
    rooms = {path.parent.name for path in (ROOT / "opslib").glob("*/__init__.py")} - {"ops"}
    rooms |= {f"ops/{path.parent.name}" for path in (ROOT / "opslib/ops").glob("*/__init__.py")}
    for row in [*(f"{name}/" for name in folders), *rooms]:
        assert f"\n| `{row}` |" in text, row


@pytest.mark.parametrize("path", DOCUMENTS, ids=title)
def test_every_make_target_that_is_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=title)
def test_every_script_and_notebook_that_is_named_exists(path: Path) -> None:
    named = re.findall(
        r"(?<![\w/])((?:scripts|notebooks|benchmarks|tools)/[\w.-]+\.\w+)", path.read_text()
    )
    for name in named:
        assert (ROOT / name).exists(), f"{path.name} names {name}"


def test_every_command_is_in_the_readme() -> None:
    answer = run_python(
        [sys.executable, "-m", "opslib.cli", "--help"],
        check=True,
        env={"COLUMNS": "200", "PATH": ""},
    )
    commands = re.findall(r"^│ ([a-z]+)\b", answer.stdout, re.MULTILINE)
    assert {"demo", "bench", "run"} <= set(commands)
    for command in commands:
        assert f"`pillops {command}" in README, f"pillops {command} is not in README.md"


def test_every_exit_code_is_in_the_readme() -> None:
    table = README[README.index("Exit codes") :].split("\n\n")[1]
    documented = {int(code) for code in re.findall(r"\| (\d+) \|", table)}
    assert documented == {int(code) for code in ExitCode}


def test_no_document_names_a_path_of_the_machine_it_was_written_on() -> None:
    for path in DOCUMENTS:
        assert str(ROOT.parent) + "/" not in path.read_text()
