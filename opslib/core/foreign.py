"""What is the serving repository's own and is met here: its variables and its `config.yaml`."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from opslib.core.config_edit import on_one_line
from opslib.core.errors import ConfigError

# Its documented variables that begin as ours do, and what is read here in their place.
THEIR_VARIABLES = {
    "PILLSNAP_API_KEY": "API_KEY in .env",
    "PILLSNAP_API_URL": "client.url",
    "PILLSNAP_URL": "client.url",
}
_SHOWN = 3


def describe_their_variables(names: Iterable[str]) -> str | None:
    """Return which of these variables are the serving repository's and what is read in their
    place; None where none is."""
    found = sorted(THEIR_VARIABLES.keys() & set(names))
    if not found:
        return None
    what = "a variable" if len(found) == 1 else "variables"
    ours = " and ".join(dict.fromkeys(THEIR_VARIABLES[name] for name in found))
    return f"{', '.join(found)}: {what} of the serving repository, not read here; {ours} is"


def refuse_foreign(data: Mapping[Any, Any], sections: Collection[str], source: str) -> None:
    """Refuse, as `ConfigError`, the `data` of the file `source` if it is another program's: most of
    its sections are none of ours."""
    unknown = [on_one_line(str(name)) for name in data if name not in sections]
    if len(unknown) <= len(data) - len(unknown):
        return
    rest = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    shown = f"{', '.join(unknown[:_SHOWN])}{rest}"
    what = f"another program's configuration ({shown}: no section of ours)"
    step = "name ours with --config or PILLSNAP_CONFIG"
    raise ConfigError(f"{source}: seems to be {what}; {step}")
