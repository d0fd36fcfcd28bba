#!/usr/bin/env bash
# Clean the configured experiment, as nightly from cron; it says which experiment that is:
#   scripts/maintenance.sh [--dry-run] [--config FILE]
set -euo pipefail

root="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)"
python="${PILLSNAP_PYTHON:-$root/.venv/bin/python}"
unset PILLSNAP_PYTHON # every other PILLSNAP_ variable is a configuration key

if [[ ! -x "$python" ]]; then
  echo "error: $python: no Python here; run \`make demo\` in $root or set PILLSNAP_PYTHON" >&2
  exit 2
fi
exec nice -n 10 "$python" -m opslib.upkeep.maintain_command "$@"
