"""What a running service says at `/version` and `/health` of the model in service: read alike by
the client of a switch, the nightly job, the watch and the checks.

No HTTP here, so that a job of each minute loads nothing heavy. Only exactly `degraded` is degraded:
another model is served than should be, or none, while the service answers. The same words stand in
`scripts/health_watch.ps1`, held by `tests/cases/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from opslib.core.language import tr

if TYPE_CHECKING:
    from opslib.core.sections import ClientSection

LONGEST = 80


@dataclass(frozen=True)
class LiveVersion:
    """What `/version` says of a kind: path and digest of the model, where the service gives them.

    With neither, `empty` says whether the service says that it has none of the kind: then its path
    is null. Whatever else it answers, nobody knows. `wanted` is where the model should lie that a
    degraded service does not serve, and why it does not; None where all is well.
    """

    model_path: str | None
    sha256: str | None
    version_tag: str | None
    generation: int | None
    wanted: str | None = None
    empty: bool = False

    @property
    def said(self) -> bool:
        """Whether it is known what is served."""
        return self.empty or self.model_path is not None or self.sha256 is not None

    def is_same(self, other: Self) -> bool:
        """Return whether both are the same model, by digest where both say one, else by path."""
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return self.model_path is not None and self.model_path == other.model_path

    def describe(self) -> str:
        """Return the version in a few words."""
        digest = f"sha256 {self.sha256[:12]}…" if self.sha256 else tr("digest unverified")
        number = ""
        if self.generation is not None:
            number = tr(", generation {number}", number=self.generation)
        name = self.version_tag or self.model_path or tr("unknown")
        if self.sha256 is None and self.model_path is not None:
            name = self.model_path.rpartition("/")[2]  # a tag may be of several models together
        return f"{name} ({digest}{number})"


def read_version_answer(content: Mapping[str, Any], section: "ClientSection") -> LiveVersion:
    """Return what an answer of `/version` says in the fields of a kind."""
    path = text_or_none(content.get(section.path_field))
    sha256 = text_or_none(content.get(section.digest_field))
    null = section.path_field in content and content[section.path_field] is None
    generation = content.get("generation")
    return LiveVersion(
        model_path=path,
        sha256=sha256,
        version_tag=text_or_none(content.get("version_tag")),
        generation=generation if isinstance(generation, int) else None,
        wanted=_describe_wanted(content.get("degraded")),
        empty=null and sha256 is None,
    )


def _describe_wanted(said: Any) -> str | None:
    if not isinstance(said, dict):
        return None
    path = text_or_none(said.get("wanted_path")) or tr("a model that is not known")
    why, reason = text_or_none(said.get("why")), text_or_none(said.get("reason"))
    told = tr("{model} should be served", model=f"{path} ({why})" if why else path)
    return f"{told}: {reason}" if reason else told


def describe_degraded(answer: Mapping[str, Any]) -> str | None:
    """Return what the `/health` of a degraded service says on one line, or None where it is not."""
    if answer.get("status") != "degraded":
        return None
    if "wanted" not in answer and "served" not in answer:
        return tr("degraded")
    told = (text_or_none(answer.get(name)) or "" for name in ("wanted", "served", "reason"))
    wanted, served, reason = (" ".join(one.split())[:LONGEST] for one in told)
    reason = f" ({reason})" if reason else ""
    said = tr(
        "degraded: wanted {wanted}, serves {served}",
        wanted=wanted or tr("unknown"),
        served=served or tr("none"),
    )
    return f"{said}{reason}"


def text_or_none(value: Any) -> str | None:
    """Return a value that is text and says something."""
    return value if isinstance(value, str) and value else None


def join_address(host: str, port: int) -> str:
    """Return `host:port`, an IPv6 address in brackets."""
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def normalise_url(host: str) -> str:
    """Return `http://host:port` of an address given with or without its scheme."""
    return (host if "://" in host else f"http://{host}").rstrip("/")
