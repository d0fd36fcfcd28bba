from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opslib.core.errors import ConfigError, InputError
from opslib.inference.preprocess import (
    as_batch,
    decode,
    import_object,
    load_preprocessor,
    preprocess,
    transform,
)
from tests.models import write_images


def test_images_become_normalised_float_batches(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.new("RGB", (40, 20), (124, 116, 104)).save(path)
    batch = preprocess([str(path)], 16)
    assert batch.shape == (1, 3, 16, 16)
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch, 0, atol=0.02)


def test_decode_and_transform_together_are_preprocess(tmp_path: Path) -> None:
    paths = [str(path) for path in write_images(tmp_path, 3)]
    np.testing.assert_array_equal(transform(decode(paths, 16), 16), preprocess(paths, 16))


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    assert decode([path], 20)[0].shape == (40, 20, 3)


@pytest.mark.parametrize(("kind", "order"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path: Path, kind: str, order: str) -> None:
    path = tmp_path / "grey.png"
    levels = np.arange(0, 1 << 16, 64, dtype=order).reshape(32, 32)
    mode = "I;16B" if order == ">u2" else "I;16"
    Image.frombytes(mode, (32, 32), levels.tobytes()).save(path, kind)
    (pixels,) = decode([path], 16)
    np.testing.assert_array_equal(pixels, np.repeat((levels >> 8)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bit_grey_whose_white_is_unknown_is_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "depth.png"
    Image.new(mode, (8, 8), 1000).save(path, "TIFF")
    with pytest.raises(InputError, match=r"depth\.png: .*32 bits.*expected 8 or 16"):
        decode([path], 16)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0 cut"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.jpg: cannot be read as an image"):
        decode([path], 16)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    path = write_images(tmp_path, 1, size=64)[0]
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(InputError, match=r"0\.jpg: cannot be read"):
        decode([path], 16)


def test_an_image_of_too_many_pixels_is_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (9000, 9000)).save(path)
    with pytest.raises(InputError, match=r"bomb\.png: 9000 x 9000 pixels; at most 50,000,000"):
        decode([path], 16)


def test_the_serving_codes_own_function_drops_in_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving/infer.py").write_text(
        "import torch\n"
        "def preprocess(paths: list[str], img_size: int):\n"
        "    assert isinstance(paths, list)\n"
        "    return torch.zeros(len(paths), 3, img_size, img_size)\n"
    )
    found = load_preprocessor("serving.infer:preprocess", tmp_path)
    batch = found.run(("a.jpg", "b.jpg"), 8)
    assert batch.shape == (2, 3, 8, 8)
    assert found.split is None


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_colon", "expected module:function"),
        ("no_such_module:f", "cannot import"),
        ("opslib.core.files:nope", "has no 'nope'"),
    ],
)
def test_an_import_string_that_leads_nowhere_names_its_key(reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"torch\.factory: .*{message}"):
        import_object(reference, None, key="torch.factory")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros((3, 8, 8)), r"shape \[3, 8, 8\]; expected \[2, C, H, W\]"),
        (np.zeros((1, 3, 8, 8)), r"shape \[1, 3, 8, 8\]; expected \[2, C, H, W\]"),
        ([[1.0], [1.0, 2.0]], "no array of numbers"),
        (None, r"shape \[\]; expected"),
        (["a.jpg"] * 2, "no array of numbers"),
    ],
)
def test_what_is_no_batch_of_the_images_is_put_down_to_the_function(
    returned: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"preprocess\.function: own:prepare returned {message}"):
        as_batch(returned, 2, "own:prepare")


@pytest.mark.parametrize(("name", "exif"), [("a.png", b"II*\0"), ("a.jpg", b"Exif\0\0II*\0")])
def test_an_image_whose_exif_data_is_cut_off_is_named(
    tmp_path: Path, name: str, exif: bytes
) -> None:
    path = tmp_path / name
    Image.new("RGB", (24, 24)).save(path, exif=exif, dpi=(72, 72))
    with pytest.raises(InputError, match=rf"{name}: cannot be read as an image"):
        decode([path], 16)
