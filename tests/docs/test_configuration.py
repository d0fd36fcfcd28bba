"""docs/CONFIGURATION.md has every key, variable and line there is, and its commands work."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from dotenv import dotenv_values
from pydantic import BaseModel

from opslib.core.config import Config, load_config
from opslib.core.environment import ServiceEnvironment
from opslib.core.kinds import list_kinds
from opslib.core.models_section import KindSection
from tests.docs.commands import make_doors, run_script
from tests.models import write_config, write_images, write_onnx
from tests.running import run_python
from tests.upkeep.crontabs import Host, make_host

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "CONFIGURATION.md").read_text()
YAML = (ROOT / "config.yaml").read_text()
TOOL = ROOT / "tools" / "configuration.py"
VARIABLE = re.compile(r"\b(?:PILLSNAP|PILLOPS)_(?!\w*__)[A-Z_]*[A-Z]\b")  # `__`: a key's own


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("configuration_tool", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = tool
    spec.loader.exec_module(tool)
    return tool


def walk(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from walk(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def section_of(name: str) -> str:
    return TEXT.partition(f"### `{name}`\n")[2].partition("\n### ")[0]


@pytest.mark.parametrize("key", [key for key in walk(Config) if "." in key])
def test_every_key_has_a_row(key: str) -> None:
    section, _, rest = key.partition(".")
    assert f"\n| `{rest}` | " in section_of(section)


@pytest.mark.parametrize("key", KindSection.model_fields)
def test_every_key_of_a_kind_has_a_row_with_the_default_that_its_name_gives(
    key: str, tmp_path: Path
) -> None:
    row = next(line for line in section_of("models").splitlines() if f"| `{key}` |" in line)
    written = row.split(" | ")[2].strip("`")
    value = written.replace("NAME_M", "ONE_M").replace("NAME", "one")
    text = f"models: {{one: {{{key}: {value}}}}}"
    given = list_kinds(load_config(write_config(tmp_path, f"{text}\n"), {}))
    default = list_kinds(load_config(write_config(tmp_path, "models: {one: {}}\n"), {}))
    assert given == default, text


def test_a_key_of_a_kind_without_a_comment_is_named() -> None:
    bare = re.sub(r"(#    contract: classifier) +#.*", r"\1", YAML, count=1)
    with pytest.raises(ValueError, match=r"no comment beside NAME\.contract$"):
        load_tool().make_tables(bare)


def test_the_table_is_what_the_code_and_the_file_say() -> None:
    answer = run_python([sys.executable, TOOL, "--check"])
    assert answer.returncode == 0, "run `python tools/configuration.py`"


def test_a_key_without_a_comment_is_named() -> None:
    bare = re.sub(r"( seed: 0) +#.*", r"\1", YAML, count=1)
    with pytest.raises(ValueError, match=r"no comment beside bench\.seed$"):
        load_tool().make_tables(bare)


def test_types_and_limits_are_said_in_words() -> None:
    table = load_tool().make_tables(YAML)
    assert "| `port` | whole number 1 to 65535 | `8000` |" in table
    assert "| `batch` | list of whole numbers > 0 | `[1, 2, 4, 8, 16, 32]` |" in table
    assert "| `code_root` | path or `null` | `null` |" in table
    assert "| `max_drop_pp` | number > 0, < 100 | `0.5` |" in table


def test_every_variable_of_the_service_has_a_row_with_its_default() -> None:
    shipped = dotenv_values(ROOT / ".env.example")
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", TEXT, flags=re.MULTILINE))
    for name in ServiceEnvironment.model_fields:
        assert name.upper() in rows
        assert name.upper() in shipped
        if shipped[name.upper()]:
            assert rows[name.upper()] == f"`{shipped[name.upper()]}`"


def test_every_variable_that_the_code_knows_is_documented() -> None:
    sources = [*(ROOT / "opslib").rglob("*.py"), *(ROOT / "scripts").iterdir()]
    found = {name for path in sources for name in VARIABLE.findall(path.read_text())}
    known = {name for name in found if "__" not in name}  # those are keys
    assert {"PILLSNAP_CONFIG", "PILLSNAP_PYTHON"} <= known
    for name in known:
        assert f"`{name}`" in TEXT, name


def test_the_production_configuration_is_walked_through_line_by_line() -> None:
    lines = (ROOT / "config.production.yaml").read_text().splitlines()
    written = [" ".join(line.partition(" #")[0].split()) for line in lines]
    written = [line for line in written if line and line[0] != "#" and line[-1] != ":"]
    part = TEXT.partition("## The production configuration")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(.*?)` \|", part, flags=re.MULTILINE) == written


def find_commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Host:
    host = make_host(tmp_path_factory.mktemp("checkout"))
    write_images(host.folder / "images" / "val" / "round")
    write_onnx(host.config.export_dir / "model.onnx")
    make_doors(host.folder)
    for name in (".env.example", "config.production.yaml"):
        shutil.copy(ROOT / name, host.folder)
    return host


@pytest.mark.parametrize("command", find_commands())
def test_a_command_of_the_document_works(checkout: Host, command: str) -> None:
    script = command
    if "pillops bench" in command:
        script += " --engine onnx --budget 1"
    answer = run_script(
        script, checkout.folder, checkout.environment | {"HOME": os.environ.get("HOME", "/")}
    )
    if "--config config.production.yaml" in command:  # its machine is another one
        assert answer.returncode == (3 if "doctor" in command else 2)
        assert "/home/max16/ssd_pillsnap/exp/exp01" in answer.stdout + answer.stderr
    elif "pillops bench" in command:
        assert answer.returncode in (0, 4), answer.stderr
    else:
        assert answer.returncode == 0, answer.stderr
