"""Whether the API key is strong, young enough and readable by its owner alone."""

from __future__ import annotations

import stat

from opslib.core.clock import ASK, is_ahead
from opslib.core.env_file import ENV_NAME, read_env_file
from opslib.core.environment import load_service_environment
from opslib.core.errors import ConfigError
from opslib.ops.checklist.ages import DAY_S, describe_days
from opslib.ops.checklist.items import Answer, State, Visit, answer_worst
from opslib.serving.keys import KEY_VARIABLE, check_key, key_since

ROTATE = "`pillops key rotate`, then restart the service and update every client"


def check_key_age(visit: Visit) -> Answer:
    """Return the key's strength, its age, and who may read the file it is in; never the key."""
    env_file = visit.config.root / ENV_NAME
    secret = load_service_environment(visit.config).api_key
    try:
        check_key(secret.get_secret_value() if secret else None)
    except ConfigError as error:
        problem = str(error).partition(";")[0]
        return Answer(state="failed", evidence=(problem,), next_step=ROTATE)
    found: list[tuple[State, str]] = [("ok", "at least 32 random bytes")]
    steps = []
    limit = visit.config.checklist.key_age_days
    in_file = bool(read_env_file(env_file).get(KEY_VARIABLE))
    since = key_since(env_file) if in_file else None
    age = (visit.now - since).total_seconds() / DAY_S if since else None
    if since is not None and is_ahead(since, visit.now):
        made = f"it is dated {since:%Y-%m-%d}, after now: {ASK}"
        found.append(("attention", f"its age is not known: {made}"))
        steps.append(f"set the clock right; then {ROTATE}")
    elif age is None:
        found.append(
            ("attention", f"its age is not known: {KEY_VARIABLE} does not stand in {env_file}")
        )
        steps.append(f"keep the key in {env_file}, where `pillops key rotate` dates it")
    elif age > limit:
        found.append(("attention", f"{describe_days(age)} old, to be rotated after {limit:g} days"))
        steps.append(ROTATE)
    else:
        found.append(
            ("ok", f"{describe_days(max(age, 0.0))} old, to be rotated after {limit:g} days")
        )
    if in_file:
        mode = stat.S_IMODE(env_file.stat().st_mode)
        if mode & 0o077:
            found.append(("attention", f"{env_file} is open to others (mode {mode:o})"))
            steps.append(f"`chmod 600 {env_file}`")
        else:
            found.append(("ok", f"{env_file.name} is readable by its owner alone"))
    return answer_worst(found, steps)
