"""What the rest of the house knows of releases."""

from opslib.ops.release.command import release_app
from opslib.ops.release.model_command import card, rollback
from opslib.telling.operation import Operation

RELEASE = Operation("release", {"release": release_app, "rollback": rollback, "card": card})
