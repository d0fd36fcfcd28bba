"""A team's own images: PNG and other suffixes mixed, three folders deep, and a class map."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opslib.core.config import Config, load_config
from opslib.core.errors import InputError
from opslib.inference.facts import InputFacts
from opslib.ops.bench.request import BenchRequest
from opslib.ops.bench.run import run_bench
from opslib.ops.bench.story import list_notes
from opslib.ops.quantize import story as quantize_story
from opslib.ops.quantize.request import QuantizeRequest
from opslib.ops.quantize.run import run_quantize
from opslib.ops.quantize.setup import prepare_quantize
from opslib.ops.sweep.request import SweepRequest
from opslib.ops.sweep.run import run_sweep
from opslib.ops.sweep.story import list_notes as list_sweep_notes
from tests.models import write_config
from tests.ops.quantize.test_run import COLOURS, write_colour_model

CODES = {"K-000001": "blue", "K-000002": "green", "K-000003": "red"}
CLASS_MAP = {code: number for number, code in enumerate(CODES)}
SUFFIXES = (".png", ".JPG", ".jpeg", ".png")
MEASURED = {".jpeg": 3, ".jpg": 3, ".png": 6}
QUICK = """\
onnx: {providers: [CPU]}
bench: {budget_s: 0.01, engine: onnx, batch: [1]}
sweep: {budget_s: 0.5, batch: [1], threads: [0], spinning: [true], parity_images: 2}
quantize: {budget_s: 0.1, batch: [1], samples: 24}
"""


def write_tree(folder: Path, split: str, seed: int) -> None:
    """Write four images of each code, its label file, and one PNG that cannot be read."""
    rng = np.random.default_rng(seed)
    single = folder / f"images/{split}/images/single"
    for number, (code, colour) in enumerate(CODES.items()):
        place = single / f"VS_{number}_single" / code
        place.mkdir(parents=True)
        for index, suffix in enumerate(SUFFIXES):
            pixels = np.clip(rng.normal(COLOURS[colour], 25, (20, 20, 3)), 0, 255)
            kind = "PNG" if suffix == ".png" else "JPEG"
            Image.fromarray(pixels.astype(np.uint8)).save(
                place / f"{code}_0_{index}{suffix}", format=kind
            )
        (place / f"{code}.json").write_text("{}")
    (single / "VS_0_single/K-000001/damaged.PNG").write_bytes(b"\x89PNG no")


def make_config(folder: Path, extra: str = "") -> Config:
    write_tree(folder, "val", seed=1)
    write_tree(folder, "train", seed=2)
    write_colour_model(folder / "exp/export/m.onnx")
    return load_config(write_config(folder, QUICK + extra), {})


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return make_config(tmp_path)


def check_inputs(inputs: InputFacts) -> None:
    assert inputs.suffixes == MEASURED
    assert inputs.count == 12
    assert inputs.left_out == {".json": 3, ".png": 1}
    assert inputs.glob == "images/val/**/*"
    assert "damaged.PNG" in inputs.skipped[0]


SAID = "Images measured: 3 .jpeg, 3 .jpg, 6 .png; left out: 3 .json, 1 .png."


def test_a_benchmark_counts_its_images_by_suffix(config: Config) -> None:
    record = run_bench(config, BenchRequest())
    check_inputs(record.inputs)
    assert SAID in list_notes(record)


def test_a_sweep_counts_its_images_by_suffix(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    record = run_sweep(config, SweepRequest())
    check_inputs(record.inputs)
    assert SAID in list_sweep_notes(record)


def test_a_quantization_counts_both_sets_by_suffix_and_takes_labels_from_the_class_map(
    tmp_path: Path,
) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(CLASS_MAP))
    config = make_config(tmp_path, "images: {labels: classes.json}\n")
    record = run_quantize(config, QuantizeRequest())
    check_inputs(record.inputs)
    assert record.calibration is not None
    assert record.calibration.suffixes == MEASURED
    said = quantize_story.list_notes(record)
    assert SAID in said
    assert SAID.replace("Images measured", "Calibration images") in said
    assert record.labelled
    accuracy = record.gated_row.accuracy
    assert accuracy is not None
    assert (accuracy.n, accuracy.baseline_top1_pct) == (12, 100.0)


def test_a_record_of_an_earlier_build_is_read_and_says_nothing_of_suffixes() -> None:
    written = {"glob": "val/**/*.jpg", "count": 4, "sha256": "0" * 64, "skipped": []}
    assert InputFacts.model_validate_json(json.dumps(written)).notes() == []


def test_a_changed_answer_is_shown_with_its_image_however_deep_it_lies(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opslib.ops.quantize import run as quantize_run

    def spoil(*_: object, target: Path, **__: object) -> tuple[str, ...]:
        write_colour_model(target, bias=50.0)
        return ()

    monkeypatch.setattr(quantize_run, "quantize_variant", spoil)
    record = run_quantize(config, QuantizeRequest())
    assert record.inputs.folder is not None
    folder = config.resolve(record.inputs.folder)
    assert record.gated_row.flips
    assert all((folder / one.image).is_file() for one in record.gated_row.flips)


@pytest.mark.parametrize(
    "content",
    [CLASS_MAP, {"class_to_idx": CLASS_MAP, "num_classes": 3}, list(CODES)],
    ids=["codes", "class_to_idx", "list"],
)
@pytest.mark.parametrize("by", ["folder", "name"])
def test_a_class_map_labels_by_folder_or_by_the_start_of_the_name(
    tmp_path: Path, content: object, by: str
) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(content))
    config = make_config(tmp_path, "images: {labels: classes.json}\n")
    if by == "name":
        for number, code in enumerate(CODES):
            place = tmp_path / f"images/val/images/single/VS_{number}_single"
            (place / code).rename(place / "cam1")
    setup = prepare_quantize(config, QuantizeRequest())
    assert setup.labels.known
    assert Counter(setup.labels.ids.tolist()) == {0: 4, 1: 4, 2: 4}
    assert setup.class_names == tuple(CODES)


def test_images_without_a_label_are_counted_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(json.dumps({"K-000001": 0, "K-000003": 2}))
    config = make_config(tmp_path, "images: {labels: classes.json}\n")
    setup = prepare_quantize(config, QuantizeRequest())
    assert Counter(setup.labels.ids.tolist()) == {0: 4, 2: 4}
    assert len(setup.images.paths) == 8
    assert re.fullmatch(
        r"4 of 12 images: no label in classes.json, such as K-000002/K-000002_0_0.png",
        setup.images.skipped[-1],
    )
    assert setup.images.left_out == {".jpeg": 1, ".jpg": 1, ".json": 3, ".png": 3}


WRONG: list[tuple[str, str]] = [
    ('{"K-999999": 0}', "labels none of 12 images, such as K-000001/K-000001_0_0.png"),
    ('{"K-000001": 3}', "'K-000001' has class id 3, but m.onnx has 3 classes"),
    ('{"K-000001": "0"}', "'K-000001' has class id '0'; expected"),
    ('{"K-000001": true}', "'K-000001' has class id True; expected"),
    ('{"K-000001": -1}', "'K-000001' has class id -1; expected"),
    ('{"K-000001": 1, "K-000002": 1}', "two codes have the same class id"),
    ('["K-000001", "K-000001"]', "a code stands in the list twice"),
    ("[0, 1]", "expected"),
    ("{}", "expected"),
    ("7", "expected"),
    ("{", "not JSON"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_class_map_that_cannot_be_right_is_refused_by_key_and_file(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "classes.json").write_text(text)
    config = make_config(tmp_path, "images: {labels: classes.json}\n")
    with pytest.raises(InputError) as caught:
        prepare_quantize(config, QuantizeRequest())
    assert str(caught.value).startswith(f"images.labels: {tmp_path}/classes.json")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_map_in_another_order_than_the_models_card_is_refused(tmp_path: Path) -> None:
    from tests.ops.quantize.test_run import write_card

    config = make_config(tmp_path, "images: {labels: classes.json}\n")
    write_card(config.export_dir / "m.onnx")
    (tmp_path / "classes.json").write_text('{"blue": 0, "red": 1, "green": 2}')
    with pytest.raises(InputError, match=r"'green' has class id 2, in the card of m\.onnx 1"):
        prepare_quantize(config, QuantizeRequest())
