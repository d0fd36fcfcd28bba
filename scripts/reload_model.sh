#!/usr/bin/env bash
# Switch a running service to another model and confirm it:
#   scripts/reload_model.sh --path MODEL.onnx [--host URL]... [--env-file F] [--timeout S] [--persist]
set -euo pipefail

root="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)"
python="${PILLSNAP_PYTHON:-$root/.venv/bin/python}"
unset PILLSNAP_PYTHON # every other PILLSNAP_ variable is a configuration key

if [[ ! -x "$python" ]]; then
  echo "error: $python: no Python here; run \`make demo\` in $root or set PILLSNAP_PYTHON" >&2
  exit 2
fi
exec "$python" -m opslib.cli reload "$@"
