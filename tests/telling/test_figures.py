import base64
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from opslib.core.errors import InputError
from opslib.ops.quantize.figures import draw_flips
from opslib.ops.quantize.record import Flip
from opslib.telling.figures import (
    figure_html,
    format_number,
    short_number,
    table_html,
    verdict_html,
)
from opslib.telling.themes import DARK, LIGHT, Theme


def draw(theme: Theme) -> Any:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(3, 2))
    axes.plot([1, 2, 3], [3, 1, 2])
    axes.set_title(theme.name)
    return figure


def draw_crowd(theme: Theme) -> Any:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(3, 2))
    axes.scatter([n % 97 for n in range(3000)], range(3000))
    return figure


def images(html: str) -> dict[str, bytes]:
    found = re.findall(r'(?:src|srcset)="data:(image/[a-z+]+);base64,([^"]+)"', html)
    return {mime: base64.b64decode(data) for mime, data in found}


def test_a_figure_has_a_light_and_a_dark_drawing() -> None:
    html = figure_html(draw, alt="A line.")
    dark, light = re.findall(r'base64,([^"]+)"', html)
    assert html.index("prefers-color-scheme: dark") < html.index("<img")
    assert DARK.surface.encode() in base64.b64decode(dark)
    assert LIGHT.surface.encode() in base64.b64decode(light)


def test_a_figure_is_drawn_the_same_each_time() -> None:
    assert figure_html(draw, alt="A line.") == figure_html(draw, alt="A line.")


def test_a_crowded_figure_becomes_a_png_because_that_is_smaller() -> None:
    assert list(images(figure_html(draw_crowd, alt="Dots."))) == ["image/png"]
    assert list(images(figure_html(draw, alt="A line."))) == ["image/svg+xml"]


def test_a_figure_without_alternative_text_is_refused() -> None:
    with pytest.raises(InputError, match="alternative text"):
        figure_html(draw, alt=" ")


def test_no_figure_stays_open() -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    figure_html(draw, alt="A line.")
    assert plt.get_fignums() == before


def test_the_alternative_text_and_the_caption_are_escaped() -> None:
    html = figure_html(draw, alt='a "b" <c>', caption="<d>")
    assert 'alt="a &quot;b&quot; &lt;c&gt;"' in html
    assert "<figcaption>&lt;d&gt;</figcaption>" in html


def test_a_table_names_itself_and_puts_numbers_to_the_right() -> None:
    frame = pd.DataFrame({"engine": ["a<b", "c"], "ms": [1.234, None], "n": [1000, 2]})
    html = table_html(frame, caption="Latency")
    assert '<caption style="text-align:left;caption-side:top">Latency</caption>' in html
    assert html.count('class="num"') == 6
    assert "a&lt;b" in html
    assert ">1.23<" in html
    assert ">–<" in html
    assert ">1,000<" in html
    assert 'scope="col"' in html


def test_texts_that_read_as_numbers_are_numbers_too() -> None:
    frame = pd.DataFrame(
        {"change": ["+1.2 %", "−3 to 4 %", "–"], "name": ["01_a", "2026-11-23", "3 b"]}
    )
    html = table_html(frame, caption="c")
    assert html.count('class="num"') == 4


def test_an_empty_table_says_so_and_one_without_a_caption_is_refused() -> None:
    assert '<td colspan="1">none</td>' in table_html(pd.DataFrame({"a": []}), caption="c")
    with pytest.raises(InputError, match="caption"):
        table_html(pd.DataFrame(), caption="")


def test_an_unknown_verdict_is_refused() -> None:
    assert "Inconclusive" in verdict_html("inconclusive", "a <b>")
    assert "a &lt;b&gt;" in verdict_html("pass", "a <b>")
    with pytest.raises(InputError, match="unknown"):
        verdict_html("good", "x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "text", "short"),
    [
        (0.0, "0", "0"),
        (1.5, "1.50", "1.5"),
        (14.2, "14.2", "14.2"),
        (0.8, "0.800", "0.8"),
        (12345.6, "12,346", "12,346"),
        (0.0123, "0.0123", "0.0123"),
        (99.96, "100", "100"),
        (-3.14159, "-3.14", "-3.14"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str, short: str) -> None:
    assert format_number(value) == text
    assert short_number(value) == short
    assert format_number(value, 1) == f"{value:,.1f}"


def test_an_image_answered_otherwise_is_shown_as_the_model_saw_it(tmp_path: Path) -> None:
    grey = np.full((40, 20), 0x6000, dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    flip = Flip(
        image="deep.png",
        label=None,
        before="oval",
        before_confidence=0.6,
        after="round",
        after_confidence=0.5,
        kind="other",
    )
    figure = draw_flips((flip,), tmp_path, LIGHT)
    assert figure is not None
    shown = np.asarray(figure.axes[0].get_images()[0].get_array())
    assert (shown[..., :3] == 0x60).all()
