"""A release and its restore tests told to people: tables, the history, the scraps."""

from collections.abc import Sequence
from pathlib import Path

from pandas import DataFrame

from opslib.core.clock import parse_moment
from opslib.core.formatting import format_bytes, format_duration, plural, utc_now
from opslib.core.language import tr
from opslib.ops.release.figures import describe_history, draw_history
from opslib.ops.release.manifest import Manifest, ModelSummary
from opslib.ops.release.record import ProofRecord, RotaRecord
from opslib.ops.release.report import CoverageRow, Subject, find_previous
from opslib.telling.figures import show_list, show_table
from opslib.telling.scraps import publish, publish_outcome

__all__ = ["describe_history", "draw_history"]

_CONTENTS = ("file", "what it is", "size", "sha256")
_KINDS = (
    ("MANIFEST.json", "what is in here"),
    ("VERSION.txt", "time and commit"),
    ("bom.cdx.json", "bill of materials"),
    ("export/golden/", "golden image"),
    ("export/export_report.json", "export report"),
    ("reports/", "validation metrics"),
    ("config.yaml", "configuration"),
    (".env.example", "variables to fill in"),
    ("requirements.txt", "packages of the serving code"),
)


def coverage_frame(rows: Sequence[CoverageRow]) -> DataFrame:
    """Return the store as a table: each release, what it holds, when it was last proved."""
    return _frame([_coverage_row(row) for row in rows])


def steps_frame(test: ProofRecord) -> DataFrame:
    """Return a restore test step by step: what was found, seconds."""
    words = {True: "ok", False: "FAILED"}
    rows = [(one.name, words[one.ok], one.found, f"{one.took_s:.2f}") for one in test.steps]
    return _frame(rows, "step", "", "found", "seconds")


def show_tests(record: RotaRecord) -> None:
    """Show each restore test as a table, failed ones first."""
    words = {"fail": "does not restore", "inconclusive": "was not asked", "pass": "restores"}
    for test in sorted(record.tests, key=lambda one: list(words).index(one.verdict)):
        show_table(steps_frame(test), caption=f"{test.release} {words[test.verdict]}")


def contents_frame(manifest: Manifest | None) -> DataFrame:
    """Return the files of a release: what each is, its size and its digest."""
    if manifest is None:
        return _frame([], *_CONTENTS)
    rows = [
        (one.path, _kind(one.path, manifest), format_bytes(one.size), f"{one.sha256[:12]}…")
        for one in manifest.files
    ]
    return _frame(rows, *_CONTENTS)


def models_frame(manifest: Manifest | None) -> DataFrame:
    """Return the models of a release: what they take and answer, and where they come from."""
    rows = [_model_row(model, manifest) for model in manifest.models] if manifest else []
    columns = ("model", "takes", "classes", "opset", "size", "exported", "commit", "sha256")
    return _frame(rows, *columns)


def figures_frame(subject: Subject, record: RotaRecord) -> DataFrame:
    """Return what making and proving the release took: bytes and seconds."""
    rows: list[tuple[str, str]] = []
    made = subject.made
    if subject.manifest is not None and subject.stored is not None:
        content, packed = subject.manifest.size_bytes, subject.stored.size_bytes
        rows.append(("content", format_bytes(content)))
        rows.append(("archive", f"{format_bytes(packed)} ({100 * packed / content:.0f} %)"))
    took = [
        ("packed and hashed, in one pass", made and made.pack_s),
        ("read back, models loaded and asked", made and made.verify_s),
        ("made, everything together", made and made.total_s),
        ("second copy put and checked", subject.copied and subject.copied.took_s),
        *((f"restore test of {test.release}", test.proof.took_s) for test in record.tests),
    ]
    rows += [(what, f"{seconds:.2f} s") for what, seconds in took if seconds is not None]
    return _frame(rows, "", "size or time")


def changes_frame(subject: Subject, rows: Sequence[CoverageRow]) -> DataFrame:
    """Return what changed since the release before the subject, by file."""
    previous = find_previous(rows, subject.stored)
    changes = []
    if previous is not None and previous.manifest is not None and subject.manifest is not None:
        old = {one.path: one for one in previous.manifest.files}
        new = {one.path: one for one in subject.manifest.files}
        for path in sorted(old.keys() | new.keys()):
            before, after = old.get(path), new.get(path)
            if before is None or after is None or before.sha256 != after.sha256:
                change = "new" if before is None else "gone" if after is None else "changed"
                sizes = [format_bytes(one.size) if one else None for one in (after, before)]
                changes.append((path, change, *sizes))
    return _frame(changes, "file", "change", "size", "before")


