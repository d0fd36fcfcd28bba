"""Secrets that strayed into an output: found in every spelling they take there, and masked."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from opslib.core.config import find_config
from opslib.core.errors import ConfigError
from opslib.core.secrets import MASK, live_secrets, mask


def known_secrets(config: Path | None = None) -> frozenset[str]:
    """Return the secrets of the environment and of the `.env` beside a configuration file, by
    default the one that would be found here."""
    try:
        return live_secrets(find_config(config).parent)
    except ConfigError:
        return live_secrets()


@dataclass
class Redactor:
    """Masks the values of `secrets` and remembers in `found_in` where one stood."""

    secrets: frozenset[str]
    found_in: list[str] = field(default_factory=list)

    def clean_text(self, text: str, where: str) -> str:
        """Return `text` with every secret masked: as it is, and as JSON, HTML, a Python literal
        or a URL would spell it."""
        cleaned = mask(text, self._spellings)
        if cleaned != text:
            self._note(where)
        return cleaned

    def clean_json(self, value: Any, where: str) -> Any:
        """Return a JSON value with every secret masked in its texts, keys and numbers."""
        if isinstance(value, str):
            return self.clean_text(value, where)
        if isinstance(value, dict):
            return {
                self.clean_text(key, where): self.clean_json(item, where)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self.clean_json(item, where) for item in value]
        if isinstance(value, int | float) and str(value) in self.secrets:
            self._note(where)
            return MASK
        return value

    def clean_file(self, path: Path) -> None:
        """Mask every secret in a text or JSON file, in place."""
        text = path.read_text(encoding="utf-8", errors="replace")
        cleaned = self.clean_text(text, path.name)
        if cleaned != text:
            path.write_text(cleaned, encoding="utf-8")

    def _note(self, where: str) -> None:
        if where not in self.found_in:
            self.found_in.append(where)

    @cached_property
    def _spellings(self) -> set[str]:
        found: set[str] = set()
        for secret in self.secrets:
            found |= {secret, escape(secret), escape(secret, quote=False), quote(secret, safe="")}
            found |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
            found.add(repr(secret)[1:-1])
        return found
