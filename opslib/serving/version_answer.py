"""What an answer to `/version` says of one kind of models: one rule for all who ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opslib.core.sections import ClientSection


@dataclass(frozen=True)
class VersionAnswer:
    """The path and digest of a model; with neither, `empty` says whether the service says that it
    has none of the kind: then its path is null. Whatever else it answers, nobody knows."""

    path: str | None
    sha256: str | None
    empty: bool

    @property
    def said(self) -> bool:
        """Whether it is known what is served."""
        return self.empty or self.path is not None or self.sha256 is not None


def read_version_answer(content: Mapping[str, Any], section: ClientSection) -> VersionAnswer:
    """Return what the answer says in the fields of a kind."""
    path = text_or_none(content.get(section.path_field))
    sha256 = text_or_none(content.get(section.digest_field))
    null = section.path_field in content and content[section.path_field] is None
    return VersionAnswer(path, sha256, empty=null and sha256 is None)


def text_or_none(value: Any) -> str | None:
    """Return a value that is text and says something."""
    return value if isinstance(value, str) and value else None
