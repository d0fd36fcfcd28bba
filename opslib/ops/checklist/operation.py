"""What the rest of the house knows of the checklist."""

from opslib.ops.checklist.command import check, doctor
from opslib.telling.operation import Operation

CHECKLIST = Operation("checklist", {"check": check, "doctor": doctor})
