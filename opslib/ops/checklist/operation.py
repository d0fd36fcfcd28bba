"""What the rest of the house knows of the checklist."""

from __future__ import annotations

from opslib.ops.checklist.command import check
from opslib.ops.checklist.doctor_command import doctor
from opslib.telling.operation import Operation

CHECKLIST = Operation("checklist", {"check": check, "doctor": doctor})
