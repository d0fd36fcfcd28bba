"""`pillops release ...` and `scripts/backup_release.sh`: releases made, verified, restored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from opslib.core.config import Config, load_config
from opslib.core.errors import OpsError, ParameterError, StorageError
from opslib.core.formatting import format_bytes, plural
from opslib.core.kinds import Kind, find_kind, pick_classifier
from opslib.ops.release.keeping_command import (
    CopyToOption,
    StoreOption,
    copy,
    describe_copying,
    list_all,
    pick_place,
    pin,
    prune,
    say_copied,
    unpin,
)
from opslib.ops.release.model_command import UnsignedOption, demand_of, prove
from opslib.serving.command import EnvFileOption, PersistOption
from opslib.telling.doors import (
    ConfigOption,
    describe_experiment,
    make_console,
    print_error,
    say,
)

if TYPE_CHECKING:
    from opslib.ops.release.remote import RemoteRelease
    from opslib.ops.release.restore import Restored
    from opslib.ops.release.store import ListedRelease, StoredRelease
    from opslib.ops.release.verify import VerifiedModel

release_app = typer.Typer(help="Releases that prove they restore.", no_args_is_help=True)
release_app.command()(prove)

NameArgument = Annotated[
    str | None,
    typer.Argument(metavar="RELEASE", help="Name, path or STORE/RELEASE; default: the newest."),
]
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
    copy_to: CopyToOption = None,
    allow_missing_metrics: Annotated[
        bool, typer.Option("--allow-missing-metrics", help="Release without metrics*.json.")
    ] = False,
    sign: Annotated[
        Path | None,
        typer.Option(
            "--sign",
            metavar="KEY",
            help="Sign it: an OpenSSH private key, or a public one that an agent has.",
        ),
    ] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Do not sign it.")] = False,
    strip_metadata: Annotated[
        bool,
        typer.Option(
            "--strip-metadata", help="Pack copies of models without paths and names in metadata."
        ),
    ] = False,
    config: ConfigOption = None,
) -> int:
    """Make a release, verify it, and print the path of its archive, alone, on stdout."""
    from opslib.ops.release.build import build_release, release_record_path
    from opslib.ops.release.push import put_copy
    from opslib.ops.release.request import ReleaseRequest
    from opslib.telling.progress import show_progress

    if only and all_onnx:
        raise ParameterError("--only, --all-onnx: one model or all of them; expected one of both")
    if sign is not None and unsigned:
        raise ParameterError("--sign, --unsigned: expected one of both")
    loaded = load_config(config)
    notes = make_console(stderr=True)
    second = pick_place(loaded, copy_to)
    request = ReleaseRequest(
        onnx,
        only,
        _from_here(out),
        allow_missing_metrics,
        _from_here(sign),
        unsigned,
        strip_metadata=strip_metadata,
    )
    say(notes, f"release of {describe_experiment(loaded)}")
    with show_progress(notes) as progress:
        record = build_release(loaded, request, progress)
    for note in record.notes:
        say(notes, f"note: {note}")
    for line in record.gives_away:
        say(notes, f"warning: {line}")
    packed = f"{format_bytes(record.content_bytes)} as {format_bytes(record.size_bytes)}"
    took = f"packed in {record.pack_s:.2f} s, {record.total_s:.2f} s with all checks"
    say(notes, f"{plural(record.files, 'file')}, {packed}; {took}")
    if record.bill is not None:
        say(notes, record.bill.describe())
    say(notes, f"verified: every byte; {_describe_models(record.models)}")
    if record.signature is not None:
        say(notes, record.signature.describe())
    say(notes, f"content {record.content_id[:16]}…; record {release_record_path(loaded, record)}")
    typer.echo(str(record.path))
    if second is not None:
        try:
            say_copied(notes, put_copy(record.path, second, config=loaded))
        except OpsError:
            say(notes, f"made, but not copied; `{describe_copying(record.path, second)}` goes on")
            raise
    return 0


@release_app.command()
def verify(
    releases: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RELEASE]...", help="Names, paths or STORE/RELEASE; default: the newest."
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every release in the store.")] = False,
    store: StoreOption = None,
    no_load: NoLoadOption = False,
    unsigned: UnsignedOption = False,
    config: ConfigOption = None,
) -> int:
    """Read every byte of releases, then load their models and compare their golden answers.

    What lies in another store is read there, and no model of it is loaded.
    """
    from opslib.ops.release.remote import find_anywhere, find_remote, look_into, open_given
    from opslib.ops.release.store import StoredRelease, list_releases
    from opslib.ops.release.verify import verify_release
    from opslib.telling.progress import show_progress

    if every and releases:
        raise ParameterError("--all: expected no RELEASE beside it")
    if store is not None and not every:
        raise ParameterError(f"--store {store}: expected --all beside it, or STORE/RELEASE instead")
    loaded = load_config(config)
    console, notes = make_console(), make_console(stderr=True)
    named: Sequence[StoredRelease | RemoteRelease]
    if every and store is not None:
        place = open_given(loaded, store)
        named = look_into(place).releases or [find_remote(f"{place.url}/latest")]
    else:
        named = list_releases(loaded) if every else ()
        named = named or [find_anywhere(loaded, name) for name in releases or ["latest"]]
    code = 0
    for stored in named:
        try:
            with show_progress(notes) as tell:
                where = stored.path if isinstance(stored, StoredRelease) else stored
                load = isinstance(stored, StoredRelease) and not no_load
                demand = demand_of(unsigned=unsigned)
                record = verify_release(
                    where, config=loaded, load_models=load, demand=demand, progress=tell
                )
        except OpsError as error:
            code = max(code, print_error(error, loaded.root))
        else:
            files, size = plural(record.files, "file"), format_bytes(record.content_bytes)
            took = f"{record.integrity_s + (record.models_s or 0):.2f} s"
            read = f"{stored.name}: {files}, {size}, every byte as listed"
            who = f"{record.signature.describe()}; " if record.signature else ""
            say(console, f"{read}; {who}{_describe_models(record.models)}; {took}")
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
    unsigned: UnsignedOption = False,
    config: ConfigOption = None,
) -> int:
    """Unpack a release into a fresh folder, verify it, and say how to serve it, or do it."""
    from opslib.ops.release.remote import find_anywhere
    from opslib.ops.release.restore import is_servable, restore_release
    from opslib.ops.release.store import StoredRelease
    from opslib.telling.progress import show_progress

    loaded = load_config(config)
    console, notes = make_console(), make_console(stderr=True)
    stored = find_anywhere(loaded, name)
    target = _from_here(out)
    if switch and target is not None and not is_servable(loaded, target):
        raise ParameterError(
            f"--out {target}: a running service may not serve from there; leave --out away, "
            "or add the folder to reload.model_dirs"
        )
    if switch and target is None:
        _refuse_restored(loaded, stored, persist=persist)
    load, where = not no_load, stored.path if isinstance(stored, StoredRelease) else stored
    with show_progress(notes) as tell:
        done = restore_release(
            where,
            target,
            config=loaded,
            load_models=load,
            demand=demand_of(unsigned=unsigned),
            progress=tell,
        )
    files = plural(len(done.manifest.files), "file")
    size = format_bytes(done.manifest.size_bytes)
    say(console, f"{stored.name}: {files}, {size}, every byte as listed")
    if done.signature is not None:
        say(console, done.signature.describe())
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


release_app.command("list")(list_all)
release_app.command()(copy)
release_app.command()(pin)
release_app.command()(unpin)
release_app.command()(prune)


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


def _refuse_restored(config: Config, stored: ListedRelease, *, persist: bool) -> None:
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
