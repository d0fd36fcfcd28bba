"""What every interpreter that the tests start does without; on its PYTHONPATH by tests/conftest.py.

jsonschema, which nbformat imports, compiles a grammar of international addresses in two seconds of
one core. No notebook holds one.
"""

import sys

sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
