#!/usr/bin/env bash
# python-multipart 0.0.34, multipart 2.0.1, FastAPI 0.165: two projects own `import multipart`.
# Guess before the run: where both are installed, the package folder of python-multipart hides the
# single file of multipart, whichever came last; and FastAPI takes either for a form.
# Seen: the folder looks for that file on the path and puts it in its own place, so that `multipart`
# is the other project; with multipart alone FastAPI refuses a route with a form when it is declared.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check multipart==2.0.1 fastapi==0.165.0
cd "$place"
cat > form.py <<'P'
from typing import Annotated

from fastapi import FastAPI, Form

app = FastAPI()
try:
    @app.post("/")
    def take(name: Annotated[str, Form()]) -> str:
        return name
except RuntimeError as error:
    print("refused:", str(error).splitlines()[0])
else:
    print("declared")
P
alone=$(venv/bin/python form.py 2>/dev/null)
"$place/venv/bin/pip" install -q --disable-pip-version-check python-multipart==0.0.34
both=$(venv/bin/python form.py 2>/dev/null)
whose=$(venv/bin/python -c 'import multipart; print(hasattr(multipart, "PushMultipartParser"), multipart.__file__.rpartition("/")[2])')
printf '%s\n' "multipart alone: $alone" "both: $both" "import multipart, both: $whose"
[[ $alone == refused:* && $both == declared && $whose == "True multipart.py" ]]
