"""What the doctor sees of the experiment: its models and images, `.env`, the running service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from opslib.core.clock import ASK
from opslib.core.config import Config
from opslib.core.env_file import ENV_NAME
from opslib.core.environment import ServiceEnvironment, load_service_environment
from opslib.core.errors import ConfigError, InputError, OpsError
from opslib.core.formatting import format_bytes, format_counts
from opslib.core.kinds import Kind, list_kinds
from opslib.core.language import tr, tr_many
from opslib.core.secrets import show_address
from opslib.ops.checklist.finding import Finding, FindingState


def look_at_model(config: Config, kind: Kind) -> Iterator[Finding]:
    """Yield whether the model of a kind can be served, and what its card lacks."""
    from opslib.core.cards import explain_report, find_gaps
    from opslib.core.models import find_model_files
    from opslib.inference.causes import ModelCheckError, find_hint
    from opslib.inference.contract import Contract, check_input, probe_size
    from opslib.inference.find_model import find_card, find_onnx

    where = kind.of(tr("the embedded demo") if config.is_demo else tr("experiment"))
    step = _name_experiment(config)
    try:
        files = find_model_files(find_onnx(config, kind=kind))
        step = tr("restore the card from a release, or move it away to serve without")
        card = find_card(config, files.path)
        if kind.contract == "classifier":
            expected = Contract.from_card(card) if card is not None else None
            check_input(files.path, probe_size(files.path, expected, config.preprocess.img_size))
    except OpsError as error:
        if isinstance(error, ModelCheckError):
            step = find_hint(error.stage, str(error))
        yield Finding("model", "problem", f"{where}: {error}", step)
        return
    seen = tr(
        "{where} at {folder}: {model}, {size}",
        where=where,
        folder=config.exp_dir,
        model=files.path.name,
        size=format_bytes(files.size_bytes),
    )
    if card and card.num_classes:
        seen += tr(", {count} classes", count=card.num_classes)
    yield Finding("model", "ok", seen)
    gaps = find_gaps(card)
    if gaps is not None:
        unused = explain_report(config.export_dir) if card is None else None
        said = "; ".join(filter(None, (gaps, unused)))
        step = tr("make its card: `pillops card {model}`", model=files.path)
        yield Finding("model", "note", f"{files.path.name}: {said}", step)


def _name_experiment(config: Config) -> str:
    if config.can_be_demo:
        return tr(
            "make the demo: `make demo`; your own model and images: paths.exp_dir and "
            "paths.data_root"
        )
    return tr("name your own model and images: paths.exp_dir and paths.data_root")


def look_at_images(config: Config) -> Iterator[Finding]:
    """Yield how many images there are, and whether labels and preprocessing are found."""
    from opslib.inference.preprocess import DEFAULT_FUNCTION, load_preprocessor

    if config.data_root.is_dir():
        yield _count_images(config, "val")
        yield _count_images(config, "train")
    else:
        seen = tr("{folder}: no such folder", folder=config.data_root)
        yield Finding("images", "problem", seen, _name_experiment(config))
    if config.images.labels is not None:
        yield _look_at_labels(config.resolve(config.images.labels))
    function = config.preprocess.function
    if function == DEFAULT_FUNCTION:
        return
    try:
        load_preprocessor(function, config.code_root)
    except OpsError as error:
        step = tr("correct paths.code_root or preprocess.function")
        yield Finding("code_root", "problem", str(error), step)
    else:
        yield Finding(
            "code_root",
            "ok",
            tr("{function} is found in {folder}", function=function, folder=config.code_root),
        )


def _count_images(config: Config, split: Literal["val", "train"]) -> Finding:
    from opslib.inference.images import count_suffixes, list_images

    found = list_images(config, split)
    besides = (
        [tr("left out: {files}", files=format_counts(found.left_out))] if found.left_out else []
    )
    besides += found.problems
    if found.paths:
        seen = format_counts(count_suffixes(found.paths))
        state: FindingState = "note" if found.problems else "ok"
        return Finding("images", state, f"{found.pattern}: {'; '.join([seen, *besides])}")
    step = tr(
        "name images in {key}, a glob below {folder}",
        key=f"images.{split}",
        folder=config.data_root,
    )
    said = "; ".join([tr("no image"), *besides])
    seen = f"{found.pattern}: {said}"
    return Finding("images", "note", seen, step)


def _look_at_labels(path: Path) -> Finding:
    from opslib.ops.quantize.labels import KEY, read_label_map

    try:
        labels = read_label_map(path)
    except InputError as error:
        return Finding("labels", "problem", str(error), tr("correct {what}", what=KEY))
    return Finding(
        "labels",
        "ok",
        tr_many(
            "{path}: {count:,} code", "{path}: {count:,} codes", len(labels.ids), path=labels.path
        ),
    )


def look_at_env(config: Config) -> Iterator[Finding]:
    """Yield whether `.env` is sound: the pins of each kind, and the key, which is never shown."""
    env_file = config.root / ENV_NAME
    try:
        found = load_service_environment(config)
    except ConfigError as error:
        yield Finding(ENV_NAME, "problem", str(error), tr("correct it in {file}", file=env_file))
        return
    for kind in list_kinds(config):
        yield from _look_at_pin(kind)
    yield _look_at_key(env_file, found)


def _look_at_pin(kind: Kind) -> Iterator[Finding]:
    try:
        pinned = next(iter(kind.pins()), None)
    except ConfigError as error:
        yield Finding("pin", "problem", str(error), tr("correct {what}", what=kind.pin_file))
        return
    if pinned is not None and pinned.is_file():
        yield Finding(
            "pin", "note", tr("{pin} pins {model}: a start serves that", pin=kind.pin, model=pinned)
        )
    elif pinned is not None:
        seen = tr(
            "{pin} names {model}, which is not there: the service will not start",
            pin=kind.pin,
            model=pinned,
        )
        step = tr("correct or clear {pin} in {file}", pin=kind.pin, file=kind.pin_file)
        yield Finding("pin", "problem", seen, step)


def _look_at_key(env_file: Path, found: ServiceEnvironment) -> Finding:
    from opslib.serving.keys import MAX_AGE_DAYS, check_key, key_age_days

    step = tr("put a key into .env: `pillops key rotate`")
    try:
        check_key(found.api_key.get_secret_value() if found.api_key else None)
    except ConfigError as error:
        state: FindingState = "problem" if env_file.exists() else "note"
        return Finding("key", state, str(error).partition(";")[0], step)
    age = key_age_days(env_file)
    if age is None:
        return Finding("key", "ok", tr("API_KEY is strong, set outside of .env"))
    if age < 0:
        return Finding(
            "key", "note", tr("API_KEY is strong and dated after now: {ask}", ask=tr(ASK)), step
        )
    if age > MAX_AGE_DAYS:
        seen = tr("API_KEY is strong and {days:.0f} days old; monthly is the rule", days=age)
        return Finding("key", "note", seen, step)
    return Finding("key", "ok", tr("API_KEY is strong, {days:.0f} days old", days=age))


def look_at_service(config: Config) -> Finding:
    """Return whether the service answers, and with the model that it should."""
    import httpx

    from opslib.ops.checklist.service import start_step
    from opslib.serving.live import normalise_url
    from opslib.upkeep.probe import judge

    address = normalise_url(config.client.url)
    url = f"{show_address(address)}/health"
    try:
        answer = httpx.get(f"{address}/health", timeout=2.0, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL):
        return Finding(
            "service", "note", tr("{address} does not answer", address=url), start_step(config)
        )
    judged = judge(answer.status_code, answer.content)
    if judged.degraded:
        step = tr(
            "which model it wants and why it has not got it: {log}", log=config.logs_dir / "api.err"
        )
        return Finding("service", "problem", f"{url}: {judged.detail}", step)
    if answer.status_code == 200:
        return Finding("service", "ok", tr("{address} answers {status}", address=url, status=200))
    seen = tr("{address} answers {status}", address=url, status=answer.status_code)
    step = tr("look at {log}", log=config.logs_dir / "api.err")
    return Finding("service", "problem", seen, step)
