#!/usr/bin/env bash
# cyclonedx-python-lib 11.12.0 writes CycloneDX 1.6 and knows components of the type
# machine-learning-model, but has no model card to give them: neither a class nor an argument.
# The schema that it validates with has one, and accepts it where it is added to what was written.
# Guess before the run: a library that writes 1.6 can say all that 1.6 says of a model.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check 'cyclonedx-python-lib[json-validation]==11.12.0'
cd "$place"
venv/bin/python - <<'P'
import inspect, json, pkgutil, sys
import cyclonedx.model
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

named = [one for one in inspect.signature(Component).parameters if "card" in one.lower()]
modules = [one.name for one in pkgutil.iter_modules(cyclonedx.model.__path__) if "card" in one.name]
model = Component(name="m", type=ComponentType.MACHINE_LEARNING_MODEL, bom_ref="m")
written = json.loads(JsonV1Dot6(Bom(components=[model])).output_as_string())
written["components"][0]["modelCard"] = {"modelParameters": {"task": "classification"}}
problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(written))
print("arguments:", named, "modules:", modules, "with a card added:", problem or "valid")
sys.exit(0 if not named and not modules and problem is None else 1)
P
