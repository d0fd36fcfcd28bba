"""H-2: `pillops release ...`, each command as a person or a script runs it."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from opslib.cli import app
from opslib.core.config import load_config
from opslib.core.errors import StorageError
from opslib.ops.release.build import build_release
from opslib.ops.release.companions import checksum_path
from opslib.ops.release.prune import plan_prune
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.store import list_releases
from opslib.serving.keys import make_key
from opslib.serving.leases import LEASE_FOLDER, Lease
from opslib.serving.staging import start_service
from tests.ops.release.conftest import QUICK, make_experiment, visible
from tests.running import run_python
from tests.serving.conftest import Live, Place, open_live
from tests.two_stage import make_two_stage
from tests.upkeep.places import NOBODY
from tests.upkeep.test_models_prune import answering


def call(place: Place, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `pillops release` on an experiment."""
    inherited = {k: v for k, v in os.environ.items() if k != "API_KEY"}
    command = [sys.executable, "-m", "opslib.cli", "release", *arguments]
    return run_python(
        [*command, "--config", str(place.config_path)],
        timeout=60,
        env=inherited | {"COLUMNS": "160", "PILLSNAP_CLIENT__URL": NOBODY} | variables,
    )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An experiment of this test's own."""
    return make_experiment(tmp_path / "place")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service on an experiment with one release, its key in `.env`."""
    place = make_experiment(tmp_path_factory.mktemp("staged"))
    key = make_key()
    place.config_path.with_name(".env").write_text(f"API_KEY={key}\n")
    build_release(place.config, QUICK)
    variables = {"RATE_LIMIT_PER_MIN": "1000000", "API_KEY": key}
    with start_service(place.config_path, variables=variables) as service:
        running = open_live(service, place)
        yield running
        running.client.close()


def test_create_verify_restore_in_a_row(place: Place, tmp_path: Path) -> None:
    made = call(place, "create")
    assert made.returncode == 0, made.stderr
    path = Path(made.stdout.strip())
    assert path.is_file()
    assert made.stdout == f"{path}\n"
    assert "2 models loaded and answered 16 golden images" in made.stderr
    assert re.search(r"bom\.cdx\.json: \d+ packages, 2 models", made.stderr)
    verified = call(place, "verify", path.name)
    assert verified.returncode == 0, verified.stderr
    assert "every byte as listed; 2 models loaded and answered" in verified.stdout
    restored = call(place, "restore")
    assert restored.returncode == 0, restored.stderr
    folder = place.config.restore_dir / path.name.removesuffix(".tar.gz")
    assert f"MODEL_PATH={folder}/export/model-b.onnx" in restored.stdout
    assert f"scripts/reload_model.sh --path {folder}/export/model-b.onnx" in restored.stdout
    again = call(place, "restore")
    assert again.returncode == 2
    assert "is there already" in again.stderr
    aside = call(place, "restore", path.name, "--out", str(tmp_path / "aside"), "--no-load")
    assert aside.returncode == 0
    assert "no model was loaded" in aside.stdout
    assert "add the folder to reload.model_dirs" in aside.stdout


def test_create_takes_a_model_a_folder_and_a_second_place(place: Place, tmp_path: Path) -> None:
    (place.config.records_dir / "metrics.json").unlink()
    options = ["--onnx", str(place.first), "--only", "--out", str(tmp_path / "here")]
    refused = call(place, "create", *options)
    assert refused.returncode == 2
    assert "--allow-missing-metrics" in refused.stderr
    copy = ["--copy-to", str(tmp_path / "there")]
    made = call(place, "create", *options, *copy, "--allow-missing-metrics")
    assert made.returncode == 0, made.stderr
    assert "note: reports/metrics.json was not there" in made.stderr
    assert "second copy" in made.stderr
    assert visible(tmp_path / "here") == visible(tmp_path / "there")
    assert str(tmp_path / "here") in made.stdout
    variables = {"PILLSNAP_RELEASE__COPY_TO": str(tmp_path / "third")}
    assert call(place, "create", "--allow-missing-metrics", **variables).returncode == 0
    assert len(visible(tmp_path / "third")) == 3


def test_verify_goes_through_all_and_says_which_failed(place: Place) -> None:
    first, second = (build_release(place.config, QUICK).path for _ in range(2))
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    answer = call(place, "verify", "--all", "--no-load")
    assert answer.returncode == 3
    assert f"error: {first.name}: " in answer.stderr
    assert second.name.removesuffix(".tar.gz") in answer.stdout
    assert len(answer.stdout.splitlines()) == 1
    assert call(place, "verify", "--all", "x").returncode == 2


def test_list_pin_and_prune(place: Place) -> None:
    assert "no release" in call(place, "list").stdout
    names = [build_release(place.config, QUICK).path.name.removesuffix(".tar.gz") for _ in range(4)]
    (place.config.releases_dir / "release-20200101-000000-nogit.tar.gz").write_bytes(b"")
    assert call(place, "pin", names[0]).stdout == f"{names[0]}: pinned\n"
    listed = call(place, "list").stdout
    assert "pinned" in listed
    assert "empty" in listed
    assert "model-b.onnx" in listed
    assert "5 releases" in listed
    assert "1 to look at" in listed
    planned = call(place, "prune", "--keep", "1", "--dry-run").stdout
    assert f"delete {place.config.releases_dir}/{names[1]}.tar.gz" in planned
    assert f"keep {names[0]}: pinned" in planned
    assert f"keep {names[2]}: the release before the newest" in planned
    assert "dry run: nothing was changed" in planned
    assert len(list_releases(place.config)) == 5
    done = call(place, "prune", "--keep", "1")
    assert done.returncode == 0, done.stderr
    assert "freed " in done.stdout
    assert call(place, "unpin", names[0]).stdout == f"{names[0]}: no longer pinned\n"
    assert call(place, "prune", "--keep", "1").returncode == 0
    left = {one.name for one in list_releases(place.config)}
    assert left == {names[2], names[3], "release-20200101-000000-nogit"}


@pytest.mark.parametrize("why", ["refuses", "no answer", "damaged lease"])
def test_prune_deletes_nothing_where_it_cannot_learn_what_is_served(
    place: Place, why: str, tmp_path: Path
) -> None:
    for _ in range(3):
        build_release(place.config, QUICK)
    before = visible(place.config.releases_dir)
    with answering(401, "{}") as url, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = {"refuses": url, "no answer": f"127.0.0.1:{silent.getsockname()[1]}"}.get(why)
        if address is None:
            leases = place.export / LEASE_FOLDER
            leases.mkdir()
            (leases / "gpu2-8000-00000000.json").write_text("{")
        variables = {"PILLSNAP_CLIENT__URL": address or NOBODY}
        variables["PILLSNAP_MAINTENANCE__VERSION_TIMEOUT_S"] = "0.2"
        answers = [
            call(place, "prune", "--keep", "1", *options, **variables)
            for options in ((), ("--dry-run",))
        ]
    assert {answer.returncode for answer in answers} == {2}
    said = answers[0].stderr
    assert {
        "refuses": "answered 401 and not what it serves",
        "no answer": "did not answer: no answer in time",
        "damaged lease": "gpu2-8000-00000000.json: not a lease/1 record",
    }[why] in said
    assert len(said.splitlines()) == 1
    assert visible(place.config.releases_dir) == before


def test_prune_keeps_what_a_service_of_another_experiment_serves(place: Place) -> None:
    names = [
        build_release(place.config, ReleaseRequest(onnx=model, only=True, load_models=False)).path
        for model in (place.first, place.second, place.second)
    ]
    lease = Lease(
        host="gpu2",
        address="127.0.0.1",
        port=8000,
        pid=1,
        exp_dir=place.config.exp_dir.parent / "other",
        env_file=place.config_path.with_name("no.env"),
        root=place.config_path.parent,
        models={place.first.name: "served now"},
    )
    (place.export / LEASE_FOLDER).mkdir()
    lease.write(place.export / LEASE_FOLDER / lease.file_name)
    answer = call(place, "prune", "--keep", "1")
    assert answer.returncode == 0, answer.stderr
    assert all(path.exists() for path in names)
    assert "the newest that holds the model that is served now, as" in answer.stdout


def test_prune_asks_again_before_each_deletion(place: Place) -> None:
    for _ in range(3):
        build_release(place.config, QUICK)
    config = load_config(place.config_path, {"PILLSNAP_CLIENT__URL": NOBODY})
    plan = plan_prune(config, keep=1)
    (place.export / LEASE_FOLDER).mkdir()
    (place.export / LEASE_FOLDER / "x.json").write_text("{")
    assert len(plan.actions) == 1
    assert "not a lease/1 record" in plan.execute().skipped[0].reason
    assert len(list_releases(place.config)) == 3


def test_restore_can_switch_the_service_and_confirms_it(staged: Live) -> None:
    place = staged.place
    staged.reload(place.first)
    answer = call(place, "restore", "--reload", "--host", staged.service.url)
    assert answer.returncode == 0, answer.stderr
    assert "before model-a" in answer.stdout
    assert "after  model-b" in answer.stdout
    assert str(staged.version["model_path"]).startswith(str(place.config.restore_dir.resolve()))
    assert staged.service.key not in answer.stdout + answer.stderr
    build_release(place.config, QUICK)
    build_release(place.config, QUICK)
    planned = call(place, "prune", "--keep", "1", "--dry-run",
                   PILLSNAP_CLIENT__URL=staged.service.url).stdout  # fmt: skip
    assert "restored, and served now, as /version says" in planned


def test_a_place_the_service_may_not_serve_from_is_refused_before_unpacking(
    staged: Live, tmp_path: Path
) -> None:
    answer = call(staged.place, "restore", "--reload", "--out", str(tmp_path / "out"))
    assert answer.returncode == 2
    assert "reload.model_dirs" in answer.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "--onnx", "/no/such.onnx"], "/no/such.onnx: no such file"),
        (["create", "--wipe"], "--wipe"),
        (["verify", "release-nothing"], "release-nothing: no such release"),
        (["restore", "release-nothing"], "release-nothing: no such release"),
        (["pin", "release-nothing"], "release-nothing: no such release"),
        (["prune", "--keep", "0"], "--keep"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    place: Place, arguments: list[str], message: str
) -> None:
    answer = call(place, *arguments)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert len(answer.stderr.strip().splitlines()[-1:]) == 1
    assert answer.stderr.splitlines()[-1].startswith("error: ")
    assert answer.stdout == ""


def test_an_unreadable_file_is_named(place: Place) -> None:
    if os.geteuid() == 0:
        (place.export / "model-c.onnx").symlink_to(place.export / "model-c.onnx")
        place.images[0].unlink()
        place.images[0].symlink_to(place.images[0])
        name = place.images[0].name
    else:
        place.second.chmod(0)
        name = place.second.name
    answer = call(place, "create")
    assert answer.returncode == 2
    assert name in answer.stderr
    assert len(answer.stderr.splitlines()) == 3
    assert answer.stdout == ""


def test_listing_starts_fast_since_it_loads_nothing_heavy(place: Place) -> None:
    build_release(place.config, QUICK)
    code = (
        "import sys; from opslib.telling.doors import call_app; from opslib.cli import app\n"
        "call_app(app, sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, "release", "list", "--config", str(place.config_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = {"numpy", "httpx", "isal", "detect_secrets", "onnxruntime", "torch", "PIL"}
    assert not set(answer.stderr.split()) & heavy


def test_verifying_all_of_nothing_is_no_success(place: Place) -> None:
    answer = call(place, "verify", "--all")
    assert answer.returncode == 2
    assert "make one with `pillops release create`" in answer.stderr


def test_of_several_verified_the_worst_decides_the_exit_code(place: Place) -> None:
    first, second = build_release(place.config, QUICK), build_release(place.config, QUICK)
    checksum_path(second.path).write_text("no digest")
    first.path.unlink()
    first.path.mkdir()  # exit code 2, told last
    answer = call(place, "verify", "--all", "--no-load")
    assert answer.returncode == 3
    assert answer.stderr.count("error: ") == 2


def test_the_command_that_restore_prints_can_be_pasted(place: Place) -> None:
    odd = place.first.rename(place.first.with_name("it's a model.onnx"))
    place.first.with_suffix(".json").unlink()
    build_release(place.config, ReleaseRequest(onnx=odd, only=True, load_models=False))
    answer = call(place, "restore", "--no-load")
    command = next(line for line in answer.stdout.splitlines() if "reload_model.sh" in line)
    assert Path(shlex.split(command)[-1]).is_file()


def test_a_card_is_shown_then_made_and_a_restored_release_is_served_by_kind(tmp_path: Path) -> None:
    two = make_two_stage(tmp_path, each=1)
    model = two.detectors[0]
    given = ["card", str(model), "--inputs", str(two.export / "golden" / "*.jpg")]
    runner = CliRunner()
    options = ["--config", str(two.config_path)]
    planned = runner.invoke(app, [*given, "--dry-run", *options])
    assert planned.exit_code == 0, planned.output
    assert "dry run: nothing was changed" in planned.output
    assert not model.with_suffix(".json").exists()
    assert runner.invoke(app, [*given, *options]).exit_code == 0
    assert "golden_outputs" in model.with_suffix(".json").read_text()
    (two.root / ".env.example").write_text("API_KEY=\n")
    build_release(two.config, ReleaseRequest(verify=False, allow_missing_metrics=True))
    shown = runner.invoke(app, ["release", "restore", *options]).output
    assert "with these lines in .env:" in shown
    again = runner.invoke(app, ["release", "restore", "--reload", "--persist", *options])
    assert isinstance(again.exception, StorageError)
    steps = re.findall(r"`pillops reload --path (\S+) --persist`", str(again.exception))
    kinds = [Path(one).name.partition("-")[0] for one in steps if Path(one).is_file()]
    assert sorted(kinds) == ["classification", "detection"]
    listed = runner.invoke(app, ["release", "list", *options]).output
    assert {one.name for one in (model, two.classifiers[0])} <= set(listed.split())
    for kind, pin in (("detection", "DETECTION"), ("classification", "CLASSIFICATION")):
        assert re.search(rf"  {pin}_MODEL_PATH=\S+/export/{kind}-", shown)
        assert re.search(rf"reload_model.sh --path \S+ --kind {kind}", shown)
