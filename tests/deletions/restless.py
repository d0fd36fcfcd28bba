"""One command of `pillops` again and again without a pause, to be killed at any moment:
`python -m tests.deletions.restless CONFIG WORD...`."""

from __future__ import annotations

import contextlib
import io
import sys

from opslib.cli import app
from opslib.core.errors import OpsError
from opslib.telling.doors import call_app

if __name__ == "__main__":
    config, *words = sys.argv[1:]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        while True:
            with contextlib.suppress(OpsError):  # nothing to do, or skipped
                call_app(app, [*words, "--config", config])
