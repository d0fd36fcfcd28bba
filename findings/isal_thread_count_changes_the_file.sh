#!/usr/bin/env bash
# isal 1.9.1: igzip_threaded writes another header without threads than with one.
# Guess before the run: `threads` changes the speed and perhaps the compressed blocks, not what the
# header says.
# Seen: with threads=0 the header holds the file's name and the time, as gzip's does; with 1 or more
# it holds neither, so that two such files are equal byte for byte on any day and under any name.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check isal==1.9.1
cd "$place"
venv/bin/python - <<'P'
import sys
from isal import igzip_threaded

seen = {}
for threads in (0, 1, 2):
    with igzip_threaded.open("log.gz", "wb", threads=threads) as file:
        file.write(b"line\n" * 100_000)
    head = open("log.gz", "rb").read(16)
    seen[threads] = (bool(head[3] & 8), head[4:8] != bytes(4))
    print(f"threads={threads}: name in the header: {seen[threads][0]}, time in the header: {seen[threads][1]}")
sys.exit(0 if seen == {0: (True, True), 1: (False, False), 2: (False, False)} else 1)
P
