"""Checkpoints as training code writes them: read without running code, or told in one line."""

import argparse
import collections
import datetime
import os
import time
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest

from opslib.core.config import load_config
from opslib.core.errors import ConfigError, ModelError
from opslib.core.formatting import shorten
from opslib.inference.checkpoint import read_checkpoint
from opslib.inference.engine import EngineRequest
from opslib.inference.find_model import find_checkpoint
from opslib.inference.opening import open_engine
from tests.models import write_config

torch = pytest.importorskip("torch")
BATCH = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
NETS = """\
import dataclasses
import enum
import pathlib
import torch


@dataclasses.dataclass
class TrainConfig:
    lr: float = 1e-3
    out: pathlib.Path = pathlib.Path("runs")


class Phase(enum.Enum):
    FINE = 1


def linear(classes, device="cpu"):
    return torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, classes)
    ).to(device)


def on_card(classes, device="cuda"):
    return linear(classes, device)


def needs_more(classes, width):
    return linear(classes)


def makes_text(classes):
    return "a network"
"""


def state(prefix: str = "") -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"{prefix}2.weight": torch.randn(4, 3, generator=generator),
        f"{prefix}2.bias": torch.randn(4, generator=generator),
    }


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The training code of the checkpoints, importable while they are written."""
    import importlib

    name = f"nets_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module(name)


def open_torch(path: Path, **changes: Any) -> np.ndarray:
    with open_engine(EngineRequest("torch", path, code_root=path.parent, **changes)) as engine:
        return engine.run(BATCH)


def refuse(path: Path, **changes: Any) -> str:
    """Return the one line with which a checkpoint is refused."""
    with pytest.raises((ModelError, ConfigError)) as caught:
        open_torch(path, **changes)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 700
    return message


def save(folder: Path, payload: Any, **options: Any) -> Path:
    torch.save(payload, folder / "best.pt", **options)
    return folder / "best.pt"


def plain_values() -> dict[str, Any]:
    seen: dict[str, list[int]] = collections.defaultdict(list)
    seen["epoch"].append(3)
    return {
        "accuracy": np.float32(0.5),
        "best": np.float64(0.25),
        "sure": np.bool_(True),
        "curve": np.arange(3),
        "names": np.array(["a", None], dtype=object),
        "words": np.array(["ab", "c"]),
        "kind": np.dtype("float16"),
        "saved": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        "day": datetime.date(2026, 1, 2),
        "took": datetime.timedelta(hours=3),
        "out": Path("runs/exp01"),
        "seen": seen,
        "last": collections.deque([1, 2], maxlen=2),
        "order": collections.OrderedDict(a=1),
        "args": argparse.Namespace(lr=0.1),
        "tags": frozenset({"a"}),
        "sizes": range(3),
        "cut": slice(1, 2),
        "type": int,
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_values_beside_the_weights_are_let_through(tmp_path: Path, zipped: bool) -> None:
    path = save(tmp_path, plain_values(), _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(path, (), None)
    assert found["accuracy"] == np.float32(0.5)
    assert found["curve"].tolist() == [0, 1, 2]
    assert found["names"].tolist() == ["a", None]
    assert found["saved"] == datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    assert found["out"] == PosixPath("runs/exp01")
    assert found["seen"] == {"epoch": [3]}
    assert found["last"] == [1, 2]
    assert found["args"].lr == 0.1


def test_what_is_let_through_here_is_not_let_through_elsewhere(tmp_path: Path) -> None:
    path = save(tmp_path, plain_values())
    read_checkpoint(path, (), None)
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(path, weights_only=True)


def test_a_dataclass_is_named_with_the_key_and_read_once_it_stands_there(
    tmp_path: Path, nets: Any
) -> None:
    payload = {"model_state_dict": state(), "config": nets.TrainConfig(), "phase": nets.Phase.FINE}
    path = save(tmp_path, payload)
    name = nets.__name__
    assert refuse(path) == (
        f"{path}: Torch cannot load it: it holds {name}.Phase, {name}.TrainConfig, not known to be "
        f'harmless; where you trust it, set torch.safe_globals: ["{name}:Phase", '
        f'"{name}:TrainConfig"], found below paths.code_root'
    )
    allowed = (f"{name}:Phase", f"{name}:TrainConfig")
    answer = open_torch(path, factory=f"{name}:linear", safe_globals=allowed)
    assert answer.shape == (2, 4)


def test_a_class_of_the_script_that_was_run_is_found_in_its_module(
    tmp_path: Path, nets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import __main__

    monkeypatch.setattr(__main__, "TrainConfig", nets.TrainConfig, raising=False)
    with monkeypatch.context() as script:
        script.setattr(nets.TrainConfig, "__module__", "__main__")
        path = save(tmp_path, {"model_state_dict": state(), "config": nets.TrainConfig()})
    assert '"MODULE:TrainConfig"' in refuse(path)
    own = f"{nets.__name__}:TrainConfig"
    open_torch(path, factory=f"{nets.__name__}:linear", safe_globals=(own,))


def test_an_old_layout_names_the_first_class_too(tmp_path: Path, nets: Any) -> None:
    payload = {"config": nets.TrainConfig()}
    path = save(tmp_path, payload, _use_new_zipfile_serialization=False)
    assert f'torch.safe_globals: ["{nets.__name__}:TrainConfig"]' in refuse(path)


class Harm:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch harmed",)


def test_what_runs_code_is_never_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path, {"state_dict": state(), "evil": Harm()})
    message = refuse(path, safe_globals=("posix:system",))
    assert "it holds posix.system, which may run code" in message
    assert "do not trust this file" in message
    assert "safe_globals" not in message
    assert not (tmp_path / "harmed").exists()


def test_a_whole_module_is_called_one_and_runs_where_each_class_is_allowed(
    tmp_path: Path, nets: Any
) -> None:
    path = save(tmp_path, {"model": nets.linear(4)})
    message = refuse(path)
    assert "it is a whole module, pickled with its classes" in message
    assert "save its state_dict()" in message
    allowed = (
        "torch.nn.modules.container:Sequential",
        "torch.nn.modules.pooling:AdaptiveAvgPool2d",
        "torch.nn.modules.flatten:Flatten",
        "torch.nn.modules.linear:Linear",
    )
    assert open_torch(path, safe_globals=allowed).shape == (2, 4)
    torch.save(nets.linear(4), path)
    assert open_torch(path, safe_globals=allowed).shape == (2, 4)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_what_a_wrapper_put_before_every_name_is_taken_off(
    tmp_path: Path, nets: Any, prefix: str
) -> None:
    factory = f"{nets.__name__}:linear"
    expected = open_torch(save(tmp_path, state()), factory=factory)
    path = save(tmp_path, {"state_dict": state(prefix)})
    np.testing.assert_array_equal(open_torch(path, factory=factory), expected)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_weights_are_found_beside_a_key_that_only_names_the_network(
    tmp_path: Path, nets: Any, key: str
) -> None:
    payload = {"state_dict": "none", "model": "efficientnet", key: state(), "num_classes": None}
    path = save(tmp_path, payload | {"img_size": np.int64(16)})
    assert open_torch(path, factory=f"{nets.__name__}:linear").shape == (2, 4)


def test_weights_that_fit_under_no_name_are_refused_as_they_are_written(
    tmp_path: Path, nets: Any
) -> None:
    path = save(tmp_path, {"state_dict": state("head.") | {"tail.x": torch.zeros(1)}})
    assert 'key(s) in state_dict: "head.2.' in refuse(path, factory=f"{nets.__name__}:linear")


def test_a_checkpoint_without_weights_says_what_it_has(tmp_path: Path) -> None:
    path = save(tmp_path, {"epoch": 3, "lr": 0.1})
    assert "has no weights (epoch, lr); expected a state dict, alone or under" in refuse(path)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = save(tmp_path, state())
    path.write_bytes(path.read_bytes()[:300])
    assert f"{path}: Torch cannot load it: " in refuse(path)
    path.write_bytes(b"\x1b[31mno checkpoint")
    assert f"{path}: Torch cannot load it: " in refuse(path)


def test_a_factory_that_wants_a_card_says_what_to_do_in_one_line(
    tmp_path: Path, nets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card here")
    path = save(tmp_path, state())
    message = refuse(path, factory=f"{nets.__name__}:on_card")
    assert message.startswith(f"torch.factory: {nets.__name__}:on_card(4) raised ")
    assert "CUDA" in message or "NVIDIA" in message
    assert message.endswith("must build on the CPU: let its device be cpu unless told otherwise")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("needs_more", "raised TypeError: needs_more() missing 1 required positional argument"),
        ("makes_text", "made a str; expected a torch.nn.Module"),
    ],
)
def test_a_factory_that_fails_is_named(tmp_path: Path, nets: Any, name: str, message: str) -> None:
    path = save(tmp_path, state())
    assert message in refuse(path, factory=f"{nets.__name__}:{name}")


def test_code_that_raises_while_it_is_imported_is_named_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "raises_on_import.py").write_text("raise RuntimeError('no driver\\nfound')\n")
    path = save(tmp_path, state())
    assert refuse(path, factory="raises_on_import:make") == (
        "torch.factory: importing raises_on_import raised RuntimeError: no driver found"
    )
    assert refuse(path, safe_globals=("raises_on_import:Config",)).startswith("torch.safe_globals:")


def make(folder: Path, name: str, *, age_s: float = 0) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    moment = time.time() - age_s
    os.utime(path, (moment, moment))
    return path


def test_the_checkpoint_of_another_training_code_is_found_by_its_name(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, ""), {})
    config = config.model_copy(
        update={"paths": config.paths.model_copy(update={"code_root": tmp_path / "code"})}
    )
    with pytest.raises(ModelError, match=r"looked for checkpoints/best\.pt, .*torch\.checkpoints"):
        find_checkpoint(config, None, None)
    far = make(tmp_path / "code", "artifacts/stage3/checkpoints/stage3_classification_best.pt")
    assert find_checkpoint(config, None, None) == far
    near = make(tmp_path / "exp", "stage3_classification_best.pt", age_s=99)
    assert find_checkpoint(config, None, None) == near
    ours = make(tmp_path / "exp", "checkpoints/best.pt", age_s=999)
    assert find_checkpoint(config, None, None) == ours


def test_of_several_the_newest_is_taken_but_none_dated_after_now(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, "torch: {checkpoints: 'runs/**/*.pt'}\n"), {})
    make(tmp_path / "exp/runs", "a/old.pt", age_s=99)
    newest = make(tmp_path / "exp/runs", "b/new.pt", age_s=9)
    ahead = make(tmp_path / "exp/runs", "c/ahead.pt", age_s=-9999)
    assert find_checkpoint(config, None, None) == newest
    for path in (newest, tmp_path / "exp/runs/a/old.pt"):
        path.unlink()
    assert find_checkpoint(config, None, None) == ahead


@pytest.mark.parametrize("text", ["nets", "nets:", ":Config", "a b:C"])
def test_a_class_that_is_no_import_string_is_refused_with_the_configuration(
    tmp_path: Path, text: str
) -> None:
    path = write_config(tmp_path, f"torch: {{safe_globals: ['{text}']}}\n")
    with pytest.raises(ConfigError, match=r"torch\.safe_globals"):
        load_config(path, {})


def test_a_foreign_text_is_one_line_without_colours() -> None:
    assert shorten("\x1b[1;31mred\x1b[0m\n  and\tmore\x07") == "red and more"
    assert shorten("word " * 100, 12) == "word word …"
