"""Where a figure comes from: commit, versions, digests and host, kept with every record."""

from contextlib import suppress
from importlib import metadata
from pathlib import Path

from opslib.core.formatting import now_text
from opslib.core.host import HostFacts, ask_program, host_facts
from opslib.core.records import Part

_PACKAGES = ("numpy", "onnx", "onnxruntime-gpu", "onnxruntime", "torch", "pillow", "papermill")
NO_GIT = "nogit"
# Of another account's checkout git says nothing; its commit is read without running anything of it.
_ANY_OWNER = ("-c", "safe.directory=*")
CODE_FOLDER = Path(__file__).resolve().parents[2]


class Lineage(Part):
    """Everything needed to say which code, on which host, with which libraries, made a record."""

    created_at_utc: str
    git_sha: str
    git_dirty: bool | None
    host: HostFacts
    host_fingerprint: str
    versions: dict[str, str]


def git_sha(folder: Path, *, digits: int = 7) -> str:
    """Return the first digits of `folder`'s commit, or `nogit` outside a repository."""
    answer = _git(folder, "rev-parse", "HEAD")
    return answer.strip()[:digits] if answer else NO_GIT


def git_dirty(folder: Path) -> bool | None:
    """Return whether `folder`'s repository has uncommitted changes to tracked files, or None
    outside a repository."""
    answer = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return None if answer is None else bool(answer)


def record_lineage(folder: Path = CODE_FOLDER) -> Lineage:
    """Return the lineage of a record made now by the code in `folder`, by default this library."""
    host = host_facts()
    return Lineage(
        created_at_utc=now_text(),
        git_sha=git_sha(folder),
        git_dirty=git_dirty(folder),
        host=host,
        host_fingerprint=host.fingerprint,
        versions=package_versions(),
    )


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that decide figures."""
    found = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    owner = _ANY_OWNER if arguments[0] == "rev-parse" else ()
    return ask_program("git", *owner, "-C", str(folder), *arguments)
