"""`pillops release ...` and `scripts/backup_release.sh`: releases made, verified, restored."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD

from opslib.core.config import Config, load_config
from opslib.core.errors import ExitCode, OpsError, ParameterError, StorageError
from opslib.core.formatting import format_bytes, plural
from opslib.core.kinds import Kind, find_kind, pick_classifier
from opslib.ops.release.model_command import DryRunOption, prove
from opslib.serving.command import EnvFileOption, PersistOption, make_show
from opslib.telling.columns import Column, terminal_table
from opslib.telling.doors import (
    ConfigOption,
    describe_experiment,
    make_console,
    print_error,
    say,
)

if TYPE_CHECKING:
    from opslib.ops.release.manifest import Manifest
    from opslib.ops.release.restore import Restored
    from opslib.ops.release.store import StoredRelease
    from opslib.ops.release.verify import VerifiedModel

release_app = typer.Typer(help="Releases that prove they restore.", no_args_is_help=True)
release_app.command()(prove)

NameArgument = Annotated[
    str | None, typer.Argument(metavar="RELEASE", help="Name or path; default: the newest.")
]
NamedArgument = Annotated[str, typer.Argument(metavar="RELEASE", help="Its name.")]
NoLoadOption = Annotated[
    bool, typer.Option("--no-load", help="Check every byte, but load no model.")
]


@release_app.command()
def create(
    onnx: Annotated[
        Path | None,
        typer.Option(
            "--onnx", "-o", help="The model it is about; default: the linked, else newest."
        ),
    ] = None,
    all_onnx: Annotated[
        bool, typer.Option("--all-onnx", "-a", help="With all other exports: the default.")
    ] = False,
    only: Annotated[bool, typer.Option("--only", help="That model alone, no others.")] = False,
    out: Annotated[Path | None, typer.Option(help="Another folder than releases/.")] = None,
    copy_to: Annotated[Path | None, typer.Option(help="Put a verified second copy there.")] = None,
    allow_missing_metrics: Annotated[
        bool, typer.Option("--allow-missing-metrics", help="Release without metrics*.json.")
    ] = False,
    config: ConfigOption = None,
) -> int:
    """Make a release, verify it, and print the path of its archive, alone, on stdout."""
    from opslib.ops.release.build import build_release, release_record_path
    from opslib.ops.release.collect import ReleaseRequest
    from opslib.ops.release.restore import copy_release
    from opslib.telling.progress import show_progress

    if only and all_onnx:
        raise ParameterError("--only, --all-onnx: one model or all of them; expected one of both")
    loaded = load_config(config)
    notes = make_console(stderr=True)
    request = ReleaseRequest(onnx, only, _from_here(out), allow_missing_metrics)
    say(notes, f"release of {describe_experiment(loaded)}")
    with show_progress(notes) as progress:
        record = build_release(loaded, request, progress)
    for note in record.notes:
        say(notes, f"note: {note}")
    packed = f"{format_bytes(record.content_bytes)} as {format_bytes(record.size_bytes)}"
    took = f"packed in {record.pack_s:.2f} s, {record.total_s:.2f} s with all checks"
    say(notes, f"{plural(record.files, 'file')}, {packed}; {took}")
    say(notes, f"verified: every byte; {_describe_models(record.models)}")
    say(notes, f"content {record.content_id[:16]}…; record {release_record_path(loaded, record)}")
    typer.echo(str(record.path))
    configured = loaded.release.copy_to
    second = _from_here(copy_to) or (loaded.resolve(configured) if configured else None)
    if second is not None:
        copied = copy_release(record.path, second, config=loaded)
        took = f"every byte read back in {copied.integrity_s:.2f} s"
        say(notes, f"second copy {second / copied.archive}: {took}")
    return 0


@release_app.command()
def verify(
    releases: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RELEASE]...", help="Names or paths; default: the newest."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every release in the store.")] = False,
    no_load: NoLoadOption = False,
    config: ConfigOption = None,
) -> int:
    """Read every byte of releases, then load their models and compare their golden answers."""
    from opslib.ops.release.store import find_release, list_releases
    from opslib.ops.release.verify import verify_release
    from opslib.telling.progress import show_progress

    if every and releases:
        raise ParameterError("--all: expected no RELEASE beside it")
    loaded = load_config(config)
    console, notes = make_console(), make_console(stderr=True)
    named = [find_release(loaded, name) for name in releases or ["latest"]]
    code = 0
    for stored in list_releases(loaded) if every else named:
        try:
            with show_progress(notes) as tell:
                path, load = stored.path, not no_load
                record = verify_release(path, config=loaded, load_models=load, progress=tell)
        except OpsError as error:
            code = max(code, print_error(error, loaded.root))
        else:
            files, size = plural(record.files, "file"), format_bytes(record.content_bytes)
            took = f"{record.integrity_s + (record.models_s or 0):.2f} s"
            read = f"{stored.name}: {files}, {size}, every byte as listed"
            say(console, f"{read}; {_describe_models(record.models)}; {took}")
    return code


@release_app.command()
def restore(
    name: NameArgument = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to make; default: below reload.restore_dir.")
    ] = None,
    no_load: NoLoadOption = False,
    switch: Annotated[
        bool, typer.Option("--reload", help="Switch the running service to it and confirm.")
    ] = False,
    host: Annotated[
        list[str] | None, typer.Option("--host", help="Service URL; may be given several times.")
    ] = None,
    env_file: EnvFileOption = None,
    persist: PersistOption = False,
    config: ConfigOption = None,
) -> int:
    """Unpack a release into a fresh folder, verify it, and say how to serve it, or do it."""
    from opslib.ops.release.restore import is_servable, restore_release
    from opslib.ops.release.store import find_release
    from opslib.telling.progress import show_progress

    loaded = load_config(config)
    console, notes = make_console(), make_console(stderr=True)
    stored = find_release(loaded, name)
    target = _from_here(out)
    if switch and target is not None and not is_servable(loaded, target):
        raise ParameterError(
            f"--out {target}: a running service may not serve from there; leave --out away, "
            "or add the folder to reload.model_dirs"
        )
    if switch and target is None:
        _refuse_restored(loaded, stored, persist=persist)
    load = not no_load
    with show_progress(notes) as tell:
        done = restore_release(stored.path, target, config=loaded, load_models=load, progress=tell)
    files = plural(len(done.manifest.files), "file")
    size = format_bytes(done.manifest.size_bytes)
    say(console, f"{stored.name}: {files}, {size}, every byte as listed")
    say(console, f"restored to {done.folder}; {_describe_models(done.checks)}")
    served = _list_served(loaded, done)
    if switch:
        from opslib.serving.command import reload

        for kind, model in served:
            named = None if kind.sole else kind.name
            reload(model, kind=named, host=host, env_file=env_file, persist=persist, config=config)
        return 0
    which = "these lines" if len(served) > 1 else "this line"
    say(console, f"serve it from the next start on, with {which} in .env:")
    for kind, model in served:
        say(console, f"  {kind.pin}={model}")
    if is_servable(loaded, done.model):
        say(console, "or switch the running service now:")
        for kind, model in served:
            say(console, f"  scripts/reload_model.sh --path {quote(str(model))}{kind.option}")
    else:
        say(console, "for /reload, add the folder to reload.model_dirs and restart the service")
    return 0


@release_app.command("list")
def list_all(config: ConfigOption = None) -> int:
    """List the releases in the store, the newest first."""
    from opslib.ops.release.record import describe_last, read_proofs
    from opslib.ops.release.store import list_releases

    loaded = load_config(config)
    console = make_console()
    there = list_releases(loaded)
    proofs = read_proofs(loaded)
    if not there:
        say(console, f"{loaded.releases_dir}: no release; make one with `pillops release create`")
        return 0
    rows = [(one, one.read_copy()) for one in there]
    columns: tuple[Column[tuple[StoredRelease, Manifest | None]], ...] = (
        Column("release", lambda row: f"{row[0].name}{' (pinned)' if row[0].pinned else ''}"),
        Column("size", lambda row: format_bytes(row[0].size_bytes), right=True),
        Column("models", lambda row: len(row[1].models) if row[1] else None, right=True),
        Column("about", lambda row: row[1] and "\n".join(Path(one).name for one in row[1].mains)),
        Column("last proved", lambda row: describe_last(proofs, row[0].name)),
    )
    table = terminal_table(columns, rows, box=SIMPLE_HEAD, collapse_padding=True)
    # A name that is broken in two cannot be pasted: the lines get as long as they have to.
    whole = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.width = max(console.width, whole)
    console.print(table)
    broken = [one for one in there if one.problem]
    for one in broken:
        say(console, f"{one.name}: {one.problem}")
    total = format_bytes(sum(one.size_bytes for one in there))
    tail = f"; {len(broken)} to look at" if broken else ""
    say(console, f"{plural(len(there), 'release')}, {total} in {loaded.releases_dir}{tail}")
    return 0


@release_app.command()
def pin(name: NamedArgument, config: ConfigOption = None) -> int:
    """Keep a release from being pruned."""
    return _pin(name, config, pinned=True)


@release_app.command()
def unpin(name: NamedArgument, config: ConfigOption = None) -> int:
    """Let a release be pruned again."""
    return _pin(name, config, pinned=False)


def _pin(name: str, config: Path | None, *, pinned: bool) -> int:
    from opslib.ops.release.store import pin_release

    release = pin_release(load_config(config), name, pinned=pinned)
    say(make_console(), f"{release.name}: {'' if pinned else 'no longer '}pinned")
    return 0


@release_app.command()
def prune(
    keep: Annotated[
        int | None, typer.Option(min=1, help="How many stay; default: release.keep.")
    ] = None,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
) -> int:
    """Delete old releases; never a pinned, served, previous or only one."""
    from opslib.core.plans import carry_out
    from opslib.ops.release.prune import find_kept, plan_prune
    from opslib.serving.reachable import ask_services

    loaded = load_config(config)
    show = make_show()
    show(describe_experiment(loaded))
    live = ask_services(loaded)
    for name, why in find_kept(loaded, keep=keep, live=live).items():
        show(f"  keep {name}: {why}")
    plan = plan_prune(loaded, keep=keep, live=live)
    outcome = carry_out(plan, dry_run=dry_run, show=show)
    for skipped in outcome.skipped:
        show(f"skipped: {skipped.action.target}: {skipped.reason}")
    if outcome.done:
        show(f"freed {format_bytes(outcome.freed_bytes)}")
    return int(ExitCode.SKIPPED if outcome.skipped else ExitCode.PASS)


def _describe_models(models: tuple[VerifiedModel, ...]) -> str:
    if not models:
        return "no model was loaded"
    asked = [model for model in models if model.golden_images]
    loaded = f"{plural(len(models), 'model')} loaded"
    if not asked:
        return f"{loaded}; no card has golden images"
    golden = plural(sum(model.golden_images for model in asked), "golden image")
    worst = max(model.golden_max_abs_diff or 0.0 for model in asked)
    silent = len(models) - len(asked)
    rest = f"; {silent} of them {'has' if silent == 1 else 'have'} none" if silent else ""
    return f"{loaded} and answered {golden} (largest difference {worst:.1g}){rest}"


def _list_served(config: Config, done: Restored) -> tuple[tuple[Kind, Path], ...]:
    """The models to serve from a restored release, each with its kind here; its main one first."""
    found: dict[str, tuple[Kind, Path]] = {}
    for member in done.manifest.mains:
        kind = find_kind(config, Path(member))
        if kind is not None:
            found.setdefault(kind.name, (kind, done.folder / member))
    if done.manifest.kinds and not found:
        raise ParameterError(f"{done.model}: of no kind under `models:`; switch to it with --kind")
    return tuple(found.values()) or ((pick_classifier(config), done.model),)


def _refuse_restored(config: Config, stored: StoredRelease, *, persist: bool) -> None:
    """Refuse to restore what was restored before, naming how to switch to it. Raises StorageError:
    its folder is there."""
    folder, manifest = config.restore_dir / stored.name, stored.read_copy()
    if manifest is None or not folder.is_dir():
        return
    option = " --persist" if persist else ""
    paths = [quote(str(folder / member)) for member in manifest.mains]
    steps = [f"`pillops reload --path {path}{option}`" for path in paths]
    raise StorageError(f"{folder}: is there already; switch to it: {', then '.join(steps)}")


def _from_here(path: Path | None) -> Path | None:
    return path.expanduser().absolute() if path is not None else None
