"""Variables that override keys of the configuration, one each: `PILLSNAP_<SECTION>__<KEY>`."""

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from opslib.core.config_edit import on_one_line, parse_yaml, refuse_half_characters
from opslib.core.env_file import ENV_NAME, read_env_file
from opslib.core.errors import ConfigError
from opslib.core.foreign import THEIR_VARIABLES
from opslib.core.language import ENGLISH

PREFIX = "PILLSNAP_"
CONFIG_VARIABLE = "PILLSNAP_CONFIG"
SHORT_NAMES = {"PILLSNAP_EXP_DIR": "paths.exp_dir", "PILLSNAP_DATA_ROOT": "paths.data_root"}


def name_variable(key: str) -> str:
    """Return the variable that overrides a dotted key."""
    return PREFIX + key.replace(".", "__").upper()


def read_variables(folder: Path, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables of `folder/.env` overridden by `environment` (the process's own)."""
    given = read_env_file(folder / ENV_NAME)
    return {**given, **(os.environ if environment is None else environment)}


def is_own_variable(name: str) -> bool:
    """Return whether a variable is for this project, by its name."""
    return name.startswith(PREFIX) and name not in THEIR_VARIABLES


def lay_over(
    data: dict[str, Any], variables: Mapping[str, str], keys: Mapping[str, FieldInfo]
) -> dict[str, str]:
    """Lay the PILLSNAP_ variables over `data`, a parsed configuration whose sections are `keys`;
    return which variable set which key. Raises `ConfigError` where there is no such key."""
    origins: dict[str, str] = {}
    for name in sorted(variables):
        if name == CONFIG_VARIABLE or not is_own_variable(name):
            continue
        key = SHORT_NAMES.get(name) or name.removeprefix(PREFIX).lower().replace("__", ".")
        section, _, rest = key.partition(".")
        if section not in keys or section == "source":
            unknown = f"unknown key {key!r}; {say_allowed(keys, section)}"
            raise ConfigError(on_one_line(f"{name}: {unknown}"))
        if not rest and section == "language":  # the one key that is in no section
            data[section] = variables[name] or ENGLISH
            origins[key] = name
            continue
        if not rest:
            inner = ", ".join(getattr(keys[section].annotation, "model_fields", ()))
            wanted = f"expected one of its keys, {name_variable(section)}__<KEY>: {inner}"
            raise ConfigError(f"{name}: {section!r} is a section; {wanted}")
        value: Any = variables[name]
        refuse_half_characters(value, name)
        value = parse_yaml(value, name) if rest.count(".") else value
        target = data.setdefault(section, {})
        named = isinstance(target, dict) and rest.partition(".")[0] in target
        if section == "models" and isinstance(target, dict) and not named:
            kinds = ", ".join(target) or "none: models: is for the configuration file"
            raise ConfigError(on_one_line(f"{name}: no such kind of models; expected {kinds}"))
        *parents, leaf = rest.split(".")
        place = section
        for parent in parents:
            if isinstance(target, dict):
                target, place = target.setdefault(parent, {}), f"{place}.{parent}"
        if not isinstance(target, dict):
            raise ConfigError(f"{name}: {place} in the configuration file is not a section")
        target[leaf] = None if value in ("", "null") else value
        origins[key] = name
    return origins


def say_allowed(keys: Iterable[str], given: str) -> str:
    """Return in words which keys there may be, and which of them was probably meant."""
    names = sorted(name for name in keys if name != "source")
    close = difflib.get_close_matches(given, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(names)}"
