"""Which model and which images an operation read: what every record says of its inputs."""

from pathlib import Path

from opslib.core.formatting import format_counts
from opslib.core.models import ModelFiles, find_model_files
from opslib.core.records import Part
from opslib.inference.engine import EngineFacts, EngineRequest
from opslib.inference.images import ImageSet, count_suffixes


class ModelFacts(Part):
    """Which model was measured; digest and bytes are those of the file with its sidecars."""

    name: str
    sha256: str
    size_bytes: int
    num_classes: int | None
    input_shape: tuple[int | str | None, ...]
    input_dtype: str

    @property
    def label(self) -> str:
        """Its name and the first digits of its digest."""
        return f"{self.name} ({self.sha256[:8]})"


class InputFacts(Part):
    """Which images were read: the glob and the folder it is fixed to, how many, one digest over
    their bytes, those skipped.

    `suffixes` counts the images measured, `left_out` the files that the glob named besides.
    """

    glob: str
    folder: str | None = None
    count: int
    suffixes: dict[str, int] = {}
    left_out: dict[str, int] = {}
    sha256: str
    skipped: tuple[str, ...]

    def count_note(self, what: str = "Images measured") -> list[str]:
        """Return a sentence on the kinds of files; none for a record that does not say."""
        if not self.suffixes:
            return []
        left_out = f"; left out: {format_counts(self.left_out)}" if self.left_out else ""
        return [f"{what}: {format_counts(self.suffixes)}{left_out}."]

    def notes(self, what: str = "Images measured") -> list[str]:
        """Return what a reader must know of the images, a sentence each."""
        skipped = [f"Skipped: {'; '.join(self.skipped)}."] if self.skipped else []
        return self.count_note(what) + skipped


def describe_inputs(images: ImageSet, root: Path) -> InputFacts:
    """Return which images were read; a glob below `root` is told from there."""

    def tell(path: Path) -> str:
        return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()

    return InputFacts(
        glob=tell(Path(images.pattern)),
        folder=tell(images.folder),
        count=len(images.paths),
        suffixes=count_suffixes(images.paths),
        left_out=images.left_out,
        sha256=images.sha256,
        skipped=tuple(line.replace(f"{root}/", "") for line in images.skipped),
    )


def describe_model(request: EngineRequest, facts: EngineFacts) -> ModelFacts:
    """Return which model file this is: name, digest, bytes, classes and input."""
    path = request.path
    files = find_model_files(path) if request.engine == "onnx" else ModelFiles(path)
    return ModelFacts(
        name=files.path.name,
        sha256=files.digest(),
        size_bytes=files.size_bytes,
        num_classes=facts.num_classes,
        input_shape=facts.input_shape,
        input_dtype=facts.input_dtype,
    )
