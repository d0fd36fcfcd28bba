#!/usr/bin/env bash
# cyclonedx-python-lib 11.12.0: writing a bill of materials as JSON takes time that grows with the
# square of its components: twice as many take about four times as long.
# Guess before the run: twice as many components take twice as long.
# Seen: 1,000 components 0.4 s, 2,000 1.7 s, 4,000 5.8 s of processor time.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check cyclonedx-python-lib==11.12.0
cd "$place"
venv/bin/python - <<'P'
import sys, time
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6

def took(count):
    parts = [
        Component(name=f"p{one}", version="1", type=ComponentType.LIBRARY, bom_ref=f"p{one}")
        for one in range(count)
    ]
    bill = Bom(components=parts)
    began = time.process_time()
    JsonV1Dot6(bill).output_as_string()
    return time.process_time() - began

times = {count: took(count) for count in (1000, 2000, 4000)}
growth = times[4000] / times[2000]
print(*(f"{count}: {one:.2f} s" for count, one in times.items()), f"growth {growth:.1f}")
sys.exit(0 if growth > 3 else 1)
P
