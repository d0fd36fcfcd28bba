"""What the rest of the house knows of the checklist."""

from __future__ import annotations

from opslib.ops.checklist.command import check, doctor
from opslib.telling.operation import Operation

CHECKLIST = Operation("checklist", {"check": check, "doctor": doctor})
