#!/usr/bin/env bash
# Make a verified release and print the path of its archive, alone, on stdout:
#   scripts/backup_release.sh [--onnx PATH] [--only] [--out DIR] [--copy-to DIR|s3://...|sftp://...] [--allow-missing-metrics] [--strip-metadata]
set -euo pipefail

root="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)"
python="${PILLSNAP_PYTHON:-$root/.venv/bin/python}"
unset PILLSNAP_PYTHON # every other PILLSNAP_ variable is a configuration key

if [[ ! -x "$python" ]]; then
  echo "error: $python: no Python here; run \`make demo\` in $root or set PILLSNAP_PYTHON" >&2
  exit 2
fi
exec "$python" -m opslib.cli release create "$@"