def describe_changes(subject: Subject, rows: Sequence[CoverageRow]) -> str:
    """Return the caption of `changes_frame`."""
    previous = find_previous(rows, subject.stored)
    if subject.manifest is None or previous is None or previous.manifest is None:
        return f"{subject.name}: there is none before it to compare with"
    same = subject.manifest.content_id == previous.manifest.content_id
    what = "holds the very same content as" if same else "against"
    return f"{subject.name} {what} {previous.stored.name}"


def list_notes(rows: Sequence[CoverageRow], notes: Sequence[str] = ()) -> list[str]:
    """Return what a reader must know beside the tables, most important first."""
    failed = [row for row in rows if row.standing == "failed"]
    never = [row.stored.name for row in rows if row.standing == "never proved"]
    lines = [
        f"{row.stored.name} failed its last test, on {row.last.proved_at_utc[:10]}: "
        f"{row.last.problem}. Do not count on it; release the model again while it is at hand."
        for row in failed
        if row.last is not None
    ]
    if never:
        next_ones = "it" if len(never) == 1 else "these"
        lines.append(f"Never proved: {', '.join(never)}. The rota takes {next_ones} next.")
    odd = [row for row in rows if row.problem and row not in failed]
    lines += [f"{row.stored.name}: {row.problem}" for row in odd]
    oldest = min((row.last.proved_at_utc for row in rows if row.last), default=None)
    if oldest is not None and not never:
        lines.append(f"Every release was tested since {oldest[:10]}.")
    return lines + list(notes)


def show_notes(rows: Sequence[CoverageRow], notes: Sequence[str] = ()) -> None:
    """Show `list_notes` as a list."""
    show_list(list_notes(rows, notes))


def publish_release(record: RotaRecord, rows: Sequence[CoverageRow], path: Path) -> None:
    """Publish the verdict and the key figures of restore tests as scraps."""
    publish_outcome(record.verdict, record.finding, exit_code=record.exit_code, record_path=path)
    took_s = next((one.proof.took_s for one in record.tests if one.verdict == "pass"), None)
    if took_s is not None:
        label = tr("Restored, served, asked")
        publish("restore_test_s", took_s, unit="s", better="lower", label=label)
    publish("tested", len(record.tests), label=tr("Tested in this run"))
    publish("releases", len(rows), label=tr("Releases"))
    publish("unproved", len(record.unproved_after), better="lower", label=tr("Not proved"))


def _frame(rows: Sequence[object], *columns: str) -> DataFrame:
    return DataFrame(rows, columns=columns or None)


def _model_row(model: ModelSummary, manifest: Manifest) -> tuple[object, ...]:
    main = " (released for)" if model.path in manifest.mains else ""
    shapes = ["×".join(str(side or "any") for side in one.shape) for one in model.inputs[:1]]
    return (
        Path(model.path).name + main,
        f"{model.inputs[0].dtype} {shapes[0]}" if shapes else None,
        model.num_classes,
        model.opset,
        format_bytes(model.size_bytes),
        (model.exported_at_utc or "")[:16].replace("T", " ") or None,
        model.git_sha,
        f"{model.sha256[:12]}…",
    )


def _coverage_row(row: CoverageRow) -> dict[str, object]:
    mains = [Path(path).name for path in row.manifest.mains] if row.manifest else []
    proved = [one for one in row.proofs if one.standing == "proved"]
    last, told = row.last, None
    if last is not None:
        passed = f"passed in {last.took_s:.1f} s"
        words = {"fail": "FAILED", "inconclusive": "restored, not asked", "pass": passed}
        told = words[last.verdict]
    return {
        "release": row.stored.name + (" (pinned)" if row.stored.pinned else ""),
        "size": format_bytes(row.stored.size_bytes),
        "released for": ", ".join(mains) or row.problem,
        "last proved": _ago(proved[-1].proved_at_utc) if proved else "NEVER",
        "last test": told,
        "tests": len(row.proofs),
    }


def _kind(path: str, manifest: Manifest) -> str:
    for model in manifest.models:
        if path == model.path:
            what = manifest.mains.get(path)
            return f"the {what} released for" if what else "model"
        if path in model.sidecars:
            return "weights of a model"
        if path == model.card:
            return "model card"
    return next((kind for start, kind in _KINDS if path.startswith(start)), "")


def _ago(text: str) -> str:
    moment = parse_moment(text)
    if moment is None:
        return text
    passed_s = (utc_now() - moment).total_seconds()
    if passed_s < 90:
        return "just now"
    if passed_s < 86400:
        return f"{format_duration(passed_s)} ago"
    return f"{text[:10]} ({plural(int(passed_s // 86400), 'day')} ago)"
