"""`pillops release ...` and `scripts/backup_release.sh`: releases made, verified, restored."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import JustifyMethod
from rich.table import Table

from opslib.core.config import Config, load_config
from opslib.core.errors import ExitCode, OpsError, ParameterError, StorageError
from opslib.core.formatting import format_bytes, plural
from opslib.core.kinds import Kind, find_kind, pick_classifier
from opslib.ops.release.prove_command import prove
from opslib.serving.command import EnvFileOption, make_show
from opslib.telling.doors import (
    ConfigOption,
    describe_experiment,
    make_console,
    plain_cells,
    print_error,
    say,
)

if TYPE_CHECKING:
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
    from opslib.ops.release.build import ReleaseRequest, build_release, release_record_path
    from opslib.ops.release.copy import copy_release
    from opslib.telling.progress import show_progress

    if only and all_onnx:
        raise ParameterError("--only, --all-onnx: one model or all of them; expected one of both")
    loaded = load_config(config)
    notes = make_console(stderr=True)
    request = ReleaseRequest(
        onnx=onnx, only=only, out=_from_here(out), allow_missing_metrics=allow_missing_metrics
    )
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
            with show_progress(notes) as progress:
                record = verify_release(
                    stored.path, config=loaded, load_models=not no_load, progress=progress
                )
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
    persist: Annotated[bool, typer.Option("--persist", help="Update MODEL_PATH too.")] = False,
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
    with show_progress(notes) as progress:
        done = restore_release(
            stored.path, target, config=loaded, load_models=not no_load, progress=progress
        )
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
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for name in ("release", "size", "models", "about", "last proved"):
        justify: JustifyMethod = "right" if name in ("size", "models") else "left"
        table.add_column(name, justify=justify, no_wrap=True)
    for one in there:
        manifest = one.read_copy()
        cells = [f"{one.name} (pinned)" if one.pinned else one.name, format_bytes(one.size_bytes)]
        cells += [str(len(manifest.models)) if manifest else "–"]
        cells += ["\n".join(Path(main).name for main in manifest.mains) if manifest else "–"]
        table.add_row(*plain_cells([*cells, describe_last(proofs, one.name)]))
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
    from opslib.ops.release.store import pin_release

    say(make_console(), f"{pin_release(load_config(config), name).name}: pinned")
    return 0


@release_app.command()
def unpin(name: NamedArgument, config: ConfigOption = None) -> int:
    """Let a release be pruned again."""
    from opslib.ops.release.store import pin_release

    say(
        make_console(),
        f"{pin_release(load_config(config), name, pinned=False).name}: no longer pinned",
    )
    return 0


@release_app.command()
def prune(
    keep: Annotated[
        int | None, typer.Option(min=1, help="How many stay; default: release.keep.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, do nothing.")] = False,
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
    """What the models of a release were seen to do, in a few words."""
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
    """Refuse to restore what was restored before, naming how to switch to it.

    Raises:
        StorageError: its folder is there.
    """
    folder, manifest = config.restore_dir / stored.name, stored.read_copy()
    if manifest is None or not folder.is_dir():
        return
    option = " --persist" if persist else ""
    steps = [
        f"`pillops reload --path {quote(str(folder / one))}{option}`" for one in manifest.mains
    ]
    raise StorageError(f"{folder}: is there already; switch to it: {', then '.join(steps)}")


def _from_here(path: Path | None) -> Path | None:
    """A folder named on the command line, read from the current folder."""
    return path.expanduser().absolute() if path is not None else None
